"""The list of mutants fits the code, and the runner tells a killed one from one that survived."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mutation import systematic
from tests.mutation.__main__ import report
from tests.mutation.mutants import MUTANTS, Mutant
from tests.mutation.tree import ROOT, Tree


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.promise)
def test_each_mutants_snippet_is_still_where_it_was(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")

    compile(mutant.applied(text), mutant.file, "exec")
    assert all((ROOT / test.partition("::")[0]).is_file() for test in mutant.tests)


def test_each_survivor_that_is_explained_is_a_change_of_the_code_as_it_is() -> None:
    """A line that is written otherwise may let another change survive: it is looked at again."""
    explained = json.loads(systematic.SURVIVORS.read_text(encoding="utf-8"))
    changes = {change.key for path in systematic.TARGETS for change in systematic.changes_of(path)}

    assert set(explained) <= changes
    assert all(reason.strip() for reason in explained.values())


def test_changes_of_a_line_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sums.py").write_text(
        "@flag(True)\ndef add(a):\n    log.debug(a)\n    note(a)\n    return a + 1 if a > 1 else a\n"
    )
    monkeypatch.setattr(systematic, "ROOT", tmp_path)

    changes = list(systematic.changes_of("sums.py"))

    assert len({change.key for change in changes}) == len(changes)
    assert sorted(change.what for change in changes if change.number == 5) == [
        "1  ->  2",
        "1  ->  2  (2)",
        "a + 1  ->  a - 1",
        "a + 1 if a > 1 else a  ->  a if a > 1 else a + 1",
        "a > 1  ->  a >= 1",
        "return a + 1 if a > 1 else a  ->  return None",
    ]
    assert [change.what for change in changes if change.number != 5] == ["note(a)  ->  None"]


@pytest.mark.parametrize(
    ("mutated", "test", "outcome"),
    [
        ("return a - b", "test_sums.py", "killed"),
        ("return b + a", "test_sums.py", "survived"),
        ("return a - b", "test_sums.py::test_of_another_name", "not run"),
    ],
)
def test_an_outcome_is_what_pytest_says(
    mutated: str,
    test: str,
    outcome: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # three tests of a sum need none of the plugins
    (tmp_path / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "test_sums.py").write_text("from sums import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n")

    found = report(Tree(tmp_path), Mutant("sums add", "sums.py", "return a + b", mutated, (test,)))

    assert found == outcome
    assert capsys.readouterr().out.startswith(f"{outcome:9} sums add")
    assert (tmp_path / "sums.py").read_text() == "def add(a, b):\n    return a + b\n"

"""The least work of each part of the long form (`make soak`), with a seed of its own: `.ci/run faults` does more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.soak import __main__ as soak
from tests.soak.__main__ import PARTS, run_parts


@pytest.mark.soak
@pytest.mark.parametrize("part", PARTS)
def test_the_least_of_each_part_of_the_soak_holds(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts = run_parts([part], seconds=0, seed=7)

    assert part in counts, capsys.readouterr().out
    assert sum(counts[part].values()) > 50


@pytest.mark.parametrize("broken", [None, "texts"])
def test_a_whole_run_is_written_and_green_only_where_all_parts_held(
    broken: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {part: {"calls": 1} for part in PARTS if part != broken}
    monkeypatch.setattr(soak, "run_parts", lambda parts, **_: counts)
    written = tmp_path / "counts.json"
    monkeypatch.setattr("sys.argv", ["soak", "--seed", "7", "--json", str(written)])

    assert soak.main() == (1 if broken else 0)
    assert written.exists() is not bool(broken)
    if not broken:
        found = json.loads(written.read_text(encoding="utf-8"))
        assert found["all"]["seed"] == 7
        assert list(found)[1:] == PARTS

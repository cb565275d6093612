"""What the README and the docs show is true: their Python blocks run, in order, and print what stands below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests import generate_docs

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PACKAGES = ("langchain_core", "llama_index.core")

BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[int, str, str, str]]:
    """(line, language, words after it, text) of each fenced block."""
    text = page.read_text(encoding="utf-8")
    return [(text[: found.start()].count("\n") + 1, *found.groups()) for found in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run_and_print_what_stands_below_them(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in PACKAGES:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    found = blocks(page)
    for place, (line, language, words, code) in enumerate(found):
        if language != "python" or "not-run" in words:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + code, str(page), "exec"), names)
        following = found[place + 1] if place + 1 < len(found) else None
        expected = following[3] if following and following[1] == "text" else ""
        assert printed.getvalue() == expected, f"{page.name}, line {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("path", generate_docs.generated(), ids=lambda path: path.name)
def test_generated_parts_are_fresh(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate_docs.generated()[path], "run: python -m tests.generate_docs"


def test_the_readme_names_its_two_commands_each_alone_in_a_block() -> None:
    alone = [text.strip() for _, _, _, text in blocks(ROOT / "README.md") if len(text.strip().splitlines()) == 1]

    assert {"make demo", "make test"} <= set(alone)


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```|^\|.*$|<!--.*?-->|\]\([^)]*\)", "", text, flags=re.DOTALL | re.MULTILINE)

    assert len(prose.split()) <= 600

"""What the README and the docs show is true: their Python blocks run, in order, and print what stands below them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from onnx_rerank_integrations import TextCrossEncoder
from tests import generate_docs
from tests.readme_blocks import blocks, run

ROOT = Path(__file__).parent.parent
THIN_PACKAGES = sorted((ROOT / "packages").iterdir())
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(path / "README.md" for path in THIN_PACKAGES)])
REPOSITORY = r"https://(?:github|raw\.githubusercontent)\.com/(?:onnx-rerank-integrations/){2}(?:blob/)?main/"
PACKAGES = ("langchain_core", "llama_index.core")
FURTHER_PACKAGES = {"docs/haystack.md": "haystack", "docs/listing/haystack.md": "haystack", "docs/scale.md": "pyarrow"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run_and_print_what_stands_below_them(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    further = FURTHER_PACKAGES.get(page.relative_to(ROOT).as_posix())
    for package in (*PACKAGES, *([further] if further else [])):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    for thin in THIN_PACKAGES:
        monkeypatch.syspath_prepend(thin)
    run(page)
    if any(tmp_path.iterdir()):
        run(page)  # again, beside what it wrote


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for target in re.findall(REPOSITORY + r"([^)#`\s]+)", text):
        assert (ROOT / target).exists(), f"{page.name} links to {target} of the repository"


GENERATED = generate_docs.generated()


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_generated_parts_are_fresh(path: Path) -> None:
    found, expected = path.read_text(encoding="utf-8"), GENERATED[path]
    if path.name == "command-line.md":  # versions of typer lay the same help out differently
        found, expected = (" ".join(sorted(set(re.findall(r"--[a-z][a-z-]+", text)))) for text in (found, expected))

    assert found == expected, "run: python -m tests.generate_docs"


def test_what_does_not_move_from_fastembed_by_an_import_alone() -> None:
    """Each row of the page's table: the first call fails here, the second works."""
    text = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(.+)` \| `(.+)` \|$", text.partition("**These don't**")[2].partition("`cuda=True`")[0], re.M
    )
    names: dict[str, object] = {"TextCrossEncoder": TextCrossEncoder, "MODEL": "lexical", "query": "bees"}
    names |= {"encoder": TextCrossEncoder("lexical"), "documents": ["bees", "soup"], "pairs": [("bees", "soup")] * 2}

    assert len(rows) == 7
    for theirs, ours in rows:
        with pytest.raises(TypeError):
            eval(theirs, dict(names))
        eval(ours, dict(names))


def test_the_readme_names_its_two_commands_each_alone_in_a_block() -> None:
    alone = [text.strip() for _, _, _, text in blocks(ROOT / "README.md") if len(text.strip().splitlines()) == 1]

    assert {"make demo", "make test"} <= set(alone)


def test_the_retriever_the_threshold_and_each_library_to_move_from_are_one_click_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(rf"\]\({REPOSITORY}docs/([^)]+)\)", text))
    headings = (ROOT / "docs" / "langchain.md").read_text(encoding="utf-8").splitlines()

    assert {"langchain.md#a-retriever-that-reranks", "scores-and-thresholds.md", "index.md"} <= targets
    assert "## A retriever that reranks" in headings
    assert {f"peers/{page.name}" for page in (ROOT / "docs" / "peers").iterdir()} <= targets
    assert "`score_threshold=" in text


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```|^\|.*$|<!--.*?-->|\]\([^)]*\)", "", text, flags=re.DOTALL | re.MULTILINE)

    assert len(prose.split()) <= 600

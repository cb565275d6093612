"""The notebooks run from top to bottom without a network, and what is committed of them is what they show."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
PACKAGES = ("nbclient", "ipykernel", "matplotlib", "qdrant_client", "langchain_qdrant", "langchain_classic", "bm25s")
PACKAGES += ("llama_index.vector_stores.qdrant", "ir_measures")
RAY = 'pip install "onnx-rerank-integrations[ray]"'
"""Too large for every environment that runs the tests; the CI script has one with it."""
MACHINE_PATH = re.compile(r"/(home|root|tmp|work|opt|usr|var|mnt|Users)/|[A-Za-z]:\\|site-packages")
NOBODY_LISTENS = "http://127.0.0.1:9"

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def kinds(cell: dict[str, Any]) -> set[str]:
    """What a cell shows: streams by name, other outputs by their MIME types, but for the text that goes with them."""
    shown: set[str] = set()
    for output in cell.get("outputs", ()):
        shown |= {output["name"]} if output["output_type"] == "stream" else set(output.get("data", ["error"]))
    return shown - {"text/plain"}


@pytest.mark.showcase
@pytest.mark.timeout(3600)
@each_notebook
def test_it_runs_from_top_to_bottom_without_a_network(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in PACKAGES:
        pytest.importorskip(package, reason=f'{package} is missing: pip install "onnx-rerank-integrations[notebooks]"')
    if path.stem.startswith("06"):
        pytest.importorskip("ray", reason=f"Ray is missing: {RAY}")
    import nbformat
    from nbclient import NotebookClient

    folder = shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-models"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOBODY_LISTENS)
    notebook = nbformat.read(folder / path.name, as_version=4)

    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(folder)}}).execute()

    for number, (fresh, committed) in enumerate(zip(notebook.cells, cells(path), strict=True), start=1):
        missing = kinds(fresh) - kinds(committed) - {"stderr"}
        assert not missing, f"cell {number} shows {missing} that isn't committed: execute the notebook and commit it"


@each_notebook
def test_it_is_committed_as_it_was_executed(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]

    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "not from top to bottom"
    assert not any("error" in kinds(cell) or "stderr" in kinds(cell) for cell in code)
    assert any("image/png" in kinds(cell) for cell in code), "no picture"


def test_the_readmes_picture_is_the_quickstarts() -> None:
    [picture] = [
        output["data"]["image/png"]
        for cell in cells(NOTEBOOKS / "01_quickstart.ipynb")
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]

    assert base64.b64decode(picture) == (NOTEBOOKS.parent / "docs" / "images" / "ranking-change.png").read_bytes()


@each_notebook
def test_its_outputs_name_no_path_of_a_machine(path: Path) -> None:
    for number, cell in enumerate(cells(path), start=1):
        for output in cell.get("outputs", ()):
            texts = {name: data for name, data in output.get("data", {}).items() if not name.startswith("image/")}
            found = MACHINE_PATH.search("".join(output.get("text", [])) + json.dumps(texts))
            assert not found, f"cell {number} shows {found[0]!r}"


@each_notebook
def test_it_says_first_what_it_shows_and_then_where_to_switch_models(path: Path) -> None:
    first, switch, chosen = cells(path)[:3]

    assert first["cell_type"] == "markdown"
    assert first["source"][0].startswith("# ")
    assert "This notebook shows" in "".join(first["source"])
    assert "".join(switch["source"]).startswith("**Switch")
    assert chosen["cell_type"] == "code"


def test_the_data_is_small_and_says_where_it_is_from() -> None:
    files = [path for path in (NOTEBOOKS / "data").rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) < 500_000
    readme = (NOTEBOOKS / "data" / "README.md").read_text(encoding="utf-8")
    assert "public\ndomain" in readme or "public domain" in readme


def test_the_judgments_fit_the_questions_and_the_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    import factbook

    folder = NOTEBOOKS / "data" / "factbook"
    relevant = factbook.read_relevant(folder)

    assert relevant.keys() == factbook.read_questions(folder).keys()
    assert set().union(*relevant.values()) <= {passage.id for passage in factbook.read_passages(folder)}


def test_the_stand_in_vectors_put_words_of_the_same_passages_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    import factbook

    texts = ["rain and snow in winter", "snow and ice in winter", "gold and silver mines", "silver mines and coal"] * 3
    vectors = factbook.LsaVectors(texts, size=2).embed(["ice", "rain", "gold"])

    ice, rain, gold = vectors
    assert ice @ rain > 0.9 > 0.1 > ice @ gold

"""``--overwrite`` replaces a model that this package made, and never anything else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the extra [optimize]")

from onnx_rerank_integrations import InputValueError
from onnx_rerank_integrations.extras.export import MARK, check_out, folder_when_done
from onnx_rerank_integrations.extras.quantize import Sample, quantize
from tests.parity import fixtures

SAMPLES = [
    Sample(query=query, documents=[f"{word} {place}" for place in ("in the rain", "on a roof", "at sea", "by night")])
    for query, word in (("what is a bee?", "bees"), ("soup", "warm soup"), ("salt", "bread"), ("rain", "a storm"))
]


def made(out: Path, source: Path | None = None) -> Path:
    with folder_when_done(out, source) as folder:
        (folder / "config.json").write_text("{}")
        (folder / "onnx" / "model.onnx").write_bytes(b"graph")
    return out


def test_a_model_of_ours_is_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    out = made(tmp_path / "out")
    with pytest.raises(InputValueError, match="is there already"):
        check_out(out, None, overwrite=False)

    check_out(out, None, overwrite=True)
    made(out)

    assert sorted(path.name for path in out.iterdir()) == ["config.json", "onnx", MARK]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["of others", "with a file more", "with a link more", "a link", "a file"])
def test_anything_else_stays(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "of others":
        shutil.copytree(fixtures.folder("bert"), out)
    elif kind == "a link":
        made(tmp_path / "elsewhere")
        out.symlink_to(tmp_path / "elsewhere")
    elif kind == "a file":
        out.write_text("thesis")
    else:
        made(out)
        if kind == "with a file more":
            (out / "onnx" / "notes.txt").write_text("mine")
        else:
            (out / "link").symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(InputValueError, match="isn't replaced"):
        check_out(out, None, overwrite=True)
    with pytest.raises(InputValueError, match="isn't replaced"):
        made(out)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("way", ["itself", "through a link", "above", "below"])
def test_the_source_stays(tmp_path: Path, way: str) -> None:
    source = made(tmp_path / "models" / "source")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    out = {
        "itself": source,
        "through a link": tmp_path / "link" / "source",
        "above": source.parent,
        "below": source / "onnx",
    }[way]

    with pytest.raises(InputValueError, match="is where the model itself lies"):
        check_out(out, source, overwrite=True)


def test_quantize_never_replaces_the_model_that_it_reads(tmp_path: Path) -> None:
    source = Path(shutil.copytree(fixtures.folder("bert"), tmp_path / "model"))
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}

    with pytest.raises(InputValueError, match="is where the model itself lies"):
        quantize(source, source, SAMPLES, overwrite=True)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before

    first = quantize(source, tmp_path / "int8", SAMPLES, lowest_correlation=-1)
    second = quantize(source, tmp_path / "int8", SAMPLES, lowest_correlation=-1, overwrite=True)
    assert first.size == second.size

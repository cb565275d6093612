"""Weights as onnxruntime packs them, kept in a copy's file: mapped in place of memory, and never another CPU's."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra [optimize]")

import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_rerank_integrations.core.engine.onnxruntime import PACKED_ENTRY
from onnx_rerank_integrations.core.graphs import packed, trials
from onnx_rerank_integrations.core.graphs.optimized import optimized_path, write_with_weights_beside
from onnx_rerank_integrations.core.graphs.packed import packed_weights

GRAPHS = Path(__file__).parent / "graphs"
BERT = GRAPHS / "bert_transformers4_torchscript11.onnx"
SIDE = 2048
WEIGHT_BYTES = 4 * SIDE * SIDE


def large_product() -> onnx.ModelProto:
    """ids -> rows of a table -> a product with 16 MB of weights -> one score."""
    chance = np.random.default_rng(0)
    table = chance.standard_normal((100, SIDE), np.float32)
    weight = chance.standard_normal((SIDE, SIDE), np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weight"], ["product"], name="product"),
        helper.make_node("ReduceMean", ["product"], ["logits"], axes=[1, 2], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "large product",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "T"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B"])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def entries(copy: Path) -> dict[str, str]:
    """The packed forms that a graph names, by the weight's name."""
    tensors = onnx.load(copy, load_external_data=False).graph.initializer
    return {
        tensor.name: entry.value
        for tensor in tensors
        for entry in tensor.external_data
        if entry.key.startswith(PACKED_ENTRY)
    }


def changed(copy: Path, name: str, change: Callable[[str], str | None]) -> Path:
    """The graph anew beside itself, each entry of a packed form changed, or left out for None."""
    model = onnx.load(copy, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in [one for one in tensor.external_data if one.key.startswith(PACKED_ENTRY)]:
            value = change(entry.value)
            if value is None:
                tensor.external_data.remove(entry)
            else:
                entry.value = value
    path = copy.with_name(name)
    path.write_bytes(model.SerializeToString())
    return path


def scores(graph: Path, feeds: list[trials.Feed]) -> np.ndarray:
    return trials.run(trials.open_session(graph, threads=1), feeds)


def anonymous_bytes_of_opening(graph: Path) -> int:
    """What a fresh process holds, in no file, once the graph has run."""
    code = (
        "import sys, re, numpy, onnxruntime\n"
        "def held(): return 1024 * int(re.search(r'Anonymous: *(\\d+)', open('/proc/self/smaps_rollup').read())[1])\n"
        "before = held()\n"
        "session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "session.run(None, {'input_ids': numpy.ones((1, 4), numpy.int64)})\n"
        "print(held() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(graph)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    model_file = shutil.copy(BERT, tmp_path / "model.onnx")
    path = optimized_path(model_file, cache_dir=tmp_path / "cache")
    assert path is not None
    return path


@pytest.fixture
def feeds() -> list[trials.Feed]:
    return trials.canary(onnx.load(BERT))[:-1]  # the last is longer than the positions of this model


def test_packed_weights_leave_scores_as_they_are_to_the_last_bit(copy: Path, feeds: list[trials.Feed]) -> None:
    assert len(entries(copy)) > 5
    without = changed(copy, "without.onnx", lambda _: None)
    assert not entries(without)
    np.testing.assert_array_equal(scores(copy, feeds), scores(without, feeds))


def test_what_another_cpu_packed_is_never_used(copy: Path, feeds: list[trials.Feed]) -> None:
    def of_another_cpu(value: str) -> str:
        name, *parts = value.split("|")
        operator, digest = name.split("+")
        return "|".join([f"{operator}+{int(digest) ^ 1}", *(f"0;{part.split(';')[1]};0" for part in parts)])

    foreign = changed(copy, "foreign.onnx", of_another_cpu)
    assert set(entries(foreign).values()).isdisjoint(entries(copy).values())
    np.testing.assert_array_equal(scores(foreign, feeds), scores(copy, feeds))


def test_no_packed_weights_are_kept_where_foreign_ones_would_be_used(
    tmp_path: Path, feeds: list[trials.Feed], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = onnx.load(BERT)
    assert packed_weights(model, feeds, tmp_path)
    monkeypatch.setattr(packed, "_of_another_cpu", lambda name: name)  # as if names told nothing of the content
    with caplog.at_level(logging.INFO):
        assert packed_weights(model, feeds, tmp_path) == {}
    assert "each process packs its own" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_graph_that_cant_be_saved_is_copied_without_packed_weights(
    tmp_path: Path, feeds: list[trials.Feed], caplog: pytest.LogCaptureFixture
) -> None:
    model = onnx.load(BERT)
    model.graph.node[0].op_type = "NoSuchOperator"
    with caplog.at_level(logging.INFO):
        assert packed_weights(model, feeds, tmp_path) == {}
    assert "each process packs its own: onnxruntime can't load it" in caplog.text


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="counts memory as Linux does")
def test_packed_weights_are_mapped_and_not_copied(tmp_path: Path) -> None:
    paths = []
    for name in ("plain", "mapped"):
        folder = tmp_path / name
        folder.mkdir()
        model = large_product()
        feed = {"input_ids": np.ones((1, 4), np.int64)}
        kept = packed_weights(model, [feed], folder) if name == "mapped" else {}
        write_with_weights_beside(model, folder, kept)
        paths.append(folder / "model.onnx")
    plain, mapped = map(anonymous_bytes_of_opening, paths)
    assert plain > WEIGHT_BYTES * 0.9
    assert mapped < plain - WEIGHT_BYTES * 0.9

"""First-token graphs: which graphs qualify, that they give the same scores for less work, and how the copies are kept.

The graphs under ``tests/graphs`` come from real exporters; ``tests/graphs/make.py`` made them, and says with which
versions.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra [optimize]")

import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_rerank_integrations.core.errors import InvalidModelError, MissingExtraError, ModelNotFoundError
from onnx_rerank_integrations.core.graphs import first_token, optimized, trials
from onnx_rerank_integrations.core.graphs.first_token import first_token_graph
from onnx_rerank_integrations.core.graphs.optimized import optimized_path
from onnx_rerank_integrations.core.graphs.trials import TOKENS, observe, open_session, random_feed
from onnx_rerank_integrations.core.model import identity

GRAPHS = Path(__file__).parent / "graphs"
BERT = GRAPHS / "bert_transformers4_torchscript11.onnx"

# How many products with a weight matrix still see every token. A full 2-layer encoder has 12 (query, key, value,
# output, two of the feed-forward part); without the last layer's, 6 are left. fp16 graphs keep the last layer's keys
# and values, ModernBERT (packed projections, four a layer) one for its rotary keys, DeBERTa its keys and values.
PROJECTIONS_OF_EVERY_TOKEN = {
    "bert_dynamo18": 6,
    "bert_dynamo18_sdpa": 6,
    "bert_torchscript11": 6,
    "bert_torchscript14_sdpa": 6,
    "bert_torchscript17_fp16": 8,
    "bert_torchscript20": 6,
    "bert_transformers4_torchscript11": 6,
    "deberta_torchscript14": 8,
    "electra_torchscript14": 6,
    "modernbert_torchscript17": 5,
    "xlm_roberta_dynamo20": 6,
    "xlm_roberta_dynamo20_fp16": 8,
    "xlm_roberta_torchscript17": 6,
    "xlm_roberta_transformers4_torchscript14": 6,
}


def scores(model: onnx.ModelProto | Path, lengths: list[int], seed: int) -> np.ndarray:
    graph = onnx.load(model) if isinstance(model, Path) else model
    feed = random_feed(graph, np.asarray(lengths), seed=seed)
    return open_session(model).run(None, feed)[0]


def rewritten(path: Path) -> onnx.ModelProto:
    result = first_token_graph(onnx.load(path))
    assert result is not None
    return result


def test_every_committed_graph_is_listed() -> None:
    assert sorted(path.stem for path in GRAPHS.glob("*.onnx")) == sorted(PROJECTIONS_OF_EVERY_TOKEN)


@pytest.mark.parametrize("name", PROJECTIONS_OF_EVERY_TOKEN)
def test_scores_of_the_first_token_graph_are_the_originals(name: str) -> None:
    original = onnx.load(GRAPHS / f"{name}.onnx")
    candidate = rewritten(GRAPHS / f"{name}.onnx")
    before, after = open_session(original), open_session(candidate)

    found, expected = [], []
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(3, 60, size=1 + seed % 7)
        feed = random_feed(original, lengths, seed=seed)
        expected.append(before.run(None, feed)[0])
        found.append(after.run(None, feed)[0])

    moved = np.abs(np.concatenate(found) - np.concatenate(expected)).max()
    spread = np.ptp(np.concatenate(expected))
    assert spread > 0.5, "scores that hardly differ would hide a wrong rewrite"
    assert moved <= (2e-3 if name.endswith("fp16") else 1e-6) * spread


def test_values_that_are_scaled_stay_scaled() -> None:
    model = onnx.load(BERT)
    plain = scores(model, [9, 30], 0)
    attentions = {node.output[0] for node in model.graph.node if node.op_type == "Softmax"}
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.25, np.float32), "quarter"))
    for place, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type == "MatMul" and node.input[0] in attentions:
            scaled = helper.make_node("Mul", [node.input[1], "quarter"], [f"scaled_{place}"])
            node.input[1] = f"scaled_{place}"
            model.graph.node.insert(place, scaled)

    candidate = first_token_graph(model)

    assert candidate is not None
    assert np.abs(scores(model, [9, 30], 0) - plain).max() > 1e-3, "the scale decides nothing, and shows nothing"
    np.testing.assert_allclose(scores(candidate, [9, 30], 0), scores(model, [9, 30], 0), atol=1e-6)


def test_a_projection_that_is_computed_anyway_is_used() -> None:
    model = onnx.load(BERT)
    graph = model.graph
    attentions = {node.output[0] for node in graph.node if node.op_type == "Softmax"}
    made_by = {name: node for node in graph.node for name in node.output}
    made = [node for node in graph.node if node.op_type == "MatMul" and node.input[0] in attentions][-1].input[1]
    while (node := made_by[made]).op_type != "MatMul":
        made = next(name for name in node.input if name in made_by)
    score = graph.output[0].name
    made_by[score].output[0] = "without"
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [made], ["most"], axes=[1, 2], keepdims=0),
            helper.make_node("Unsqueeze", ["most"], ["column"], axes=[1]),
            helper.make_node("Add", ["without", "column"], [score]),
        ]
    )

    candidate = first_token_graph(model)

    assert candidate is not None
    assert [node.op_type for node in candidate.graph.node if made in node.input] == ["Add", "ReduceMax"]
    np.testing.assert_allclose(scores(candidate, [9, 30], 0), scores(model, [9, 30], 0), atol=1e-5)


@pytest.mark.parametrize("name", PROJECTIONS_OF_EVERY_TOKEN)
def test_the_last_layer_computes_one_token(name: str) -> None:
    graph = rewritten(GRAPHS / f"{name}.onnx")
    onnx.checker.check_model(graph)
    seen = observe(graph)

    products = [node for node in graph.graph.node if node.op_type == "MatMul"]
    weights = [n for n in products if all(dim.is_constant for dim in seen.dims[n.input[1]])]
    every_token = [n for n in weights if TOKENS in seen.dims[n.output[0]]]
    assert len(every_token) == PROJECTIONS_OF_EVERY_TOKEN[name]

    feed_forward = [seen.dims[n.output[0]] for n in weights if seen.dims[n.output[0]][-1].size in (64, 128)]
    assert sum(TOKENS in dims for dims in feed_forward) == len(feed_forward) / 2, "one of two layers sees every token"


def test_the_users_graph_is_left_untouched() -> None:
    model = onnx.load(BERT)
    before = model.SerializeToString()
    first_token_graph(model)
    assert model.SerializeToString() == before


def selection(model: onnx.ModelProto) -> onnx.NodeProto:
    """The node that takes the first token of the last hidden state."""
    wide = {name for name, dims in observe(model).dims.items() if len(dims) == 3 and dims[1:2] == (TOKENS,)}
    (node,) = [n for n in model.graph.node if n.op_type == "Gather" and n.input[0] in wide]
    return node


def test_a_head_that_slices_the_first_token_qualifies() -> None:
    model = onnx.load(BERT)
    node = selection(model)
    position = list(model.graph.node).index(node)
    for name, value in {"zero": [0], "one": [1], "axis": [1]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    first = helper.make_node("Slice", [node.input[0], "zero", "one", "axis"], ["first"])
    flat = helper.make_node("Squeeze", ["first"], [node.output[0]], axes=[1])
    model.graph.node.remove(node)
    model.graph.node.insert(position, flat)
    model.graph.node.insert(position, first)

    candidate = first_token_graph(model)

    assert candidate is not None
    np.testing.assert_allclose(scores(candidate, [9, 30], 1), scores(model, [9, 30], 1), atol=1e-6)


def test_an_opset_before_11_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    model = onnx.load(BERT)
    model.opset_import[0].version = 9
    with caplog.at_level(logging.DEBUG):
        assert first_token_graph(model) is None
    assert "its opset is 9" in caplog.text


def test_mean_pooling_is_left_alone() -> None:
    model = onnx.load(BERT)
    node = selection(model)
    node.op_type = "ReduceMean"
    del node.input[1:], node.attribute[:]
    node.attribute.extend([helper.make_attribute("axes", [1]), helper.make_attribute("keepdims", 0)])
    assert first_token_graph(model) is None


def test_a_head_that_reads_another_token_is_left_alone() -> None:
    model = onnx.load(BERT)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(1), "second"))
    selection(model).input[1] = "second"
    assert first_token_graph(model) is None


def test_a_graph_that_also_returns_its_last_hidden_state_is_left_alone() -> None:
    model = onnx.load(BERT)
    hidden = helper.make_tensor_value_info(selection(model).input[0], TensorProto.FLOAT, None)
    model.graph.output.append(hidden)
    assert first_token_graph(model) is None


def test_a_graph_that_also_returns_an_earlier_hidden_state_still_returns_it() -> None:
    model = onnx.load(BERT)
    seen = observe(model)
    normalized = [n.output[0] for n in model.graph.node if n.op_type == "Add" and len(seen.dims[n.output[0]]) == 3]
    earlier = normalized[len(normalized) // 3]
    model.graph.output.append(helper.make_tensor_value_info(earlier, TensorProto.FLOAT, None))

    candidate = first_token_graph(model)

    assert candidate is not None
    feed = random_feed(model, np.asarray([5, 12]), seed=3)
    for found, expected in zip(
        open_session(candidate).run(None, feed), open_session(model).run(None, feed), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_graph_with_an_input_no_text_classifier_has_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    model = onnx.load(BERT)
    model.graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", "pixel"]))
    with caplog.at_level(logging.DEBUG):
        assert first_token_graph(model) is None
    assert "'pixels'" in caplog.text


# --- the cache --------------------------------------------------------------------------------------------------------


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return Path(shutil.copy(BERT, folder / "model.onnx"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Again(BaseException):
    """Work was done a second time; no library code catches it."""


def not_again(*_: object) -> onnx.ModelProto:
    raise Again


def test_the_copy_gives_the_same_scores(model_file: Path, cache: Path) -> None:
    copy = optimized_path(model_file, cache_dir=cache)
    assert copy is not None
    assert copy != model_file
    np.testing.assert_allclose(scores(copy, [7, 40, 21], 5), scores(model_file, [7, 40, 21], 5), atol=1e-6)


def test_a_second_call_finds_the_copy(model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = optimized_path(model_file, cache_dir=cache)
    monkeypatch.setattr(first_token, "rewrite", not_again)
    monkeypatch.setattr(identity, "hash_file", not_again)
    assert optimized_path(model_file, cache_dir=cache) == first


def test_the_same_file_elsewhere_shares_the_copy(model_file: Path, cache: Path, tmp_path: Path) -> None:
    other = shutil.copy(model_file, tmp_path / "renamed.onnx")
    assert optimized_path(other, cache_dir=cache) == optimized_path(model_file, cache_dir=cache)


def test_a_known_file_costs_no_import_of_onnx(model_file: Path, cache: Path) -> None:
    expected = optimized_path(model_file, cache_dir=cache)
    code = (
        "import sys; from onnx_rerank_integrations.core.graphs.optimized import optimized_path;"
        f"print(optimized_path({str(model_file)!r}, cache_dir={str(cache)!r})); print('onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected), "False"]


def test_that_there_is_nothing_to_gain_is_remembered(
    model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(model_file)
    model.graph.output.append(helper.make_tensor_value_info(selection(model).input[0], TensorProto.FLOAT, None))
    onnx.save(model, model_file)
    assert optimized_path(model_file, cache_dir=cache) is None
    monkeypatch.setattr(first_token, "rewrite", not_again)
    assert optimized_path(model_file, cache_dir=cache) is None


def test_a_changed_file_of_the_same_size_gets_its_own_copy(model_file: Path, cache: Path) -> None:
    before = optimized_path(model_file, cache_dir=cache)
    status = model_file.stat()
    model = onnx.load(model_file)
    head = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("classifier.bias"))
    head.raw_data = np.asarray([3.0], np.float32).tobytes()
    onnx.save(model, model_file)
    os.utime(model_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert model_file.stat().st_size == status.st_size

    after = optimized_path(model_file, cache_dir=cache)

    assert after not in (None, before)
    np.testing.assert_allclose(scores(after, [8], 0), scores(model_file, [8], 0), atol=1e-6)


@pytest.mark.parametrize("damage", ["cut short", "overwritten", "deleted"])
@pytest.mark.parametrize("file", ["model.onnx", "weights-*.bin", "record.json"])
def test_a_damaged_copy_is_made_again(model_file: Path, cache: Path, file: str, damage: str) -> None:
    copy = optimized_path(model_file, cache_dir=cache)
    assert copy is not None
    damaged = next(copy.parent.glob(file))
    sound = damaged.read_bytes()
    if damage == "cut short":
        damaged.write_bytes(sound[:30])
    elif damage == "overwritten":
        damaged.write_bytes(bytes(len(sound)))
    else:
        damaged.unlink()

    assert optimized_path(model_file, cache_dir=cache) == copy
    np.testing.assert_allclose(scores(copy, [8, 30], 0), scores(model_file, [8, 30], 0), atol=1e-6)
    assert file == "record.json" or damaged.read_bytes() == sound


def test_a_copy_made_by_another_version_is_made_again(
    model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimized_path(model_file, cache_dir=cache)
    monkeypatch.setattr(optimized, "VERSION", optimized.VERSION + 1)
    monkeypatch.setattr(first_token, "rewrite", not_again)
    with pytest.raises(Again):
        optimized_path(model_file, cache_dir=cache)


@pytest.mark.parametrize("fault", ["a weight off by a thousandth", "no longer a graph"])
def test_a_wrong_rewrite_is_caught_and_never_used(
    model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    rewrite = first_token.rewrite

    def faulty(model: onnx.ModelProto) -> onnx.ModelProto:
        result = rewrite(model)
        if fault == "no longer a graph":
            result.graph.node[-1].input[0] = "nowhere"
        else:
            made = [tensor for tensor in result.graph.initializer if tensor.name.startswith("first_token/")]
            weight = next(tensor for tensor in made if tensor.data_type == TensorProto.FLOAT)
            off = numpy_helper.to_array(weight) * np.float32(1.001)
            weight.CopyFrom(numpy_helper.from_array(off, weight.name))
        return result

    monkeypatch.setattr(first_token, "rewrite", faulty)

    assert optimized_path(model_file, cache_dir=cache) is None
    assert [record.levelname for record in caplog.records if "scores differ" in record.message] == ["WARNING"]
    assert not list(cache.rglob("model.onnx"))
    assert not list(cache.rglob("*.partial"))


def test_a_rewrite_that_fails_costs_a_warning_not_the_score(
    model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: onnx.ModelProto) -> onnx.ModelProto:
        raise IndexError("a graph nobody thought of")

    monkeypatch.setattr(first_token, "rewrite", failing)
    assert optimized_path(model_file, cache_dir=cache) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "a graph nobody thought of" in caplog.text


def test_two_processes_at_once_agree(model_file: Path, cache: Path) -> None:
    code = (
        "from onnx_rerank_integrations.core.graphs.optimized import optimized_path;"
        f"print(optimized_path({str(model_file)!r}, cache_dir={str(cache)!r}))"
    )
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=250)[0].strip() for process in running]

    assert answers[0] == answers[1]
    np.testing.assert_allclose(scores(Path(answers[0]), [8, 30], 0), scores(model_file, [8, 30], 0), atol=1e-6)
    assert not list(cache.rglob("*.partial"))


def test_the_copys_weights_lie_beside_it_aligned_and_old_ones_go(model_file: Path, cache: Path) -> None:
    copy = optimized_path(model_file, cache_dir=cache)
    assert copy is not None
    (weights,) = copy.parent.glob("weights-*.bin")
    tensors = onnx.load(copy, load_external_data=False).graph.initializer
    outside = [
        {item.key: item.value for item in tensor.external_data}
        for tensor in tensors
        if tensor.data_location == TensorProto.EXTERNAL
    ]
    assert {place["location"] for place in outside} == {weights.name}
    assert all(int(place["offset"]) % optimized.ALIGNMENT == 0 for place in outside)
    assert sum(len(tensor.raw_data) for tensor in tensors) < weights.stat().st_size / 10

    outdated = weights.with_name("weights-0.bin")
    outdated.write_bytes(b"of another version")
    copy.unlink()
    optimized_path(model_file, cache_dir=cache)
    assert list(copy.parent.glob("weights-*.bin")) == [weights]


def test_external_data_ends_up_in_the_copy(model_file: Path, cache: Path) -> None:
    onnx.save(
        onnx.load(model_file), model_file, save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    copy = optimized_path(model_file, cache_dir=cache)
    assert copy is not None
    assert not copy.with_name("model.onnx_data").exists()
    np.testing.assert_allclose(scores(copy, [8, 30], 0), scores(model_file, [8, 30], 0), atol=1e-6)


def test_a_model_beyond_the_limit_is_left_alone_and_says_so(
    model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(optimized, "LARGEST_BYTES", 100_000)
    with caplog.at_level(logging.DEBUG):
        assert optimized_path(model_file, cache_dir=cache) is None
    assert "GB, more than" in caplog.text


def test_external_data_that_changes_gets_its_own_copy(model_file: Path, cache: Path) -> None:
    data = model_file.with_name("model.onnx_data")
    onnx.save(onnx.load(model_file), model_file, save_as_external_data=True, location=data.name, size_threshold=0)
    before = optimized_path(model_file, cache_dir=cache)
    changed = bytearray(data.read_bytes())
    changed[-4:] = np.float32(0.5).tobytes()
    data.unlink()
    data.write_bytes(changed)
    assert optimized_path(model_file, cache_dir=cache) not in (None, before)


def test_the_cache_lies_where_the_environment_says(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(identity.CACHE_VARIABLE, str(tmp_path / "elsewhere"))
    copy = optimized_path(model_file)
    assert copy is not None
    assert copy.is_relative_to(tmp_path / "elsewhere")


def test_a_cache_that_cant_be_written_means_no_copy(
    model_file: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file, not a folder")
    with caplog.at_level(logging.INFO):
        assert optimized_path(model_file, cache_dir=cache) is None
    assert str(cache) in caplog.text


def test_a_missing_file_is_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"nothing\.onnx"):
        optimized_path(tmp_path / "nothing.onnx", cache_dir=cache)


def test_a_file_that_is_no_graph_is_named(model_file: Path, cache: Path) -> None:
    model_file.write_bytes(b"\xff" * 100)
    with pytest.raises(InvalidModelError, match=r"model\.onnx isn't an ONNX graph"):
        optimized_path(model_file, cache_dir=cache)


def test_without_onnx_the_error_names_the_extra(model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"onnx-rerank-integrations\[optimize\]"):
        optimized_path(model_file, cache_dir=cache)


def test_the_canary_covers_padding_single_rows_and_long_rows() -> None:
    feeds = trials.canary(onnx.load(BERT))
    masks = [feed["attention_mask"] for feed in feeds]
    assert any((mask == 0).any() for mask in masks)
    assert any(len(mask) == 1 for mask in masks)
    assert max(mask.shape[1] for mask in masks) == 160

"""int8 models: what the rewritten graphs compute, that a document's score stays put, and which results are refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra [optimize]")

import onnx
from onnx import numpy_helper

from onnx_rerank_integrations import InputTypeError, InputValueError, TextCrossEncoder, UnsupportedModelError
from onnx_rerank_integrations.core.graphs import optimized
from onnx_rerank_integrations.core.graphs.first_token import first_token_graph
from onnx_rerank_integrations.core.graphs.trials import NotApplicable, open_session, random_feed
from onnx_rerank_integrations.core.model import identity
from onnx_rerank_integrations.extras.quantize import Sample, int8_graph, quantize, spread_pairs
from onnx_rerank_integrations.extras.quantize.agreement import Agreement, compare, kendall, ndcg, spearman
from onnx_rerank_integrations.extras.quantize.int8_graph import calibrate, quantize_columns, quantize_graph
from tests.parity import fixtures

GRAPHS = Path(__file__).parent / "graphs"
BERT = GRAPHS / "bert_transformers4_torchscript11.onnx"
FP32 = sorted(path.stem for path in GRAPHS.glob("*.onnx") if not path.stem.endswith("fp16"))


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(identity.CACHE_VARIABLE, str(tmp_path / "cache"))


def feeds(model: onnx.ModelProto, count: int, start: int = 0) -> list[dict[str, np.ndarray]]:
    return [
        random_feed(model, np.random.default_rng(seed).integers(3, 60, size=6), seed=seed)
        for seed in range(start, start + count)
    ]


def scores(model: onnx.ModelProto, batches: list[dict[str, np.ndarray]]) -> np.ndarray:
    session = open_session(model)
    return np.concatenate([session.run(None, feed)[0][:, 0] for feed in batches])


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def static(path: Path) -> onnx.ModelProto:
    model = onnx.load(path)
    return quantize_graph(model, calibrate(model, feeds(model, 8)))


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FP32)
def test_an_int8_graph_scores_nearly_like_the_original(name: str) -> None:
    original = onnx.load(GRAPHS / f"{name}.onnx")
    fresh = feeds(original, 10, start=100)

    expected, found = scores(original, fresh), scores(static(GRAPHS / f"{name}.onnx"), fresh)

    assert spearman(found, expected) > 0.98
    assert 0 < np.abs(found - expected).mean() < 0.1 * expected.std()


@pytest.mark.parametrize("name", FP32)
def test_the_first_token_graph_can_be_quantized_too(name: str) -> None:
    original = onnx.load(GRAPHS / f"{name}.onnx")
    graph = first_token_graph(original)
    assert graph is not None
    fresh = feeds(original, 10, start=100)

    quantized = quantize_graph(graph, calibrate(graph, feeds(original, 8)))

    assert spearman(scores(quantized, fresh), scores(original, fresh)) > 0.98


def test_projections_are_int8_and_the_head_is_not() -> None:
    quantized = static(BERT)
    weights = {tensor.name: tensor for tensor in quantized.graph.initializer}
    products = [node for node in quantized.graph.node if node.op_type == "MatMulIntegerToFloat"]

    assert len(products) == 12, "query, key, value, output and two of the feed-forward part in each of two layers"
    assert {weights[node.input[1]].data_type for node in products} == {onnx.TensorProto.INT8}
    assert all(node.input[6] for node in products), "the biases are added by the product itself"
    assert kinds(quantized).count("QuantizeLinear") == 8, "query, key and value share their input"
    assert all(weights[node.input[1]].data_type == onnx.TensorProto.FLOAT for node in quantized.graph.node[-1:])


@pytest.mark.parametrize("name", ["bert_transformers4_torchscript11", "xlm_roberta_dynamo20"])
def test_a_static_score_does_not_depend_on_its_company(name: str) -> None:
    model = onnx.load(GRAPHS / f"{name}.onnx")
    session = open_session(static(GRAPHS / f"{name}.onnx"))
    feed = random_feed(model, np.asarray([40, 33, 12, 5]), seed=7)

    together = session.run(None, feed)[0]
    alone = [session.run(None, {key: value[i : i + 1] for key, value in feed.items()})[0][0] for i in range(4)]

    assert np.abs(together - np.stack(alone)).max() <= 1e-5


def test_a_dynamic_graph_says_so_by_its_operators() -> None:
    model = onnx.load(BERT)
    quantized = quantize_graph(model, None, fixed_scales=False)
    assert "DynamicQuantizeLinear" in kinds(quantized)
    assert "QuantizeLinear" not in kinds(quantized)


def with_an_outlier_channel(model: onnx.ModelProto) -> onnx.ModelProto:
    """One channel of the first LayerNorm forty times larger, and the weights that read it as much smaller."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    gain = next(
        tensor for name, tensor in weights.items() if name.endswith("layer.0.attention.output.LayerNorm.weight")
    )
    shift = weights[gain.name.replace("weight", "bias")]
    for tensor in (gain, shift):
        value = numpy_helper.to_array(tensor).copy()
        value[3] *= 40
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


def test_outlier_channels_cost_little_thanks_to_smoothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_an_outlier_channel(onnx.load(BERT))
    fresh = feeds(model, 10, start=100)
    expected = scores(model, fresh)
    ranges = calibrate(model, feeds(model, 8))

    def error() -> float:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return float(np.abs(scores(quantize_graph(copy, ranges), fresh) - expected).mean())

    smoothed = error()
    monkeypatch.setattr(int8_graph, "WORTH_SMOOTHING", np.inf)
    assert smoothed < 0.6 * error()


def test_large_embedding_tables_become_int8_and_small_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_graph, "SMALLEST_TABLE", 64 * 32)
    model = onnx.load(BERT)
    fresh = feeds(model, 5, start=100)

    quantized = static(BERT)

    small, whole = quantized.ByteSize(), model.ByteSize()
    assert small < 0.6 * whole
    assert spearman(scores(quantized, fresh), scores(model, fresh)) > 0.98
    floats = [t for t in quantized.graph.initializer if t.data_type == t.FLOAT and len(t.dims) == 2]
    assert (64, 32) not in {tuple(t.dims) for t in floats}


def with_pairs_in_sixteen_bits(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The product of uint8 (M, K) and int8 (K, N) as x86 CPUs without VNNI compute it (VPMADDUBSW, then VPMADDWD).

    Two neighbouring products are added in 16 bits, which are cut off at their ends; the sums are added in 32.
    """
    odd = activations.shape[1] % 2
    left = np.pad(activations, ((0, 0), (0, odd))).astype(np.int64)
    right = np.pad(weights, ((0, odd), (0, 0))).astype(np.int64)
    products = left[:, :, None] * right[None]
    pairs = products[:, 0::2] + products[:, 1::2]
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1)


def exactly(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return activations.astype(np.int64) @ weights.astype(np.int64)


def worst_activations(weights: np.ndarray) -> np.ndarray:
    """uint8 (2 N, K): for each column of weights (K, N) those that make its sums largest, and smallest."""
    return np.concatenate([np.where(weights > 0, 255, 0).T, np.where(weights < 0, 255, 0).T]).astype(np.uint8)


def full_range(weight: np.ndarray) -> np.ndarray:
    """int8 levels as usual: each column's largest weight is 127."""
    return np.rint(weight / np.abs(weight).max(axis=0) * 127).astype(np.int8)


def test_full_range_weights_overflow_sixteen_bits() -> None:
    # 255 * 127 + 255 * 127 = 64,770, of which 32,767 is left
    hot, large = np.full((1, 2), 255, np.uint8), np.full((2, 1), 127, np.int8)
    assert with_pairs_in_sixteen_bits(hot, large).item() == 32_767
    assert exactly(hot, large).item() == 64_770

    # and with ordinary weights too, for activations that aren't the worst
    random = np.random.default_rng(0)
    levels = full_range(random.standard_normal((384, 64)))
    activations = random.integers(0, 256, (16, 384)).astype(np.uint8)
    lost = with_pairs_in_sixteen_bits(activations, levels) != exactly(activations, levels)
    assert lost.mean() > 0.05


def test_no_pair_of_levels_that_may_be_neighbours_overflows() -> None:
    even, odd = np.meshgrid(np.arange(-127, 128), np.arange(-127, 128))
    allowed = np.abs(even + odd) <= 128
    for first in (0, 255):
        for second in (0, 255):
            sums = (first * even + second * odd)[allowed]
            assert sums.min() >= -(2**15)
            assert sums.max() < 2**15


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_neighbouring_weights_never_overflow_sixteen_bits(rows: int) -> None:
    weight = np.random.default_rng(rows).standard_t(3, (rows, 50)).astype(np.float32)
    weight[:, 0] = 0

    levels, step = quantize_columns(weight)

    pairs = levels[: rows // 2 * 2].astype(int).reshape(-1, 2, 50).sum(axis=1)
    assert np.abs(pairs).max(initial=0) <= 128
    assert np.abs(levels.astype(int)).max() <= 127
    assert (np.abs(levels * step - weight) <= step / 2 + 1e-6).all()
    worst = worst_activations(levels)
    np.testing.assert_array_equal(with_pairs_in_sixteen_bits(worst, levels), exactly(worst, levels))


def int8_factors(model: onnx.ModelProto) -> list[np.ndarray]:
    """The weights of the int8 products."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        numpy_helper.to_array(weights[node.input[1]])
        for node in model.graph.node
        if node.op_type == "MatMulIntegerToFloat"
    ]


@pytest.mark.parametrize("name", FP32)
def test_no_quantized_graph_overflows_sixteen_bits(name: str) -> None:
    factors = int8_factors(static(GRAPHS / f"{name}.onnx"))
    assert factors
    for weights in factors:
        worst = worst_activations(weights)
        np.testing.assert_array_equal(with_pairs_in_sixteen_bits(worst, weights), exactly(worst, weights))


def test_the_embedded_model_does_not_overflow_sixteen_bits() -> None:
    factors = int8_factors(onnx.load(Path(int8_graph.__file__).parents[2] / "models" / "embedded" / "model.onnx"))
    assert factors
    for weights in factors:
        even, odd = weights[0::2].astype(int), weights[1::2].astype(int)
        assert np.abs(even + odd).max() <= 128


PRODUCT = """
import sys, onnxruntime
from onnx import TensorProto, helper, numpy_helper
import numpy as np
values = np.load(sys.argv[1])
nodes = [helper.make_node("MatMulInteger", ["a", "w"], ["y"])]
given = [helper.make_tensor_value_info("a", TensorProto.UINT8, [None, None])]
out = [helper.make_tensor_value_info("y", TensorProto.INT32, [None, None])]
for name in ("full", "bounded"):
    graph = helper.make_graph(nodes, "product", given, out, [numpy_helper.from_array(values[name], "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.save(sys.argv[2] + name, session.run(None, {"a": values["activations"]})[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-user, which emulates other CPUs")
def test_onnxruntime_on_a_cpu_with_avx2_and_no_vnni_overflows_as_here_and_not_with_our_weights(tmp_path: Path) -> None:
    # given ordinary weights, quantized as usual and as here
    random = np.random.default_rng(0)
    weight = random.standard_normal((384, 64)).astype(np.float32)
    values = {"full": full_range(weight), "bounded": quantize_columns(weight)[0]}
    activations = random.integers(0, 256, (16, 384)).astype(np.uint8)
    np.savez(tmp_path / "values.npz", activations=activations, **values)

    # when onnxruntime multiplies them on a Haswell
    python = ["qemu-x86_64", "-cpu", "Haswell", str(Path(sys.executable).resolve())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [*python, "-c", PRODUCT, str(tmp_path / "values.npz"), f"{tmp_path}/"]
    subprocess.run(command, check=True, env=environment, capture_output=True)

    # then full-range weights lose what sixteen bits lose, and bounded ones nothing
    full, bounded = np.load(tmp_path / "full.npy"), np.load(tmp_path / "bounded.npy")
    np.testing.assert_array_equal(full, with_pairs_in_sixteen_bits(activations, values["full"]))
    assert (full != exactly(activations, values["full"])).any()
    np.testing.assert_array_equal(bounded, exactly(activations, values["bounded"]))


def test_padding_does_not_stretch_the_ranges() -> None:
    model = onnx.load(BERT)
    feed = random_feed(model, np.asarray([5, 5]), seed=0)
    wide = {key: np.pad(value, ((0, 0), (0, 30))) for key, value in feed.items()}
    narrow_ranges, wide_ranges = calibrate(model, [feed]), calibrate(model, [wide])
    for name, channels in narrow_ranges.items():
        np.testing.assert_allclose(wide_ranges[name].high, channels.high, atol=1e-4)


@pytest.mark.parametrize("source", ["fp16", "int8"])
def test_only_fp32_graphs_are_quantized(source: str) -> None:
    model = onnx.load(GRAPHS / "bert_torchscript17_fp16.onnx") if source == "fp16" else static(BERT)
    with pytest.raises(NotApplicable, match="fp32"):
        calibrate(model, feeds(model, 1))


# --- agreement --------------------------------------------------------------------------------------------------------


def test_rank_correlations_of_small_examples() -> None:
    a, b = np.asarray([1.0, 2.0, 3.0]), np.asarray([10.0, 30.0, 20.0])
    assert spearman(a, b) == pytest.approx(0.5)
    assert kendall(a, b) == pytest.approx(1 / 3)
    assert spearman(a, -a) == pytest.approx(-1)
    # with a tie, by hand: ranks 1.5, 1.5, 3 against 1, 2, 3, so 1.5 / sqrt(1.5 * 2); 2 of 3 pairs, one of them tied
    tied = np.asarray([5.0, 5.0, 9.0])
    assert spearman(tied, a) == pytest.approx(3**0.5 / 2)
    assert kendall(tied, a) == pytest.approx(2 / 6**0.5)
    assert np.isnan(spearman(np.ones(3), a))


def test_ndcg_of_a_small_example() -> None:
    # one relevant document in second place: 1 / log2(3)
    assert ndcg(np.asarray([3.0, 2.0, 1.0]), np.asarray([0.0, 1.0, 0.0])) == pytest.approx(0.6309, abs=1e-4)


def test_agreement_is_taken_within_queries() -> None:
    # the second query's scores are far higher: pooled, the orders would seem to agree
    found = compare([1, 2, 3, 101, 102, 103], [3, 2, 1, 103, 102, 101], groups=["a"] * 3 + ["b"] * 3)
    assert found.spearman == pytest.approx(-1)
    assert (found.queries, found.pairs, found.largest_error) == (2, 6, 2)
    assert found.ndcg_before is None


def test_the_loss_of_ndcg_comes_with_its_standard_error() -> None:
    # one query keeps its order, the other's relevant document falls from first to second place
    found = compare([2, 1, 2, 1], [2, 1, 1, 2], groups=["a", "a", "b", "b"], relevances=[1, 0, 1, 0])
    assert (found.ndcg_before, found.ndcg_after) == (1, pytest.approx((1 + 0.6309) / 2, abs=1e-4))
    # losses 0 and 0.3691: their standard deviation over the root of 2 is half their difference
    assert found.ndcg_loss_error == pytest.approx(0.3691 / 2, abs=1e-4)


def test_a_poor_ranking_is_objected_to() -> None:
    near = compare([1, 2, 3, 4], [1.1, 2.1, 2.9, 4.2], relevances=[0, 0, 0, 1])
    far = compare([1, 2, 3, 4], [4, 3, 2, 1], relevances=[0, 0, 0, 1])
    assert near.objections() == []
    assert [text.split(" ")[1] for text in far.objections()] == ["rank", "falls"]
    assert len(near.objections(lowest_correlation=1.01)) == 1


def test_a_loss_within_chance_is_not_objected_to() -> None:
    known = {"pairs": 9, "queries": 9, "spread": 1.0, "mean_error": 0.0, "largest_error": 0.0}
    lost = {"spearman": 0.99, "kendall": 0.9, "ndcg_before": 0.7, "ndcg_after": 0.66}
    assert Agreement(**known, **lost, ndcg_loss_error=0.03).objections() == []
    assert len(Agreement(**known, **lost, ndcg_loss_error=0.01).objections()) == 1


def test_comparing_lists_of_different_lengths_is_an_error() -> None:
    with pytest.raises(InputValueError, match="2, 3"):
        compare([1, 2], [1, 2, 3])


# --- models -----------------------------------------------------------------------------------------------------------

WORDS = "the cat sat on a mat while rain fell over old stone roofs and nobody spoke of bread or salt".split()  # noqa: SIM905


def texts(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(3, 30))) for _ in range(count)]


SAMPLES = [Sample(query=" ".join(texts(1, seed)), documents=texts(20, seed + 50)) for seed in range(6)]


@pytest.fixture(scope="module")
def bert() -> Path:
    return fixtures.folder("bert")


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_quantized_folder_is_a_model_that_ranks_like_the_original(bert: Path, tmp_path: Path, mode: str) -> None:
    result = quantize(bert, tmp_path / "out", SAMPLES, mode=mode)

    assert result.held_out
    assert result.agreement.pairs == 60
    assert result.agreement.spearman > 0.95
    assert result.size < result.size_before
    assert ("DynamicQuantizeLinear" in kinds(onnx.load(result.folder / "onnx" / "model_int8.onnx"))) == (
        mode == "dynamic"
    )
    original = np.asarray(TextCrossEncoder(bert).rerank("rain on the roofs", texts(30, 9)))
    found = np.asarray(TextCrossEncoder(result.folder).rerank("rain on the roofs", texts(30, 9)))
    assert 0 < np.abs(found - original).max() < 0.5 * original.std()


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_quantized_models_score_does_not_depend_on_its_company(bert: Path, tmp_path: Path, mode: str) -> None:
    encoder = TextCrossEncoder(quantize(bert, tmp_path / "out", SAMPLES, mode=mode).folder)
    documents = texts(40, 5)
    together = encoder.rerank("rain on the roofs", documents)
    assert together == pytest.approx([encoder.rerank("rain on the roofs", [one])[0] for one in documents], abs=1e-5)


def test_a_result_that_ranks_differently_is_refused_and_leaves_nothing(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"rank correlation within a query is 0\.\d+, below 1\.1"):
        quantize(bert, tmp_path / "out", SAMPLES, lowest_correlation=1.1)
    assert not list(tmp_path.rglob("*.onnx"))


def test_relevances_show_what_the_ranking_loses(bert: Path, tmp_path: Path) -> None:
    judged = [
        Sample(query=one.query, documents=one.documents, relevances=[float("rain" in text) for text in one.documents])
        for one in SAMPLES
    ]
    agreement = quantize(bert, tmp_path / "out", judged).agreement
    encoder = TextCrossEncoder(bert)
    measured = [ndcg(np.asarray(encoder.rerank(s.query, s.documents)), np.asarray(s.relevances)) for s in judged[1::2]]
    assert agreement.ndcg_before == pytest.approx(np.mean(measured))
    assert agreement.ndcg_after == pytest.approx(agreement.ndcg_before, abs=0.05)


def test_an_existing_folder_is_replaced_only_when_asked(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputValueError, match="--overwrite"):
        quantize(bert, tmp_path / "out", SAMPLES)
    assert quantize(bert, tmp_path / "out", SAMPLES, overwrite=True).folder == tmp_path / "out"


def test_a_model_that_is_int8_already_is_refused(bert: Path, tmp_path: Path) -> None:
    quantize(bert, tmp_path / "once", SAMPLES)
    with pytest.raises(UnsupportedModelError, match="fp32"):
        quantize(tmp_path / "once", tmp_path / "twice", SAMPLES)


def test_a_model_beyond_the_limit_is_refused(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimized, "LARGEST_BYTES", 1000)
    with pytest.raises(UnsupportedModelError, match="GB, more than"):
        quantize(bert, tmp_path / "out", SAMPLES)


def test_samples_are_needed(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputValueError, match="samples"):
        quantize(bert, tmp_path / "out", [Sample(query="empty", documents=[])])
    with pytest.raises(InputTypeError, match="one str"):
        Sample(query="a", documents="not a list")
    with pytest.raises(InputValueError, match="got 1 for 2"):
        Sample(query="a", documents=["b", "c"], relevances=[1])


def test_an_unknown_mode_is_named(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputValueError, match="'quick'"):
        quantize(bert, tmp_path / "out", SAMPLES, mode="quick")  # type: ignore[arg-type]


def test_calibration_takes_some_pairs_of_every_sample() -> None:
    chosen = spread_pairs(SAMPLES, limit=30)
    assert len(chosen) == 30
    assert {query for query, _ in chosen} == {sample.query for sample in SAMPLES}


def test_the_command_reads_samples_and_prints_what_changed(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = pytest.importorskip("onnx_rerank_integrations.extras.cli").main
    pytest.importorskip("typer", reason="typer isn't installed")
    texts = ["salt from the sea", "a stone", "bread rises in two hours", "bees in winter", "iron turns brown"]
    samples = [json.dumps({"query": text, "documents": texts, "relevances": [1, 0, 0, 0, 0]}) for text in texts]
    (tmp_path / "samples.jsonl").write_text("\n".join(samples))
    arguments = ["quantize", str(bert), str(tmp_path / "out"), "--calibrate", str(tmp_path / "samples.jsonl")]

    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "| rank correlation (Spearman) |" in printed
    assert "| nDCG@10 |" in printed
    assert main(arguments) == 1
    assert "is there already" in capsys.readouterr().err
    named = ["quantize", "--model", str(bert), str(tmp_path / "named"), *arguments[3:], "--json"]
    assert main(named) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["mode"]) == (str(tmp_path / "named"), "static")
    assert found["agreement"]["spearman"] <= 1
    assert main(named[:3] + named[4:]) == 2
    assert "a model and the folder to make of it are needed" in capsys.readouterr().err


@pytest.mark.parametrize("line", ['{"query": "a"}', '{"query": "a", "documents": [3]}', "[]", "{"])
def test_a_line_that_is_no_sample_is_named(
    line: str, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = pytest.importorskip("onnx_rerank_integrations.extras.cli").main
    pytest.importorskip("typer", reason="typer isn't installed")
    (tmp_path / "samples.jsonl").write_text('{"query": "a", "documents": ["b"]}\n' + line)

    assert main(["quantize", str(bert), str(tmp_path / "out"), "--calibrate", str(tmp_path / "samples.jsonl")]) == 1
    assert "samples.jsonl, line 2" in capsys.readouterr().err

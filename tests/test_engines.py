"""Other ways to run the same graph give the same scores: side by side, with OpenVINO, pair by pair."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from onnx_rerank_integrations import InputTypeError, InputValueError, ProviderError, TextCrossEncoder
from onnx_rerank_integrations.core import onnx_cross_encoder
from onnx_rerank_integrations.core.batching import FEW_TOKENS, Way
from onnx_rerank_integrations.core.engine.onnxruntime import (
    TOKENS_PER_THREAD,
    InferenceSession,
    onnxruntime,
    run_bound,
)
from onnx_rerank_integrations.core.model.config import LEXICAL_TOKEN_BUDGET
from onnx_rerank_integrations.core.model.files import locate
from onnx_rerank_integrations.core.onnx_cross_encoder import OnnxCrossEncoder
from onnx_rerank_integrations.core.options import Engine
from tests.parity import fixtures
from tests.toy import make_toy, toy_score

WORDS = "the cat sat on a mat while rain fell over old stone roofs and nobody spoke of bread or salt".split()  # noqa: SIM905


def documents(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, 40))) for _ in range(count)]


@pytest.fixture(scope="module")
def bert() -> TextCrossEncoder:
    return TextCrossEncoder(fixtures.folder("bert"))


@pytest.mark.parametrize("parallel", [0, 1, 2, 3])
def test_batches_side_by_side_give_what_one_after_the_other_gives(parallel: int, bert: TextCrossEncoder) -> None:
    texts = documents(300)

    side_by_side = bert.rerank("rain on the roofs", texts, parallel=parallel, batch_size=7)

    assert side_by_side == pytest.approx(bert.rerank("rain on the roofs", texts), abs=1e-5)
    assert [one.index for one in bert.rank("rain", texts, parallel=parallel, top_n=5)] == [
        one.index for one in bert.rank("rain", texts, top_n=5)
    ]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 300])
def test_scores_do_not_depend_on_the_number_of_threads(threads: int, count: int, bert: TextCrossEncoder) -> None:
    texts = documents(count)
    encoder = TextCrossEncoder(fixtures.folder("bert"), threads=threads)

    assert encoder.rerank("rain on the roofs", texts) == pytest.approx(
        bert.rerank("rain on the roofs", texts), abs=1e-5
    )


def opened(encoder: TextCrossEncoder) -> list[int]:
    """The numbers of threads that the model was opened for."""
    session = encoder.load()._session
    assert isinstance(session, InferenceSession)
    return sorted(threads for threads, opened in session._opened.items() if opened.made)


def test_the_model_is_opened_for_all_threads_only_for_a_call_that_wants_them() -> None:
    encoder = TextCrossEncoder(fixtures.folder("bert"), threads=4)
    texts = [f"{word} {'rain ' * FEW_TOKENS}" for word in ("mat", "stone", "salt")]

    encoder.rerank("rain", texts)
    encoder.rerank("rain", ["a mat"])
    assert opened(encoder) == [1]

    encoder.rerank("rain", texts[:2])
    assert opened(encoder) == [1, 4]


def test_how_batches_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_cross_encoder, "available_cpus", lambda: 3)
    files = locate(str(fixtures.folder("bert")))

    def way(threads: int, pairs: int, tokens: int, parallel: int | None = None, budget: int | None = None) -> Way:
        encoder = OnnxCrossEncoder(files, engine=Engine(threads=threads), token_budget=budget)
        return encoder.way(pairs, tokens, parallel)

    assert way(4, 100, 20_000) == Way(lanes=4, all_threads=False, token_budget=TOKENS_PER_THREAD)
    assert way(4, 10, 400) == Way(lanes=4, all_threads=False, token_budget=100)
    assert way(4, 2, 400) == Way(lanes=1, all_threads=True, token_budget=4 * TOKENS_PER_THREAD)
    assert way(4, 1, FEW_TOKENS) == Way(lanes=1, all_threads=False, token_budget=TOKENS_PER_THREAD)
    assert way(1, 100, 20_000) == Way(lanes=1, all_threads=True, token_budget=TOKENS_PER_THREAD)
    assert way(4, 100, 20_000, parallel=1) == Way(lanes=1, all_threads=True, token_budget=4 * TOKENS_PER_THREAD)
    assert way(1, 100, 20_000, parallel=3) == Way(lanes=3, all_threads=False, token_budget=TOKENS_PER_THREAD)
    assert way(1, 100, 20_000, parallel=100_000).lanes == way(1, 100, 20_000, parallel=0).lanes == 3
    assert way(4, 100, 20_000, parallel=100_000).lanes == 4
    assert way(4, 100, 20_000, budget=64) == Way(lanes=4, all_threads=False, token_budget=64)


def test_a_small_call_of_the_embedded_model_is_one_batch_on_one_thread() -> None:
    encoder = TextCrossEncoder("lexical", threads=2).load()

    assert encoder.way(10, 400) == Way(lanes=1, all_threads=False, token_budget=LEXICAL_TOKEN_BUDGET)
    assert encoder.way(100, 20_000).lanes == 2


def test_texts_that_are_the_same_to_the_model_tie_in_any_batch(bert: TextCrossEncoder) -> None:
    texts = [*documents(30), "Rain Fell Over OLD stone", *documents(30, seed=1), "rain fell over old STONE"]

    for batch_size in (1, 3, 16, None):
        scores = bert.rerank("RAIN", texts, batch_size=batch_size)
        assert scores[30] == scores[61]


def test_the_threads_are_kept_for_the_next_call_and_left_out_of_pickles(bert: TextCrossEncoder) -> None:
    bert.rerank("rain", documents(3), parallel=2)
    pool = bert.load()._workers.pool

    bert.rerank("rain", documents(3), parallel=2)

    assert bert.load()._workers.pool is pool
    assert pickle.loads(pickle.dumps(bert)).rerank("rain", ["a mat"], parallel=2) == pytest.approx(
        bert.rerank("rain", ["a mat"]), abs=1e-5
    )


@pytest.mark.parametrize(("parallel", "error"), [(-1, InputValueError), (True, InputTypeError), (1.5, InputTypeError)])
def test_parallel_out_of_range(parallel: object, error: type[Exception], bert: TextCrossEncoder) -> None:
    with pytest.raises(error, match="parallel"):
        bert.rerank("rain", ["a"], parallel=parallel)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with weights in int8 and activations quantized batch by batch."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("dynamic")
    source = fixtures.folder("bert")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    quantization.quantize_dynamic(source / "model.onnx", folder / "model.onnx")
    return folder


def test_a_dynamically_quantized_graph_gives_a_pair_the_same_score_in_any_company(dynamic: Path) -> None:
    texts = documents(40)
    encoder = TextCrossEncoder(dynamic)

    together = encoder.rerank("rain on the roofs", texts)

    assert together == [encoder.rerank("rain on the roofs", [text])[0] for text in texts]


def test_sorted_batches_of_a_dynamically_quantized_graph_are_a_choice_that_moves_scores(dynamic: Path) -> None:
    texts = documents(40)

    alone = np.array(TextCrossEncoder(dynamic).rerank("rain on the roofs", texts))
    batched = np.array(TextCrossEncoder(dynamic, batching="sorted").rerank("rain on the roofs", texts))

    assert np.abs(alone - batched).max() > 1e-4
    assert np.corrcoef(alone, batched)[0, 1] > 0.99


def test_a_run_with_its_output_bound_to_a_device_gives_the_same_logits(bert: TextCrossEncoder) -> None:
    # As far as a CPU allows: the binding that CUDA runs use, with the CPU as the device.
    encoder = bert.load()
    arrays = encoder._collate(encoder._tokenizer.encode([("rain", text) for text in documents(5)]))
    session = encoder._session
    assert isinstance(session, InferenceSession)

    feeds, options = session.signature.feeds(arrays), onnxruntime().RunOptions()
    bound = run_bound(session._live(1), feeds, session.signature.output_name, options, device="cpu")

    assert np.array_equal(bound, session.run(arrays))


class TestOpenVino:
    @pytest.fixture(autouse=True)
    def _needs_openvino(self) -> None:
        pytest.importorskip("openvino", reason="openvino isn't installed: pip install '...[openvino]'")

    @pytest.mark.parametrize("name", ["bert", "xlm-roberta", "deberta-v2", "modernbert"])
    def test_fp32_scores_equal_pytorchs(self, name: str) -> None:
        reference = fixtures.scores(name)
        encoder = TextCrossEncoder(fixtures.folder(name), backend="openvino", max_length=reference["max_length"])

        scores = encoder.rerank_pairs(reference["pairs"])

        assert np.abs(np.array(scores) - np.array(reference["logits"])[:, 0]).max() < 1e-4

    def test_bf16_is_near_and_never_emulated_in_silence(self) -> None:
        texts = documents(50)
        exact = np.array(TextCrossEncoder(fixtures.folder("bert")).rerank("rain", texts))

        try:
            encoder = TextCrossEncoder(fixtures.folder("bert"), backend="openvino", precision="bf16")
        except ProviderError:
            pytest.skip("this CPU has no bf16")
        near = np.array(encoder.rerank("rain", texts))

        assert 1e-6 < np.abs(near - exact).max() < 0.1 * exact.std() + 0.1
        assert np.corrcoef(near, exact)[0, 1] > 0.99

    def test_it_runs_side_by_side_too(self, tmp_path: Path) -> None:
        encoder = TextCrossEncoder(make_toy(tmp_path), backend="openvino")
        texts = ["a b", "z", "", "c " * 9]

        assert encoder.rerank("q", texts, parallel=2) == pytest.approx([toy_score("q", text) for text in texts])

    def test_options_of_the_other_backend_are_refused(self, tmp_path: Path) -> None:
        folder = make_toy(tmp_path)
        with pytest.raises(InputValueError, match="providers are onnxruntime's"):
            TextCrossEncoder(folder, backend="openvino", providers=["CPUExecutionProvider"])
        with pytest.raises(InputValueError, match=r"precision=.bf16. needs backend=.openvino."):
            TextCrossEncoder(folder, precision="bf16")

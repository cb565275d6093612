"""TextCrossEncoder on a real ONNX graph whose scores can be added up by hand (tests/toy.py)."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from onnx_rerank_integrations import (
    InputTypeError,
    InputValueError,
    Pair,
    ProviderError,
    RankedDocument,
    RerankError,
    ScoreError,
    TextCrossEncoder,
    TextCrossEncoderBase,
    UnsupportedModelError,
)
from onnx_rerank_integrations.core.base import counted_truncations
from onnx_rerank_integrations.core.engine.threads import available_cpus
from onnx_rerank_integrations.core.scoring import Floats
from tests.toy import VALUES, make_toy, toy_score, toy_tokenizer

DOCUMENTS = ["b c", "z", "", "a a a a a a", "b c", "k"]


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def toy(toy_folder: Path) -> TextCrossEncoder:
    return TextCrossEncoder(toy_folder)


def test_scores_are_the_sums_by_hand_in_input_order(toy: TextCrossEncoder) -> None:
    # [CLS] q [SEP] b c [SEP] = 0.5*1 + 17*2 + 0.25*3 + 2*2*4 + 3*2*5 + 0.25*2*6
    assert toy.rerank("q", ["b c"]) == [0.5 + 34 + 0.75 + 16 + 30 + 3]
    assert toy.rerank("q", DOCUMENTS) == [toy_score("q", document) for document in DOCUMENTS]


def test_scores_are_plain_floats_and_any_iterable_will_do(toy: TextCrossEncoder) -> None:
    scores = toy.rerank("q", (document for document in DOCUMENTS))

    assert [type(score) for score in scores] == [float] * len(DOCUMENTS)
    assert (
        scores == toy.rerank("q", tuple(DOCUMENTS)) == toy.rerank("q", dict.fromkeys(DOCUMENTS[:4]).keys()) + scores[4:]
    )


def test_rank_gives_the_best_first_and_ties_keep_input_order(toy: TextCrossEncoder) -> None:
    ranked = toy.rank("q", DOCUMENTS)
    scores = toy.rerank("q", DOCUMENTS)

    assert [one.index for one in ranked] == sorted(range(6), key=lambda index: (-scores[index], index))
    assert [one.index for one in ranked if one.text == "b c"] == [0, 4]
    assert ranked[0] == RankedDocument(index=1, score=scores[1], text="z")
    assert toy.rank("q", DOCUMENTS, top_n=2) == ranked[:2]
    assert toy.rank("q", DOCUMENTS, top_n=99) == ranked


def test_the_threshold_is_in_the_scale_of_the_activation(toy: TextCrossEncoder) -> None:
    scores = sorted(toy.rerank("q", DOCUMENTS), reverse=True)

    assert [one.score for one in toy.rank("q", DOCUMENTS, score_threshold=scores[2])] == scores[:3]
    assert len(toy.rank("q", DOCUMENTS, score_threshold=0.5, activation="sigmoid")) == 6
    assert toy.rank("q", DOCUMENTS, score_threshold=1.1, activation="sigmoid") == []


def test_pairs_are_scored_like_documents(toy: TextCrossEncoder) -> None:
    pairs = [("q", "b c"), ("r s", "z"), ("q", "")]

    assert toy.rerank_pairs(pairs) == [toy_score(*pair) for pair in pairs]
    assert toy.rerank_pairs([list(pair) for pair in pairs]) == toy.rerank_pairs(iter(pairs))  # type: ignore[misc]


@pytest.mark.parametrize(("activation", "expected"), [("identity", -3.25), ("sigmoid", 0.037327), ("model", 0.037327)])
def test_activations(activation: str, expected: float, tmp_path: Path) -> None:
    folder = make_toy(tmp_path, config={"id2label": {"0": "LABEL_0"}})
    encoder = TextCrossEncoder(folder, activation=activation)  # type: ignore[arg-type]
    encoder.logits = lambda pairs, **_: np.full(len(pairs), -3.25)  # type: ignore[method-assign]

    assert encoder.rerank("q", ["a"]) == [pytest.approx(expected, abs=1e-6)]
    assert encoder.rerank("q", ["a"], activation="identity") == [-3.25]


@given(
    documents=st.lists(st.lists(st.sampled_from("abcxyz"), max_size=12).map(" ".join), min_size=1, max_size=30),
    batch_size=st.none() | st.integers(1, 8),
)
@settings(max_examples=50)
def test_batching_and_padding_never_change_a_score(
    documents: list[str], batch_size: int | None, toy: TextCrossEncoder
) -> None:
    expected = [toy_score("q r", document) for document in documents]

    assert np.allclose(toy.rerank("q r", documents, batch_size=batch_size), expected, rtol=1e-6)


def test_more_documents_than_a_window_holds(toy: TextCrossEncoder) -> None:
    documents = [f"{'abcdefgh'[i % 8]} {'ijklmnop'[i % 7]} {i}" for i in range(5000)]

    scores = toy.rerank("q", documents)

    assert np.allclose(scores, [toy_score("q", document) for document in documents])


@pytest.mark.parametrize("element_type", [TensorProto.INT32, TensorProto.INT64])
@pytest.mark.parametrize("inputs", [("input_ids", "attention_mask"), ("attention_mask", "token_type_ids", "input_ids")])
def test_exactly_the_declared_inputs_are_fed(inputs: tuple[str, ...], element_type: int, tmp_path: Path) -> None:
    encoder = TextCrossEncoder(make_toy(tmp_path, inputs=inputs, element_type=element_type))
    with_types = toy_score("q", "b c")
    without_types = 0.5 + 34 + 0.75 + 2 * 4 + 3 * 5 + 0.25 * 6

    scores = encoder.rerank("q", ["b c", "a " * 20])

    assert scores[0] == (with_types if "token_type_ids" in inputs else without_types)


def test_an_input_nobody_can_give_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="pixel_values"):
        TextCrossEncoder(make_toy(tmp_path, inputs=("input_ids", "pixel_values")))


@pytest.mark.parametrize(("head", "expected"), [("flat", 1.0), ("column", 1.0), ("two", 2.0)])
def test_heads_of_one_and_two_logits(head: str, expected: float, tmp_path: Path) -> None:
    encoder = TextCrossEncoder(make_toy(tmp_path, head=head))  # type: ignore[arg-type]

    assert encoder.rerank("q", DOCUMENTS) == pytest.approx(
        [expected * toy_score("q", document) for document in DOCUMENTS]
    )


def test_a_head_of_three_needs_a_label(tmp_path: Path) -> None:
    names = {"id2label": {"0": "entailment", "1": "neutral", "2": "contradiction"}}
    folder = make_toy(tmp_path, head="three", config=names)

    with pytest.raises(UnsupportedModelError, match="label="):
        TextCrossEncoder(folder)
    total = toy_score("q", "b")
    by_name = TextCrossEncoder(folder, label="entailment").rerank("q", ["b"])
    assert by_name == TextCrossEncoder(folder, label=0).rerank("q", ["b"])
    assert by_name == [pytest.approx(total - np.logaddexp(0, -total))]


@pytest.mark.parametrize("label", [-1, 3, "unheard of"])
def test_a_label_the_model_lacks_is_refused_with_those_it_has(label: int | str, tmp_path: Path) -> None:
    folder = make_toy(tmp_path, head="three", config={"id2label": {"0": "yes", "1": "no", "2": "maybe"}})

    with pytest.raises(InputValueError, match=rf"label={label!r} is no label of this model, which has 0: yes, 1: no"):
        TextCrossEncoder(folder, label=label)


def test_of_several_outputs_the_one_called_logits_is_read(tmp_path: Path) -> None:
    path = make_toy(tmp_path) / "model.onnx"
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Neg", ["total"], ["opposite"]))
    logits = model.graph.output.pop()
    opposite = onnx.ValueInfoProto()
    opposite.CopyFrom(logits)
    opposite.name = "opposite"
    model.graph.output.extend([opposite, logits])
    onnx.save(model, path)

    assert TextCrossEncoder(tmp_path).rerank("q", ["b c"]) == [toy_score("q", "b c")]


@pytest.mark.parametrize("pad_token", ["k", {"content": "k", "lstrip": False}])
def test_rows_are_filled_with_the_pad_token_that_the_tokenizers_config_names(pad_token: object, tmp_path: Path) -> None:
    folder = make_toy(tmp_path, inputs=("input_ids",), length=8, tokenizer_config={"pad_token": pad_token})
    # [CLS] q [SEP] b [SEP] k k k, and no mask that would hide the padding
    values = [0.5, 17, 0.25, 2, 0.25, 11, 11, 11]

    scores = TextCrossEncoder(folder).rerank("q", ["b"])

    assert scores == [sum(value * position for position, value in enumerate(values, start=1))]


def test_a_batch_size_of_one_pads_nothing(tmp_path: Path) -> None:
    folder = make_toy(tmp_path, inputs=("input_ids",))  # without a mask, padding shows
    with pytest.warns(DeprecationWarning, match="batching"):
        encoder = TextCrossEncoder(folder, threads=1, batching="sorted")  # else such a graph isn't batched at all
    texts = ["b", "c d", "e f g"]
    alone = [encoder.rerank("q", [text])[0] for text in texts]

    assert encoder.rerank("q", texts, batch_size=1) == alone
    assert [one.score for one in encoder.rank("q", texts, batch_size=1)] == sorted(alone, reverse=True)
    assert encoder.rerank_pairs([("q", text) for text in texts], batch_size=1) == alone
    assert encoder.rerank("q", texts) != alone


def test_a_graph_that_gives_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"(?s)last_hidden_state .* classification head"):
        TextCrossEncoder(make_toy(tmp_path, head="per_token"))


def test_a_graph_with_fixed_axes_is_fed_rows_of_that_shape(tmp_path: Path) -> None:
    encoder = TextCrossEncoder(make_toy(tmp_path, batch=1, length=16))

    assert encoder.max_length == 16
    assert encoder.rerank("q", DOCUMENTS) == [toy_score("q", document) for document in DOCUMENTS]


def test_a_tokenizer_that_knows_more_ids_than_the_graph_is_refused_at_load(tmp_path: Path) -> None:
    folder = make_toy(tmp_path)
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens([f"extra{i}" for i in range(5)])
    tokenizer.save(str(folder / "tokenizer.json"))

    with pytest.raises(UnsupportedModelError, match=rf"ids up to {len(VALUES) + 4}.*vocabulary is smaller"):
        TextCrossEncoder(folder)


def test_nan_names_the_documents_and_gives_no_ranking(toy: TextCrossEncoder) -> None:
    with pytest.raises(ScoreError, match="index 1, 3"):
        toy.rank("q", ["a", "b nan", "c", "b nan"])


def test_an_encoder_that_gives_another_number_of_scores_is_an_error(toy: TextCrossEncoder) -> None:
    class Short(TextCrossEncoderBase):
        def logits(self, pairs: Sequence[Pair], **options: object) -> Floats:
            return toy.logits(pairs)[1:]

    with pytest.raises(ScoreError, match="Short gave 2 scores for 3 documents"):
        Short().rank("q", ["a", "b", "c"])


def test_a_tokenizers_config_that_truncates_on_the_left_is_followed(tmp_path: Path) -> None:
    encoder = TextCrossEncoder(make_toy(tmp_path, tokenizer_config={"truncation_side": "left"}), max_length=8)

    for beginning in ("", "a " * 50_000):
        assert encoder.rerank("q", [f"{beginning}b c d e f g"]) == [toy_score("q", "d e f g")]
    assert encoder.rerank("b c d e f g", ["q"]) == [toy_score("d e f g", "q")]


def test_an_encoder_of_ones_own_is_one_method() -> None:
    class Length(TextCrossEncoderBase):
        def logits(self, pairs: Sequence[Pair], **options: object) -> Floats:
            return np.array([float(len(document)) for _, document in pairs])

    encoder = Length()

    assert [one.index for one in encoder.rank("q", ["a", "abc", "ab"], top_n=2)] == [1, 2]
    assert encoder.rerank("q", ["abc"], activation="model") == pytest.approx([1 / (1 + math.exp(-3))])
    assert (
        TextCrossEncoder.cascade(["lexical", encoder], keep=[1]).rank("bee", ["a bee", "rain"], top_n=1)[0].score == 5
    )
    with pytest.raises(UnsupportedModelError, match="Length doesn't count tokens"):
        encoder.token_count([("q", "a")])
    with pytest.raises(UnsupportedModelError, match="Length doesn't tell what it cuts"):
        encoder.truncated([("q", "a")])


def test_max_length_truncates_and_truncated_says_so(toy_folder: Path) -> None:
    encoder = TextCrossEncoder(toy_folder, max_length=8)

    assert encoder.rerank("q", ["a b c d e f g"]) == [toy_score("q", "a b c d")]
    assert encoder.truncated([("q", "a b c d e f g"), ("q", "a")]) == [True, False]


def test_token_count_is_what_the_model_reads(toy_folder: Path) -> None:
    encoder = TextCrossEncoder(toy_folder, max_length=8)

    assert encoder.token_count([("q", "a b"), ("q", "a " * 100), ("", "")]) == 6 + 8 + 3
    assert encoder.token_count([]) == 0


@pytest.mark.parametrize(
    ("tokenizer_config", "config", "expected"),
    [
        ({"model_max_length": 10**30}, {}, 512),
        ({"model_max_length": 10**30, "max_length": 128}, {}, 512),
        ({"model_max_length": 512}, {"max_position_embeddings": 40}, 40),
        ({"model_max_length": 131_072}, {"max_position_embeddings": 131_072}, 8192),
        (
            {"model_max_length": 514},
            {"max_position_embeddings": 514, "model_type": "xlm-roberta", "pad_token_id": 1},
            512,
        ),
    ],
)
def test_max_length_is_the_smallest_believable_limit(
    tokenizer_config: dict[str, object], config: dict[str, object], expected: int, tmp_path: Path
) -> None:
    encoder = TextCrossEncoder(make_toy(tmp_path, tokenizer_config=tokenizer_config, config=config))

    assert encoder.max_length == expected


def test_a_length_that_was_asked_for_may_be_more_than_the_longest_default(tmp_path: Path) -> None:
    folder = make_toy(tmp_path, config={"max_position_embeddings": 131_072})

    assert TextCrossEncoder(folder).max_length == 64
    assert TextCrossEncoder(folder, max_length=20_000).max_length == 20_000


def test_max_length_beyond_the_models_positions_is_an_error(tmp_path: Path) -> None:
    folder = make_toy(tmp_path, config={"max_position_embeddings": 40})

    with pytest.raises(InputValueError, match="max_length=41 is more than the 40 positions"):
        TextCrossEncoder(folder, max_length=41)


def test_the_steps_of_a_call_can_be_taken_one_by_one(toy: TextCrossEncoder) -> None:
    opened = toy.load()
    pairs = [("a b", "c"), ("a b", "c d e f"), ("a", "b")]

    encoded = opened.encode(pairs)
    logits = np.concatenate([opened.score([one]) for one in encoded])

    assert opened.join(logits, [one.pair for one in encoded], len(pairs)).tolist() == [
        toy_score(*pair) for pair in pairs
    ]


def test_a_document_can_be_capped_in_one_call(toy: TextCrossEncoder) -> None:
    opened = toy.load()
    pairs = [("a b", "c d e f"), ("a b", "c")]

    encoded = opened.encode(pairs, document_tokens=2)

    assert opened.score(encoded[:1]).tolist() == [toy_score("a b", "c d")]
    assert [one.truncated for one in encoded] == [True, False]


@pytest.mark.parametrize("long_documents", ["max", "mean", "first"])
def test_long_documents_are_scored_by_their_windows(long_documents: str, toy_folder: Path) -> None:
    encoder = TextCrossEncoder(toy_folder, max_length=12, long_documents=long_documents)  # type: ignore[arg-type]
    document = "a b c d e f g h i j k l m n o p"
    words = document.split()  # room for 8 beside [CLS] q [SEP] ... [SEP]; windows start 6 apart
    by_hand = [toy_score("q", " ".join(words[start : start + 8])) for start in (0, 6, 12)]
    expected = {"max": max(by_hand), "mean": sum(by_hand) / 3, "first": by_hand[0]}[long_documents]

    assert encoder.rerank("q", [document, "a"]) == pytest.approx([expected, toy_score("q", "a")])


@pytest.mark.parametrize(
    "text", ["", "   ", "\n\t", "🐤🐤", "\ud800", "a\x00b", "\u200b", "a " * 500_000, "x" * 1_000_000]
)
def test_odd_texts_are_ranked_not_fatal(text: str, toy: TextCrossEncoder) -> None:
    ranked = toy.rank(text, ["a", text, "z"])

    assert sorted(one.index for one in ranked) == [0, 1, 2]
    assert next(one.text for one in ranked if one.index == 1) == text
    assert len(toy.rank("q", [text, "z"])) == 2


def test_nothing_to_rank_gives_nothing(toy: TextCrossEncoder) -> None:
    assert toy.rerank("q", []) == toy.rank("q", iter(())) == toy.rerank_pairs([]) == []


@pytest.mark.parametrize(
    ("document", "name"), [(None, "NoneType"), (3, "int"), (b"x", "bytes"), (float("nan"), "float"), (["a"], "list")]
)
def test_a_document_that_is_no_str_names_its_index(document: object, name: str, toy: TextCrossEncoder) -> None:
    with pytest.raises(TypeError, match=f"document 1 must be a str, not {name}") as caught:
        toy.rerank("q", ["a", document])  # type: ignore[list-item]
    assert isinstance(caught.value, RerankError)


@pytest.mark.parametrize("documents", ["one text", b"bytes", None, 3])
def test_documents_must_be_several(documents: object, toy: TextCrossEncoder) -> None:
    with pytest.raises(InputTypeError, match="iterable of str"):
        toy.rerank("q", documents)  # type: ignore[arg-type]


@pytest.mark.parametrize("pair", ["ab", ("q",), ("q", "d", "e"), None, 3, {"q", "d"}])
def test_a_pair_that_is_no_pair_names_its_index(pair: object, toy: TextCrossEncoder) -> None:
    with pytest.raises(InputTypeError, match="pair 1 must be"):
        toy.rerank_pairs([("q", "d"), pair])  # type: ignore[list-item]


def test_a_pair_with_something_else_than_text_says_which_part(toy: TextCrossEncoder) -> None:
    with pytest.raises(InputTypeError, match="the document of pair 0 must be a str, not int"):
        toy.rerank_pairs([("q", 3)])  # type: ignore[list-item]
    with pytest.raises(InputTypeError, match="query must be a str, not NoneType"):
        toy.rerank(None, ["a"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"top_n": 0}, ValueError),
        ({"top_n": -1}, ValueError),
        ({"top_n": True}, TypeError),
        ({"top_n": 1.5}, TypeError),
        ({"batch_size": 0}, ValueError),
        ({"score_threshold": float("nan")}, ValueError),
        ({"activation": "softmax"}, ValueError),
    ],
)
def test_options_out_of_range_are_errors(options: dict[str, object], error: type, toy: TextCrossEncoder) -> None:
    with pytest.raises(error) as caught:
        toy.rank("q", ["a", "b"], **options)  # type: ignore[arg-type]
    assert isinstance(caught.value, RerankError)
    assert str(next(iter(options.values()))) in str(caught.value) or "NaN" in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 0},
        {"max_length": 4},
        {"threads": 0},
        {"threads": 1.5},
        {"threads": 10_000},
        {"truncation": "longest"},
        {"activation": "softmax"},
        {"long_documents": "min"},
        {"special_tokens_in_text": True},
        {"idle_threads": "wait"},
    ],
)
def test_constructor_options_out_of_range_are_errors(options: dict[str, object], toy_folder: Path) -> None:
    with pytest.raises((InputValueError, InputTypeError), match=next(iter(options))):
        TextCrossEncoder(toy_folder, **options)  # type: ignore[arg-type]


def test_unknown_options_are_refused(toy_folder: Path) -> None:
    with pytest.raises(TypeError, match="cuda"):
        TextCrossEncoder(toy_folder, cuda=True)  # type: ignore[call-arg]


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", ("CUDAExecutionProvider", {"device_id": 0}), "CPU"])
def test_a_provider_that_is_not_there_is_an_error(provider: object, toy_folder: Path) -> None:
    with pytest.raises(ProviderError, match="CPUExecutionProvider"):
        TextCrossEncoder(toy_folder, providers=[provider])  # type: ignore[list-item]


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_quietly_does_not_start_is_an_error(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    # It says that it has CUDA, and when the graph is opened it warns and takes the CPU: so does a missing driver show.
    available = [*onnxruntime.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    if "CUDAExecutionProvider" in available[:-1]:
        pytest.skip("this onnxruntime has CUDA")

    with pytest.raises(ProviderError, match=r"'CUDAExecutionProvider' didn't start \(active: CPUExecutionProvider\)"):
        TextCrossEncoder(toy_folder, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])


def test_a_lazy_load_touches_nothing_until_the_first_call(tmp_path: Path) -> None:
    encoder = TextCrossEncoder(tmp_path / "toy", lazy_load=True)
    make_toy(tmp_path / "toy")

    assert encoder.rerank("q", ["a"]) == [toy_score("q", "a")]


def test_a_race_of_threads_loads_once(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_rerank_integrations.core import engine

    opened: list[int] = []
    real = engine.InferenceSession

    def counted(*args: object, **kwargs: object) -> object:
        opened.append(1)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "InferenceSession", counted)
    encoder = TextCrossEncoder(toy_folder, lazy_load=True)
    gate = threading.Barrier(8)

    def score() -> list[float]:
        gate.wait()
        return encoder.rerank("q", ["a"])

    with ThreadPoolExecutor(8) as pool:
        results = [future.result() for future in [pool.submit(score) for _ in range(8)]]

    assert results == [[toy_score("q", "a")]] * 8
    assert len(opened) == 1


def test_eight_threads_give_what_one_gives(toy: TextCrossEncoder) -> None:
    calls = [
        (f"{'abcdefgh'[i % 8]} q", [f"{'klm'[j % 3]} " * (1 + (i + j) % 20) for j in range(10)]) for i in range(400)
    ]
    serial = [toy.rerank(*call) for call in calls]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda call: toy.rerank(*call), calls)) == serial


def test_it_pickles_as_its_arguments_and_copies_are_itself(toy_folder: Path) -> None:
    encoder = TextCrossEncoder(toy_folder, max_length=8, activation="sigmoid", lazy_load=True)
    encoder.load()
    data = pickle.dumps(encoder)

    again = pickle.loads(data)

    assert len(data) < 1000
    assert again.rerank("q", DOCUMENTS) == encoder.rerank("q", DOCUMENTS)
    assert again.max_length == 8
    assert again == encoder != TextCrossEncoder(toy_folder, max_length=9)
    assert repr(again) == repr(encoder) == f"TextCrossEncoder({str(toy_folder)!r}, max_length=8, activation='sigmoid')"
    assert copy.copy(encoder) is copy.deepcopy(encoder) is encoder


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_scores_like_its_parent(method: str, toy_folder: Path) -> None:
    encoder = TextCrossEncoder(toy_folder)
    expected = encoder.rerank("q", DOCUMENTS)

    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_rerank, [encoder] * 4) == [expected] * 4


def _rerank(encoder: TextCrossEncoder) -> list[float]:
    return encoder.rerank("q", DOCUMENTS)


FORK = """
import os, sys
from onnx_rerank_integrations import TextCrossEncoder
encoder = TextCrossEncoder(sys.argv[1])
expected = encoder.rerank("q", ["a b", "c"])
child = os.fork()
if child != 0:
    assert "TOKENIZERS_PARALLELISM" not in os.environ
if child == 0:
    ok = encoder.rerank("q", ["a b", "c"]) == expected
    del encoder
    sys.exit(0 if ok else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs os.fork")
def test_a_forked_child_uses_and_drops_the_encoder_and_ends(toy_folder: Path) -> None:
    # With CI set onnxruntime's telemetry is off anyway, and its hang at the end of a forked child can't show.
    environment = {
        k: v
        for k, v in __import__("os").environ.items()
        if k not in ("CI", "ORT_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM")
    }

    done = subprocess.run(
        [sys.executable, "-c", FORK, str(toy_folder)], env=environment, timeout=250, capture_output=True, text=True
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_licence_that_forbids_commercial_use_is_warned_of_once(
    toy_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "jinaai/jina-reranker-v2-base-multilingual"

    for _ in range(2):
        TextCrossEncoder(name, specific_model_path=toy_folder, model_file="model.onnx")
    TextCrossEncoder(toy_folder)

    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{name} has the licence cc-by-nc-4.0, which doesn't allow commercial use"
    ]


def test_nothing_is_printed(toy_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    TextCrossEncoder(toy_folder).rank("q", DOCUMENTS)

    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_when_asked_for(toy: TextCrossEncoder, capfd: pytest.CaptureFixture[str]) -> None:
    toy.rerank("q", ["a", "b", "a"], show_progress=True)

    assert "2/2" in capfd.readouterr().err


def test_default_threads_respect_the_affinity_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)

    assert available_cpus() == 1


VERSION_1 = {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "{}\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ({"/sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"/sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
        ({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"/sys/fs/cgroup/cpu.max": "1600000 100000\n"}, 8),
        ({path: text.format(300_000) for path, text in VERSION_1.items()}, 3),
        ({path: text.format(-1) for path, text in VERSION_1.items()}, 8),
        ({}, 8),
    ],
)
def test_default_threads_respect_the_containers_quota(
    cgroup: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_text

    def read_text(path: Path, *args: object, **options: object) -> str:
        if not str(path).startswith("/sys/fs/cgroup"):
            return real(path, *args, **options)  # type: ignore[arg-type]
        if str(path) not in cgroup:
            raise FileNotFoundError(str(path))
        return cgroup[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)

    assert available_cpus() == expected


def test_importing_the_core_imports_nothing_heavy() -> None:
    code = "import sys, onnx_rerank_integrations; print(*sorted(m.split('.')[0] for m in sys.modules))"
    modules = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )

    assert "onnx_rerank_integrations" in modules
    assert not modules & {
        "torch",
        "transformers",
        "langchain_core",
        "llama_index",
        "onnxruntime",
        "onnx",
        "huggingface_hub",
    }


def test_supported_models_are_dicts_a_fastembed_user_knows() -> None:
    models = {model["model"]: model for model in TextCrossEncoder.list_supported_models()}

    assert json.dumps(models["Xenova/ms-marco-MiniLM-L-6-v2"]["sources"]) == '{"hf": "Xenova/ms-marco-MiniLM-L-6-v2"}'
    for model in models.values():
        assert {"model", "sources", "model_file", "description", "license", "size_in_GB"} <= model.keys()


class Frame:
    """What a data frame looks like: it iterates its columns' names."""

    columns = ("id", "text")

    def keys(self) -> tuple[str, ...]:
        return self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


@pytest.mark.parametrize("documents", [{"doc-1": "a", "doc-2": "b"}, MappingProxyType({"doc-1": "a"}), Frame()])
def test_a_mapping_of_documents_is_refused_by_name(documents: Any, toy_folder: Path) -> None:
    encoder = TextCrossEncoder(toy_folder)
    for call in (encoder.rank, encoder.rerank):
        with pytest.raises(InputTypeError, match=r"whose keys would be ranked: give its texts: list\(documents.values"):
            call("q", documents)
    with pytest.raises(InputTypeError, match=r"pairs must not be .*list\(pairs.items\(\)\)"):
        encoder.rerank_pairs(documents)
    assert encoder.rerank("q", dict(documents).values() if isinstance(documents, Mapping) else ["a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"providers": "CPUExecutionProvider"}, "providers must be a list of names"),
        ({"providers": {"CPUExecutionProvider": {}}}, "providers must be a list of names"),
        ({"providers": [3]}, "a provider must be a name"),
        ({"label": True}, "label must be"),
        ({"label": 1.0}, "label must be"),
        ({"instruction": ["x"]}, "instruction must be a str"),
        ({"prompt": 3}, "prompt must be a str"),
        ({"warn_truncated": "no"}, "warn_truncated must be True or False"),
    ],
)
def test_an_option_of_another_type_is_refused_by_name(options: dict[str, Any], message: str, toy_folder: Path) -> None:
    with pytest.raises(InputTypeError, match=message):
        TextCrossEncoder(toy_folder, **options)


def test_a_cascade_of_one_text_is_refused() -> None:
    with pytest.raises(InputTypeError, match="models must be a list"):
        TextCrossEncoder.cascade("lexical", keep=[1])
    with pytest.raises(InputTypeError, match="keep must be a list"):
        TextCrossEncoder.cascade(["lexical"], keep=5)  # type: ignore[arg-type]


def test_documents_that_are_cut_are_told_once_with_how_many_and_what_to_do(
    toy_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = TextCrossEncoder(toy_folder, max_length=8)
    documents = ["a", "b " * 20, "c " * 30]

    for _ in range(2):
        encoder.rerank("q", documents)

    [told] = caplog.messages
    assert "2 of 3 documents" in told
    assert "max_length of 8 tokens" in told
    assert 'long_documents="max"' in told
    for quiet in ({"warn_truncated": False}, {"long_documents": "max"}, {"long_documents": "first"}):
        TextCrossEncoder(toy_folder, max_length=8, **quiet).rerank("q", documents)
    assert len(caplog.messages) == 1


def test_documents_that_are_cut_are_counted_where_somebody_asks(toy_folder: Path) -> None:
    encoder = TextCrossEncoder(toy_folder, max_length=8, warn_truncated=False)
    with counted_truncations() as outer:
        encoder.rerank("q", ["b " * 20, "c"])
        with counted_truncations() as inner:
            encoder.rerank("q", ["b " * 20, "c " * 20, "d"])

    assert (outer.truncated, inner.truncated) == (1, 2)

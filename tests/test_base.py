"""What every encoder offers over its logits, on one whose logits a reader sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from onnx_rerank_integrations.core.base import TextCrossEncoderBase, counted_truncations, truncations
from onnx_rerank_integrations.core.errors import (
    InputTypeError,
    InputValueError,
    ScoreError,
    UnsupportedModelError,
)
from onnx_rerank_integrations.core.scoring import Floats
from onnx_rerank_integrations.core.types import Pair


class Lengths(TextCrossEncoderBase):
    """A document's logit is its length, less its query's."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def logits(self, pairs: Sequence[Pair], **how: Any) -> Floats:
        self.asked.append(how)
        return np.array([float(len(document) - len(query)) for query, document in pairs])


class Configured(Lengths):
    """As a model with a config has it."""

    activation = "sigmoid"
    longest_ranking = 2

    @property
    def config(self) -> dict[str, object]:
        return {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@pytest.mark.parametrize("documents", [["aa", "", "aaaa"], ("aa", "", "aaaa"), iter(["aa", "", "aaaa"])])
def test_scores_are_floats_in_input_order(documents: Any) -> None:
    scores = Lengths().rerank("q", documents)

    assert scores == [1.0, -1.0, 3.0]
    assert all(type(score) is float for score in scores)


def test_pairs_have_their_own_queries() -> None:
    assert Lengths().rerank_pairs([("q", "aa"), ("qqq", "a"), ["", ""]]) == [1.0, -2.0, 0.0]  # type: ignore[list-item]
    assert Configured().rerank_pairs([("q", "aa")]) == [pytest.approx(sigmoid(1.0))]
    assert Lengths().rerank_pairs([]) == []


def test_a_ranking_holds_place_score_and_text_best_first() -> None:
    ranked = Lengths().rank("q", ["aa", "", "aaaa", "bb"])

    assert [(one.index, one.score, one.text) for one in ranked] == [
        (2, 3.0, "aaaa"),
        (0, 1.0, "aa"),
        (3, 1.0, "bb"),
        (1, -1.0, ""),
    ]
    assert all(type(one.score) is float for one in ranked)
    assert [one.index for one in Lengths().rank("q", ["aa", "", "aaaa"], top_n=1)] == [2]
    assert [one.index for one in Lengths().rank("q", ["aa", "", "aaaa"], top_n=np.int64(2))] == [2, 0]  # type: ignore[arg-type]
    assert [one.index for one in Lengths().rank("q", ["aa", "", "aaaa"], score_threshold=1.0)] == [2, 0]
    assert Lengths().rank("q", []) == []


def test_the_longest_ranking_bounds_whatever_is_asked_for() -> None:
    documents = ["aa", "", "aaaa"]

    assert [one.index for one in Configured().rank("q", documents)] == [2, 0]
    assert [one.index for one in Configured().rank("q", documents, top_n=5)] == [2, 0]
    assert [one.index for one in Configured().rank("q", documents, top_n=1)] == [2]


def test_the_scale_is_the_calls_else_the_encoders_else_the_configs() -> None:
    assert Configured().rerank("q", ["aa"]) == [pytest.approx(sigmoid(1.0))]
    assert Configured().rerank("q", ["aa"], activation="identity") == [1.0]
    assert Configured().rerank("q", ["aa"], activation="model") == [1.0]
    assert Lengths().rerank("q", ["aa"], activation="model") == [pytest.approx(sigmoid(1.0))]
    assert Lengths().rank("q", ["aa"], activation="sigmoid")[0].score == pytest.approx(sigmoid(1.0))
    assert Configured().rank("q", ["aa"], score_threshold=0.9) == []
    assert Configured().rerank("q", []) == []


def test_how_to_compute_goes_to_the_logits() -> None:
    encoder = Lengths()
    encoder.rerank("q", ["a"], batch_size=3, parallel=2, show_progress=True, timeout=60)
    encoder.rank("q", ["a"])
    encoder.rerank_pairs([("q", "a")])

    usual = {"batch_size": None, "parallel": None, "show_progress": False}
    assert encoder.asked == [{"batch_size": 3, "parallel": 2, "show_progress": True}, usual, usual]


def test_nothing_is_computed_for_no_documents_and_for_options_that_cannot_be_meant() -> None:
    encoder = Lengths()
    assert encoder.rerank("q", []) == []

    refused: list[tuple[type[Exception], dict[str, Any]]] = [
        (InputValueError, {"batch_size": 0}),
        (InputValueError, {"parallel": -1}),
        (InputValueError, {"timeout": 0}),
        (InputTypeError, {"timeout": "1"}),
    ]
    for error, options in refused:
        for documents in ([], ["a"]):
            with pytest.raises(error):
                encoder.rerank("q", documents, **options)
            with pytest.raises(error):
                encoder.rank("q", documents, **options)
            with pytest.raises(error):
                encoder.rerank_pairs([("q", one) for one in documents], **options)
    for error, options in [
        (InputValueError, {"top_n": 0}),
        (InputValueError, {"top_n": -1}),
        (InputTypeError, {"top_n": True}),
        (InputValueError, {"score_threshold": math.nan}),
        (InputTypeError, {"score_threshold": "1"}),
    ]:
        with pytest.raises(error):
            encoder.rank("q", ["a"], **options)
    for documents in ([], ["a"]):
        with pytest.raises(InputValueError, match="activation='softmax' is not one of 'identity', 'sigmoid', 'model'"):
            Lengths().rerank("q", documents, activation="softmax")  # type: ignore[arg-type]
    assert encoder.asked == []


@pytest.mark.parametrize("wrong", [["a", None], [None], [b"a", "a"], "a text", {"a": "b"}, None])
def test_what_are_no_texts_is_refused(wrong: Any) -> None:
    with pytest.raises(InputTypeError):
        Lengths().rerank("q", wrong)
    with pytest.raises(InputTypeError):
        Lengths().rerank(None, ["a"])  # type: ignore[arg-type]


def test_characters_count_not_what_a_subclass_says() -> None:
    class Long(str):
        def __len__(self) -> int:
            return 1000

    assert Lengths().rerank(Long("q"), [Long("aa"), "a"]) == [1.0, 0.0]
    assert [type(one.text) for one in Lengths().rank("q", [Long("aa")])] == [str]


class Broken(Lengths):
    """Gives what it was made with."""

    def __init__(self, *found: float) -> None:
        self.found = found

    def logits(self, pairs: Sequence[Pair], **how: Any) -> Floats:
        return np.array(self.found)


def test_logits_that_are_no_answer_are_an_error() -> None:
    with pytest.raises(ScoreError, match="Broken gave 1 scores for 2 documents"):
        Broken(1.0).rerank("q", ["a", "b"])
    with pytest.raises(ScoreError, match="Broken gave 3 scores for 2 documents"):
        Broken(1.0, 2.0, 3.0).rerank_pairs([("q", "a"), ("q", "b")])
    with pytest.raises(ScoreError, match="index 1"):
        Broken(1.0, math.nan).rank("q", ["a", "b"])


def test_an_encoder_of_one_method_says_what_it_lacks() -> None:
    with pytest.raises(UnsupportedModelError, match=r"Lengths doesn't count tokens; a token_count\(\)"):
        Lengths().token_count([("q", "a")])
    with pytest.raises(UnsupportedModelError, match=r"Lengths doesn't tell what it cuts; a truncated\(\)"):
        Lengths().truncated([("q", "a")])
    assert Lengths().config == {}
    assert Lengths().activation == "identity"


def test_cuts_are_counted_within_their_block_alone() -> None:
    assert truncations.get() is None
    with counted_truncations() as outer:
        assert outer.truncated == 0
        with counted_truncations() as inner:
            assert truncations.get() is inner
        assert truncations.get() is outer
    assert truncations.get() is None

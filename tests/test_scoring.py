"""Logits become scores and an order by arithmetic that a reader can check."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_rerank_integrations.core.errors import InputValueError, ScoreError, UnsupportedModelError
from onnx_rerank_integrations.core.scoring import (
    activation_function,
    aggregate_windows,
    best_first,
    check_finite,
    relevance_logits,
    relevant_label,
    sigmoid,
)

NLI = {"id2label": {"0": "contradiction", "1": "entailment", "2": "neutral"}}


def test_one_label_is_a_logit_already() -> None:
    assert relevance_logits(np.array([[1.5], [-2.0]], dtype=np.float32), 0).tolist() == [1.5, -2.0]


def test_two_labels_give_their_difference_so_that_the_sigmoid_is_the_softmax() -> None:
    logits = np.array([[0.3, 1.2], [2.0, -1.0]])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    assert np.allclose(relevance_logits(logits, 1), [0.9, -3.0])
    assert np.allclose(sigmoid(relevance_logits(logits, 1)), softmax[:, 1])


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=6), st.integers(0, 2))
def test_more_labels_give_log_odds_so_that_the_sigmoid_is_the_softmax(row: list[float], label: int) -> None:
    logits = np.array([row])
    softmax = np.exp(logits - max(row)) / np.exp(logits - max(row)).sum()

    assert np.allclose(sigmoid(relevance_logits(logits, label)), softmax[:, label])


@pytest.mark.parametrize(
    ("id2label", "expected"),
    [
        ({}, 1),
        ({"0": "LABEL_0", "1": "LABEL_1"}, 1),
        ({"0": "not_relevant", "1": "relevant"}, 1),
        ({"0": "relevant", "1": "not_relevant"}, 0),
        ({"0": "entailment", "1": "not_entailment"}, 0),
        ({"0": "yes", "1": "no"}, 0),
        ({"0": "0", "1": "1"}, 1),
    ],
)
def test_the_config_says_which_of_two_labels_is_relevant(id2label: dict[str, str], expected: int) -> None:
    assert relevant_label(2, None, {"id2label": id2label}) == expected


def test_three_labels_want_a_choice_and_the_error_lists_them() -> None:
    with pytest.raises(UnsupportedModelError, match="0: contradiction, 1: entailment, 2: neutral"):
        relevant_label(3, None, NLI)
    with pytest.raises(InputValueError, match="label='other' is no label"):
        relevant_label(3, "other", NLI)
    with pytest.raises(InputValueError, match="label=3 is no label"):
        relevant_label(3, 3, NLI)
    assert relevant_label(3, "Entailment", NLI) == 1


def test_sigmoid_neither_overflows_nor_underflows_to_nan() -> None:
    with np.errstate(all="raise", under="ignore"):
        values = sigmoid(np.array([-1e4, -800.0, 0.0, 800.0, 1e4]))

    assert values.tolist() == [0.0, pytest.approx(math.exp(-800)), 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_labels": 1}, 0.5),
        ({"id2label": {"0": "LABEL_0"}}, 0.5),
        ({"id2label": {"0": "a", "1": "b"}}, 0.0),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, 0.0),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, 0.5),
    ],
)
def test_activation_model_follows_the_config_as_sentence_transformers_does(
    config: dict[str, object], expected: float
) -> None:
    assert activation_function("model", config)(np.zeros(1)).tolist() == [expected]


def test_an_activation_we_lack_is_named() -> None:
    with pytest.raises(UnsupportedModelError, match="Tanh"):
        activation_function("model", {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}})


def test_order_is_decided_on_logits_so_saturated_scores_do_not_tie() -> None:
    logits = np.array([40.0, 60.0, 50.0, 60.0])
    scores = sigmoid(logits)

    assert scores.tolist() == [1.0] * 4
    assert best_first(logits, scores, top_n=None, score_threshold=None) == [1, 3, 2, 0]


def test_the_threshold_keeps_equal_scores_and_comes_before_top_n() -> None:
    logits, scores = np.array([3.0, 2.0, 1.0]), np.array([0.4, 0.5, 0.6])  # as no activation orders them
    assert best_first(logits, scores, top_n=1, score_threshold=0.5) == [1]

    logits = np.array([0.1, 0.9, 0.5, 0.7])

    assert best_first(logits, logits, top_n=2, score_threshold=0.5) == [1, 3]
    assert best_first(logits, logits, top_n=None, score_threshold=0.5) == [1, 3, 2]
    assert best_first(logits, logits, top_n=5, score_threshold=2.0) == []


def test_a_score_that_is_no_number_names_the_document() -> None:
    with pytest.raises(ScoreError, match=r"2 of 4 documents: index 1, 3"):
        check_finite(np.array([0.0, np.nan, 1.0, np.inf]))


def test_windows_are_joined_by_maximum_or_mean() -> None:
    logits, owners = np.array([1.0, 3.0, 2.0, -1.0]), np.array([0, 0, 1, 0])

    assert aggregate_windows(logits, owners, 2, "max").tolist() == [3.0, 2.0]
    assert aggregate_windows(logits, owners, 2, "mean").tolist() == [1.0, 2.0]
    for how in ("max", "mean"):
        joined = aggregate_windows(np.array([np.nan, 1.0, 2.0]), np.array([0, 0, 1]), 2, how)
        assert np.array_equal(joined, [np.nan, 2.0], equal_nan=True)

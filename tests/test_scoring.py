"""Logits become scores and an order by arithmetic that a reader can check."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError, ScoreError, UnsupportedModelError
from onnx_rerank_integrations.core.scoring import (
    activation_function,
    aggregate_windows,
    best_first,
    check_finite,
    is_vector_name,
    label_count,
    label_names,
    logits_of,
    next_word_logits,
    relevance_logits,
    relevance_of_probabilities,
    relevant_label,
    sigmoid,
    units_of,
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
        ({"0": "other", "1": "yes"}, 1),
        ({"0": "yes", "1": "other"}, 0),
        ({"0": "other", "1": "spam"}, 0),
        ({"0": "spam", "1": "other"}, 1),
    ],
)
def test_the_config_says_which_of_two_labels_is_relevant(id2label: dict[str, str], expected: int) -> None:
    assert relevant_label(2, None, {"id2label": id2label}) == expected


@pytest.mark.parametrize("names", [("yes", "true"), ("no", "bad"), ("cats", "dogs")])
def test_two_labels_that_tell_nothing_want_a_choice(names: tuple[str, str]) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        relevant_label(2, None, {"id2label": dict(enumerate(names))})

    assert str(caught.value) == (
        f"The model gives 2 scores for a pair (0: {names[0]}, 1: {names[1]}) and nothing says which is 'relevance'.\n"
        f"Say which one to rank by: label='{names[1]}' or label=1"
    )


def test_a_choice_of_a_label_is_a_name_or_a_place() -> None:
    assert [relevant_label(3, place, NLI) for place in (0, 1, 2)] == [0, 1, 2]
    assert [relevant_label(3, name, NLI) for name in ("contradiction", "NEUTRAL")] == [0, 2]
    assert relevant_label(1, None, {}) == 0
    assert relevant_label(2, 0, {"id2label": {"0": "yes", "1": "no"}}) == 0
    assert relevant_label(3, "label_2", {}) == 2
    for place in (-1, 3):
        with pytest.raises(InputValueError, match=f"label={place} is no label"):
            relevant_label(3, place, NLI)
    for odd in (True, 1.0):
        with pytest.raises(InputTypeError, match="name or place"):
            relevant_label(3, odd, NLI)  # type: ignore[arg-type]


def test_labels_are_read_from_an_object_a_list_or_the_other_way_round() -> None:
    expected = ["no", "yes"]
    assert label_names(2, {"id2label": {"0": "no", "1": "yes"}}) == expected
    assert label_names(2, {"id2label": ["no", "yes"]}) == expected
    assert label_names(2, {"label2id": {"no": 0, "yes": 1}}) == expected
    assert label_names(2, {"id2label": {"1": "yes"}}) == ["LABEL_0", "yes"]
    assert label_names(2, {"id2label": "odd", "label2id": 3}) == ["LABEL_0", "LABEL_1"]


def test_a_config_says_how_many_labels_there_are() -> None:
    assert label_count({"num_labels": 3, "id2label": {"0": "a"}}) == 3
    assert label_count({"num_labels": True, "id2label": {"0": "a", "1": "b"}}) == 2
    assert label_count({"num_labels": "3"}) == 1
    assert label_count({}) == 1


@pytest.mark.parametrize(
    ("operator", "trials", "units"),
    [
        ("Sigmoid", [[0.0], [1.0]], "sigmoid"),
        ("Sigmoid", [[0.2, 0.9]], "sigmoid"),
        ("Softmax", [[1.0], [1.0]], "sigmoid"),  # of one column: no softmax that anybody trained
        ("Softmax", [[0.25, 0.75], [0.0, 1.0]], "softmax"),
        ("Gemm", [[0.25, 0.75], [0.0, 1.0]], "softmax"),
        ("Gemm", [[0.25, 0.7505]], "softmax"),  # rounded in 16 bits
        ("Gemm", [[0.25, 0.76]], "logits"),
        ("Gemm", [[0.25, 0.75], [0.3, 0.3]], "logits"),
        ("Gemm", [[0.5], [0.9]], "logits"),
        ("Gemm", [[1.0]], "logits"),
        ("Sigmoid", [[0.5], [1.1]], "logits"),
        ("Sigmoid", [[-0.1], [0.5]], "logits"),
    ],
)
def test_what_a_heads_columns_are_shows_in_its_operator_and_some_values(
    operator: str, trials: list[list[float]], units: str
) -> None:
    assert units_of(operator, np.array(trials)) == units


def test_probabilities_become_the_logits_that_they_are_of() -> None:
    logits = np.array([[-3.0, 0.0, 3.0]])
    softmax = np.exp(logits) / np.exp(logits).sum()

    assert np.allclose(logits_of(sigmoid(logits), "sigmoid"), logits)
    assert np.allclose(logits_of(softmax, "softmax"), np.log(softmax))
    assert np.allclose(relevance_of_probabilities(sigmoid(logits), units="sigmoid", label=2), [3.0])
    assert np.allclose(relevance_of_probabilities(softmax, units="softmax", label=2), relevance_logits(logits, 2))


def test_probabilities_that_were_rounded_to_0_and_1_have_finite_logits() -> None:
    values = np.array([[0.0, 1.0]], dtype=np.float32)
    tiny, half_a_step = 2.0**-126, 2.0**-25

    assert np.allclose(logits_of(values, "sigmoid"), [[math.log(tiny), -math.log(half_a_step)]])
    assert np.allclose(logits_of(values, "softmax"), [[math.log(tiny), 0.0]])


def test_the_next_word_is_read_at_the_end_of_the_prompt() -> None:
    logits = np.array([[[9.0, 9.0, 9.0], [9.0, 9.0, 9.0], [1.0, 2.5, 7.0]]], dtype=np.float32)

    assert next_word_logits(logits, 1, 0).tolist() == [1.5]
    assert next_word_logits(logits, 2, None).tolist() == [7.0]


def test_three_labels_want_a_choice_and_the_error_lists_them() -> None:
    with pytest.raises(UnsupportedModelError, match="0: contradiction, 1: entailment, 2: neutral") as caught:
        relevant_label(3, None, NLI)
    assert str(caught.value).endswith("label='neutral' or label=2")
    with pytest.raises(InputValueError, match="label='other' is no label"):
        relevant_label(3, "other", NLI)
    with pytest.raises(InputValueError, match="label=3 is no label"):
        relevant_label(3, 3, NLI)
    assert relevant_label(3, "Entailment", NLI) == 1


def test_names_of_another_number_of_labels_are_refused_with_a_choice_that_the_model_has() -> None:
    with pytest.raises(UnsupportedModelError, match=r"gives 3 scores .* names for 2: no, yes\.\n.*label=2$"):
        relevant_label(3, None, {"id2label": {"0": "no", "1": "yes"}})


def test_an_outputs_name_tells_a_vector_from_a_score() -> None:
    assert [is_vector_name(name) for name in ("sentence_embedding", "Pooler_output", "last_hidden_state")] == [True] * 3
    assert [is_vector_name(name) for name in ("logits", "score")] == [False] * 2


def test_sigmoid_neither_overflows_nor_underflows_to_nan() -> None:
    with np.errstate(all="raise", under="ignore"):
        values = sigmoid(np.array([-1e4, -800.0, 0.0, 800.0, 1e4]))

    assert values.tolist() == [0.0, pytest.approx(math.exp(-800)), 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_labels": 1}, 0.5),
        ({}, 0.5),
        ({"num_labels": 1, "sentence_transformers": {"activation_fn": "identity"}}, 0.0),
        ({"num_labels": 2, "sentence_transformers": {"activation_fn": "Sigmoid"}}, 0.5),
        ({"num_labels": 1, "sentence_transformers": "odd"}, 0.5),
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
    with pytest.raises(ScoreError, match=r"gave inf .* for 2 of 4 documents: index 1, 3"):
        check_finite(np.array([0.0, np.inf, 1.0, np.nan]))
    with pytest.raises(ScoreError, match=r"gave nan .* for 5 of 5 documents: index 0, 1, 2, 3, 4\. "):
        check_finite(np.full(5, np.nan))
    with pytest.raises(ScoreError, match=r"6 of 6 documents: index 0, 1, 2, 3, 4, \.\.\.\. "):
        check_finite(np.full(6, np.nan))
    check_finite(np.zeros(3))


def test_windows_are_joined_by_maximum_or_mean() -> None:
    logits, owners = np.array([1.0, 3.0, 2.0, -1.0]), np.array([0, 0, 1, 0])

    assert aggregate_windows(logits, owners, 2, "max").tolist() == [3.0, 2.0]
    assert aggregate_windows(logits, owners, 2, "mean").tolist() == [1.0, 2.0]
    for how in ("max", "mean"):
        joined = aggregate_windows(np.array([np.nan, 1.0, 2.0]), np.array([0, 0, 1]), 2, how)
        assert np.array_equal(joined, [np.nan, 2.0], equal_nan=True)

"""Batches hold pairs of similar length and stay within their budget."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_rerank_integrations.core.batching import (
    CHUNK_PAIRS,
    FEW_TOKENS,
    Way,
    chunks,
    deduplicate,
    plan,
    shortest_mate,
    way,
)

lengths = st.lists(st.integers(1, 600), max_size=200)


@given(lengths=lengths, budget=st.integers(1, 4096), batch_size=st.none() | st.integers(1, 32))
def test_each_pair_is_in_one_batch_within_budget_and_size(
    lengths: list[int], budget: int, batch_size: int | None
) -> None:
    batches = [batch.tolist() for batch in plan(lengths, budget, batch_size)]

    assert sorted(functools.reduce(operator.iadd, batches, [])) == list(range(len(lengths)))
    for batch in batches:
        padded = max(lengths[place] for place in batch) * len(batch)
        assert len(batch) == 1 or padded <= budget
        assert batch_size is None or len(batch) <= batch_size


def test_sorted_batches_hold_hardly_any_padding() -> None:
    lengths = np.random.default_rng(0).integers(80, 280, 200).tolist()
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in plan(lengths, 512))
    in_order = sum(max(lengths[i : i + 64]) * len(lengths[i : i + 64]) for i in range(0, 200, 64))

    assert padded / sum(lengths) < 1.03
    assert in_order / sum(lengths) > 1.4


def test_a_short_pair_does_not_ride_along_in_a_long_batch() -> None:
    assert [batch.tolist() for batch in plan([100, 95, 50, 48, 3], 1000)] == [[0, 1], [2, 3], [4]]


def test_equal_lengths_keep_their_order() -> None:
    assert [batch.tolist() for batch in plan([5, 5, 5, 5], 10)] == [[0, 1], [2, 3]]


def test_windows_read_no_further_than_they_give() -> None:
    endless = iter(range(10**9))

    assert next(chunks(endless, 3)) == [0, 1, 2]
    assert next(endless) == 3


def test_deduplicate_keeps_first_appearances() -> None:
    firsts, inverse = deduplicate(["b", "a", "b", "c", "a"])

    assert firsts.tolist() == [0, 1, 3]
    assert inverse.tolist() == [0, 1, 0, 2, 1]


def test_a_batch_holds_as_many_as_its_budget_and_no_more() -> None:
    def sizes(lengths: list[int], budget: int, batch_size: int | None = None) -> list[int]:
        return [len(batch) for batch in plan(lengths, budget, batch_size)]

    assert sizes([10] * 6, 30) == [3, 3]
    assert sizes([10] * 6, 29) == [2, 2, 2]
    assert sizes([10] * 6, 9) == [1] * 6
    assert sizes([10] * 6, 1000, 4) == [4, 2]
    assert sizes([10] * 6, 20, 4) == [2, 2, 2]
    assert sizes([0, 0, 0], 2) == [2, 1]
    assert sizes([], 10) == []


def test_a_row_is_padded_by_a_tenth_or_by_eight_tokens() -> None:
    assert shortest_mate(50) == 42
    assert shortest_mate(200) == 180
    assert [batch.tolist() for batch in plan([50, 42, 41], 1000)] == [[0, 1], [2]]
    assert [batch.tolist() for batch in plan([200, 180, 179], 1000)] == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("encodings", "tokens", "lanes", "expected"),
    [
        (8, 800, 2, Way(2, False, 100)),  # the lanes' budget is smaller than a lane's share
        (8, 160, 2, Way(2, False, 80)),  # each lane its share
        (8, 161, 2, Way(2, False, 81)),
        (1, 800, 2, Way(1, True, 1000)),  # fewer than half of the lanes: all threads share each batch
        (2, 800, 4, Way(1, True, 1000)),
        (3, 150, 4, Way(4, False, 50)),  # of no more lanes than there are encodings
        (8, 800, 1, Way(1, True, 1000)),
        (8, 64, 2, Way(1, False, 100)),  # few tokens: one thread
        (8, 65, 2, Way(2, False, 33)),
        (2, 64, 4, Way(1, False, 100)),
    ],
)
def test_calls_run_side_by_side_where_there_is_enough(encodings: int, tokens: int, lanes: int, expected: Way) -> None:
    assert (
        way(encodings, tokens, lanes=lanes, token_budget=lambda all_threads: 1000 if all_threads else 100) == expected
    )


def test_what_few_tokens_are_may_be_said() -> None:
    assert way(8, 64, lanes=2, token_budget=lambda all_threads: 100, few_tokens=0).lanes == 2
    assert FEW_TOKENS == 64


def test_chunks_hold_all_items_in_order() -> None:
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert [len(chunk) for chunk in chunks(range(CHUNK_PAIRS + 1))] == [1024, 1]
    assert list(chunks([])) == []

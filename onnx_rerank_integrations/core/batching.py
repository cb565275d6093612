"""Which pairs share a batch, of similar length and under a budget of padded tokens, and which batches run at once.

Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")

CHUNK_PAIRS = 1024
"""Pairs that are tokenized and sorted together. More saves little padding; the tokens of all would take memory."""

LARGEST_PADDING, SMALLEST_PADDING = 0.1, 8
"""A row may be padded by this share of its batch's length, or by this many tokens: beyond that, the padding costs more
than running another batch does."""


FEW_TOKENS = 64
"""For a call of no more it wouldn't be worth it to open the model for all threads, a second time."""


@dataclass(frozen=True, slots=True)
class Way:
    """How one call's batches are run.

    Attributes:
        lanes: Batches at once.
        all_threads: Whether all threads compute each of them, not one.
        token_budget: Padded tokens of a batch.
    """

    lanes: int
    all_threads: bool
    token_budget: int


def way(
    encodings: int, tokens: int, *, lanes: int, token_budget: Callable[[bool], int], few_tokens: int = FEW_TOKENS
) -> Way:
    """How so many encodings, of so many tokens together, are best run.

    Batches run side by side where there are enough, each on one thread, so that none waits for another at the end of
    each operator: with two threads 1.0 to 1.4 times as fast as all threads on one batch after the other
    (benchmarks/README.md). Where encodings are fewer than half of the lanes, all threads share each batch.

    Args:
        encodings: How many.
        tokens: Of all of them.
        lanes: Batches that may run at once.
        token_budget: Padded tokens that suit a batch, by whether all threads compute it.
        few_tokens: A call of no more runs on one thread.
    """
    few = tokens <= few_tokens
    if few or lanes >= 2 * encodings:
        lanes = 1
    all_threads = lanes == 1 and not few
    budget = token_budget(all_threads)
    share = -(-tokens // min(lanes, encodings))
    return Way(lanes, all_threads, min(budget, share) if lanes > 1 else budget)


def plan(lengths: Sequence[int], token_budget: int, batch_size: int | None = None) -> Iterator[NDArray[np.intp]]:
    """Cuts N encodings into batches of nearly equal length, the longest first.

    Args:
        lengths: (N,) tokens of each.
        token_budget: Most tokens of a batch, padding included. A single longer encoding is a batch of its own.
        batch_size: Most encodings of a batch; None for as many as the budget holds.

    Yields:
        (B,) indices into `lengths`; each index is in exactly one batch.
    """
    tokens = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-tokens, kind="stable")
    ordered = tokens[order]
    start = 0
    while start < len(order):
        longest = max(int(ordered[start]), 1)
        size = max(token_budget // longest, 1)
        if batch_size is not None:
            size = min(size, batch_size)
        similar = int(np.searchsorted(-ordered[start : start + size], -shortest_mate(longest), side="right"))
        yield order[start : start + similar]
        start += similar


def shortest_mate(longest: int) -> float:
    """The tokens that an encoding must have to share the batch of one with `longest`."""
    return longest - max(longest * LARGEST_PADDING, SMALLEST_PADDING)


def chunks(items: Iterable[Item], size: int = CHUNK_PAIRS) -> Iterator[list[Item]]:
    """Consecutive lists of at most `size` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def deduplicate(items: Iterable[Hashable]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each of M distinct items first stands, (M,), and for each of N items its place among the distinct, (N,)."""
    first: dict[Hashable, int] = {}
    stands = [first.setdefault(item, index) for index, item in enumerate(items)]
    firsts = np.fromiter(first.values(), dtype=np.intp, count=len(first))
    return firsts, np.searchsorted(firsts, stands)

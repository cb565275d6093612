"""Is a difference between two rankers more than chance? Paired by query, seeded, pure numpy.

The p-value is that of a two-sided randomization test (Fisher's; for retrieval: Smucker, Allan and Carterette, CIKM
2007, doi:10.1145/1321440.1321528): if both rankers were alike, each query's difference could as well have had the
other sign. The interval is a percentile bootstrap over queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLES = 10_000
CONFIDENCE = 0.95
_NUMBERS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Difference:
    """Of two rankers, over the same queries.

    Attributes:
        mean: The mean of the queries' differences.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p_value: How often chance alone gives a mean at least as far from 0; at least 1 / (SAMPLES + 1).
    """

    mean: float
    low: float
    high: float
    p_value: float


def paired_difference(differences: Sequence[float], seed: int = 0) -> Difference:
    """Tests the mean of paired differences against 0.

    Args:
        differences: (Q,) one per query, Q at least 1.
        seed: Of the random signs and resamples.
    """
    values = np.asarray(differences, dtype=np.float64)
    generator = np.random.default_rng(seed)
    mean = float(values.mean())
    as_far = sum(int((np.abs(means) >= abs(mean) - 1e-12).sum()) for means in _sign_flipped_means(values, generator))
    resampled = np.concatenate(list(_resampled_means(values, generator)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Difference(mean, float(low), float(high), (1 + as_far) / (SAMPLES + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm, 1979): each may be read as if it were the only one."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return [float(value) for value in adjusted]


def _sign_flipped_means(values: NDArray[np.float64], generator: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    for samples in _chunks(len(values)):
        signs = generator.integers(0, 2, size=(samples, len(values)), dtype=np.int8) * 2 - 1
        yield signs @ values / len(values)


def _resampled_means(values: NDArray[np.float64], generator: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    for samples in _chunks(len(values)):
        yield values[generator.integers(0, len(values), size=(samples, len(values)))].mean(axis=1)


def _chunks(queries: int) -> Iterator[int]:
    """Sizes of chunks of samples that fit into memory."""
    size = max(1, _NUMBERS_AT_ONCE // queries)
    for start in range(0, SAMPLES, size):
        yield min(size, SAMPLES - start)

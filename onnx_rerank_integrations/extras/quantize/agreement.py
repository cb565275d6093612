"""How well two models' scores of the same documents agree. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.errors import InputValueError

LOWEST_CORRELATION = 0.95
"""Mean Spearman correlation within a query below which a quantized model is refused.

Measured on a MiniLM-L6 cross-encoder trained for the purpose, 25 BM25 candidates for each of 12 queries of the Medline
collection and 20 for each of 15 of Cranfield: int8 graphs between 0.96 and 0.99 ranked as well as fp32 (nDCG@10 within
0.02, up as often as down); those at 0.77 and 0.83, whose activations were cut off too early, lost 0.05 on Medline.
"""

LARGEST_NDCG_LOSS = 0.02
"""Mean nDCG@10 that may be lost where relevances are known. A larger loss counts only if it is also more than two
standard errors: a dozen queries move by 0.02 by chance."""

CUTOFF = 10

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Scores of a changed model beside the original's.

    Attributes:
        pairs: Scores compared.
        queries: Queries with two documents or more.
        spread: Standard deviation of the original's scores, to read the errors by.
        mean_error: Mean absolute difference of the scores.
        largest_error: The largest.
        spearman: Rank correlation of the documents of a query, -1..1, mean over the queries; NaN without any.
        kendall: Share of a query's document pairs in the same order minus those in the other (tau-b), mean.
        ndcg_before: nDCG@10 of the original, mean over the queries with a relevant document; None without relevances.
        ndcg_after: Of the changed model.
        ndcg_loss_error: Standard error of the mean loss.
    """

    pairs: int
    queries: int
    spread: float
    mean_error: float
    largest_error: float
    spearman: float
    kendall: float
    ndcg_before: float | None = None
    ndcg_after: float | None = None
    ndcg_loss_error: float | None = None

    def objections(self, *, lowest_correlation: float = LOWEST_CORRELATION) -> list[str]:
        """What speaks against using the changed model, a sentence each; empty where nothing does."""
        found = []
        if not self.spearman >= lowest_correlation:
            found.append(f"the rank correlation within a query is {self.spearman:.3f}, below {lowest_correlation}")
        if self.ndcg_before is not None and self.ndcg_after is not None:
            loss = self.ndcg_before - self.ndcg_after
            if loss > max(LARGEST_NDCG_LOSS, 2 * (self.ndcg_loss_error or 0)):
                found.append(f"nDCG@10 falls from {self.ndcg_before:.3f} to {self.ndcg_after:.3f}")
        return found


def compare(
    original: Sequence[float],
    changed: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    relevances: Sequence[float | None] | None = None,
) -> Agreement:
    """Compares two models' scores of the same N pairs.

    Args:
        original: (N,) scores, such as logits.
        changed: (N,) scores of the other model.
        groups: (N,) which query each pair belongs to, in any order; None for one query.
        relevances: (N,) how relevant each document is, 0 for not at all; None where that isn't known.

    Raises:
        InputValueError: Nothing to compare, or lengths that differ.
    """
    before, after = np.asarray(original, np.float64), np.asarray(changed, np.float64)
    labels = list(groups) if groups is not None else [None] * len(before)
    grades = list(relevances) if relevances is not None else [None] * len(before)
    if not len(before) or not len(before) == len(after) == len(labels) == len(grades):
        raise InputValueError(
            "compare needs as many scores of both models, groups and relevances, and at least one: got "
            f"{len(before)}, {len(after)}, {len(labels)}, {len(grades)}"
        )
    members: dict[Hashable, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    queries = [np.asarray(found) for found in members.values() if len(found) > 1]
    error = np.abs(before - after)
    judged = [(query, np.asarray([grades[i] or 0 for i in query], np.float64)) for query in queries]
    losses = np.asarray(
        [(ndcg(before[query], grade), ndcg(after[query], grade)) for query, grade in judged if grade.any()]
    ).reshape(-1, 2)
    return Agreement(
        pairs=len(before),
        queries=len(queries),
        spread=float(before.std()),
        mean_error=float(error.mean()),
        largest_error=float(error.max()),
        spearman=_mean([spearman(before[query], after[query]) for query in queries]),
        kendall=_mean([kendall(before[query], after[query]) for query in queries]),
        ndcg_before=float(losses[:, 0].mean()) if len(losses) else None,
        ndcg_after=float(losses[:, 1].mean()) if len(losses) else None,
        ndcg_loss_error=float((losses[:, 0] - losses[:, 1]).std(ddof=1) / len(losses) ** 0.5)
        if len(losses) > 1
        else None,
    )


def spearman(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side is all ties."""
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else float("nan")


def kendall(first: Floats, second: Floats) -> float:
    """Kendall's tau-b; NaN where one side is all ties."""
    upper = np.triu_indices(len(first), 1)
    a = np.sign(first[:, None] - first)[upper]
    b = np.sign(second[:, None] - second)[upper]
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else float("nan")


def ndcg(scores: Floats, grades: Floats, cutoff: int = CUTOFF) -> float:
    """nDCG with linear gains, as trec_eval computes it; ties keep input order.

    Args:
        scores: (N,), higher is better.
        grades: (N,), not all 0.
        cutoff: Documents from the top that count.
    """
    discounts = 1 / np.log2(np.arange(2, cutoff + 2))
    found = grades[np.argsort(-scores, kind="stable")][:cutoff]
    best = np.sort(grades)[::-1][:cutoff]
    return float(found @ discounts[: len(found)]) / float(best @ discounts[: len(best)])


def _ranks(values: Floats) -> Floats:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def _mean(values: Sequence[float]) -> float:
    """Of the values that are numbers."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")

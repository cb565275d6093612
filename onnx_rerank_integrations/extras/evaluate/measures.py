"""Measures of a ranking for each query: the only file that imports ir_measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_rerank_integrations.extras.evaluate.collection import Grades
from onnx_rerank_integrations.extras.needs_extra import needs_extra

MAIN = "nDCG@10"
"""The measure that models are compared by, as BEIR does."""


def measure_names(top_k: int) -> dict[str, str]:
    """The names that users know -> what ir-measures calls them. MAP and recall take any grade above 0 as relevant."""
    return {MAIN: "nDCG@10", "MRR@10": "RR@10", "MAP": "AP", "recall@10": "R@10"} | {f"recall@{top_k}": f"R@{top_k}"}


def measure(grades: Grades, rankings: Mapping[str, Sequence[str]], top_k: int) -> dict[str, dict[str, float]]:
    """Measure -> query id -> value in 0..1, higher is better.

    Args:
        grades: The judgments; each of their queries is measured, at 0 where it has no ranking.
        rankings: Query id -> document ids, best first.
        top_k: The deepest cutoff of recall.
    """
    with needs_extra("evaluate", "Evaluation"):
        import ir_measures

    # trec_eval sorts by score, and equal scores by id: scores made of the places keep the order that is measured.
    run = {
        query_id: {document_id: float(len(ranking) - place) for place, document_id in enumerate(ranking)}
        for query_id, ranking in rankings.items()
    }
    names = {ir_measures.parse_measure(theirs): ours for ours, theirs in measure_names(top_k).items()}
    values: dict[str, dict[str, float]] = {ours: dict.fromkeys(grades, 0.0) for ours in names.values()}
    for found in ir_measures.iter_calc(list(names), grades, run):
        values[names[found.measure]][found.query_id] = float(found.value)
    return values


def best_possible(grades: Grades, candidates: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Query id -> its candidates with the most relevant first: no reranking of them can do better."""
    return {
        query_id: sorted(found, key=lambda document_id: -grades[query_id].get(document_id, 0))
        for query_id, found in candidates.items()
    }

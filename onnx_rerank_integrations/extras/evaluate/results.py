"""What an evaluation found, as data; and the sentence that answers the question it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from onnx_rerank_integrations.extras.evaluate.measures import MAIN

SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class System:
    """One way of ordering the candidates: the first stage, a model on top of it, or the best order there is.

    Attributes:
        name: The model's, or the first stage's.
        measures: Measure -> query id -> value in 0..1, higher is better.
        milliseconds: Query id -> time for its candidates, tokenization included; None where it wasn't measured.
        documents: Candidates that were scored in that time, over all queries.
    """

    name: str
    measures: Mapping[str, Mapping[str, float]]
    milliseconds: Mapping[str, float] | None = None
    documents: int = 0

    def mean(self, measure: str = MAIN) -> float:
        """Over all queries, each counting alike."""
        return float(np.mean(list(self.measures[measure].values())))

    def latency(self, percent: float) -> float | None:
        """Milliseconds within which so many percent of the queries are done; None where that wasn't measured."""
        if not self.milliseconds:
            return None
        return float(np.percentile(list(self.milliseconds.values()), percent))

    @property
    def documents_per_second(self) -> float | None:
        """Over all queries, one after the other; None where that wasn't measured."""
        if not self.milliseconds or not self.documents:
            return None
        return self.documents / sum(self.milliseconds.values()) * 1000


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two systems on the same queries, by nDCG@10.

    Attributes:
        system: The one that is compared.
        baseline: The one it is compared with.
        difference: Mean of system - baseline.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p_value: Of a paired randomization test, two-sided, adjusted (Holm) for the number of comparisons of its kind:
            models with the first stage, or with each other. The interval isn't adjusted.
        better: Queries on which the system is better.
        worse: Queries on which it is worse.
    """

    system: str
    baseline: str
    difference: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int

    @property
    def is_significant(self) -> bool:
        """Whether the difference is more than chance, at the 5 % level."""
        return self.p_value < SIGNIFICANT


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Models measured on one collection, each reordering the same candidates.

    Attributes:
        collection: The folder's name.
        top_k: Most candidates of a query.
        corpus_size: Documents of the collection.
        queries: Query id -> text, of those that were measured.
        first_stage: The candidates in their first order.
        models: One system per model, in the order they were given.
        best_possible: The candidates in the best order there is.
        comparisons: Each model with the first stage, then the models with each other.
        settings: How it was measured: split, seed, machine, versions.
        notes: What a reader should know of the data.
    """

    collection: str
    top_k: int
    corpus_size: int
    queries: Mapping[str, str]
    first_stage: System
    models: list[System]
    best_possible: System
    comparisons: list[Comparison]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def best(self) -> System:
        """The model with the highest nDCG@10."""
        return max(self.models, key=System.mean)

    def comparison(self, system: str, baseline: str) -> Comparison:
        """The one of these two names, in this order."""
        return next(one for one in self.comparisons if (one.system, one.baseline) == (system, baseline))

    @cached_property
    def answer(self) -> str:
        """Does reranking help here, with which model, at what latency?"""
        first, best = self.first_stage, self.best
        change = self.comparison(best.name, first.name)
        what = f"reranking the first {self.top_k} of {first.name} with {best.name}"
        figures = (
            f"nDCG@10 from {first.mean():.3f} to {best.mean():.3f} ({change.difference:+.3f}, 95 % interval "
            f"{change.low:+.3f} to {change.high:+.3f}, {p_text(change.p_value)})"
        )
        cost = f"at {self._latency(best)}"
        if not change.is_significant:
            queries = f"{len(self.queries):,} {'query' if len(self.queries) == 1 else 'queries'}"
            return f"Not shown: {what} changes {figures}, which may be chance with {queries}, {cost}."
        if change.difference < 0:
            return f"No: {what} lowers {figures}, {cost}."
        return f"Yes: {what} raises {figures}, {cost}.{self._cheaper_choice()}"

    def _cheaper_choice(self) -> str:
        """The quickest model that helps too and isn't measurably worse than the best; empty where that is the best."""
        best = self.best
        enough = [
            model
            for model in self.models
            if model is not best
            and not self._between(best, model).is_significant
            and self.comparison(model.name, self.first_stage.name).is_significant
            and model.mean() > self.first_stage.mean()
        ]
        quickest = min([best, *enough], key=lambda model: model.latency(50) or 0.0)
        if quickest is best:
            return ""
        p_value = p_text(self._between(best, quickest).p_value)
        return (
            f" {quickest.name} ({quickest.mean():.3f}) isn't measurably worse ({p_value}) and is quicker: "
            f"{self._latency(quickest)}."
        )

    def _between(self, one: System, other: System) -> Comparison:
        names = {one.name, other.name}
        return next(found for found in self.comparisons if {found.system, found.baseline} == names)

    def _latency(self, system: System) -> str:
        return f"{duration(system.latency(50))} ms per query (median; 99 % within {duration(system.latency(99))} ms)"


def duration(milliseconds: float | None) -> str:
    """Three digits, and whole numbers from 100 on: never 1.58e+03. Empty where nothing was measured."""
    if milliseconds is None:
        return ""
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def p_text(p_value: float) -> str:
    """A p-value as one writes it."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"

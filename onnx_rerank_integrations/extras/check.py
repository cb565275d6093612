"""Compares a model's scores with published ones, or with the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.core.scoring import Activation
from onnx_rerank_integrations.core.types import Pair
from onnx_rerank_integrations.extras.text_files import json_object, numbered_lines

DEFAULT_TOLERANCE = 1e-3
"""What the package promises against PyTorch, absolute, on logits."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Scores that somebody else got from the same model.

    Attributes:
        model: The model's name.
        pairs: N pairs.
        scores: N scores.
        activation: The scale of the scores.
        tolerance: The largest absolute difference that counts as equal; half precision moves scores by about 2e-2.
        source: Who published them, with which library.
    """

    model: str
    pairs: Sequence[Pair]
    scores: Sequence[float]
    activation: Activation = "identity"
    tolerance: float = DEFAULT_TOLERANCE
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One reference beside the scores of this package."""

    reference: Reference
    scores: Sequence[float]

    @property
    def largest_difference(self) -> float:
        return max(abs(ours - theirs) for ours, theirs in zip(self.scores, self.reference.scores, strict=True))

    @property
    def passed(self) -> bool:
        return self.largest_difference <= self.reference.tolerance


@cache
def published() -> tuple[Reference, ...]:
    """All published scores the package knows, from library tests and model cards; each names its source."""
    text = files(__package__).joinpath("reference_scores.json").read_text(encoding="utf-8")
    return tuple(
        Reference(
            model=row["model"],
            pairs=[(query, document) for query, document in row["pairs"]],
            scores=row["scores"],
            activation=row["activation"],
            tolerance=row["tolerance"],
            source=f"{row['source']} ({row['runtime']})",
        )
        for row in json.loads(text)
    )


def published_for(model: str) -> list[Reference]:
    """The published scores of one model, by its name in any case of letters."""
    return [reference for reference in published() if reference.model.lower() == model.lower()]


def read_reference(path: Path, model: str, *, activation: Activation, tolerance: float) -> Reference:
    """The user's own reference: JSON lines of ``{"query": str, "document": str, "score": number}``.

    Raises:
        InputValueError: A line is no such record; the message names it.
    """
    rows = [_record(line, f"{path}, line {number}") for number, line in numbered_lines(path)]
    if not rows:
        raise InputValueError(f"{path} holds no reference scores: one JSON record per line is needed")
    return Reference(
        model=model,
        pairs=[(row["query"], row["document"]) for row in rows],
        scores=[float(row["score"]) for row in rows],
        activation=activation,
        tolerance=tolerance,
        source=str(path),
    )


def compare(encoder: TextCrossEncoderBase, references: Iterable[Reference]) -> list[Comparison]:
    """Scores each reference's pairs with the encoder, in the reference's scale."""
    return [
        Comparison(reference=reference, scores=encoder.rerank_pairs(reference.pairs, activation=reference.activation))
        for reference in references
    ]


def _record(line: str, place: str) -> Mapping[str, Any]:
    record = json_object(line, place)
    texts = isinstance(record.get("query"), str) and isinstance(record.get("document"), str)
    if not texts or not isinstance(record.get("score"), (int, float)):
        raise InputValueError(f'{place}: a record needs "query" (text), "document" (text) and "score" (number)')
    return record

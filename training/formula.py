"""The scoring formula and its constants, in numpy, as the graph computes it. For choosing constants quickly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from vocabulary import Lexicon


@dataclass(frozen=True)
class Constants:
    """Every number of the formula; MODEL_CARD.md has the formula itself.

    Attributes:
        saturation: k, passage occurrences that earn half of a term's weight, at the average length.
        length_share: b, how much of the saturation grows with passage length (0 none, 1 all).
        average_length: passage tokens at which the length changes nothing.
        exact_share: share of the term frequency that only the very same token earns, not its stem relatives.
        pair_weights: what query words 1, 2, ... apart add where they stand in that order and distance in the passage.
        pair_saturation: k of these pairs.
        breadth_terms: effective number of query terms from which a query counts as broad.
        breadth_power: growth of the exponent on term weights, per doubling of the breadth.
        breadth_saturation: growth of k, per doubling of the breadth.
        stop_factor, question_factor, punctuation_factor, piece_factor: on the weight of tokens of that kind.
        scale, offset, breadth_offset: the calibration, logit = scale * score + offset + breadth_offset * breadth.
    """

    saturation: float
    length_share: float
    average_length: float
    exact_share: float
    pair_weights: tuple[float, ...]
    pair_saturation: float
    breadth_terms: float
    breadth_power: float
    breadth_saturation: float
    stop_factor: float
    question_factor: float
    punctuation_factor: float
    piece_factor: float
    scale: float
    offset: float
    breadth_offset: float

    @classmethod
    def read(cls, path: Path) -> Constants:
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "pair_weights": tuple(values["pair_weights"])})

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


def token_weights(lexicon: Lexicon, constants: Constants) -> np.ndarray:
    """(V,) float32: the rarity of each token, times the factor of its kind."""
    weights = lexicon.rarity.copy()
    for kind in ("stop", "question", "punctuation", "piece"):
        weights[lexicon.kinds == kind] *= getattr(constants, f"{kind}_factor")
    return weights.astype(np.float32)


@dataclass(frozen=True)
class Matches:
    """What a ranking task's scores are computed from: Q queries, C candidates each, at most T tokens a query.

    Attributes:
        query_ids: (Q, T) int32, padded with 0.
        length: (Q, C) passage tokens.
        stem: (Q, C, T) how often the query token's stem class occurs in the passage.
        exact: (Q, C, T) how often the query token itself occurs.
        pairs: for distance d = 1, 2, ...: (Q, C, T - d) how often the tokens t and t + d occur d apart.
    """

    query_ids: np.ndarray
    length: np.ndarray
    stem: np.ndarray
    exact: np.ndarray
    pairs: tuple[np.ndarray, ...]


def match(
    lexicon: Lexicon, queries: Sequence[str], passages: Sequence[str], candidates: np.ndarray, distances: int = 2
) -> Matches:
    """Counts every query's matches in its candidates (Q, C), which index `passages`."""
    query_ids, passage_ids = lexicon.token_ids(queries), lexicon.token_ids(passages)
    width = max(distances + 1, *map(len, query_ids))
    shape = (*candidates.shape, width)
    stem, exact = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    pairs = tuple(np.zeros((*candidates.shape, width - d), np.float32) for d in range(1, distances + 1))
    for q, ids in enumerate(query_ids):
        documents = _pad([passage_ids[c] for c in candidates[q]])
        stems = np.where(documents > 0, lexicon.stems[documents], -1)
        same_stem = stems[:, None, :] == lexicon.stems[ids][:, None]
        stem[q, :, : len(ids)] = same_stem.sum(-1)
        exact[q, :, : len(ids)] = (documents[:, None, :] == ids[:, None]).sum(-1)
        for d, counts in enumerate(pairs, start=1):
            if len(ids) > d:
                counts[q, :, : len(ids) - d] = (same_stem[:, :-d, :-d] & same_stem[:, d:, d:]).sum(-1)
    length = np.array([len(ids) for ids in passage_ids], np.float32)[candidates]
    return Matches(_pad(query_ids, width), length, stem, exact, pairs)


def score(matches: Matches, weights: np.ndarray, constants: Constants) -> tuple[np.ndarray, np.ndarray]:
    """The uncalibrated scores (Q, C) and the breadth of each query (Q,)."""
    w = weights[matches.query_ids]
    effective_terms = w.sum(1) ** 2 / np.maximum((w**2).sum(1), 1e-6)
    breadth = np.log2(np.maximum(effective_terms / constants.breadth_terms, 1))
    w = w ** (1 + constants.breadth_power * breadth)[:, None]
    k = constants.saturation * (1 + constants.breadth_saturation * breadth)[:, None, None]
    b = constants.length_share
    norm = (1 - b + b * matches.length / constants.average_length)[..., None]

    tf = constants.exact_share * matches.exact + (1 - constants.exact_share) * matches.stem
    total = np.einsum("qt,qct->qc", w, tf / (tf + k * norm))
    for d, (weight, count) in enumerate(zip(constants.pair_weights, matches.pairs, strict=True), start=1):
        pair = np.minimum(w[:, :-d], w[:, d:])
        total += weight * np.einsum("qt,qct->qc", pair, count / (count + constants.pair_saturation * norm))
    return total / np.maximum(w.sum(1), 1e-6)[:, None], breadth


def _pad(rows: Sequence[np.ndarray], width: int = 1) -> np.ndarray:
    padded = np.zeros((len(rows), max(width, *map(len, rows))), np.int32)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded

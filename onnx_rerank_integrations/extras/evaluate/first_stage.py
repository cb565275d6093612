"""The candidates that are reranked: read from a TREC run, or found with BM25 on the spot."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.extras.evaluate.collection import Corpus
from onnx_rerank_integrations.extras.needs_extra import needs_extra
from onnx_rerank_integrations.extras.text_files import numbered_lines

K1, B = 1.2, 0.75
"""Lucene's defaults for BM25."""


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """An order of candidates.

    Attributes:
        name: The run's file name, or what made it.
        candidates: Query id -> document ids, best first, for every query that is measured; maybe none.
        milliseconds: Query id -> time to find them; None where that isn't known.
    """

    name: str
    candidates: dict[str, list[str]]
    milliseconds: dict[str, float] | None = None


def find_run(folder: Path) -> Path | None:
    """The TREC run inside a folder, None where there is none.

    Raises:
        InputValueError: There are several.
    """
    runs = sorted(path for pattern in ("*.trec", "*.trec.gz") for path in folder.glob(pattern))
    if len(runs) > 1:
        raise InputValueError(
            f"{folder} holds several first stages: {', '.join(path.name for path in runs)}.\n"
            "Name the one to use with first_stage= or --first-stage."
        )
    return runs[0] if runs else None


def read_run(path: Path, queries: Mapping[str, str], top_k: int) -> FirstStage:
    """The best `top_k` of a TREC run, by score; ties by the rank column, then by their order in the file.

    Lines of other queries are passed over.

    Raises:
        InputValueError: A line isn't ``query Q0 document rank score name``, or repeats a document.
    """
    found: dict[str, dict[str, tuple[float, int]]] = {query_id: {} for query_id in queries}
    for line in run_lines(path):
        if line.query_id in found:
            if line.document_id in found[line.query_id]:
                raise InputValueError(
                    f"{path}:{line.number}: {line.document_id!r} is there before for query {line.query_id!r}"
                )
            found[line.query_id][line.document_id] = (-line.score, line.rank)
    if not any(found.values()):
        raise InputValueError(f"{path}: none of its queries is a judged one")
    candidates = {query_id: sorted(keys, key=keys.__getitem__)[:top_k] for query_id, keys in found.items()}
    return FirstStage(name=path.name, candidates=candidates)


@dataclass(frozen=True, slots=True)
class RunLine:
    """One candidate of a TREC run, and the number of its line."""

    number: int
    query_id: str
    document_id: str
    rank: int
    score: float


def run_lines(path: Path) -> Iterator[RunLine]:
    """The lines of a TREC run, never all at once.

    Raises:
        InputValueError: A line isn't ``query Q0 document rank score name``.
    """
    for number, line in numbered_lines(path):
        columns = line.split()
        try:
            query_id, _, document_id, rank, score, _ = columns
            found = RunLine(number, query_id, document_id, int(rank), float(score))
        except ValueError:
            raise InputValueError(
                f"{path}:{number}: a line of a TREC run is query Q0 document rank score name, found {line!r:.80}"
            ) from None
        if math.isnan(found.score):
            raise InputValueError(f"{path}:{number}: the score is NaN")
        yield found


def check_run(path: Path, first_stage: FirstStage, corpus: Corpus) -> None:
    """Raises InputValueError that names the first line whose document isn't in the corpus."""
    unknown = {one for found in first_stage.candidates.values() for one in found if one not in corpus.ids}
    if not unknown:
        return
    for number, line in numbered_lines(path):
        if (document_id := line.split()[2]) in unknown:
            raise InputValueError(f"{path}:{number}: the document {document_id!r} isn't in corpus.jsonl")


def bm25(corpus: Corpus, queries: Mapping[str, str], top_k: int) -> FirstStage:
    """The best `top_k` by BM25 with English stop words and stemming; ties in corpus order, scores of 0 left out."""
    with needs_extra("evaluate", "BM25"):
        import bm25s
        import Stemmer

    stemmer = Stemmer.Stemmer("english")

    def tokens(texts: list[str], *, return_ids: bool) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, return_ids=return_ids, show_progress=False)

    index = bm25s.BM25(k1=K1, b=B)
    index.index(tokens(list(corpus.texts.values()), return_ids=True), show_progress=False)
    ids = list(corpus.texts)
    candidates: dict[str, list[str]] = {}
    milliseconds: dict[str, float] = {}
    for query_id, query in queries.items():
        start = time.perf_counter()
        (words,) = tokens([query], return_ids=False)
        scores = index.get_scores(words) if words else np.zeros(len(ids))
        matching = np.flatnonzero(scores > 0)
        best = matching[np.argsort(-scores[matching], kind="stable")][:top_k]
        candidates[query_id] = [ids[place] for place in best]
        milliseconds[query_id] = (time.perf_counter() - start) * 1000
    return FirstStage(name="BM25", candidates=candidates, milliseconds=milliseconds)

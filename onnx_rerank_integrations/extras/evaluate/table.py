"""Reads judged pairs from one CSV file: a row per query and document, with how relevant the document is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.extras.evaluate.collection import Corpus, Grades
from onnx_rerank_integrations.extras.evaluate.first_stage import FirstStage
from onnx_rerank_integrations.extras.text_files import csv_rows, decode, read_bytes

COLUMNS = {
    "query": ("query", "question"),
    "document": ("document", "text", "passage"),
    "relevance": ("relevance", "label", "grade", "score"),
}
"""The columns that are read, in any order and case of letters, and the other names they may have."""


def read_table(path: Path, top_k: int) -> tuple[dict[str, str], Grades, FirstStage, Corpus]:
    """Queries, judgments, candidates and texts of a CSV file, comma, semicolon or tab between its columns.

    The candidates of a query are its own rows, and the first stage is their order in the file: leave the rows as your
    search gave them. Equal texts are one document.

    Raises:
        InputValueError: It isn't UTF-8, a column is missing, or a row is wrong; the message names the line.
    """
    lines, broken = decode(read_bytes(path), str(path))
    if broken:
        raise InputValueError(f"{path}:{broken[0]}: not UTF-8: save the table in that encoding")
    rows = csv_rows(lines, str(path))
    _, header = next(rows, ("", []))
    place_of = _places(path, header)
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    grades: Grades = {}
    for place, row in rows:
        if len(row) <= max(place_of.values()):
            raise InputValueError(f"{place}: {len(row)} columns, fewer than the header names")
        query, document, relevance = (row[place_of[name]] for name in COLUMNS)
        query_id = queries.setdefault(query, f"q{len(queries) + 1}")
        document_id = documents.setdefault(document, f"d{len(documents) + 1}")
        grade = _grade(relevance, place)
        if grades.setdefault(query_id, {}).setdefault(document_id, grade) != grade:
            raise InputValueError(f"{place}: this document was judged before for the same query, otherwise")
    useful = {query_id: judged for query_id, judged in grades.items() if max(judged.values()) > 0}
    if not useful:
        raise InputValueError(f"{path}: no query has a relevant document, so there is nothing to measure")
    stage = FirstStage(
        name="order in the file", candidates={query_id: list(judged)[:top_k] for query_id, judged in useful.items()}
    )
    texts = {document_id: text for text, document_id in documents.items()}
    corpus = Corpus(texts=texts, size=len(texts), ids=texts.keys())
    return {query_id: text for text, query_id in queries.items()}, useful, stage, corpus


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    found = {cell.strip().lower(): place for place, cell in reversed(list(enumerate(header)))}
    places = {name: next((found[one] for one in names if one in found), None) for name, names in COLUMNS.items()}
    missing = [name for name, place in places.items() if place is None]
    if missing:
        raise InputValueError(
            f"{path} lacks the column {' and '.join(missing)}; found {', '.join(header) or 'no header'}.\n"
            "A table of judged pairs has the columns query, document and relevance."
        )
    return {name: place for name, place in places.items() if place is not None}


def _grade(relevance: str, place: str) -> int:
    try:
        number = float(relevance)
    except ValueError:
        number = -1.0
    if number < 0 or number != int(number):
        raise InputValueError(f"{place}: relevance must be a whole number from 0, found {relevance!r:.40}")
    return int(number)

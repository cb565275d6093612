"""Reads a BEIR folder: corpus.jsonl, queries.jsonl and qrels, plain or gzip. Says in which line a file is wrong.

The layout is that of https://github.com/beir-cellar/beir: JSON objects with ``_id``, ``text`` and, for documents, an
optional ``title``; tab-separated judgments ``query-id corpus-id score`` below a header.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.extras.text_files import json_object, numbered_lines

Grades = dict[str, dict[str, int]]
"""Query id -> document id -> how relevant it was judged: 0 is not relevant, higher is better."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The texts of documents.

    Attributes:
        texts: Document id -> title and text, of the documents that were wanted.
        size: How many documents there are in all.
        ids: Those of all documents.
    """

    texts: dict[str, str]
    size: int
    ids: Collection[str]


def read_queries(folder: Path) -> dict[str, str]:
    """Query id -> text, in the file's order."""
    path = find(folder, "queries.jsonl")
    return {query_id: _text(record, place) for query_id, record, place in _records(path)}


def read_corpus(folder: Path, wanted: Collection[str] | None = None) -> Corpus:
    """The documents.

    Args:
        folder: The collection's.
        wanted: Ids of the documents whose texts are kept in memory; None for all.
    """
    texts: dict[str, str] = {}
    ids: set[str] = set()
    for document_id, record, place in _records(find(folder, "corpus.jsonl")):
        ids.add(document_id)
        if wanted is None or document_id in wanted:
            texts[document_id] = _document_text(record, place)
    return Corpus(texts=texts, size=len(ids), ids=ids)


def read_grades(folder: Path, split: str, queries: Collection[str]) -> Grades:
    """The judgments of the queries that have a relevant document; no measure says anything about the others.

    Raises:
        InputValueError: A line isn't a judgment, contradicts another, or names an unknown query.
    """
    path = find(folder, f"qrels/{split}.tsv", "qrels.tsv")
    grades: Grades = {}
    for place, query_id, document_id, grade in _judgments(path):
        if query_id not in queries:
            raise InputValueError(f"{place}: the query {query_id!r} isn't in queries.jsonl")
        if grades.setdefault(query_id, {}).setdefault(document_id, grade) != grade:
            raise InputValueError(f"{place}: {document_id!r} was judged before for query {query_id!r}, otherwise")
    useful = {query_id: judged for query_id, judged in grades.items() if max(judged.values()) > 0}
    if not useful:
        raise InputValueError(f"{path}: no query has a relevant document, so there is nothing to measure")
    return useful


def find(folder: Path, *names: str) -> Path:
    """The first of these files that exists, plain or with .gz.

    Raises:
        InputValueError: There is none; the message says what was looked for and what is there.
    """
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    if not folder.is_dir():
        raise InputValueError(f"There is no folder {folder}: give one in BEIR layout")
    found = sorted(path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("qrels/*")))
    raise InputValueError(
        f"{folder} lacks {' or '.join(names)} (plain or .gz); found {', '.join(found[:12]) or 'nothing'}.\n"
        "A collection in BEIR layout is corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/test.tsv."
    )


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each record with its id and its place, ``file:line``."""
    seen: dict[str, int] = {}
    for number, line in numbered_lines(path):
        place = f"{path}:{number}"
        record = json_object(line, place)
        record_id = record.get("_id")
        if isinstance(record_id, bool) or not isinstance(record_id, str | int):
            raise InputValueError(f"{place}: _id must be a string, found {_found(record, '_id')}")
        if seen.setdefault(str(record_id), number) != number:
            raise InputValueError(f"{place}: the _id {record_id!r} is taken by line {seen[str(record_id)]}")
        yield str(record_id), record, place
    if not seen:
        raise InputValueError(f"{path} is empty")


def _text(record: dict[str, Any], place: str) -> str:
    text = record.get("text")
    if not isinstance(text, str):
        raise InputValueError(f"{place}: text must be a string, found {_found(record, 'text')}")
    return text


def _document_text(record: dict[str, Any], place: str) -> str:
    """Title and text with a space between, as BEIR has it, unless the text begins with its title."""
    title, text = record.get("title") or "", _text(record, place)
    if not isinstance(title, str):
        raise InputValueError(f"{place}: title must be a string, found {_found(record, 'title')}")
    return text if text.startswith(title) else f"{title} {text}"


def _found(record: dict[str, Any], field: str) -> str:
    if field not in record:
        return f"only {', '.join(record) or 'no fields'}"
    return f"{record[field]!r:.60}"


def _judgments(path: Path) -> Iterator[tuple[str, str, str, int]]:
    """Place, query id, document id and grade of each line."""
    first = True
    for number, line in numbered_lines(path):
        place, columns = f"{path}:{number}", line.split("\t")
        is_header, first = first and columns[-1].strip().lower() == "score", False
        if is_header:
            continue
        if len(columns) != 3:
            raise InputValueError(
                f"{place}: a judgment is query-id, corpus-id and score with tabs between, found {len(columns)} "
                f"column{'s' * (len(columns) != 1)}: {line!r:.80}"
            )
        try:
            grade = int(columns[2])
        except ValueError:
            raise InputValueError(f"{place}: the score must be a whole number, found {columns[2]!r}") from None
        yield place, columns[0].strip(), columns[1].strip(), grade

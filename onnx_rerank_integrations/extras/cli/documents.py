"""Documents to rank, out of files and stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.extras.cli.output import note
from onnx_rerank_integrations.extras.text_files import decode, json_object, read_bytes

STDIN = "-"
_JSONL = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


class Split(StrEnum):
    """What one document is."""

    AUTO = "auto"
    LINES = "lines"
    PARAGRAPHS = "paragraphs"
    JSONL = "jsonl"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the user's.

    Attributes:
        text: What is scored.
        source: The file and the line it begins on, ``notes.txt:12``; the file alone where that is the document.
        record: The JSON object it is from, None for plain text.
    """

    text: str
    source: str
    record: dict[str, Any] | None = None


def read_documents(paths: Sequence[str], split: Split, text_fields: Sequence[str]) -> list[Document]:
    """All documents of all files, in order, without empty ones. Bytes that are no UTF-8 are replaced, with a note.

    Args:
        paths: Files, plain or gzip; ``-`` is stdin.
        split: What one document is; ``auto`` takes files named .jsonl for records, all others line by line.
        text_fields: The fields of a record that are scored, joined by line feeds; those it lacks are left out.

    Raises:
        InputValueError: A file can't be read, or a line of it is no record with such a text.
    """
    return [document for path in paths for document in _read(path, split, text_fields)]


def _read(path: str, split: Split, text_fields: Sequence[str]) -> Iterable[Document]:
    name = "stdin" if path == STDIN else path
    lines, broken = decode(sys.stdin.buffer.read() if path == STDIN else read_bytes(Path(path)))
    if broken:
        note(f"{name}: bytes that are no UTF-8 were replaced: {len(broken)}, the first on line {broken[0]}")
    if split is Split.AUTO:
        split = Split.JSONL if path.lower().endswith(_JSONL) else Split.LINES
    if split is Split.JSONL:
        return _records(lines, name, text_fields)
    if split is Split.PARAGRAPHS:
        return _paragraphs(lines, name)
    if split is Split.FILES:
        text = "\n".join(lines).strip()
        return [Document(text, name)] if text else []
    return (Document(line.strip(), f"{name}:{place}") for place, line in enumerate(lines, start=1) if line.strip())


def _paragraphs(lines: Sequence[str], name: str) -> Iterator[Document]:
    """Runs of lines between blank ones."""
    paragraph: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            paragraph.append(line.rstrip())
        elif paragraph:
            yield Document("\n".join(paragraph).strip(), f"{name}:{number - len(paragraph)}")
            paragraph = []


def _records(lines: Sequence[str], name: str, text_fields: Sequence[str]) -> Iterator[Document]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"{name}:{number}"
            record = json_object(line, place)
            yield Document(_text(record, place, text_fields), place, record)


def _text(record: dict[str, Any], place: str, text_fields: Sequence[str]) -> str:
    texts = [record[field] for field in text_fields if record.get(field) is not None]
    if not texts:
        raise InputValueError(
            f"{place}: no field {' or '.join(map(repr, text_fields))}, found {', '.join(map(repr, record)) or 'none'}: "
            "name the one to score with --text-field"
        )
    for text in texts:
        if not isinstance(text, str):
            raise InputValueError(f"{place}: the text to score must be a string, found {text!r:.60}")
    return "\n".join(texts)

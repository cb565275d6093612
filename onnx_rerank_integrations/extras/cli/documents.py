"""Documents to rank, out of files and stdin: what one document is depends on the kind of file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, cast

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.extras.cli.output import note
from onnx_rerank_integrations.extras.document_files import pdf_pages, word_lines
from onnx_rerank_integrations.extras.text_files import (
    PDF,
    WORD,
    csv_rows,
    decode,
    json_object,
    kind_of_binary,
    read_bytes,
    read_stream,
)

STDIN = "-"

Split = Literal["auto", "sections", "paragraphs", "lines", "jsonl", "json", "csv", "files"]
"""What one document is."""

BY_SUFFIX: dict[str, Split] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".md": "sections",
    ".markdown": "sections",
    ".rst": "sections",
}
"""What ``auto`` takes for a file of this name, ``.gz`` left out; a line is a document of any other."""

MARKUP = {".html": "HTML", ".htm": "HTML", ".xhtml": "HTML", ".xml": "XML", ".tex": "TeX", ".ipynb": "a notebook"}
"""Files of text whose lines aren't what a reader sees."""

UNDERLINE = re.compile(r"([=\-~^\"'`*+#:.])\1{2,}\s*")
"""What makes the line above it a heading: reStructuredText's usual marks, Markdown's = and - among them."""

MARKDOWN_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*")


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the user's.

    Attributes:
        text: What is scored.
        source: The file and the line it begins on, ``notes.txt:12``; the file alone where that is the document.
        record: The JSON object or the CSV row it is from, None for plain text.
    """

    text: str
    source: str
    record: dict[str, Any] | None = None


def read_documents(
    paths: Sequence[str], split: Split, text_fields: Sequence[str], encoding: str | None = None
) -> list[Document]:
    """All documents of all files, in order, without empty ones. Bytes that are no UTF-8 are replaced, with a note.

    Args:
        paths: Files, plain or gzip; ``-`` is stdin.
        split: What one document is; ``auto`` goes by the file's name, and takes stdin for JSON lines where its first
            line is a JSON object with such a field, and for JSON where it is an array of those.
        text_fields: The fields of a record that are scored, joined by line feeds; those it lacks are left out.
        encoding: Of the files of text; None for UTF-8, or UTF-16 where a mark says so.

    Raises:
        InputValueError: A file can't be read or isn't text, or a part of it is no record with such a text.
    """
    return [document for path in paths for document in _read(path, split, text_fields, encoding)]


def _read(path: str, split: Split, text_fields: Sequence[str], encoding: str | None) -> Iterable[Document]:
    name = "stdin" if path == STDIN else path
    if path == STDIN and sys.stdin is None:
        raise InputValueError("there is no standard input to read: name files")
    content = read_stream(sys.stdin.buffer, name) if path == STDIN else read_bytes(Path(path))
    kind = kind_of_binary(content)
    if kind == PDF:
        pages = enumerate(pdf_pages(content, name), start=1)
        whole: Split = "files" if split == "auto" else split
        return [
            document
            for number, page in pages
            for document in _split(page.splitlines(), f"{name}#page={number}", whole, text_fields)
        ]
    if kind == WORD:
        return _split(word_lines(content, name), name, "sections" if split == "auto" else split, text_fields)
    lines, broken = decode(content, name, encoding)
    if broken:
        note(
            f"{name}: bytes that are no UTF-8 were replaced: {len(broken)}, the first on line {broken[0]}; "
            "--encoding names another encoding, such as windows-1252"
        )
    if split == "auto":
        suffix = Path(path.lower().removesuffix(".gz")).suffix
        split = _kind_of_stdin(lines, text_fields) if path == STDIN else BY_SUFFIX.get(suffix, "lines")
        if markup := MARKUP.get(suffix):
            note(f"{name}: {markup} is read as plain text, marks and all; extract its text first, as pandoc does")
    return _split(lines, name, split, text_fields)


def _split(lines: Sequence[str], name: str, split: Split, text_fields: Sequence[str]) -> Iterable[Document]:
    readers: dict[Split, Callable[[], Iterable[Document]]] = {
        "sections": lambda: _sections(lines, name),
        "paragraphs": lambda: _paragraphs(lines, name),
        "lines": lambda: _lines(lines, name),
        "jsonl": lambda: _records(lines, name, text_fields),
        "json": lambda: _json(lines, name, text_fields),
        "csv": lambda: _csv(lines, name, text_fields),
        "files": lambda: _file(lines, name),
    }
    return readers[split]()


def _kind_of_stdin(lines: Sequence[str], text_fields: Sequence[str]) -> Split:
    first = next((line for line in lines if line.strip()), "")
    is_array = first.lstrip().startswith("[")
    try:
        content = json.loads("\n".join(lines) if is_array else first)
    except (ValueError, RecursionError):
        return "lines"
    records = content if is_array else [content]
    if records and all(isinstance(one, dict) and any(field in one for field in text_fields) for one in records):
        return "json" if is_array else "jsonl"
    return "lines"


def _lines(lines: Sequence[str], name: str) -> Iterator[Document]:
    return (Document(line.strip(), f"{name}:{place}") for place, line in enumerate(lines, start=1) if line.strip())


def _file(lines: Sequence[str], name: str) -> list[Document]:
    text = "\n".join(lines).strip()
    return [Document(text, name)] if text else []


def _paragraphs(lines: Sequence[str], name: str) -> Iterator[Document]:
    """Runs of lines between blank ones."""
    paragraph: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            paragraph.append(line.rstrip())
        elif paragraph:
            yield Document("\n".join(paragraph).strip(), f"{name}:{number - len(paragraph)}")
            paragraph = []


def _sections(lines: Sequence[str], name: str) -> Iterator[Document]:
    """A heading with what follows it, to the next one; headings without text of their own go with the next section."""
    heading: list[str] = []
    body: list[str] = []
    start = 1
    for number, line in enumerate([*_headings_marked(lines), _Heading("")], start=1):
        if not isinstance(line, _Heading):
            body.append(line.rstrip())
            continue
        if text := "\n".join(body).strip():
            yield Document("\n".join([*heading, text]), f"{name}:{start}")
            heading, body = [], []
        if not heading:
            start = number
        body = []
        heading.append(line.text)


@dataclass(frozen=True, slots=True)
class _Heading:
    text: str


def _headings_marked(lines: Sequence[str]) -> list[str | _Heading]:
    """The lines, those that are headings as such; the lines that underline or overline them are blank."""
    marked: list[str | _Heading] = list(lines)
    fence = ""
    for place, line in enumerate(lines):
        underlines = place > 0 and bool(lines[place - 1].strip()) and not fence
        mark = re.match(r"\s*```+" if underlines else r"\s*(?:```+|~~~+)", line)
        if mark and (not fence or mark[0].strip().startswith(fence)):
            fence = "" if fence else mark[0].strip()
        if fence or mark:
            continue
        before = marked[place - 1] if place else ""
        if found := MARKDOWN_HEADING.fullmatch(line):
            marked[place] = _Heading(found[2])
        elif UNDERLINE.fullmatch(line) and isinstance(before, str):
            text = before.strip()
            if text and not UNDERLINE.fullmatch(text) and len(line.rstrip()) >= min(len(text), 3) and "|" not in text:
                follows_blank = place < 2 or not str(lines[place - 2]).strip() or UNDERLINE.fullmatch(lines[place - 2])
                if follows_blank:
                    marked[place - 1], marked[place] = _Heading(text), ""
                    if place >= 2 and UNDERLINE.fullmatch(lines[place - 2]):
                        marked[place - 2] = ""
    return marked


def _records(lines: Sequence[str], name: str, text_fields: Sequence[str]) -> Iterator[Document]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"{name}:{number}"
            yield _of_record(json_object(line, place), place, text_fields)


def _json(lines: Sequence[str], name: str, text_fields: Sequence[str]) -> Iterator[Document]:
    """An array of objects or of texts, one such object, or JSON lines under another name."""
    if not any(line.strip() for line in lines):
        return
    try:
        content = json.loads("\n".join(lines))
    except RecursionError as error:
        raise InputValueError(f"{name}: JSON nested too deeply") from error
    except ValueError as error:
        first = next((line for line in lines if line.strip()), "")
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            raise InputValueError(
                f"{name}: not JSON: {error}\nRank it as plain text with --split lines or --split paragraphs."
            ) from error
        yield from _records(lines, name, text_fields)
        return
    for number, record in enumerate(content if isinstance(content, list) else [content]):
        place = f"{name}[{number}]"
        if isinstance(record, str):
            if record.strip():
                yield Document(record, place)
            continue
        if not isinstance(record, dict):
            raise InputValueError(f"{place}: an object or a text is needed, found {record!r:.60}")
        yield _of_record(record, place, text_fields)


def _csv(lines: Sequence[str], name: str, text_fields: Sequence[str]) -> Iterator[Document]:
    rows = csv_rows(lines, name, otherwise="; --split lines ranks the lines as they are")
    _, columns = next(rows, ("", []))
    if twice := next((field for field in text_fields if columns.count(field) > 1), None):
        raise InputValueError(f"{name}: {columns.count(twice)} columns are named {twice!r}, and one is to be scored")
    for place, row in rows:
        yield _of_record(dict(zip_longest(columns, row)), place, text_fields)


def _of_record(record: dict[str, Any], place: str, text_fields: Sequence[str]) -> Document:
    texts = [record[field] for field in text_fields if record.get(field) is not None]
    if not texts:
        raise InputValueError(
            f"{place}: no field {' or '.join(map(repr, text_fields))}, found {', '.join(map(repr, record)) or 'none'}: "
            "name the one to score with --text-field"
        )
    for text in texts:
        if not isinstance(text, str):
            raise InputValueError(f"{place}: the text to score must be a string, found {text!r:.60}")
    return Document("\n".join(cast(list[str], texts)), place, record)

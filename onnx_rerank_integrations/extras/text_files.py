"""Reads users' text files: plain or gzip, UTF-8 with or without a BOM, with line numbers for what is wrong in them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from onnx_rerank_integrations.core.errors import InputValueError

_GZIP = b"\x1f\x8b"


LARGEST_FILE = 2**28
"""Bytes of a file that is read whole, unpacked: a gzip file of a megabyte may hold a gigabyte."""

LARGEST_LINE = 2**26
"""Bytes of one line where lines are read one by one."""

PDF = "a PDF file"
WORD = "a Word document"
UNKNOWN_BINARY = "binary data"

_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", PDF),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"{\\rtf", "an RTF file"),
    (b"PAR1", "a parquet file"),
    (b"SQLite format 3", "an SQLite file"),
    (b"\x7fELF", "a program"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
)
_IN_ZIP = (
    (b"word/", WORD),
    (b"xl/", "an Excel workbook"),
    (b"ppt/", "a PowerPoint file"),
    (b"opendocument", "an OpenDocument file"),
    (b"epub", "an EPUB book"),
)


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked if it is gzip.

    Raises:
        InputValueError: There is no such file, it is a folder, it can't be read, or it holds more than `LARGEST_FILE`.
    """
    try:
        with path.open("rb") as file:
            return read_stream(file, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def read_stream(file: IO[bytes], name: str) -> bytes:
    """All that a stream holds, unpacked if it is gzip; at most `LARGEST_FILE` bytes."""
    content = file.read(LARGEST_FILE + 1)
    try:
        if content.startswith(_GZIP):
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
                content = unpacked.read(LARGEST_FILE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(Path(name), error) from error
    if len(content) > LARGEST_FILE:
        raise InputValueError(
            f"{name} holds more than {LARGEST_FILE >> 20} MB, which is the limit of a file that is read whole.\n"
            "Split it, or rank it with `onnx-rerank batch`, which reads files of any size row by row."
        )
    return content


def kind_of_binary(content: bytes) -> str | None:
    """What a file that isn't text is, by its first bytes; None for text."""
    for magic, kind in _KINDS:
        if content.startswith(magic):
            return kind
    if content.startswith(b"PK\x03\x04"):
        return next((kind for part, kind in _IN_ZIP if part in content[:65536]), "a zip archive")
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return None
    return UNKNOWN_BINARY if content[:65536].count(0) > len(content[:65536]) // 100 else None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file that aren't blank, without their ends, each with its number from 1. Never all at once.

    Raises:
        InputValueError: The file can't be read, or isn't UTF-8; the message names the line.
    """
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(iter(partial(file.readline, LARGEST_LINE + 1), b""), start=1):
                if len(line) > LARGEST_LINE:
                    raise InputValueError(f"{path}:{number}: a line of more than {LARGEST_LINE >> 20} MB")
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise InputValueError(f"{path}:{number}: not UTF-8: {error.reason} at byte {error.start}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if file.peek(2).startswith(_GZIP):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(IO[bytes], unpacked)
        else:
            yield file


def json_object(line: str, place: str) -> dict[str, Any]:
    """One line of a JSONL file.

    Raises:
        InputValueError: It is no JSON object; the message begins with `place`.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputValueError(f"{place}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise InputValueError(f"{place}: a JSON object is needed, found a {type(record).__name__}")
    return record


def csv_rows(lines: Sequence[str], name: str, *, otherwise: str = "") -> Iterator[tuple[str, list[str]]]:
    """The rows that aren't blank, the header first, each with its place, ``file:line``.

    Args:
        lines: Without their ends. Comma, semicolon, tab or bar between the cells, whichever the first line has most of.
        name: For messages.
        otherwise: What else can be done with such a file, for messages.

    Raises:
        InputValueError: It isn't CSV, or a row has more cells than the header; none is ever cut.
    """
    csv.field_size_limit(2**31 - 1)  # a whole document may stand in one cell
    first = re.sub(r'"[^"]*"', "", next((line for line in lines if line.strip()), ""))
    delimiter = max(",;\t|", key=first.count)
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    width, begins = 0, 1
    try:
        for row in reader:
            place, begins = f"{name}:{begins}", reader.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            width = width or len(row)
            if any(row[width:]):
                raise InputValueError(
                    f"{place}: {len(row)} cells, and the header names {width}: "
                    f"put a cell that holds {delimiter!r} in quotes{otherwise}"
                )
            yield place, row[:width]
    except csv.Error as error:
        raise InputValueError(f"{name}:{begins}: not CSV: {error}{otherwise}") from error


def decode(content: bytes, name: str, encoding: str | None = None) -> tuple[list[str], list[int]]:
    """Text from a user's bytes, whatever they are.

    Args:
        content: UTF-8 with or without a BOM, or UTF-16 with one, where no encoding is named.
        name: For the message.
        encoding: As Python calls it, such as ``windows-1252``.

    Returns:
        The lines without their ends, and for each byte that is no UTF-8, which becomes U+FFFD, its line's number.

    Raises:
        InputValueError: It isn't text, or not in the encoding that was named.
    """
    kind = kind_of_binary(content)
    if kind and not (encoding and kind == UNKNOWN_BINARY):  # UTF-16 without a mark looks like that
        raise InputValueError(
            f"{name} is {kind}, not text, and its bytes can't be ranked.\n"
            "Extract its text first, for instance with pdftotext or pandoc, and rank that."
        )
    if encoding:
        text = _decoded(content, encoding, name)
    elif content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    else:
        text = content.decode("utf-8-sig", "surrogateescape")
    lines = [line.rstrip("\n") for line in io.StringIO(text, newline=None)]
    broken: list[int] = []
    for place, line in enumerate(lines):
        escaped = sum("\udc80" <= character <= "\udcff" for character in line) if not line.isascii() else 0
        if escaped:
            broken += [place + 1] * escaped
            lines[place] = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return lines, broken


def _decoded(content: bytes, encoding: str, name: str) -> str:
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise InputValueError(
            f"there is no encoding {encoding!r}; utf-8, windows-1252, utf-16 and shift_jis are some"
        ) from error
    except UnicodeError as error:
        raise InputValueError(f"{name} isn't in {encoding}: {error}") from error


def unreadable(path: Path, error: Exception) -> InputValueError:
    """What to say of a file that can't be read."""
    if isinstance(error, FileNotFoundError):
        pattern = "that matches " if any(mark in str(path) for mark in "*?") else ""
        return InputValueError(f"There is no file {pattern}{path}")
    if isinstance(error, IsADirectoryError):
        return InputValueError(f"{path} is a folder: give the files in it")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputValueError(f"{path} can't be read: {reason}")

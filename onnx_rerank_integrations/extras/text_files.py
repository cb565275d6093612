"""Reads users' text files: plain or gzip, UTF-8 with or without a BOM, with line numbers for what is wrong in them."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from onnx_rerank_integrations.core.errors import InputValueError

_GZIP = b"\x1f\x8b"


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked if it is gzip.

    Raises:
        InputValueError: There is no such file, it is a folder, or it can't be read.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file that aren't blank, without their ends, each with its number from 1. Never all at once.

    Raises:
        InputValueError: The file can't be read, or isn't UTF-8; the message names the line.
    """
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
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


def decode(content: bytes) -> tuple[list[str], list[int]]:
    """Text from a user's bytes, whatever they are.

    Args:
        content: UTF-8 with or without a BOM, or UTF-16 with one.

    Returns:
        The lines without their ends, and for each byte that is no UTF-8, which becomes U+FFFD, its line's number.
    """
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
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


def unreadable(path: Path, error: Exception) -> InputValueError:
    """What to say of a file that can't be read."""
    if isinstance(error, FileNotFoundError):
        return InputValueError(f"There is no file {path}")
    if isinstance(error, IsADirectoryError):
        return InputValueError(f"{path} is a folder: give the files in it")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputValueError(f"{path} can't be read: {reason}")

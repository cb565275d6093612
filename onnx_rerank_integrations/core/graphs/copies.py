"""Copies that this package makes of users' graphs, kept on disk: found again by content, trusted, and bounded in size.

    <cache>/<kind>/<sha256 of the original>/model.onnx     the changed graph
    <cache>/<kind>/<sha256 of the original>/...            what lies beside it, such as its weights
    <cache>/<kind>/<sha256 of the original>/record.json    what it is a copy of, and what its files are; or that there
                                                           is nothing to gain

A copy decides scores as the model itself does. It is used only where its folder and files belong to this user or root
and nobody else may write to them, where its record says that it was made of just this content by just this version, and
where its files are what was written: their sha256 is compared again when a stamp differs. Else the original runs, and
one warning says why.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_rerank_integrations.core.model.identity import sha256, stamp
from onnx_rerank_integrations.core.model.locks import locked
from onnx_rerank_integrations.core.model.storage import make_folder, read_record, why_untrusted, write_atomically

logger = logging.getLogger(__name__)

MOST_BYTES = 20_000_000_000
"""All copies together; those that were used longest ago go first."""

MOST_COPIES = 256
"""The same in number, the records of graphs with nothing to gain included."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_RECORD = "record.json"
_warned: set[str] = set()


class NoCopyError(Exception):
    """There is nothing to gain from a copy, or none can be made; the message says why. Remembered."""


def why_no_copy(cache: Path, kind: str, digest: str) -> str:
    """What is remembered of a graph that has no copy, or why copies aren't used."""
    record = read_record(cache / kind / digest / _RECORD) or {}
    return str(record.get("reason") or f"the copies in {cache} can't be trusted")


@dataclass(frozen=True)
class Copy:
    """One copy on disk, or the knowledge that a graph has none.

    Attributes:
        folder: Where it lies.
        kind: What was done to it, such as ``first-token``.
        source: The original's file name.
        size: Bytes on disk.
        used: When it was last opened, in seconds since 1970.
        reason: Why there is no copy; empty where there is one.
    """

    folder: Path
    kind: str
    source: str
    size: int
    used: float
    reason: str


def copy_of(
    source: Path,
    digest: str,
    kind: str,
    *,
    made_by: str,
    make: Callable[[Path], list[str]],
    cache: Path,
) -> Path | None:
    """The copy of a graph, made now where there is none. Processes may call it at once.

    Args:
        source: The original, for messages.
        digest: The sha256 of its content.
        kind: What is done to it: a folder's name.
        made_by: The versions of all that decides the result; a copy made by others is made again.
        make: Writes ``model.onnx`` and what belongs to it to an empty folder, and gives the names. Raises NoCopyError.
        cache: See `identity.own_cache`.

    Returns:
        Its ``model.onnx``; None where there is nothing to gain, or where the copy can't be trusted (one warning).

    Raises:
        OSError: The cache can't be written.
    """
    entry = cache / kind / digest
    record: dict[str, Any] | None
    try:
        record = _usable_record(entry, cache, digest, made_by)
        if record is None:
            make_folder(entry, private=True)
            _refuse_untrusted(entry, cache)
            with locked(entry / "lock"):
                record = _usable_record(entry, cache, digest, made_by)
                if record is None:
                    record = _build(source, entry, cache, digest, made_by, make)
            _make_room(cache, entry)
    except _UntrustedError as reason:
        _warn_once(
            f"the copies of graphs in {cache} aren't used, models run as they are: {reason}. "
            f"Only you should be able to write there: remove that folder, or name another with ONNX_RERANK_CACHE."
        )
        return None
    with contextlib.suppress(OSError):
        os.utime(entry / _RECORD)
    if not record["applies"]:
        logger.debug("no %s copy of %s: %s", kind, source, record["reason"])
        return None
    return entry / "model.onnx"


def copies(cache: Path) -> list[Copy]:
    """All copies in a cache, those that were used last first."""
    found = []
    for path in cache.glob(f"*/*/{_RECORD}"):
        if _is_an_entry(path.parent) and (record := read_record(path)):
            with contextlib.suppress(OSError):
                size = sum(file.lstat().st_size for file in path.parent.iterdir())
                source, reason = str(record.get("source", "")), str(record.get("reason", ""))
                used = path.stat().st_mtime
                found.append(Copy(path.parent, path.parent.parent.name, source, size, used, reason))
    return sorted(found, key=lambda copy: copy.used, reverse=True)


def remove(copy: Copy) -> None:
    """Removes the files of a copy, and its folder if nothing else lies there."""
    if not _is_an_entry(copy.folder):
        return
    for pattern in (_RECORD, "model.onnx", "weights-*.bin", "lock", ".*.tmp"):
        for file in copy.folder.glob(pattern):
            file.unlink(missing_ok=True)
    _remove_leftovers(copy.folder)
    with contextlib.suppress(OSError):
        copy.folder.rmdir()


class _UntrustedError(Exception):
    """Somebody else may have written what lies in the cache."""


def _is_an_entry(folder: Path) -> bool:
    return bool(_DIGEST.fullmatch(folder.name)) and not folder.is_symlink() and not folder.parent.is_symlink()


def _refuse_untrusted(path: Path, cache: Path) -> None:
    if reason := why_untrusted(path, cache):
        raise _UntrustedError(reason)


def _usable_record(entry: Path, cache: Path, digest: str, made_by: str) -> dict[str, Any] | None:
    """What is known of the graph; None where that is nothing, outdated, damaged, or of another graph."""
    path = entry / _RECORD
    if not path.is_file():
        return None
    _refuse_untrusted(path, cache)
    record = read_record(path)
    try:
        if record["made_by"] != made_by or record["copy_of"] != digest:
            return None
        if not record["applies"]:
            return record
        for name, (known_stamp, known_sha256) in record["files"].items():
            file = entry / name
            _refuse_untrusted(file, cache)
            if list(stamp(file)) != known_stamp and sha256(file, cache) != known_sha256:
                _warn_once(f"{file} isn't what was written there: it was changed or damaged, and is made again")
                return None
        return record if "model.onnx" in record["files"] else None
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _build(
    source: Path, entry: Path, cache: Path, digest: str, made_by: str, make: Callable[[Path], list[str]]
) -> dict[str, Any]:
    _remove_leftovers(entry)
    record: dict[str, Any] = {"made_by": made_by, "copy_of": digest, "source": source.name}
    try:
        with tempfile.TemporaryDirectory(dir=entry, suffix=".partial") as folder:
            names = make(Path(folder))
            for name in names:
                os.replace(Path(folder) / name, entry / name)
    except NoCopyError as reason:
        record |= {"applies": False, "reason": str(reason)}
    else:
        files = {name: (stamp(entry / name), sha256(entry / name, cache)) for name in names}
        record |= {"applies": True, "reason": "", "files": files}
        for outdated in entry.glob("weights-*.bin"):
            if outdated.name not in names:
                outdated.unlink(missing_ok=True)
    write_atomically(entry / _RECORD, json.dumps(record, indent=1), private=True)
    return record


def _make_room(cache: Path, newest: Path) -> None:
    """Removes the copies that were used longest ago, beyond `MOST_BYTES` and `MOST_COPIES`."""
    kept = total = 0
    for copy in copies(cache):
        kept, total = kept + 1, total + copy.size
        if copy.folder != newest and (kept > MOST_COPIES or total > MOST_BYTES):
            logger.info("the copy of %s in %s makes room for others", copy.source, copy.folder)
            remove(copy)
            kept, total = kept - 1, total - copy.size


def _remove_leftovers(entry: Path) -> None:
    """What processes that were killed in mid-work left behind."""
    for leftover in entry.glob("*.partial"):
        if not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        logger.warning("%s", message)

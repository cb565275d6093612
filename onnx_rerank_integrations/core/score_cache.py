"""Scores that are remembered: in memory, or in an SQLite file that outlives the process and is shared between them."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import random
import sqlite3
import struct
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.engine.forks import Lock, undivided
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError
from onnx_rerank_integrations.core.model.storage import expanded, make_folder, why_untrusted
from onnx_rerank_integrations.core.scoring import Floats
from onnx_rerank_integrations.core.types import Pair

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

RECIPE = 2
"""Of the way from texts to logits in this package: raise it whenever the same files and options give other scores."""

DISK_ENTRIES = 1_000_000
"""Most scores an SQLite file holds, about 50 MB; the oldest go first."""

BUSY_SECONDS = 5.0
"""How long a call waits while other processes write."""

START_SECONDS = 30.0
"""How long a start waits for others that start at the same time."""

PAUSE_SECONDS = 60.0
"""How long a file that couldn't be used is left alone: a locked one would cost every call `BUSY_SECONDS`."""

OUR_TABLES = {"scores", "logits"}
"""``logits`` is what older versions kept; it isn't read any more."""

KEYS_PER_QUERY = 500
"""SQLite takes at least 999 values in one statement."""


class Store(Protocol):
    """Logits by key."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """Those that are there."""

    def put(self, logits: Mapping[bytes, float]) -> None:
        """Adds logits; old ones make room."""


class ScoreCache(TextCrossEncoderBase):
    """An encoder that remembers its scores.

    Args:
        encoder: Computes what isn't remembered.
        store: Where scores are kept.
        key: What the encoder's logits depend on beside the texts; see `OnnxCrossEncoder.identity`.
    """

    def __init__(self, encoder: TextCrossEncoderBase, store: Store, key: bytes) -> None:
        self._encoder = encoder
        self._store = store
        self._key = key
        self.activation = encoder.activation

    @property
    def config(self) -> Mapping[str, Any]:
        return self._encoder.config

    def logits(
        self,
        pairs: Sequence[Pair],
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Floats:
        keys = pair_keys(self._key, pairs)
        by_key = dict(zip(keys, pairs, strict=True))
        logits = self._store.get(list(by_key))
        unknown = [key for key in by_key if key not in logits]
        if unknown:
            computed = self._encoder.logits(
                [by_key[key] for key in unknown],
                batch_size=batch_size,
                parallel=parallel,
                show_progress=show_progress,
            )
            new = dict(zip(unknown, map(float, computed), strict=True))
            self._store.put({key: logit for key, logit in new.items() if math.isfinite(logit)})
            logits |= new
        return np.array([logits[key] for key in keys])

    def token_count(self, pairs: Iterable[Pair]) -> int:
        return self._encoder.token_count(pairs)

    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        return self._encoder.truncated(pairs)


def pair_keys(model_key: bytes, pairs: Sequence[Pair]) -> list[bytes]:
    """One key of 16 bytes per pair, for one model with its options."""
    keys = []
    for query, document in pairs:
        digest = hashlib.blake2b(model_key, digest_size=16)
        for text in (query, document):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
        keys.append(digest.digest())
    return keys


def model_key(content: str, options: Mapping[str, object]) -> bytes:
    """Changes whenever a model's content (`identity.content`), an option that changes its logits, or `RECIPE` does."""
    return hashlib.blake2b(repr((RECIPE, content, sorted(options.items()))).encode(), digest_size=32).digest()


def open_store(where: int | str | Path | None) -> Store | None:
    """A store of so many scores in memory, one in an SQLite file, or none."""
    if where is None:
        return None
    if isinstance(where, bool) or not isinstance(where, (int, str, Path)):
        raise InputTypeError(f"score_cache must be a number of scores, a file or None, not {where!r}")
    if isinstance(where, int):
        if where < 1:
            raise InputValueError(f"score_cache={where} must be 1 or more scores, or None for no cache")
        return MemoryCache(where)
    return DiskCache(expanded(where))


class MemoryCache:
    """The least recently used scores go first. Safe to share between threads."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._logits: OrderedDict[bytes, float] = OrderedDict()
        self._lock = Lock()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        with self._lock:
            found = {key: self._logits[key] for key in keys if key in self._logits}
            for key in found:
                self._logits.move_to_end(key)
            return found

    def put(self, logits: Mapping[bytes, float]) -> None:
        with self._lock:
            self._logits.update(logits)
            while len(self._logits) > self._entries:
                self._logits.popitem(last=False)


class DiskCache:
    """An SQLite file: each call opens it anew, so threads, forks and other processes may share it.

    It never costs an answer. What fails once the cache is made is told in one warning, and the file is left alone for
    `PAUSE_SECONDS`; one that is removed is made anew. Each score is kept with a checksum, and a damaged one isn't used.

    Args:
        path: The file, made where there is none, for this user alone.
        entries: Most scores it holds; the oldest go first.

    Raises:
        InputValueError: The file is something else, others could have written it, or its place can't be used.
    """

    def __init__(self, path: Path, entries: int = DISK_ENTRIES) -> None:
        self._path = path
        self._entries = entries
        self._resting_until = 0.0
        self._warned = False
        try:
            self._path = path.absolute()  # the same file wherever the process goes later
            self._make()
            if not self._path.is_file():
                raise self._refused("is no file")
        except InputValueError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise self._refused(f"can't be made: {error}") from error
        if reason := self._foreign():
            raise self._refused(f"could have been written by others: {reason}")
        try:
            self._set_up()
        except sqlite3.Error as error:
            if "not a database" in str(error):
                raise self._refused(f"can't be used as an SQLite file: {error}") from error
            self._rest(error)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        return self._safely(partial(self._get, keys)) or {}

    def put(self, logits: Mapping[bytes, float]) -> None:
        self._safely(partial(self._put, logits))

    def _get(self, keys: Sequence[bytes], connection: sqlite3.Connection) -> dict[bytes, float]:
        found: dict[bytes, float] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            asked = keys[start : start + KEYS_PER_QUERY]
            marks = ", ".join("?" * len(asked))
            for key, entry in connection.execute(f"SELECT key, entry FROM scores WHERE key IN ({marks})", asked):
                if (logit := unpacked(key, entry)) is not None:
                    found[key] = logit
        return found

    def _put(self, logits: Mapping[bytes, float], connection: sqlite3.Connection) -> None:
        rows = [(key, packed(key, logit)) for key, logit in logits.items()]
        connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)
        connection.execute("DELETE FROM scores WHERE rowid <= (SELECT MAX(rowid) FROM scores) - ?", (self._entries,))

    def _safely(self, work: Callable[[sqlite3.Connection], Found]) -> Found | None:
        """What `work` gives; None where the file can't be used now."""
        if time.monotonic() < self._resting_until:
            return None
        try:
            if not self._path.exists():
                self._make()
                self._set_up()
            if reason := self._foreign():
                raise PermissionError(f"others could have written it: {reason}")
            with self._connect() as connection:
                return work(connection)
        except (sqlite3.Error, OSError, InputValueError) as error:
            self._rest(error)
            return None

    def _make(self) -> None:
        make_folder(self._path.parent, private=True)
        if not self._path.exists():
            flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
            os.close(os.open(self._path, flags, 0o600))

    def _foreign(self) -> str | None:
        """Why somebody else may have chosen what the file holds; SQLite reads the files beside it, too."""
        beside = (self._path.with_name(self._path.name + end) for end in ("-wal", "-shm", "-journal"))
        with contextlib.suppress(FileNotFoundError):
            for file in (self._path, *(one for one in beside if os.path.lexists(one))):
                if file != self._path and file.is_symlink():
                    return f"{file} is a link"
                if reason := why_untrusted(file, file):
                    return reason
        return None

    def _set_up(self) -> None:
        """Makes the table where it lacks. Processes that start together wait for each other.

        ``PRAGMA journal_mode = WAL`` needs the file alone for a moment, and doesn't wait for it by itself.
        """
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                with self._connect() as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                with self._connect() as connection:
                    tables = {
                        name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE sql NOTNULL")
                    }
                    if tables - OUR_TABLES:
                        raise self._refused("is the database of another program")
                    if "scores" not in tables:
                        connection.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, entry BLOB)")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(random.uniform(0.01, 0.05))

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """A connection that commits, or rolls back, and is closed after its block."""
        with (
            undivided(),
            contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS)) as connection,
            connection,
        ):
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection

    def _rest(self, error: Exception) -> None:
        """Says once what is wrong with the file, and leaves it alone for a while."""
        self._resting_until = time.monotonic() + PAUSE_SECONDS
        if not self._warned:
            logger.warning(
                "score_cache=%r can't be used now, scores are computed without it: %s", str(self._path), error
            )
        self._warned = True

    def _refused(self, reason: str) -> InputValueError:
        return InputValueError(
            f"score_cache={str(self._path)!r} {reason}.\nName another file, in a folder where only you may write."
        )


def packed(key: bytes, logit: float) -> bytes:
    """A score with a checksum of it and its key."""
    value = struct.pack("<d", logit)
    return value + zlib.crc32(key + value).to_bytes(4, "little")


def unpacked(key: bytes, entry: object) -> float | None:
    """The score, None where its bytes aren't what was written."""
    if not isinstance(entry, bytes) or len(entry) != 12 or packed(key, struct.unpack("<d", entry[:8])[0]) != entry:
        return None
    logit: float = struct.unpack("<d", entry[:8])[0]
    return logit

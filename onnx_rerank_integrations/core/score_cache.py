"""Scores that are remembered: in memory, or in an SQLite file that outlives the process and is shared between them."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.engine.forks import Lock, undivided
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError
from onnx_rerank_integrations.core.scoring import Floats
from onnx_rerank_integrations.core.types import Pair

DISK_ENTRIES = 1_000_000
"""Most scores an SQLite file holds, about 50 MB; the oldest go first."""

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


def model_key(files: Sequence[Path], options: Mapping[str, object]) -> bytes:
    """Changes whenever a file of the model or an option that changes its logits does."""
    digest = hashlib.blake2b(repr(sorted(options.items())).encode(), digest_size=32)
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.digest()


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
    return DiskCache(Path(where).expanduser())


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
    """An SQLite file: each call opens it anew, so threads, forks and other processes may share it."""

    def __init__(self, path: Path, entries: int = DISK_ENTRIES) -> None:
        self._path = path
        self._entries = entries
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._connect() as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("CREATE TABLE IF NOT EXISTS logits (key BLOB PRIMARY KEY, logit REAL NOT NULL)")
        except sqlite3.DatabaseError as error:
            raise InputValueError(
                f"score_cache={str(path)!r} can't be used as an SQLite file: {error}\n"
                "Name another file, or remove this one."
            ) from error

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        found: dict[bytes, float] = {}
        with self._connect() as connection:
            for start in range(0, len(keys), KEYS_PER_QUERY):
                asked = keys[start : start + KEYS_PER_QUERY]
                marks = ", ".join("?" * len(asked))
                found.update(connection.execute(f"SELECT key, logit FROM logits WHERE key IN ({marks})", asked))
        return found

    def put(self, logits: Mapping[bytes, float]) -> None:
        with self._connect() as connection:
            connection.executemany("INSERT OR REPLACE INTO logits VALUES (?, ?)", logits.items())
            connection.execute(
                "DELETE FROM logits WHERE rowid <= (SELECT MAX(rowid) FROM logits) - ?", (self._entries,)
            )

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """A connection that commits, or rolls back, and is closed after its block."""
        with undivided(), closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            yield connection

"""What a model's content is: the sha256 of each file, taken once per change of the file.

Everything that remembers something of a model asks here: the score cache, the optimized copies, the check of a
download, and `expected_sha256`. A file is known again by its `stamp`, in this process and, through small files in a
folder that only this user can write to, in later ones:

    <cache>/digests/<sha256 of the path>.json       a file's stamp and sha256: a gigabyte isn't hashed at every start

sha256 takes 2 s per GB (2.2 s for 1.07 GB out of the page cache, measured on two cores of an AMD EPYC).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path, PurePath

from onnx_rerank_integrations.core.model.storage import (
    expanded,
    make_folder,
    read_record,
    why_untrusted,
    write_atomically,
)
from onnx_rerank_integrations.core.onnx_format import external_data

_log = logging.getLogger(__name__)

CACHE_VARIABLE = "ONNX_RERANK_CACHE"
"""Environment variable that moves this package's own cache; by default it lies beside the hub's."""

OUR_FOLDER = "onnx-rerank"

MOST_REMEMBERED = 4096
"""Files, in the memory of a process and on disk; beyond it all are forgotten, and hashed again when met again."""

TICK = 0.02
"""Seconds; the clock that file systems stamp changes with moves on every 4 to 10 ms."""

Stamp = tuple[int, int, int, int]

_known: dict[tuple[Path, str], tuple[Stamp, str]] = {}


def own_cache(cache_dir: str | Path | None = None) -> Path:
    """Where this package keeps what it made: below `cache_dir`, else ``$ONNX_RERANK_CACHE``, else beside the hub's."""
    if cache_dir is not None:
        return expanded(cache_dir).absolute() / OUR_FOLDER
    if moved := os.environ.get(CACHE_VARIABLE):
        return expanded(moved).absolute()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).parent / OUR_FOLDER


def stamp(path: Path) -> Stamp:
    """Size, times and number of a file: differs whenever it was written to or replaced.

    The time of change (ctime) can't be set, so that a file of the same size and with its old time of writing put back
    is another one too.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def sha256(path: Path, cache: Path | None = None) -> str:
    """A file's sha256; read again only where its stamp has changed.

    Args:
        path: The file, links followed.
        cache: Whose ``digests`` folder to remember it in for other processes; None for `own_cache()`.
    """
    return _digest(path, "sha256", cache)


def hash_like(digest: str, path: Path, cache: Path | None = None) -> str:
    """The sha256, or, where `digest` is as short as git's, the sha1 that git names the file's content by."""
    return _digest(path, kind_of(digest), cache)


def kind_of(digest: str) -> str:
    """Which of `hash_file`'s kinds a digest is, by its length."""
    return "sha256" if len(digest) == 64 else "git"


def learn(path: Path, digest: str, cache: Path | None = None) -> None:
    """Remembers what a file holds that was hashed a moment ago, before it got its place."""
    path = path.resolve()
    kind = kind_of(digest)
    cache = own_cache() if cache is None else cache
    found = _settled(path)
    _known[path, kind] = found, digest
    _remember(_memo(path, kind, cache), cache, found, digest)


def content(paths: Iterable[Path], root: Path, cache: Path | None = None) -> str:
    """One sha256 over several files: of the list that ``sha256sum`` prints of them in the folder `root`.

    One file alone is its own.
    """
    digests = {Path(os.path.relpath(path, root)).as_posix(): sha256(path, cache) for path in paths}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()).hexdigest()


def hash_file(path: Path, kind: str = "sha256") -> str:
    """A file's sha256, or git's sha1 of it, read now and not remembered."""
    with path.open("rb") as file:
        if kind == "sha256":
            return hashlib.file_digest(file, "sha256").hexdigest()
        git = hashlib.sha1(f"blob {os.fstat(file.fileno()).st_size}\0".encode(), usedforsecurity=False)
        while chunk := file.read(1 << 20):
            git.update(chunk)
        return git.hexdigest()


def graph_files(graph: Path) -> list[Path]:
    """A graph and its external data, in the order of their names.

    Raises:
        ValueError: The file isn't a sound ONNX protobuf, or names data outside its folder.
    """
    names = sorted(external_data(graph))
    for name in names:
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ValueError(f"external data outside the model's folder: {name}")
    return [graph, *(graph.parent / name for name in names)]


def _digest(path: Path, kind: str, cache: Path | None) -> str:
    path = path.resolve()
    known = _known.get((path, kind))
    if known and known[0] == stamp(path):
        return known[1]
    cache = own_cache() if cache is None else cache
    memo = _memo(path, kind, cache)
    before = stamp(path)
    if (digest := _remembered(memo, cache, before)) is None:
        before = _settled(path)
        digest = hash_file(path, kind)
        if stamp(path) != before:  # being written: true of what was read, and not to be remembered
            return digest
        _remember(memo, cache, before, digest)
    if len(_known) >= MOST_REMEMBERED:
        _known.clear()
    _known[path, kind] = before, digest
    return digest


def _settled(path: Path) -> Stamp:
    """A file's stamp, once the clock has moved on from its last change: another one would get another stamp."""
    while True:
        found = stamp(path)
        if not 0 <= time.time() - found[2] / 1e9 < TICK:
            return found
        time.sleep(TICK / 4)


def _memo(path: Path, kind: str, cache: Path) -> Path:
    name = hashlib.sha256(f"{kind} {path}".encode("utf-8", "surrogateescape")).hexdigest()
    return cache / "digests" / f"{name}.json"


def _remembered(memo: Path, cache: Path, found: Stamp) -> str | None:
    try:
        record = read_record(memo)
        if not record or why_untrusted(memo, cache):
            return None
        return str(record["digest"]) if record.get("stamp") == list(found) else None
    except (OSError, KeyError):
        return None


def _remember(memo: Path, cache: Path, found: Stamp, digest: str) -> None:
    try:
        make_folder(memo.parent, private=True)
        if reason := why_untrusted(memo.parent, cache):
            raise PermissionError(reason)
        write_atomically(memo, json.dumps({"stamp": found, "digest": digest}), private=True)
        known = list(memo.parent.glob("*.json"))
        for old in known if len(known) > MOST_REMEMBERED else ():
            old.unlink(missing_ok=True)
    except OSError as error:
        _log.debug("what files hold isn't remembered in %s: %s", memo.parent, error)

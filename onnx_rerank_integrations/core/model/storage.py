"""Files of our own on this machine: read up to a limit, written at once, trusted only where nobody else can write."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST_JSON_BYTES = 256 << 20
"""The largest vocabulary in a tokenizer.json has some 50 MB; what is longer would only take memory."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def expanded(path: str | Path) -> Path:
    """The path with a user's folder in the place of ``~``; as it is where there is no such user, as shells leave it."""
    return Path(os.path.expanduser(path))  # pathlib's raises RuntimeError there


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """What a small file holds.

    Args:
        path: The file.
        most: Bytes that it may have; None for `MOST_JSON_BYTES`.

    Raises:
        OSError: It can't be read, or is none: a pipe would be waited for, and a device has no end.
        ValueError: It has more bytes than that.
    """
    most = MOST_JSON_BYTES if most is None else most
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: It can't be read.
        ValueError: It isn't JSON in UTF-8, is nested too deeply, or has more than `MOST_JSON_BYTES`.
    """
    try:
        return json.loads(read_bytes(path).decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_record(path: Path) -> dict[str, Any]:
    """The object in a JSON file that this package wrote; ``{}`` where there is none, or it can't be read."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_atomically(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Puts a file in its place at once: whoever reads it meanwhile finds the old one or the new one, whole.

    Folders that are missing are made. `private` lets only this user read and write what is new.
    """
    make_folder(path.parent, private=private)
    with replacing(path, private=private) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """An empty file beside `path` to write to; it takes the place of `path` where the block ends well, and goes else.

    A link in the place of `path` is replaced, never followed.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666))
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_folder(folder: Path, *, private: bool = False) -> None:
    """Makes a folder and those above it that are missing; `private` ones may be entered by this user only."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder.parent == folder:
            break
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(mode=0o700 if private else 0o777, exist_ok=True)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is below `folder`, all links on the way followed as far as they lead."""
    return path.resolve().is_relative_to(folder.resolve())


def why_untrusted(path: Path, root: Path) -> str | None:
    """Why somebody else may have chosen what `path` holds; None where only this user or root can write to it.

    Everything from the folder `root` down to `path` must belong to this user or to root, and nobody else may write to
    it. Above `root`, links must belong to them too, and folders that everybody may write to must be sticky, as /tmp is.
    Where a system has no such owners (Windows), everything is trusted.

    Raises:
        OSError: Something on the way isn't there.
    """
    if not hasattr(os, "geteuid"):
        return None
    root = root.absolute()
    for start in dict.fromkeys((root, root.resolve())):
        for above in reversed(start.parents):
            status = above.lstat()
            if stat.S_ISLNK(status.st_mode):
                if not _is_ours(status):
                    return f"the link {above} belongs to user {status.st_uid}"
            elif status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
                return f"everybody may write to {above}"
    path = path.absolute()
    below = [path, *path.parents]
    for part in reversed(below[: below.index(root) + 1]):
        status = part.lstat()
        if not _is_ours(status):
            return f"{part} belongs to user {status.st_uid}"
        if stat.S_ISLNK(status.st_mode):
            if part != root:
                return f"{part} is a link"
            status = part.stat()
            if not _is_ours(status):
                return f"{part.resolve()} belongs to user {status.st_uid}"
        if status.st_mode & _OTHERS_WRITE:
            return f"others may write to {part}"
    return None


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())

"""Locks between processes: files, held with huggingface_hub's own kind of lock, so that other tools wait too."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger(__name__)

LOCK_SECONDS = 600.0
"""How long to wait for another process; after that, the work is done a second time beside it."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether this process alone holds the lock; not where it can't be had, on a file system without locks say."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # exported without being declared so

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(path, timeout=LOCK_SECONDS))
        except OSError as error:
            _log.debug("going on without the lock %s: %s", path, error)
            yield False
        else:
            yield True

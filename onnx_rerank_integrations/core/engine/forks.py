"""Locks, and what is made once, that are sound in a forked child too. Imports nothing of ours.

A fork copies the memory and only the thread that forks: in the child, a lock that another thread held is never
released, and what it was making is never finished.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its own lock for forks is taken after ours where it is registered first
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

PATIENCE = 60.0
"""Seconds that a fork waits at most for what `undivided` guards. To import onnxruntime takes 0.2 s, to open a graph of
gigabytes some seconds."""


class Renewed(Protocol):
    def renew(self) -> None:
        """Takes the state of an object that no thread is using."""


_renewed: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renew_in_child(thing: Renewed) -> None:
    """Has the thing's `renew` called in each forked child, for as long as the thing lives."""
    _renewed.add(thing)


class Lock:
    """A lock that is free in a forked child, whoever held it in the parent."""

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Once(Generic[Value]):
    """A value made by the first thread that asks for it; who asks meanwhile waits, and shares its failure.

    So a failure that takes long isn't repeated by each waiting thread in turn. A later call tries anew, and so does a
    child that was forked in the middle.

    Attributes:
        made: The value, where it's there already.
    """

    def __init__(self) -> None:
        self.made: Value | None = None
        self._lock = Lock()
        self._making: Future[None] | None = None
        renew_in_child(self)

    def renew(self) -> None:
        self._making = None

    def forget(self) -> None:
        """Has the value made anew when it is asked for again."""
        self.made = None

    def __call__(self, make: Callable[[], Value]) -> Value:
        """The value; given by `make` the first time."""
        while (made := self.made) is None:
            mine: Future[None] = Future()
            try:
                with self._lock:
                    making = self._making = self._making or mine
                if making is mine and self.made is None:
                    self.made = make()
            except BaseException as error:
                self._finish(mine, error)
                raise
            self._finish(mine)
            with suppress(CancelledError):  # an interrupt of the thread that made it is its own
                making.result()
        return made

    def _finish(self, mine: Future[None], error: BaseException | None = None) -> None:
        """Lets go those who wait for this thread, where it is the one that makes the value."""
        if self._making is mine:
            self._making = None
        if error is None:
            mine.set_result(None)
        elif isinstance(error, Exception):
            mine.set_exception(error)
        else:
            mine.cancel()


_entrance = threading.Condition()
_inside = 0
_forking = 0
_depth: ContextVar[int] = ContextVar("undivided", default=0)
"""Carried to a thread that works for the block, and so isn't to wait for it."""


@contextmanager
def undivided() -> Iterator[None]:
    """Around what a fork mustn't cut in two, for it uses locks that aren't ours: an import, the
    opening of a graph, a statement of SQLite. A fork waits until no other thread is in such a block.
    """
    global _inside
    depth = _depth.get()
    if depth == 0:
        with _entrance:
            _entrance.wait_for(lambda: not _forking, timeout=PATIENCE)
            _inside += 1
    token = _depth.set(depth + 1)
    try:
        yield
    finally:
        _depth.reset(token)
        if depth == 0:
            with _entrance:
                _inside -= 1
                _entrance.notify_all()


_QUIET_TOKENIZERS = "TOKENIZERS_PARALLELISM"
"""Unless this variable is set, tokenizers warns on stderr of each fork after its thread pool was used."""

_set_for_fork: list[bool] = []


def _before_fork() -> None:
    global _forking
    _set_for_fork.append(_QUIET_TOKENIZERS not in os.environ)
    os.environ.setdefault(_QUIET_TOKENIZERS, "false")
    own = 1 if _depth.get() else 0
    _entrance.acquire()
    _forking += 1
    if not _entrance.wait_for(lambda: _inside <= own, timeout=PATIENCE):
        logger.warning("forked beside a thread that was opening files for over %g s: the child may hang", PATIENCE)


def _after_fork_in_parent() -> None:
    global _forking
    if _set_for_fork.pop():
        os.environ.pop(_QUIET_TOKENIZERS, None)
    _forking = max(_forking - 1, 0)
    _entrance.notify_all()
    _entrance.release()


def _after_fork_in_child() -> None:
    global _entrance, _inside, _forking
    _set_for_fork.clear()
    _entrance, _inside, _forking = threading.Condition(), 1 if _depth.get() else 0, 0
    for thing in list(_renewed):
        thing.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

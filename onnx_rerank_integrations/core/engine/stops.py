"""Ending a call before its end: at a time, or when nobody waits for it any more."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from typing import TypeVar

from onnx_rerank_integrations.core.checks import check_timeout
from onnx_rerank_integrations.core.engine.forks import renew_in_child
from onnx_rerank_integrations.core.errors import RerankTimeoutError

Result = TypeVar("Result")

STOPPED_WITHIN = 0.05
"""Seconds that a call out of time waits for its work to end. A run of onnxruntime ends 20 ms after it is told to."""


LONGEST_EXIT = 5.0
"""Seconds that the end of the process waits for daemon threads to come back from a library's code."""


class Exit:
    """Lets the process end while daemon threads score.

    A daemon thread that comes back from C++ or Rust while Python ends aborts the process ("terminate called without an
    active exception"). So runs are ended first, and the thread is held where it does no harm.
    """

    def __init__(self) -> None:
        self.begun = False
        self.inside: list[Callable[[], object]] = []
        renew_in_child(self)
        atexit.register(self.begin)

    def renew(self) -> None:
        self.inside = []

    def begin(self) -> None:
        self.begun = True
        for tell in list(self.inside):
            tell()
        end = time.monotonic() + LONGEST_EXIT
        while self.inside and time.monotonic() < end:
            time.sleep(0.001)

    def hold(self) -> None:
        """Where the process is ending, keeps a daemon thread until it is over."""
        if self.begun and threading.current_thread().daemon:
            threading.Event().wait()


_exit = Exit()


class Stop:
    """Says to all that works for a call that it is over. Any thread may say it, at any time."""

    def __init__(self) -> None:
        self._over = False
        self._told: list[Callable[[], object]] = []

    def now(self) -> None:
        self._over = True
        for tell in list(self._told):
            tell()

    def check(self) -> None:
        """Raises CancelledError once it is over."""
        if self._over:
            raise CancelledError("the call that this was computed for is over")

    @contextmanager
    def calling(self, tell: Callable[[], object] = bool) -> Iterator[None]:
        """Around a library's code: calls `tell` if it is over before the block's end, from the thread that says so.

        Raises:
            CancelledError: It is over already.
        """
        _exit.hold()
        self.check()
        self._told.append(tell)
        _exit.inside.append(tell)
        try:
            if self._over or _exit.begun:
                tell()
            yield
        finally:
            self._told.remove(tell)
            _exit.inside.remove(tell)
            _exit.hold()


around: ContextVar[Stop | None] = ContextVar("stop", default=None)
"""The stop of the block around, in this thread and in copies of its context; None where nobody can end the work.

A daemon thread needs one nevertheless, where it calls a library: the process may end meanwhile."""


def current() -> Stop:
    """The stop of the block around; where there is none, one that only the end of the process heeds."""
    return around.get() or Stop()


@contextmanager
def stoppable() -> Iterator[Stop]:
    """A stop for what the block begins: set by the stop of the block around, and by an exception out of this one.

    A context variable carries it to the blocks within, so that an encoder of encoders hands nothing on.
    """
    outer, stop = around.get(), Stop()
    with outer.calling(stop.now) if outer else nullcontext():
        token = around.set(stop)
        try:
            yield stop
        except BaseException:
            stop.now()
            raise
        finally:
            around.reset(token)


@contextmanager
def unstoppable() -> Iterator[None]:
    """Around what others wait for too, such as the opening of a model: no call's end is its end."""
    token = around.set(None)
    try:
        yield
    finally:
        around.reset(token)


def deadline(timeout: float) -> float:
    """When that many seconds from now are over, on the monotonic clock.

    Raises:
        InputTypeError, InputValueError: It's no number of seconds above 0.
    """
    check_timeout(timeout)
    return time.monotonic() + timeout


def finish_by(end: float, function: Callable[[], Result]) -> Result:
    """What the function gives, computed in a thread of its own.

    Raises:
        RerankTimeoutError: It isn't done by then. It was told to stop, and does so at its next batch or within it.
    """
    with stoppable() as stop:
        done: Future[Result] = Future()
        context = copy_context()

        def work() -> None:
            try:
                done.set_result(context.run(function))
            except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
                done.set_exception(error)

        worker = threading.Thread(target=work, name="onnx-rerank-timed")
        worker.start()
        try:
            return done.result(min(max(end - time.monotonic(), 0), threading.TIMEOUT_MAX))
        except TimeoutError:
            if done.done():
                return done.result()
            stop.now()
            worker.join(STOPPED_WITHIN)
            raise out_of_time() from None


def out_of_time() -> RerankTimeoutError:
    return RerankTimeoutError(
        "The timeout was over before the scores were there: no ranking was made, and the work was stopped.\n"
        "Allow more time, or give fewer documents, a smaller max_length or a smaller model."
    )

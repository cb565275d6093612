"""The command's exit codes, and what a signal does to it. A wrong use is 2, as typer has it."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

OUR_ERROR = 1
INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143
"""128 and the signal's number, as shells have it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, with its files and workers cleared away."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Has SIGTERM raise `Terminated` in the block, unless somebody else handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def terminate(*_: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stopped(stop: KeyboardInterrupt) -> int:
    """The exit code of a command that a signal ended, once that is said on stderr, with the notes of `stop`."""
    word, code = ("Terminated.", TERMINATED) if isinstance(stop, Terminated) else ("Interrupted.", INTERRUPTED)
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.write(" ".join([word, *getattr(stop, "__notes__", ())]) + "\n")
    return code

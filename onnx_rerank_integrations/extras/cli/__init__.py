"""The command ``onnx-rerank``. Always installed; typer and rich, which it is made of, come with the extra [cli].

    app.py         the list of commands, and what an error of ours does to them
    options.py     options that several commands share
    output.py      tables, JSON lines and notes
    rank.py  models.py  evaluate.py  ...    one command or family of commands each

A command needs nothing but the core until it runs: what an extra brings is imported inside (`needs_extra`).
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence

from onnx_rerank_integrations.core.errors import MissingExtraError
from onnx_rerank_integrations.extras.cli.exit_codes import OUR_ERROR, PIPE_CLOSED, stopped, terminable
from onnx_rerank_integrations.extras.needs_extra import needs_extra


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Those after the command's name; None for the process's own.

    Returns:
        The exit code.
    """
    try:
        with terminable():
            return _run(arguments)
    except KeyboardInterrupt as stop:
        return stopped(stop)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        with needs_extra("cli", "The command onnx-rerank"):
            from onnx_rerank_integrations.extras.cli.app import app
    except MissingExtraError as error:
        sys.stderr.write(f"{error}\n")
        return OUR_ERROR
    if sys.stdout is None:
        sys.stderr.write("Error: there is no standard output to write to\n")
        return OUR_ERROR
    _write_utf8()
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what can't be read is one message, ours
    code = 0
    try:
        app(arguments if arguments is None else list(arguments), prog_name="onnx-rerank")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else OUR_ERROR
    return _flushed(code)


def _flushed(code: int) -> int:
    """The exit code, once all is written; a full disk shows no sooner than here."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = PIPE_CLOSED
    except OSError as error:
        if code == 0:
            sys.stderr.write(f"Error: the output can't be written: {error.strerror or error}\n")
        code = OUR_ERROR
    else:
        return code
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries once more, and says so
    return code


def _write_utf8() -> None:
    """UTF-8 whatever the locale. A lone surrogate becomes its JSON escape, so that JSON keeps it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")

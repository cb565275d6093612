"""The command's exit codes. A wrong use is 2, as typer has it."""

OUR_ERROR = 1
INTERRUPTED, PIPE_CLOSED = 130, 141
"""128 and the signal's number, as shells have it."""

"""Tables in Markdown: for reports, and for a command whose output isn't a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def one_line(text: str) -> str:
    """The text on one line, without control characters: documents must not steer the terminal they are shown on."""
    return " ".join(_CONTROL.sub(" ", text).split())


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> str:
    """A table with nothing cut off.

    Args:
        headers: One per column.
        rows: A cell per header each.
        numbers: The headers whose columns are aligned to the right.

    Returns:
        Lines that each end in a line feed.
    """
    rules = ["---:" if header in numbers else "---" for header in headers]
    lines = [headers, rules, *([_escaped(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(cell: str) -> str:
    return one_line(cell).replace("|", r"\|")

"""What commands write: tables and JSON lines on stdout, notes on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import typer

from onnx_rerank_integrations.extras.markdown import markdown_table, one_line
from onnx_rerank_integrations.extras.needs_extra import needs_extra

NARROWEST_TEXT = 20
"""Columns of a terminal that a shortened text keeps; the other cells are wrapped if need be."""

WRAPPED_TEXT = 600
"""Characters of the first text on a terminal."""

SHOWN_TEXT = 200
"""Characters of a text off a terminal."""

_OTHER_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""Legal inside JSON strings, but some readers of lines would end the line there."""


def write_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = (), shortened: str | None = None
) -> None:
    """A table that fits a terminal, its rows as columns where it would be too wide; elsewhere plain Markdown.

    Args:
        headers: One per column.
        rows: A cell per header each.
        numbers: The headers whose columns are aligned to the right.
        shortened: The header of a column of texts: their beginnings are shown, on a terminal in one line each but for
            the first, which is wrapped. None shows all whole.
    """
    if not sys.stdout.isatty():
        place = headers.index(shortened) if shortened else None
        shown = [[beginning(cell) if column == place else cell for column, cell in enumerate(row)] for row in rows]
        typer.echo(markdown_table(headers, shown, numbers=numbers), nl=False)
        return
    with needs_extra("cli", "A table on a terminal"):
        from rich.cells import cell_len
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

    console = Console()
    width = console.width
    cells = [[one_line(cell) for cell in row] for row in rows]
    unfolded = set(numbers)
    columns = list(zip(headers, *cells, strict=True))
    taken = sum(max(map(cell_len, column)) for column in columns) + 3 * len(columns) + 1
    if taken > width and not shortened and len(cells) < len(headers) - 1:  # turned round it is narrower
        numbers = [row[0] for row in cells] if set(headers[1:]) <= set(numbers) else ()
        unfolded = {headers[0]}
        headers, *cells = map(list, columns)
    table = Table(header_style="bold")
    for place, header in enumerate(headers):
        justify: Literal["left", "right"] = "right" if header in numbers else "left"
        table.add_column(header, justify=justify, no_wrap=header in unfolded, overflow="fold")
        if header == shortened:
            others = (column for other, column in enumerate(zip(headers, *cells, strict=True)) if other != place)
            taken = sum(max(map(cell_len, column)) for column in others)
            width = max(console.width - taken - 3 * len(headers) - 1, NARROWEST_TEXT)
            table.columns[place].max_width = width
    for line, row in enumerate(cells):
        texts = [Text(cell) for cell in row]
        if shortened:
            place = headers.index(shortened)
            texts[place].truncate(WRAPPED_TEXT if line == 0 else width, overflow="ellipsis")
        table.add_row(*texts)
    console.print(table)


def beginning(text: str) -> str:
    """The first `SHOWN_TEXT` characters or so, up to a word's end."""
    text = one_line(text)
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT].rsplit(' ', 1)[0]} ..."


def write_json_lines(records: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object per line."""
    for record in records:
        typer.echo(json.dumps(record, ensure_ascii=False).translate(_OTHER_LINE_ENDS))


def note(message: str) -> None:
    """Something the user should know that is no error."""
    typer.echo(f"Note: {message}", err=True)

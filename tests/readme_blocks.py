"""Runs a page's Python blocks one after the other: `python readme_blocks.py PAGE`. Needs nothing but Python.

What a block prints must be what the ``text`` block below it says.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[int, str, str, str]]:
    """(line, language, words after it, text) of each fenced block."""
    text = page.read_text(encoding="utf-8")
    return [(text[: found.start()].count("\n") + 1, *found.groups()) for found in BLOCK.finditer(text)]


def run(page: Path) -> int:
    """How many Python blocks the page has; those marked ``not-run`` don't count.

    Raises:
        AssertionError: A block printed something else; the message names its line.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    found = blocks(page)
    count = 0
    for place, (line, language, words, code) in enumerate(found):
        if language != "python" or "not-run" in words:
            continue
        count += 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + code, str(page), "exec", dont_inherit=True), names)
        following = found[place + 1] if place + 1 < len(found) else None
        expected = following[3] if following and following[1] == "text" else ""
        if printed.getvalue() != expected:
            raise AssertionError(f"{page.name}, line {line}: printed {printed.getvalue()!r}, not {expected!r}")
    return count


if __name__ == "__main__":
    page = Path(sys.argv[1])
    print(f"{run(page)} Python blocks of {page.name} run")

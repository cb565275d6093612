"""Tables of candidates for the tests of batch jobs, and how their processes are killed."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_rerank_integrations import TextCrossEncoder

if TYPE_CHECKING:
    import pyarrow as pa

WORDS = [
    "river",
    "bank",
    "money",
    "loan",
    "water",
    "fish",
    "deep",
    "interest",
    "rate",
    "flood",
    "boat",
    "cash",
    "bridge",
]


def candidates(rows: int, *, per_query: int = 50, seed: int = 0) -> pa.Table:
    """Queries with so many candidates each; no two texts are alike."""
    import pyarrow as pa

    chance = random.Random(seed)
    groups = [row // per_query for row in range(rows)]
    return pa.table(
        {
            "query_id": [f"q{group}" for group in groups],
            "query": [f"{WORDS[group % 13]} {WORDS[group * 7 % 13]} {group}" for group in groups],
            "doc_id": [f"d{row:06}" for row in range(rows)],
            "text": [" ".join(chance.choices(WORDS, k=chance.randint(3, 40))) + f" {row}" for row in range(rows)],
        }
    )


def by_one_call(table: pa.Table, encoder: TextCrossEncoder) -> list[float]:
    """The scores of one call over all rows."""
    return encoder.rerank_pairs(zip(*(table.column(name).to_pylist() for name in ("query", "text")), strict=True))


def best_by_one_call(table: pa.Table, encoder: TextCrossEncoder, top_n: int) -> set[tuple[str, str, int, float]]:
    """(query id, document id, rank, score) of each query's best, by a plain sort."""
    groups: dict[str, list[tuple[float, str]]] = {}
    scores = by_one_call(table, encoder)
    for group, document, score in zip(
        *(table.column(n).to_pylist() for n in ("query_id", "doc_id")), scores, strict=True
    ):
        groups.setdefault(group, []).append((-score, document))
    return {
        (group, document, rank, round(-score, 5))
        for group, rows in groups.items()
        for rank, (score, document) in enumerate(sorted(rows)[:top_n], start=1)
    }


def processes_named(title: str) -> list[int]:
    """The ids of this process's descendants whose command line holds `title`, the youngest first."""
    return [process for process in descendants(os.getpid()) if title in command_line(process)]


def descendants(ancestor: int) -> list[int]:
    """The ids of all processes below one, the youngest first."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
    found = {ancestor}
    while grown := {process for process, parent in parents.items() if parent in found} - found:
        found |= grown
    return sorted(found - {ancestor}, reverse=True)


def command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""

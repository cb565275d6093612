"""Ranks within groups: by logit, the highest first; of equal ones the lower id first, then the earlier row.

In memory for a table, and on disk for any number of rows: SQLite sorts in files of its own, so that memory stays flat.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onnx_rerank_integrations.core.scoring import Floats
from onnx_rerank_integrations.extras.batch.columns import RANK

_MEMORY = 16 * 1024
"""KiB of SQLite's cache, of which it has several; the rest is on disk. 86 MB for 2 and for 10 million rows."""


def ranked(table: pa.Table, group_by: str, logit: str, id: str | None, top_n: int | None = None) -> pa.Table:
    """The table in the order of groups and ranks, with the column ``rank``, null where the logit is.

    Args:
        table: Rows of whole groups.
        group_by: The group's column.
        logit: The logit's column.
        id: The id's column.
        top_n: Most rows of a group; rows without a rank go too. None for all rows.
    """
    keys = [(group_by, "ascending"), (logit, "descending"), *([(id, "ascending")] if id else [])]
    table = table.take(pc.sort_indices(table, sort_keys=keys))
    groups = np.asarray(pc.fill_null(table.column(group_by).combine_chunks().dictionary_encode().indices, -1))
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    ranks = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups))) + 1
    unscored = np.asarray(pc.is_null(table.column(logit)))
    table = table.append_column(RANK, pa.array(ranks, pa.int64(), mask=unscored))
    return table if top_n is None else table.filter(pc.less_equal(table.column(RANK), top_n))


class RanksOnDisk:
    """The ranks of rows that are added block by block.

    Args:
        path: Where; what is there goes.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._database = sqlite3.connect(path)
        # It is made anew after an interruption, so nothing has to survive one.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{_MEMORY}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE rows (row INTEGER PRIMARY KEY, grouped, logit REAL, id)")

    def add(self, first_row: int, groups: Iterable[Any], logits: Floats, ids: Iterable[Any]) -> None:
        """The rows of a block that have a logit."""
        rows = zip(range(first_row, first_row + len(logits)), groups, logits.tolist(), ids, strict=True)
        scored = (row for row, known in zip(rows, np.isfinite(logits), strict=True) if known)
        self._database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", scored)

    def by_row(self) -> Iterator[tuple[int, int]]:
        """(row, rank), in the order of rows."""
        ranks = "SELECT row, row_number() OVER (PARTITION BY grouped ORDER BY logit DESC, id, row) AS rank FROM rows"
        with closing(self._database.execute(f"SELECT row, rank FROM ({ranks}) ORDER BY row")) as found:
            yield from found

    def close(self) -> None:
        self._database.close()

"""What comes out: one parquet file or a folder of parts, whole or not at all, with a note of what made it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from onnx_rerank_integrations.core.errors import InputValueError

PROVENANCE = "onnx_rerank"
"""The key of each parquet file's metadata that says, as JSON, what made it."""

ROWS_PER_GROUP, ROWS_PER_PART = 1 << 15, 1 << 20


class Writer:
    """Writes rows beside their place, and moves them there when all are written.

    Args:
        out: A parquet file by its suffix ``.parquet``, else a folder of parts.
        temporary: Where they are written; on the same file system.
        schema: Of the rows.
        provenance: What made them.
    """

    def __init__(self, out: Path, temporary: Path, schema: pa.Schema, provenance: Mapping[str, Any]) -> None:
        self._out = out
        self._temporary = temporary
        self._schema = schema.with_metadata({PROVENANCE: json.dumps(provenance)})
        self._is_file = is_file(out)
        self._part: pq.ParquetWriter | None = None
        self._parts = self._part_rows = self.rows = 0
        self._pending: list[pa.Table] = []
        _remove(temporary)
        if not self._is_file:
            temporary.mkdir()

    def write(self, table: pa.Table) -> None:
        self._pending.append(table.cast(self._schema))
        if sum(map(len, self._pending)) >= ROWS_PER_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        rows = pa.concat_tables(self._pending)
        self._pending = []
        if self._part is None:
            path = self._temporary if self._is_file else self._temporary / f"part-{self._parts:05}.parquet"
            self._part = pq.ParquetWriter(path, self._schema)
            self._parts += 1
        self._part.write_table(rows)
        self.rows += len(rows)
        self._part_rows += len(rows)
        if self._part_rows >= ROWS_PER_PART and not self._is_file:
            self._part.close()
            self._part, self._part_rows = None, 0

    def finish(self) -> None:
        """Puts the rows in their place, instead of what is there."""
        if self._pending or not self._parts:
            self._pending.append(self._schema.empty_table())
            self._write_group()
        if self._part:
            self._part.close()
        if self._out.is_dir():
            shutil.rmtree(self._out)
        os.replace(self._temporary, self._out)


OTHER_FILES = frozenset((".arrow", ".csv", ".feather", ".gz", ".json", ".jsonl", ".ndjson", ".txt", ".tsv", ".zst"))
"""Names that ask for a file of another kind: a folder of that name would be a surprise."""


def is_file(out: Path) -> bool:
    return out.suffix.lower() == ".parquet"


def check_place(out: Path, source: Path) -> None:
    """Checks that rows of `source` can be written to `out`.

    Raises:
        InputValueError: It is the input or lies in it, or its name asks for another kind of file.
    """
    if out.resolve() == source.resolve():
        raise InputValueError(f"{out} is the input: name another output")
    if is_file(out) and out.resolve().parent == source.resolve():
        raise InputValueError(f"{out} lies in the input, {source}, and would be read with it: name another place")
    if out.suffix.lower() in OTHER_FILES:
        raise InputValueError(
            f"{out} can't be written: rows come out as parquet. Name a file, {out.with_suffix('.parquet')}, or a "
            "folder of parts"
        )


def read_provenance(out: Path) -> tuple[dict[str, Any], int]:
    """What made the rows that are there, and how many they are.

    Raises:
        InputValueError: They aren't of our making.
    """
    paths = [out] if out.is_file() else sorted(out.glob("part-*.parquet"))
    try:
        metadata = [pq.read_metadata(path) for path in paths]
        provenance = json.loads((metadata[0].metadata or {})[PROVENANCE.encode()])
    except (OSError, pa.ArrowInvalid, KeyError, IndexError, ValueError) as error:
        raise InputValueError(
            f"{out} is there already, and not from an earlier run: name another, or allow it to be replaced "
            "(overwrite=True, --overwrite)"
        ) from error
    return provenance, sum(one.num_rows for one in metadata)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

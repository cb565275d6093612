"""Tables of candidates, as blocks of rows: parquet, JSON lines (plain or gzip), a BEIR folder with a TREC run.

Only one block is in memory at a time; of a BEIR folder, the texts of the documents that the run names are, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from onnx_rerank_integrations.core.batching import chunks
from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.core.tokens.texts import clean
from onnx_rerank_integrations.extras.evaluate.collection import find, read_corpus, read_queries
from onnx_rerank_integrations.extras.evaluate.first_stage import find_run, run_lines
from onnx_rerank_integrations.extras.text_files import json_object, numbered_lines, unreadable

_READ_AHEAD = 1 << 20
"""Bytes of a parquet column read at a time: a row group, which may be gigabytes, is never read whole."""

_SCANNED_ROWS = 4096


class Table(ABC):
    """Rows that can be read again and again, in the same order.

    Attributes:
        paths: The files they are in.
        schema: Columns and their types.
        rows: How many there are.
    """

    paths: tuple[Path, ...]
    schema: pa.Schema
    rows: int

    @abstractmethod
    def _from(self, columns: Sequence[str], first_row: int) -> Iterator[pa.Table]:
        """The rows from `first_row` on, in tables of any length."""

    def check(self, columns: Sequence[str]) -> None:  # noqa: B027 - most tables hold nothing else than columns
        """Looks at what can't be told from the schema.

        Raises:
            InputValueError: The values of one of these can't be a column.
        """

    def blocks(self, columns: Sequence[str], size: int, first_row: int = 0) -> Iterator[tuple[int, pa.Table]]:
        """(first row, table) of each `size` rows; the last table may be shorter.

        Args:
            columns: Their names.
            size: Rows of a block.
            first_row: Where to begin.
        """
        names = list(dict.fromkeys(columns))
        pending: list[pa.Table] = []
        held = 0
        for table in self._from(names, first_row):
            pending.append(table)
            held += len(table)
            while held >= size:
                joined = pa.concat_tables(pending)
                yield first_row, joined.slice(0, size).combine_chunks()
                first_row, held = first_row + size, held - size
                pending = [joined.slice(size)]
        if held:
            yield first_row, pa.concat_tables(pending).combine_chunks()


def open_table(path: Path, first_stage: Path | None = None) -> Table:
    """What a path holds: a parquet file or a folder of them, a BEIR folder, or JSON lines.

    Args:
        path: The file or folder.
        first_stage: A BEIR folder's run; None for the one in it.

    Raises:
        InputValueError: It holds none of these, or can't be read.
    """
    if path.is_dir():
        parts = sorted(one for one in path.glob("*.parquet") if not one.name.startswith(("_", ".")))
        if parts and first_stage is None:
            return ParquetTable(parts)
        return RunTable(path, first_stage)
    if first_stage is not None:
        raise InputValueError(f"a first stage goes with a folder in BEIR layout, and {path} is a file")
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
    except OSError as error:
        raise unreadable(path, error) from error
    if is_parquet or path.suffix == ".parquet":
        return ParquetTable([path])
    if Path(path.name.lower().removesuffix(".gz")).suffix in (".csv", ".tsv"):
        raise InputValueError(f"{path} is CSV: write it as parquet or JSON lines first, which keep each column's type")
    return JsonLinesTable(path)


class ParquetTable(Table):
    """One or more parquet files of the same columns."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        metadata = [self._open(path).metadata for path in paths]
        self._sizes = [[one.row_group(group).num_rows for group in range(one.num_row_groups)] for one in metadata]
        self.rows = sum(map(sum, self._sizes))
        self.schema = self._open(paths[0]).schema_arrow.remove_metadata()
        for path in paths[1:]:
            if not (found := self._open(path).schema_arrow.remove_metadata()).equals(self.schema):
                raise InputValueError(f"{path} has other columns than {paths[0].name}: {_listed(found)}")

    def _open(self, path: Path) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(path, buffer_size=_READ_AHEAD, pre_buffer=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise unreadable(path, error) from error

    def _from(self, columns: Sequence[str], first_row: int) -> Iterator[pa.Table]:
        for path, groups in zip(self.paths, self._sizes, strict=True):
            skipped = 0
            while skipped < len(groups) and groups[skipped] <= first_row:
                first_row -= groups[skipped]
                skipped += 1
            if skipped == len(groups):
                continue
            wanted = list(range(skipped, len(groups)))
            with self._open(path) as file:
                for batch in file.iter_batches(_SCANNED_ROWS, row_groups=wanted, columns=list(columns)):
                    if first_row < len(batch):
                        yield pa.table(batch.slice(first_row)).select(list(columns))
                    first_row = max(0, first_row - len(batch))


class JsonLinesTable(Table):
    """JSON objects, one a line. All are read once at the start, for their number and the types of their fields."""

    def __init__(self, path: Path) -> None:
        self.paths = (path,)
        self.rows = 0
        self._mixed: dict[str, Exception] = {}
        schema = pa.schema([])
        for lines in chunks(numbered_lines(path), _SCANNED_ROWS):
            records = [json_object(line, f"{path}:{number}") for number, line in lines]
            for name in dict.fromkeys(name for record in records for name in record):
                try:
                    found = pa.schema([(name, _column(records, name).type)])
                    schema = pa.unify_schemas([schema, found], promote_options="permissive")
                except _NO_COLUMN as error:
                    self._mixed.setdefault(name, error)
                    schema = pa.unify_schemas([schema, pa.schema([(name, pa.null())])])
            self.rows += len(lines)
        if not self.rows:
            raise InputValueError(f"{path} is empty")
        self.schema = schema

    def check(self, columns: Sequence[str]) -> None:
        for name in columns:
            if error := self._mixed.get(name):
                kinds = self._kinds(name)
                where = " and ".join(f"{kind} in line {line}" for kind, line in kinds.items())
                raise InputValueError(
                    f"{self.paths[0]}: the field {name!r} can't be a column: {where if len(kinds) > 1 else error}\n"
                    "Write its values alike in every line, or name the columns to keep without it (keep_columns=, "
                    "--keep-columns)."
                ) from error

    def _kinds(self, name: str) -> dict[str, int]:
        """The types of a field's values, and the first line of each."""
        kinds: dict[str, int] = {}
        for number, line in numbered_lines(self.paths[0]):
            value = json_object(line, f"{self.paths[0]}:{number}").get(name)
            if value is not None:
                kinds.setdefault(type(value).__name__, number)
        return kinds

    def _from(self, columns: Sequence[str], first_row: int) -> Iterator[pa.Table]:
        path = self.paths[0]
        for lines in chunks(islice(numbered_lines(path), first_row, None), _SCANNED_ROWS):
            records = [json_object(line, f"{path}:{number}") for number, line in lines]
            arrays = [_column(records, name, self.schema.field(name).type) for name in columns]
            yield pa.table(arrays, names=list(columns))


_NO_COLUMN = (pa.ArrowException, UnicodeEncodeError, OverflowError)
"""What pyarrow raises for values that can't be one column."""


def _column(records: Sequence[Mapping[str, Any]], name: str, kind: pa.DataType | None = None) -> pa.Array:
    values = [record.get(name) for record in records]
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([clean(value) if isinstance(value, str) else value for value in values], kind)


class RunTable(Table):
    """A BEIR folder's candidates in the order of a TREC run, with the run's ranks and scores."""

    schema = pa.schema(
        [(name, pa.string()) for name in ("query_id", "query", "doc_id", "text")]
        + [("rank", pa.int64()), ("score", pa.float64())]
    )

    def __init__(self, folder: Path, run: Path | None) -> None:
        self._run = run or find_run(folder)
        queries, corpus = find(folder, "queries.jsonl"), find(folder, "corpus.jsonl")
        if self._run is None:
            raise InputValueError(
                f"{folder} holds no first stage: put a TREC run into it (*.trec), or name one with --first-stage"
            )
        self.paths = (self._run, queries, corpus)
        self._queries = read_queries(folder)
        wanted: set[str] = set()
        self.rows = 0
        for line in run_lines(self._run):
            if line.query_id not in self._queries:
                raise InputValueError(f"{self._run}:{line.number}: the query {line.query_id!r} isn't in queries.jsonl")
            wanted.add(line.document_id)
            self.rows += 1
        self._texts = read_corpus(folder, wanted).texts
        for line in run_lines(self._run):
            if line.document_id not in self._texts:
                raise InputValueError(
                    f"{self._run}:{line.number}: the document {line.document_id!r} isn't in corpus.jsonl"
                )

    def _from(self, columns: Sequence[str], first_row: int) -> Iterator[pa.Table]:
        assert self._run is not None
        for lines in chunks(islice(run_lines(self._run), first_row, None), _SCANNED_ROWS):
            found: dict[str, Iterable[Any]] = {
                "query_id": [line.query_id for line in lines],
                "query": [self._queries[line.query_id] for line in lines],
                "doc_id": [line.document_id for line in lines],
                "text": [self._texts[line.document_id] for line in lines],
                "rank": [line.rank for line in lines],
                "score": [line.score for line in lines],
            }
            yield pa.table(found, schema=self.schema).select(list(columns))


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)

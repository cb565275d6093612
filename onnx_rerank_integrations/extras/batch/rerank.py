"""The recipe: score what isn't scored yet, rank on disk, write what is wanted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import onnx_rerank_integrations
from onnx_rerank_integrations.core.checks import check_choice, check_score_threshold, check_top_n
from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.core.model.identity import sha256
from onnx_rerank_integrations.core.options import Engine, Options, Reading, changed, values
from onnx_rerank_integrations.core.scoring import Activation, Floats
from onnx_rerank_integrations.extras.batch.columns import RANK, SCORE, Columns, choose_columns, output_names
from onnx_rerank_integrations.extras.batch.inputs import Table, open_table
from onnx_rerank_integrations.extras.batch.outputs import Writer, check_place, read_provenance
from onnx_rerank_integrations.extras.batch.ranks import RanksOnDisk
from onnx_rerank_integrations.extras.batch.scoring import (
    FAILED,
    OnError,
    Spec,
    activation_of,
    score_column,
    table_logits,
)
from onnx_rerank_integrations.extras.batch.work import Work, differences

CHECKPOINT_ROWS = 4096
"""Four of the core's chunks: the batches are the same as in one call over all rows."""

_ADDED = (SCORE, RANK)
_COUNTS = ("rows", "scored", "null", "failed")

Blocks = Iterator[tuple[int, pa.Table]]


class BlockScorer(Protocol):
    """What computes the logits of blocks: this process, or workers elsewhere."""

    def __call__(
        self, blocks: Blocks, encoder: TextCrossEncoder, *, query: str, text: str, on_error: OnError
    ) -> Iterator[tuple[int, Floats]]:
        """(first row, logits) of each block, in any order."""


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """What became of the rows.

    Attributes:
        out: The file or folder.
        rows: Rows of the input.
        scored: Rows with a score.
        null: Rows without one, since their query or text is null.
        failed: Rows without one, since the model gave NaN or infinity (`on_error="null"`).
        resumed: Rows whose scores were there from an earlier run.
        written: Rows that came out: all, unless `top_n` or `score_threshold` leave some out.
        seconds: What this run took.
    """

    out: Path
    rows: int
    scored: int
    null: int
    failed: int
    resumed: int
    written: int
    seconds: float


def rerank_file(
    source: str | Path,
    out: str | Path,
    model: Spec | None = None,
    *,
    query_column: str = "query",
    text_column: str = "text",
    group_by: str | None = None,
    id_column: str | None = None,
    top_n: int | None = None,
    score_threshold: float | None = None,
    activation: Activation | None = None,
    keep_columns: Sequence[str] | None = None,
    first_stage: str | Path | None = None,
    on_error: OnError = "raise",
    checkpoint_rows: int = CHECKPOINT_ROWS,
    scorer: BlockScorer | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> BatchReport:
    """Scores and ranks a table of candidates of any size, in memory that doesn't grow with it.

    Rows keep their order, and get the columns ``score`` and ``rank`` (from 1, within their group); an input's own
    columns of these names become ``original_score`` and ``original_rank``. A row whose query or text is null has a null
    score and rank; blank text is scored like any other.

    Scores are written every `checkpoint_rows` rows to a folder beside `out`, named ``.unfinished``: the same call after
    an interruption goes on there. `out` appears when it is whole. Where it is there already, by the same job, nothing
    is done.

    Args:
        source: A parquet file, a folder of them, a file of JSON lines (plain or gzip), or a folder in BEIR layout with
            a TREC run.
        out: A parquet file, by the suffix ``.parquet``; else a folder of parquet parts.
        model: A supported model's name, a hub id, a folder, its `Options`, or a `TextCrossEncoder`; None for the
            default.
        query_column: The query's text.
        text_column: The document's text.
        group_by: What is ranked within; None for ``query_id`` where there is one, else for the query's text.
        id_column: Of equal scores the lower id comes first; None for ``doc_id`` where there is one, else for the order
            of the rows.
        top_n: Most rows of a group that come out; None for all, those without a score too.
        score_threshold: The lowest score that comes out (>=), in the scale of `activation`.
        activation: As for `TextCrossEncoder.rerank`; None for the encoder's own.
        keep_columns: The input's columns that come out; None for all.
        first_stage: A BEIR folder's TREC run; None for the one in it.
        on_error: What becomes of a pair that the model gives NaN or infinity for: ``"raise"`` ends the job there, and
            ``"null"`` counts it as failed.
        checkpoint_rows: Rows in memory at once, and most rows that an interruption costs.
        scorer: What computes; None for this process, `extras.ray.RayScorer` for a cluster.
        overwrite: Replace `out` if it is there, and drop the unfinished scores of another job.
        show_progress: Show a tqdm bar on stderr.

    Raises:
        InputValueError: A file can't be read or lacks a column, `out` is there from another job, is the input, lies in
            it or is named as another kind of file, or an option is out of range.
        ScoreError: The model gave NaN or infinity. What was scored before stays.
        MissingExtraError: pyarrow isn't installed.
    """
    start = time.perf_counter()
    check_top_n(top_n)
    check_top_n(checkpoint_rows, "checkpoint_rows")
    check_score_threshold(score_threshold)
    check_choice("on_error", on_error, OnError)
    source, out = Path(source), Path(out)
    check_place(out, source)
    table = open_table(source, None if first_stage is None else Path(first_stage))
    columns = choose_columns(
        table.schema, query=query_column, text=text_column, group_by=group_by, id=id_column, keep=keep_columns
    )
    table.check(columns.used)
    encoder = _open(model)
    job = _Job(
        table=table,
        columns=columns,
        encoder=encoder,
        activation=activation or encoder.activation,
        top_n=top_n,
        score_threshold=score_threshold,
        on_error=on_error,
        checkpoint_rows=checkpoint_rows,
    )
    if out.exists() and not overwrite:
        return _finished(job, out, seconds=time.perf_counter() - start)
    with Work(out, job.scoring, overwrite=overwrite) as work:
        resumed = _score(job, work, scorer or score_here, show_progress)
        with closing(RanksOnDisk(work.folder / "ranks.sqlite")) as ranks:
            counts = _rank(job, work, ranks)
            written = _write(job, work, ranks, counts, out)
    return BatchReport(out=out, **counts, resumed=resumed, written=written, seconds=time.perf_counter() - start)


def _open(model: Spec | None) -> TextCrossEncoder:
    if isinstance(model, Options):
        return TextCrossEncoder(**values(model))
    return model if isinstance(model, TextCrossEncoder) else TextCrossEncoder(model)


def score_here(
    blocks: Blocks, encoder: TextCrossEncoder, *, query: str, text: str, on_error: OnError
) -> Iterator[tuple[int, Floats]]:
    """The `BlockScorer` that is this process."""
    for first_row, block in blocks:
        yield first_row, table_logits(encoder, block, query, text, on_error=on_error, first_row=first_row)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is asked for."""

    table: Table
    columns: Columns
    encoder: TextCrossEncoder
    activation: Activation
    top_n: int | None
    score_threshold: float | None
    on_error: OnError
    checkpoint_rows: int

    @cached_property
    def scoring(self) -> dict[str, Any]:
        """What the logits depend on: scores are gone on with where this is the same."""
        opened, options = self.encoder.load(), self.encoder.options
        return {
            "made_by": f"onnx-rerank-integrations {onnx_rerank_integrations.__version__}",
            "model": self.encoder.model_name,
            "commit": opened.files.commit,
            "files": {path.name: sha256(path) for path in opened.files.files},
            "options": changed(options, Reading) | changed(options, Engine, leave_out={"threads", "idle_threads"}),
            "identity": opened.identity.hex(),
            "input": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in self.table.paths],
            "query_column": self.columns.query,
            "text_column": self.columns.text,
            "on_error": self.on_error,
            "checkpoint_rows": self.checkpoint_rows,
        }

    @property
    def selection(self) -> dict[str, Any]:
        """What comes out depends on this, too."""
        return {
            "group_by": self.columns.group_by,
            "id_column": self.columns.id,
            "columns": list(self.columns.kept),
            "activation": self.activation,
            "top_n": self.top_n,
            "score_threshold": self.score_threshold,
        }

    def blocks(self, *columns: str, first_row: int = 0) -> Blocks:
        return self.table.blocks(columns, self.checkpoint_rows, first_row)


def _finished(job: _Job, out: Path, *, seconds: float) -> BatchReport:
    """The report of what is there already.

    Raises:
        InputValueError: It isn't what `job` would make.
    """
    found, written = read_provenance(out)
    counts = {name: found.pop(name) for name in _COUNTS}
    asked = json.loads(json.dumps(job.scoring | job.selection))
    if found != asked:
        raise InputValueError(
            f"{out} is there already, from another job: {differences(found, asked)}.\nName another, or allow it to be "
            "replaced (overwrite=True, --overwrite)"
        )
    return BatchReport(out=out, **counts, resumed=counts["rows"], written=written, seconds=seconds)


def _score(job: _Job, work: Work, scorer: BlockScorer, show_progress: bool) -> int:
    """Scores the blocks that have no logits yet; gives the number of rows that had."""
    before = work.scored()
    size, rows = job.checkpoint_rows, job.table.rows
    missing = [first_row for first_row in range(0, rows, size) if first_row not in before]
    resumed = rows - sum(min(size, rows - first_row) for first_row in missing)
    if missing:
        query, text = job.columns.query, job.columns.text
        blocks = (block for block in job.blocks(query, text, first_row=missing[0]) if block[0] not in before)
        scored = scorer(blocks, job.encoder, query=query, text=text, on_error=job.on_error)
        with _progress_bar(rows, resumed, shown=show_progress) as advance:
            for first_row, logits in scored:
                work.put(first_row, logits)
                advance(len(logits))
    return resumed


def _rank(job: _Job, work: Work, ranks: RanksOnDisk) -> dict[str, int]:
    """Ranks all rows, and counts them."""
    counts = dict.fromkeys(_COUNTS, 0)
    group_by, id = job.columns.group_by, job.columns.id
    for first_row, block in job.blocks(group_by, id or group_by):
        logits = work.logits(first_row)
        ids = block.column(id).to_pylist() if id else [None] * len(block)
        ranks.add(first_row, block.column(group_by).to_pylist(), logits, ids)
        failed, null = int(np.sum(logits == FAILED)), int(np.sum(np.isnan(logits)))
        for name, count in zip(_COUNTS, (len(logits), len(logits) - failed - null, null, failed), strict=True):
            counts[name] += count
    return counts


def _write(job: _Job, work: Work, ranks: RanksOnDisk, counts: dict[str, int], out: Path) -> int:
    """Writes the wanted rows; gives their number."""
    kept = job.columns.kept
    activate = activation_of(job.encoder, job.activation)
    by_row = ranks.by_row()
    fields = [
        job.table.schema.field(name).with_name(new) for name, new in zip(kept, output_names(kept, *_ADDED), strict=True)
    ]
    schema = pa.schema([*fields, pa.field(SCORE, pa.float64()), pa.field(RANK, pa.int64())])
    writer = Writer(out, work.folder / "out", schema, job.scoring | job.selection | counts)
    # A table of no columns has no rows either: the query's is read too, where none is kept.
    for first_row, block in job.blocks(*kept, job.columns.query):
        logits = work.logits(first_row)
        scored = np.isfinite(logits)
        found = list(islice(by_row, int(scored.sum())))
        places = np.zeros(len(block), dtype=np.int64)
        places[[row - first_row for row, _ in found]] = [rank for _, rank in found]
        added = [score_column(logits, activate), pa.array(places, mask=~scored)]
        rows = pa.table([*(block.column(name) for name in kept), *added], schema=schema)
        writer.write(rows.filter(_wanted(job, rows)))
    writer.finish()
    return writer.rows


def _wanted(job: _Job, rows: pa.Table) -> pa.Array:
    """Which rows come out; a null score meets no threshold and is among no best."""
    wanted = pa.array(np.ones(len(rows), dtype=bool))
    if job.top_n is not None:
        wanted = pc.and_(wanted, pc.less_equal(rows.column(RANK), job.top_n))
    if job.score_threshold is not None:
        wanted = pc.and_(wanted, pc.greater_equal(rows.column(SCORE), job.score_threshold))
    return wanted


@contextmanager
def _progress_bar(total: int, done: int, *, shown: bool) -> Iterator[Callable[[int], Any]]:
    """A tqdm bar on stderr, with pairs per second and the time left, as the function that moves it on."""
    if not shown:
        yield lambda pairs: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit="pair", unit_scale=True) as bar:
        yield bar.update

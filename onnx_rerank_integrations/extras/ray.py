"""Ray: actors that hold the model score blocks of rows. Needs the extra [ray].

`RayScorer` computes for `extras.batch.rerank_file`: the driver alone reads and writes files, and the workers need
nothing but this package and the model. `score_dataset` and `rerank_dataset` work on a Ray Dataset.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onnx_rerank_integrations.core.checks import check_choice, check_score_threshold, check_top_n
from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.errors import InputValueError, RerankError, WorkerError
from onnx_rerank_integrations.core.options import Options
from onnx_rerank_integrations.core.scoring import Activation, Floats
from onnx_rerank_integrations.extras.batch.columns import DOCUMENT_ID, QUERY_ID, RANK, SCORE, output_names
from onnx_rerank_integrations.extras.batch.ranks import ranked
from onnx_rerank_integrations.extras.batch.scoring import (
    OnError,
    Spec,
    activation_of,
    score_column,
    table_logits,
    worker_encoder,
    worker_options,
)
from onnx_rerank_integrations.extras.needs_extra import needs_extra

with needs_extra("ray", "Scoring on Ray"):
    import ray
    import ray.data

logger = logging.getLogger(__name__)

RETRIES = 3
"""Times that a block is tried again after its worker died: a text that kills workers mustn't kill them for ever."""

_BLOCKS_PER_WORKER = 2
"""One that is computed and one that waits, so that a worker never does."""

_PATIENCE = 60.0
"""Seconds without news after which the log says what is waited for."""

_LOGIT = "__logit"


@dataclass(frozen=True, kw_only=True)
class RayScorer:
    """Computes `rerank_file`'s logits with Ray's actors; a `BlockScorer`.

    Attributes:
        address: The cluster, as ``ray.init`` takes it; None for ``$RAY_ADDRESS``, a cluster on this machine, else one
            that is started here and stopped at the end. Where Ray is initialized already, that is used.
        num_workers: Most actors; None for as many as the cluster's CPUs hold.
        threads_per_worker: CPUs that each takes, and threads that it computes with.
    """

    address: str | None = None
    num_workers: int | None = None
    threads_per_worker: int = 1

    def __call__(
        self,
        blocks: Iterator[tuple[int, pa.Table]],
        encoder: TextCrossEncoder,
        *,
        query: str,
        text: str,
        on_error: OnError,
    ) -> Iterator[tuple[int, Floats]]:
        """(first row, logits) of each block, as they are done.

        Raises:
            ScoreError: As `scoring.block_logits`.
            WorkerError: A block's workers died, again and again.
        """
        options = worker_options(encoder, threads=self.threads_per_worker)
        with _started(self.address):
            count = self.num_workers or _most_workers(self.threads_per_worker)
            actor = ray.remote(_Scorer).options(
                num_cpus=self.threads_per_worker, max_restarts=-1, max_task_retries=RETRIES
            )
            actors = [actor.remote(options) for _ in range(count)]
            try:
                yield from _scored(blocks, actors, query=query, text=text, on_error=on_error)
            finally:
                for one in actors:
                    ray.kill(one)


class _Scorer:
    """An actor: one open model."""

    def __init__(self, options: Options) -> None:
        self._encoder = worker_encoder(options)

    def ready(self) -> None:
        """Answers when the model is open."""

    def logits(self, first_row: int, block: pa.Table, query: str, text: str, on_error: OnError) -> Floats:
        return table_logits(self._encoder, block, query, text, on_error=on_error, first_row=first_row)


def _scored(
    blocks: Iterator[tuple[int, pa.Table]], actors: Sequence[Any], **options: Any
) -> Iterator[tuple[int, Floats]]:
    """Keeps each actor that runs busy, and no more blocks in memory than that takes.

    Actors for which there are no CPUs yet get nothing to do, so that those that run do all of the work.
    """
    starting = {one.ready.remote(): one for one in actors}
    running: dict[Any, tuple[int, Any]] = {}
    free: list[Any] = []

    def wait() -> Iterator[tuple[int, Floats]]:
        done = _first_done([*running, *starting])
        if done in starting:
            _result(done, "The model couldn't be opened: workers died")
            free.extend([starting.pop(done)] * _BLOCKS_PER_WORKER)
            return
        first_row, actor = running.pop(done)
        logits = _result(done, f"The block from row {first_row:,} (from 0) wasn't scored: {RETRIES + 1} workers died")
        free.insert(0, actor)
        yield first_row, logits

    for first_row, block in blocks:
        while not free:
            yield from wait()
        actor = free.pop()
        running[actor.logits.remote(first_row, block, **options)] = first_row, actor
    while running:
        yield from wait()


def _first_done(pending: Sequence[Any]) -> Any:
    waited = 0.0
    while True:
        done, _ = ray.wait(list(pending), timeout=_PATIENCE)
        if done:
            return done[0]
        waited += _PATIENCE
        logger.warning(
            "no news from Ray for %.0f s: %d blocks or starting workers are waited for; free CPUs: %s of %s",
            waited,
            len(pending),
            ray.available_resources().get("CPU", 0),
            ray.cluster_resources().get("CPU", 0),
        )


def _result(done: Any, death: str) -> Any:
    """What a task gave; our own errors as they were raised."""
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RerankError):
            raise error.cause from error
        raise
    except ray.exceptions.RayActorError as error:
        raise WorkerError(f"{death}.\nLook for a lack of memory or a crash in Ray's logs: {error}") from error


@contextmanager
def _started(address: str | None) -> Iterator[None]:
    """Ray, initialized; shut down afterwards where it wasn't before."""
    if ray.is_initialized():
        if address is not None:
            raise InputValueError(
                f"Ray is initialized already: leave the address {address!r} out, or shut it down first"
            )
        yield
        return
    # Nobody is told that this package's user runs Ray, unless the user wants that.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError) as error:
        raise InputValueError(f"Ray's cluster {address!r} can't be reached: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _most_workers(threads: int) -> int:
    return max(1, _cpus() // threads)


def _cpus() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def score_dataset(
    ds: ray.data.Dataset,
    spec: Spec,
    *,
    query_column: str = "query",
    text_column: str = "text",
    activation: Activation | None = None,
    on_error: OnError = "raise",
    num_workers: int | None = None,
    threads_per_worker: int = 1,
    rows_per_task: int = 1024,
) -> ray.data.Dataset:
    """The dataset with the column ``score``, null where query or text is. Lazy, as Ray's own operations are.

    Args:
        ds: Rows with a query and a text; a column ``score`` of theirs becomes ``original_score``.
        spec: A model's name or folder, its `Options`, or a `TextCrossEncoder`, whose options go to the workers.
        query_column: The query's text.
        text_column: The document's text.
        activation: As for `TextCrossEncoder.rerank`; None for the encoder's own.
        on_error: For a pair that the model gives NaN or infinity for: ``"raise"`` fails the job, ``"null"`` gives a
            null score, and the worker's log says how many.
        num_workers: Most actors; None for as many as the cluster's CPUs hold now.
        threads_per_worker: CPUs that each takes, and threads that it computes with.
        rows_per_task: Rows that are scored together.

    Raises:
        InputValueError: The workers would leave no CPU to read with.
    """
    fitted = _ScoreRows.arguments(spec, threads_per_worker, query_column, text_column, activation, on_error)
    return _map(ds, _ScoreRows, fitted, num_workers, threads_per_worker, rows_per_task)


def rerank_dataset(
    ds: ray.data.Dataset,
    spec: Spec,
    *,
    query_column: str = "query",
    text_column: str = "text",
    group_by: str = QUERY_ID,
    id_column: str = DOCUMENT_ID,
    keep_columns: Sequence[str] = (),
    top_n: int | None = 10,
    score_threshold: float | None = None,
    activation: Activation | None = None,
    on_error: OnError = "raise",
    num_workers: int | None = None,
    threads_per_worker: int = 1,
    rows_per_task: int = 1024,
) -> ray.data.Dataset:
    """The best rows of each group, with ``score`` and ``rank``.

    Pairs are scored wherever they are, never by group, so that a query with very many candidates takes no longer than
    others. Texts are dropped and each block is cut to its own best before rows are moved between machines.

    Args:
        ds: As for `score_dataset`.
        spec: As for `score_dataset`.
        query_column: The query's text.
        text_column: The document's text.
        group_by: What is ranked within.
        id_column: Of equal scores the lower id comes first.
        keep_columns: Further columns that come out.
        top_n: Most rows of a group; None for all, those without a score too.
        score_threshold: The lowest score that comes out (>=), in the scale of `activation`.
        activation: As for `score_dataset`.
        on_error: As for `score_dataset`.
        num_workers: As for `score_dataset`.
        threads_per_worker: As for `score_dataset`.
        rows_per_task: As for `score_dataset`.

    Returns:
        Rows of `group_by`, `id_column`, `keep_columns`, ``score`` and ``rank``, in no order of groups.
    """
    check_top_n(top_n)
    check_score_threshold(score_threshold)
    fitted = _ScoreRows.arguments(spec, threads_per_worker, query_column, text_column, activation, on_error)
    best = {
        "kept": tuple(dict.fromkeys((group_by, id_column, *keep_columns))),
        "group_by": group_by,
        "id": id_column,
        "top_n": top_n,
        "score_threshold": score_threshold,
    }
    scored = _map(ds, _ScoreAndCut, fitted | best, num_workers, threads_per_worker, rows_per_task)

    def rank_group(group: pa.Table) -> pa.Table:
        return ranked(group, group_by, _LOGIT, id_column, top_n).drop_columns([_LOGIT])

    # Ray's own 200 partitions are 200 tasks, on a small machine far too many for the few rows that are left.
    partitions = min(200, 2 * _cpus())
    return scored.groupby(group_by, num_partitions=partitions).map_groups(rank_group, batch_format="pyarrow")


def _map(
    ds: ray.data.Dataset,
    rows: type,
    arguments: Mapping[str, Any],
    num_workers: int | None,
    threads_per_worker: int,
    rows_per_task: int,
) -> ray.data.Dataset:
    check_top_n(num_workers, "num_workers")
    if num_workers is None and _cpus() <= threads_per_worker:
        # Ray Data would wait for ever, in silence: the worker holds the CPU that its own input has to be read with.
        raise InputValueError(
            f"a worker takes {threads_per_worker} CPUs and Ray has {_cpus()}: it needs one more, to read with.\n"
            "Take fewer threads_per_worker, or name num_workers if the cluster will grow."
        )
    free = ray.available_resources().get("CPU", 0)
    if free <= threads_per_worker:
        logger.warning(
            "Ray has %s of its %d CPUs free, and this job waits for more than %d: others hold them, maybe a failed "
            "dataset whose exception is still referred to",
            *(free, _cpus(), threads_per_worker),
        )
    # A file that is read as one block would be scored by one worker.
    return ds.repartition(target_num_rows_per_block=rows_per_task).map_batches(
        rows,
        fn_constructor_kwargs=dict(arguments),
        batch_size=rows_per_task,
        batch_format="pyarrow",
        num_cpus=threads_per_worker,
        # A fixed pool that takes all CPUs leaves none for what feeds it, and waits for ever.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_workers or _most_workers(threads_per_worker)),
    )


class _ScoreRows:
    """An actor of Ray Data: a block gets its scores."""

    @staticmethod
    def arguments(
        spec: Spec, threads: int, query: str, text: str, activation: Activation | None, on_error: OnError
    ) -> dict[str, Any]:
        check_choice("on_error", on_error, OnError)
        if activation is not None:
            check_choice("activation", activation, Activation)
        options = worker_options(spec, threads=threads)
        return {"options": options, "query": query, "text": text, "activation": activation, "on_error": on_error}

    def __init__(
        self, options: Options, query: str, text: str, activation: Activation | None, on_error: OnError
    ) -> None:
        self._encoder = worker_encoder(options)
        self._activate = activation_of(self._encoder, activation)
        self._query, self._text, self._on_error = query, text, on_error

    def _logits(self, block: pa.Table) -> Floats:
        return table_logits(self._encoder, block, self._query, self._text, on_error=self._on_error)

    def __call__(self, block: pa.Table) -> pa.Table:
        scores = score_column(self._logits(block), self._activate)
        return block.rename_columns(output_names(block.column_names, SCORE)).append_column(SCORE, scores)


class _ScoreAndCut(_ScoreRows):
    """An actor of Ray Data: a block gets its scores, loses its texts, and keeps the best of each group."""

    def __init__(
        self,
        *,
        kept: Sequence[str],
        group_by: str,
        id: str,
        top_n: int | None,
        score_threshold: float | None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._kept, self._group_by, self._id = list(kept), group_by, id
        self._top_n, self._score_threshold = top_n, score_threshold

    def __call__(self, block: pa.Table) -> pa.Table:
        logits = self._logits(block)
        scores = score_column(logits, self._activate)
        rows = block.select(self._kept)
        rows = rows.rename_columns(output_names(self._kept, SCORE, RANK)).append_column(SCORE, scores)
        rows = rows.append_column(_LOGIT, pa.array(logits, mask=~np.isfinite(logits)))
        if self._score_threshold is not None:
            rows = rows.filter(pc.greater_equal(scores, self._score_threshold))
        return (
            rows
            if self._top_n is None
            else ranked(rows, self._group_by, _LOGIT, self._id, self._top_n).drop_columns([RANK])
        )

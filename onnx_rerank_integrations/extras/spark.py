"""Spark: a DataFrame's pairs are scored in its Python workers, over Arrow batches. Needs the extra [spark].

The executors need this package and the model. Each worker process opens the model once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onnx_rerank_integrations.core.checks import check_choice, check_score_threshold, check_top_n
from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.core.scoring import Activation
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

with needs_extra("spark", "Scoring on Spark"):
    from pyspark.sql import DataFrame, Window
    from pyspark.sql import functions as f
    from pyspark.sql.types import DoubleType, IntegerType, StringType, StructField, StructType

_LOGIT = "__logit"


def score_dataframe(
    df: DataFrame,
    spec: Spec,
    *,
    query_column: str = "query",
    text_column: str = "text",
    activation: Activation | None = None,
    on_error: OnError = "raise",
    threads_per_worker: int = 1,
) -> DataFrame:
    """The rows with the column ``score``, null where query or text is. Lazy, as Spark's own operations are.

    Args:
        df: Rows with a query and a text; a column ``score`` of theirs becomes ``original_score``.
        spec: A model's name or folder, its `Options`, or a `TextCrossEncoder`, whose options go to the workers.
        query_column: The query's text.
        text_column: The document's text.
        activation: As for `TextCrossEncoder.rerank`; None for the encoder's own.
        on_error: For a pair that the model gives NaN or infinity for: ``"raise"`` fails the job, ``"null"`` gives a
            null score, and the worker's log says how many.
        threads_per_worker: Threads that each worker computes with: ``spark.task.cpus``.

    Raises:
        InputValueError: A column isn't there, or holds no text.
    """
    _check_text(df, query_column, text_column)
    score = _scoring(spec, threads_per_worker, query_column, text_column, activation, on_error)
    names = output_names(df.columns, SCORE)

    def add_scores(table: pa.Table) -> pa.Table:
        _, scores = score(table)
        return table.rename_columns(names).append_column(SCORE, scores)

    fields = [_renamed(field, name) for field, name in zip(df.schema.fields, names, strict=True)]
    return df.mapInArrow(_each(add_scores), StructType([*fields, StructField(SCORE, DoubleType())]))


def rerank_dataframe(
    df: DataFrame,
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
    threads_per_worker: int = 1,
) -> DataFrame:
    """The best rows of each group, with ``score`` and ``rank``.

    Pairs are scored wherever they are, never by group, so that a query with very many candidates takes no longer than
    others. Texts are dropped and each Arrow batch is cut to its own best before rows are shuffled.

    Args:
        df: As for `score_dataframe`.
        spec: As for `score_dataframe`.
        query_column: The query's text.
        text_column: The document's text.
        group_by: What is ranked within.
        id_column: Of equal scores the lower id comes first.
        keep_columns: Further columns that come out.
        top_n: Most rows of a group; None for all, those without a score too.
        score_threshold: The lowest score that comes out (>=), in the scale of `activation`.
        activation: As for `score_dataframe`.
        on_error: As for `score_dataframe`.
        threads_per_worker: As for `score_dataframe`.

    Returns:
        Rows of `group_by`, `id_column`, `keep_columns`, ``score`` and ``rank``.
    """
    check_top_n(top_n)
    check_score_threshold(score_threshold)
    _check_text(df, query_column, text_column)
    kept = list(dict.fromkeys((group_by, id_column, *keep_columns)))
    _check_columns(df, *kept)
    names = output_names(kept, SCORE, RANK)
    score = _scoring(spec, threads_per_worker, query_column, text_column, activation, on_error)

    def score_and_cut(table: pa.Table) -> pa.Table:
        logits, scores = score(table)
        rows = table.select(kept).rename_columns(names).append_column(SCORE, scores).append_column(_LOGIT, logits)
        if score_threshold is not None:
            rows = rows.filter(pc.greater_equal(scores, score_threshold))
        return rows if top_n is None else ranked(rows, group_by, _LOGIT, id_column, top_n).drop_columns([RANK])

    fields = [_renamed(df.schema[column], name) for column, name in zip(kept, names, strict=True)]
    schema = StructType([*fields, StructField(SCORE, DoubleType()), StructField(_LOGIT, DoubleType())])
    best_first = Window.partitionBy(group_by).orderBy(f.col(_LOGIT).desc_nulls_last(), f.col(id_column))
    rank = f.when(f.col(_LOGIT).isNotNull(), f.row_number().over(best_first)).cast(IntegerType())
    rows = df.mapInArrow(_each(score_and_cut), schema).withColumn(RANK, rank).drop(_LOGIT)
    return rows if top_n is None else rows.filter(f.col(RANK) <= top_n)


def _scoring(
    spec: Spec, threads: int, query: str, text: str, activation: Activation | None, on_error: OnError
) -> Callable[[pa.Table], tuple[pa.Array, pa.Array]]:
    """What workers call: the logits and scores of a table. It holds options, never a live session."""
    check_choice("on_error", on_error, OnError)
    if activation is not None:
        check_choice("activation", activation, Activation)
    options = worker_options(spec, threads=threads)

    def score(table: pa.Table) -> tuple[pa.Array, pa.Array]:
        encoder = worker_encoder(options)
        logits = table_logits(encoder, table, query, text, on_error=on_error)
        scores = score_column(logits, activation_of(encoder, activation))
        return pa.array(logits, mask=~np.isfinite(logits)), scores

    return score


def _each(change: Callable[[pa.Table], pa.Table]) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """`change` for every Arrow batch of a partition."""

    def changed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from change(pa.Table.from_batches([batch])).combine_chunks().to_batches()

    return changed


def _renamed(field: StructField, name: str) -> StructField:
    return StructField(name, field.dataType, nullable=field.nullable, metadata=field.metadata)


def _check_columns(df: DataFrame, *names: str) -> None:
    for name in names:
        if name not in df.columns:
            raise InputValueError(f"there is no column {name!r}; found {', '.join(map(repr, df.columns)) or 'none'}")


def _check_text(df: DataFrame, *names: str) -> None:
    _check_columns(df, *names)
    for name in names:
        if not isinstance(df.schema[name].dataType, StringType):
            raise InputValueError(
                f"the column {name!r} must hold text, found {df.schema[name].dataType.simpleString()}"
            )

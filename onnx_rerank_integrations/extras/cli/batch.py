"""``onnx-rerank batch``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from onnx_rerank_integrations.extras.cli.options import JsonFlag, Model, ModelOptions, encoder_of, model_options
from onnx_rerank_integrations.extras.cli.output import write_json_lines, write_table

if TYPE_CHECKING:
    from onnx_rerank_integrations.extras.batch.rerank import BatchReport, BlockScorer


EngineName = Literal["local", "ray"]
Scale = Literal["sigmoid", "identity"]
"""`Activation` of the core, but for the model's own: that is known only once it is open."""
OnError = Literal["raise", "null"]
"""That of `extras.batch`, which this file mustn't import before its extra is needed."""


@model_options()
def batch(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Parquet (a file or a folder), JSON lines (plain or gzip), or a BEIR folder with a TREC run.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file named .parquet, else a folder of parquet parts.")],
    query: Annotated[str, typer.Option(help="The column of the query's text.")] = "query",
    text: Annotated[str, typer.Option(help="The column of the document's text.")] = "text",
    group_by: Annotated[
        str | None, typer.Option(help="Rank within each value of this column.", show_default="query_id, else --query")
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(help="Of equal scores, the lower value of this column first.", show_default="doc_id, if there"),
    ] = None,
    keep_columns: Annotated[
        list[str] | None, typer.Option(help="A column that comes out; repeat for several.", show_default="all")
    ] = None,
    first_stage: Annotated[
        Path | None, typer.Option(help="A BEIR folder's TREC run.", show_default="the *.trec in the folder")
    ] = None,
    model: Model = None,
    top_n: Annotated[
        int | None, typer.Option("--top-n", "-n", min=1, help="Most rows of a group.", show_default="all")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest score, always on the sigmoid scale of 0..1.", show_default="none"),
    ] = None,
    activation: Annotated[Scale, typer.Option(help="The scale of the scores: 0..1, or raw logits.")] = "sigmoid",
    on_error: Annotated[
        OnError, typer.Option(help="Where the model gives no finite score: stop, or a null score.")
    ] = "raise",
    checkpoint_rows: Annotated[
        int, typer.Option(min=1, help="Rows in memory at once, and most that an interruption costs.")
    ] = 4096,
    engine: Annotated[EngineName, typer.Option(help="This process, or workers of Ray.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Ray's cluster.", show_default="$RAY_ADDRESS, else one on this machine")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ray's most workers.", show_default="as many as its CPUs hold")
    ] = None,
    threads_per_worker: Annotated[int, typer.Option(min=1, help="CPUs and threads of each of Ray's workers.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    as_json: JsonFlag = False,
    *,
    options: ModelOptions,
) -> None:
    """Score a table of candidates of any size, and rank them within each query.

    Rows come out in their order with the columns score and rank added. Interrupted, the same command goes on where it
    stopped; done, it does nothing. A row whose query or text is null has a null score.

    \b
    Examples:
      onnx-rerank batch candidates.parquet scored.parquet --model embedded
      onnx-rerank batch a.jsonl.gz best --text body --group-by question --top-n 10
      onnx-rerank batch my-beir scored --first-stage bm25.trec --engine ray
    """
    from onnx_rerank_integrations.extras.batch import rerank_file

    try:
        report = rerank_file(
            source,
            out,
            encoder_of(model, options),
            query_column=query,
            text_column=text,
            group_by=group_by,
            id_column=id,
            top_n=top_n,
            score_threshold=threshold if activation == "sigmoid" else _logit(threshold),
            activation=activation,
            keep_columns=keep_columns or None,
            first_stage=first_stage,
            on_error=on_error,
            checkpoint_rows=checkpoint_rows,
            scorer=_scorer(engine, address, workers, threads_per_worker),
            overwrite=overwrite,
            show_progress=sys.stderr.isatty(),
        )
    except KeyboardInterrupt as stop:
        stop.add_note("The same command goes on where it stopped.")
        raise
    except MemoryError as error:
        error.add_note("Hold fewer rows in it at once, with --checkpoint-rows.")
        raise
    _write_report(report, as_json)


def _scorer(engine: EngineName, address: str | None, workers: int | None, threads: int) -> BlockScorer | None:
    if engine == "local":
        if address is not None:
            raise typer.BadParameter("an --address goes with --engine ray")
        return None
    from onnx_rerank_integrations.extras.ray import RayScorer

    return RayScorer(address=address, num_workers=workers, threads_per_worker=threads)


def _logit(probability: float | None) -> float | None:
    if probability is None:
        return None
    if probability in (0, 1):
        return math.inf if probability else -math.inf
    return math.log(probability / (1 - probability))


def _write_report(report: BatchReport, as_json: bool) -> None:
    if as_json:
        write_json_lines([{**vars(report), "out": str(report.out)}])
        return
    rows = [
        ["rows in", f"{report.rows:,}"],
        ["scored", f"{report.scored:,}"],
        ["null: no query or no text", f"{report.null:,}"],
        ["failed: no finite score", f"{report.failed:,}"],
        ["scored by an earlier run", f"{report.resumed:,}"],
        ["rows out", f"{report.written:,}"],
        ["seconds", f"{report.seconds:,.1f}"],
    ]
    write_table([str(report.out), "rows"], rows, numbers=("rows",))

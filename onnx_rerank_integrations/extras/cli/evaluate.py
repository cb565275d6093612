"""``onnx-rerank evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.extras.cli.options import ModelOptions, Models, encoder_of, model_options
from onnx_rerank_integrations.extras.cli.output import write_json_lines, write_table
from onnx_rerank_integrations.extras.evaluate import evaluate as measure
from onnx_rerank_integrations.extras.evaluate.evaluation import check_extra
from onnx_rerank_integrations.extras.evaluate.report import make_folder, results, table


@model_options()
def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A collection: a folder with corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/test.tsv; or a CSV "
            "file with the columns query, document and relevance."
        ),
    ],
    model: Models = None,
    first_stage: Annotated[
        Path | None,
        typer.Option(
            help="The candidates, as a TREC run.", show_default="the *.trec in the folder, else BM25 made on the spot"
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Candidates of each query that are reranked.")] = 100,
    split: Annotated[str, typer.Option(help="Which qrels/SPLIT.tsv.")] = "test",
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the report is written.")] = Path("evaluation"),
    seed: Annotated[int, typer.Option(min=0, help="Of the significance tests.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, as in results.json.")] = False,
    *,
    options: ModelOptions,
) -> None:
    """Measure whether reranking helps on your data.

    Compares models with a first stage and each other: quality, latency, and whether a difference is more than chance.
    Writes report.md, results.json, per_query.tsv and plot.png to --output. Files may be gzipped.

    \b
    Examples:
      onnx-rerank evaluate ./my-collection --model embedded
      onnx-rerank evaluate ./scifact -m embedded -m Xenova/ms-marco-MiniLM-L-6-v2
      onnx-rerank evaluate judged.csv --model embedded
      onnx-rerank evaluate ./scifact -m ./mine --first-stage bm25.trec --top-k 50
    """
    check_extra("onnx-rerank evaluate")
    names = model or [registry.default_model()]
    if len(set(names)) < len(names):
        raise InputValueError(f"a model is named twice: {', '.join(names)}")
    if not folder.exists():  # before a model is fetched
        raise InputValueError(f"There is no {folder}: give a folder in BEIR layout, or a CSV file of judged pairs")
    make_folder(output)
    encoders = {name: encoder_of(name, options) for name in names}
    evaluation = measure(
        folder,
        encoders,
        first_stage=first_stage,
        top_k=top_k,
        split=split,
        seed=seed,
        show_progress=sys.stderr.isatty(),
    )
    paths = evaluation.save(output)
    if as_json:
        write_json_lines([results(evaluation)])
        return
    headers, rows = table(evaluation)
    write_table(headers, rows, numbers=headers[1:])
    typer.echo(f"\n{evaluation.answer}\n\nWritten: {', '.join(map(str, paths))}")

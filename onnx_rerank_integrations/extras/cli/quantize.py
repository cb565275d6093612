"""``onnx-rerank quantize``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.extras.cli.options import (
    JsonFlag,
    ModelArgument,
    ModelNamed,
    ModelOptions,
    OutArgument,
    Overwrite,
    model_and_folder,
    model_options,
)
from onnx_rerank_integrations.extras.cli.output import write_json_lines, write_table
from onnx_rerank_integrations.extras.quantize import Mode, Quantization, Sample
from onnx_rerank_integrations.extras.quantize import quantize as run_quantize
from onnx_rerank_integrations.extras.text_files import json_object, numbered_lines

QUANTIZABLE = ("label", "max_length", "model_file", "revision", "cache_dir", "local_files_only")
"""Options that `extras.quantize.quantize` takes."""


@model_options(*QUANTIZABLE)
def quantize(
    model: ModelArgument = None,
    out: OutArgument = None,
    named: ModelNamed = None,
    *,
    calibrate: Annotated[
        Path,
        typer.Option(
            help='JSON lines of {"query": text, "documents": [texts]}, with "relevances": [numbers] where known. '
            "Half of the lines calibrate, the other half judge the result.",
            show_default=False,
        ),
    ],
    mode: Annotated[
        Mode,
        typer.Option(help="static: scores don't depend on the batch; dynamic: they do, so pairs run one by one."),
    ] = "static",
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
    options: ModelOptions,
) -> None:
    """Make an int8 copy of a model, kept if it ranks alike.

    \b
    onnx-rerank quantize ./my-model my-int8 --calibrate questions.jsonl
    onnx-rerank rank "a query" documents.txt --model ./my-int8
    """
    source, folder = model_and_folder(model, out, named)
    result = run_quantize(
        source,
        folder,
        read_samples(calibrate),
        mode=mode,
        **options,
        overwrite=overwrite,
    )
    if as_json:
        write_json_lines([{**asdict(result), "folder": str(result.folder)}])
        return
    write_table([str(result.folder), "measured"], _rows(result), numbers=("measured",))


def read_samples(path: Path) -> list[Sample]:
    """The samples of a JSON lines file.

    Raises:
        InputValueError: A line is no sample; the message names it.
    """
    return [
        _sample(json_object(line, f"{path}, line {number}"), f"{path}, line {number}")
        for number, line in numbered_lines(path)
    ]


def _sample(record: dict[str, Any], place: str) -> Sample:
    query, documents, relevances = (record.get(key) for key in ("query", "documents", "relevances"))
    texts = isinstance(documents, list) and all(isinstance(document, str) for document in documents)
    grades = relevances is None or (
        isinstance(relevances, list) and all(isinstance(grade, (int, float)) for grade in relevances)
    )
    if not isinstance(query, str) or not isinstance(documents, list) or not texts or not grades:
        raise InputValueError(
            f'{place}: a sample needs "query" (text), "documents" (a list of texts) and, where known, "relevances" '
            "(a list of numbers)"
        )
    try:
        return Sample(query=query, documents=documents, relevances=relevances)
    except InputValueError as error:
        raise InputValueError(f"{place}: {error}") from error


def _rows(result: Quantization) -> list[list[str]]:
    agreement = result.agreement
    rows = [
        ["size", f"{result.size / 1e6:,.1f} MB, before {result.size_before / 1e6:,.1f} MB"],
        ["compared on", f"{agreement.pairs:,} pairs{'' if result.held_out else ', those it was calibrated with'}"],
        ["mean score error", f"{agreement.mean_error:.3f}"],
        ["largest score error", f"{agreement.largest_error:.3f}"],
        ["standard deviation of the scores", f"{agreement.spread:.3f}"],
        ["rank correlation (Spearman)", f"{agreement.spearman:.3f}"],
        ["rank correlation (Kendall)", f"{agreement.kendall:.3f}"],
    ]
    if agreement.ndcg_before is not None and agreement.ndcg_after is not None:
        rows.append(["nDCG@10", f"{agreement.ndcg_after:.3f}, before {agreement.ndcg_before:.3f}"])
    return rows

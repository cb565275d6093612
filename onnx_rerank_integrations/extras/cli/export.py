"""``onnx-rerank export`` and ``onnx-rerank check``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.extras import check as checks
from onnx_rerank_integrations.extras.cli.exit_codes import OUR_ERROR
from onnx_rerank_integrations.extras.cli.options import (
    JsonFlag,
    ModelArgument,
    ModelNamed,
    ModelOptions,
    OutArgument,
    Overwrite,
    encoder_of,
    model_and_folder,
    model_options,
    the_model,
)
from onnx_rerank_integrations.extras.cli.output import note, write_json_lines, write_table
from onnx_rerank_integrations.extras.export import export as run_export

Scale = Literal["identity", "sigmoid"]
"""The scale of a reference's scores."""


@model_options("revision")
def export(
    model: Annotated[
        str | None, typer.Argument(help="A hub id, or a folder as transformers saves it.", show_default=False)
    ] = None,
    out: OutArgument = None,
    named: ModelNamed = None,
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
    *,
    options: ModelOptions,
) -> None:
    """Turn a PyTorch cross-encoder into ONNX files.

    The folder is kept only if the scores equal PyTorch's.

    \b
    onnx-rerank export cross-encoder/ms-marco-MiniLM-L6-v2 my-model
    onnx-rerank rank "a query" documents.txt --model ./my-model
    """
    source, folder = model_and_folder(model, out, named)
    result = run_export(source, folder, overwrite=overwrite, **options)
    if as_json:
        write_json_lines([{**asdict(result), "folder": str(result.folder)}])
        return
    write_table(
        ["exported", "size", "pairs compared", "largest difference from PyTorch"],
        [[str(result.folder), f"{result.size / 1e6:,.1f} MB", str(result.pairs), f"{result.largest_difference:.1e}"]],
        numbers=("size", "pairs compared", "largest difference from PyTorch"),
    )


@model_options()
def check(
    model: ModelArgument = None,
    named: ModelNamed = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help='JSON lines of {"query", "document", "score"} to compare with.',
            show_default="the published scores of this model",
        ),
    ] = None,
    reference_of: Annotated[
        str | None, typer.Option(help="Compare with the published scores of this name.", show_default="MODEL")
    ] = None,
    scale: Annotated[Scale, typer.Option(help="The scale of the scores in --reference.")] = "identity",
    tolerance: Annotated[float, typer.Option(min=0, help="Largest difference that passes, with --reference.")] = 1e-3,
    as_json: JsonFlag = False,
    *,
    options: ModelOptions,
) -> None:
    """Compare a model's scores with published ones.

    Or with your own, by --reference. The exit code is 1 if they differ.

    \b
    onnx-rerank check Xenova/ms-marco-MiniLM-L-6-v2
    onnx-rerank check ./my-model --reference scores.jsonl
    onnx-rerank check ./my-copy --reference-of cross-encoder/ms-marco-MiniLM-L6-v2
    """
    model = the_model(model, named)
    if model is None:
        raise typer.BadParameter("a model is needed: onnx-rerank check MODEL")
    if reference is None:
        references = checks.published_for(reference_of or model)
        if not references:
            known = ", ".join(sorted({one.model for one in checks.published()}))
            raise InputValueError(
                f"no published scores of {reference_of or model} are known; they are for {known}.\n"
                "Give your own with --reference, or name one of these with --reference-of."
            )
    else:
        references = [checks.read_reference(reference, model, activation=scale, tolerance=tolerance)]
    encoder = encoder_of(model, options)
    comparisons = checks.compare(encoder, references)
    if as_json:
        write_json_lines(
            {
                "model": model,
                "reference": one.reference.source,
                "pairs": len(one.scores),
                "largest_difference": one.largest_difference,
                "tolerance": one.reference.tolerance,
                "passed": one.passed,
            }
            for one in comparisons
        )
    else:
        _write_comparisons(comparisons)
    if not all(one.passed for one in comparisons):
        note("the scores differ by more than the tolerance: another file of the model, or another max_length?")
        raise typer.Exit(OUR_ERROR)


def _write_comparisons(comparisons: Sequence[checks.Comparison]) -> None:
    rows = [
        [
            one.reference.source,
            str(len(one.scores)),
            f"{one.largest_difference:.1e}",
            f"{one.reference.tolerance:.0e}",
            "equal" if one.passed else "DIFFERENT",
        ]
        for one in comparisons
    ]
    numbers = ("pairs", "largest difference", "tolerance")
    write_table(["reference", "pairs", "largest difference", "tolerance", "result"], rows, numbers=numbers)

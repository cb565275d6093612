"""``onnx-rerank models`` and ``onnx-rerank download``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from onnx_rerank_integrations.core.model import files, registry
from onnx_rerank_integrations.extras.cli.options import (
    JsonFlag,
    ModelArgument,
    ModelNamed,
    ModelOptions,
    model_options,
    the_model,
)
from onnx_rerank_integrations.extras.cli.output import note, write_json_lines, write_table

UNKNOWN = "?"


@model_options("cache_dir")
def models(
    contains: Annotated[
        str | None,
        typer.Argument(help="Part of a name, a language or a licence: only those models.", show_default="all"),
    ] = None,
    as_json: JsonFlag = False,
    *,
    options: ModelOptions,
) -> None:
    """List the supported models and their facts.

    Any other hub id or folder with ONNX files works too. "here" says whether a model is on this machine already.
    """
    rows = [
        {**row, "cached": files.is_cached(row["model"], **options)}
        for row in registry.list_supported_models()
        if contains is None or contains.lower() in f"{row['model']} {row['languages']} {row['license']}".lower()
    ]
    if as_json:
        write_json_lines(rows)
        return
    if not rows:
        note(f"no supported model has {contains!r} in its name, languages or licence")
        return
    headers = ["model", "MB", "languages", "tokens", "licence", "here"]
    write_table(headers, [_cells(row) for row in rows], numbers=("MB", "tokens"))


@model_options("model_file", "revision", "cache_dir")
def download(
    model: ModelArgument = None,
    named: ModelNamed = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch every file again: mends a damaged cache.")] = False,
    *,
    options: ModelOptions,
) -> None:
    """Fetch a model from the hub, for use without a network.

    Prints its folder. Without a model, the one that $ONNX_RERANK_MODEL names, else the default.
    """
    name = the_model(model, named) or registry.default_model()
    found = files.download(name, show_progress=True, force_download=force, **options)
    if _is_non_commercial(found.license):
        note(f"the licence of {name} is {found.license}: not for commercial use")
    typer.echo(str(found.folder))


def _cells(row: Mapping[str, Any]) -> list[str]:
    size = row["size_in_GB"]
    return [
        row["model"],
        UNKNOWN if size is None else f"{size * 1000:,.{0 if size >= 0.01 else 1}f}",
        row["languages"] or UNKNOWN,
        UNKNOWN if row["max_length"] is None else f"{row['max_length']:,}",
        _license(row["license"]),
        "yes" if row["cached"] else "",
    ]


def _license(name: str | None) -> str:
    if name is None:
        return UNKNOWN
    return f"{name} (non-commercial)" if _is_non_commercial(name) else name


def _is_non_commercial(license: str | None) -> bool:
    return license is not None and "-nc" in license

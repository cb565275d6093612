"""``onnx-rerank models`` and ``onnx-rerank download``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.extras.cli.options import MODEL_HELP, CacheDir, JsonFlag, ModelFile, Revision
from onnx_rerank_integrations.extras.cli.output import note, write_json_lines, write_table

UNKNOWN = "?"


def models(cache_dir: CacheDir = None, as_json: JsonFlag = False) -> None:
    """List the supported models and their facts.

    Any other hub id or folder with ONNX files works too. "cached" says whether a model is on this machine already.
    """
    from onnx_rerank_integrations.core.model.files import is_cached

    rows = [{**row, "cached": is_cached(row["model"], cache_dir=cache_dir)} for row in registry.list_supported_models()]
    if as_json:
        write_json_lines(rows)
        return
    headers = ["model", "size", "licence", "languages", "max length", "cached"]
    write_table(headers, [_cells(row) for row in rows], numbers=("size", "max length"))


def download(
    model: Annotated[
        str | None, typer.Argument(help=MODEL_HELP, show_default=f"$ONNX_RERANK_MODEL, else {registry.DEFAULT_MODEL}")
    ] = None,
    model_file: ModelFile = None,
    revision: Revision = None,
    cache_dir: CacheDir = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch every file again: mends a damaged cache.")] = False,
) -> None:
    """Fetch a model from the hub, for use without a network.

    Prints its folder.
    """
    from onnx_rerank_integrations.core.model import files

    name = model or registry.default_model()
    found = files.download(
        name,
        cache_dir=cache_dir,
        revision=revision,
        model_file=model_file,
        show_progress=True,
        force_download=force,
    )
    if _is_non_commercial(found.license):
        note(f"the licence of {name} is {found.license}: not for commercial use")
    typer.echo(str(found.folder))


def _cells(row: Mapping[str, Any]) -> list[str]:
    size = row["size_in_GB"]
    return [
        row["model"],
        UNKNOWN if size is None else f"{size * 1000:,.0f} MB",
        _license(row["license"]),
        row["languages"] or UNKNOWN,
        UNKNOWN if row["max_length"] is None else f"{row['max_length']:,}",
        "yes" if row["cached"] else "",
    ]


def _license(name: str | None) -> str:
    if name is None:
        return UNKNOWN
    return f"{name} (non-commercial)" if _is_non_commercial(name) else name


def _is_non_commercial(license: str | None) -> bool:
    return license is not None and "-nc" in license

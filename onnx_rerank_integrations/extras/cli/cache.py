"""``onnx-rerank cache``: what this package keeps beside the hub's cache."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from onnx_rerank_integrations.core.graphs import copies
from onnx_rerank_integrations.core.model.identity import own_cache
from onnx_rerank_integrations.extras.cli.options import JsonFlag
from onnx_rerank_integrations.extras.cli.output import note, write_json_lines, write_table


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove the copies that are listed.")] = False,
    cache_dir: Annotated[
        Path | None, typer.Option(help="The hub's cache that models were given; None for $ONNX_RERANK_CACHE.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the copies of graphs that were made to run faster, those that were used last first, or clear them.

    They are made again when they are needed. Models from the hub aren't touched: `hf cache` lists and clears those.
    """
    place = own_cache(cache_dir)
    found = copies.copies(place)
    rows = [
        {
            "model": copy.source,
            "kind": copy.kind,
            "size_in_MB": round(copy.size / 1e6, 1),
            "last_used": datetime.fromtimestamp(copy.used).isoformat(" ", "minutes"),
            "folder": str(copy.folder),
            "without_a_copy_because": copy.reason or None,
        }
        for copy in found
    ]
    if as_json:
        write_json_lines(rows)
    elif rows:
        headers = ["model", "kind", "size", "last used", "folder (its beginning)"]
        cells = [
            [
                str(row["model"]),
                str(row["kind"]),
                f"{row['size_in_MB']} MB",
                str(row["last_used"]),
                copy.folder.name[:12],
            ]
            for row, copy in zip(rows, found, strict=True)
        ]
        write_table(headers, cells, numbers=("size",))
    if clear:
        for copy in found:
            copies.remove(copy)
    total = sum(copy.size for copy in found) / 1e6
    note(f"{len(found)} copies, {total:,.1f} MB in {place}{', removed' if clear else ''}")

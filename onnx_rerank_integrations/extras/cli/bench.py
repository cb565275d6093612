"""``onnx-rerank bench``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.extras.cli.options import (
    MODEL_HELP,
    CacheDir,
    JsonFlag,
    LocalFilesOnly,
    MaxLength,
    ModelFile,
    Revision,
    Threads,
)
from onnx_rerank_integrations.extras.cli.output import write_json_lines, write_table


def bench(
    model: Annotated[
        str | None, typer.Option(help=MODEL_HELP, show_default=f"$ONNX_RERANK_MODEL, else {registry.DEFAULT_MODEL}")
    ] = None,
    documents: Annotated[
        Path | None, typer.Option(help="One document per line.", show_default="100 passages of 60 to 200 words")
    ] = None,
    query: Annotated[str | None, typer.Option(help="The query.", show_default=False)] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Measure for at least so long.")] = 10.0,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Most pairs of a batch.", show_default=False)] = None,
    parallel: Annotated[
        int | None, typer.Option(min=0, help="Batches that run at once; 0 for one per CPU.", show_default=False)
    ] = None,
    max_length: MaxLength = None,
    model_file: ModelFile = None,
    revision: Revision = None,
    cache_dir: CacheDir = None,
    local_files_only: LocalFilesOnly = False,
    threads: Threads = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a model's speed and memory on this machine.

    \b
    onnx-rerank bench --model embedded
    onnx-rerank bench --model Xenova/ms-marco-MiniLM-L-6-v2 --documents passages.txt --threads 1
    """
    from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
    from onnx_rerank_integrations.extras import bench as measure

    texts = measure.sample_passages() if documents is None else _lines(documents)
    encoder = TextCrossEncoder(
        model,
        max_length=max_length,
        model_file=model_file,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        threads=threads,
    )
    speed = measure.bench(
        encoder, texts, query=query or measure.QUERY, seconds=seconds, batch_size=batch_size, parallel=parallel
    )
    if as_json:
        write_json_lines([{"model": encoder.model_name, **asdict(speed)}])
        return
    rows = [
        ["documents per call", f"{speed.documents:,}"],
        ["tokens per call", f"{speed.tokens:,}"],
        ["calls", f"{speed.calls:,}"],
        ["documents per second", f"{speed.documents_per_second:,.0f}"],
        ["tokens per second", f"{speed.tokens_per_second:,.0f}"],
        ["p50 of a call", f"{speed.p50 * 1000:,.1f} ms"],
        ["p99 of a call", f"{speed.p99 * 1000:,.1f} ms"],
        ["peak memory of the process", f"{speed.peak_memory / 1e6:,.0f} MB" if speed.peak_memory else "unknown"],
    ]
    write_table([encoder.model_name, "measured"], rows, numbers=("measured",))


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.strip()]
    except OSError as error:
        raise InputValueError(f"{path} can't be read: {error.strerror}") from error

"""``onnx-rerank bench``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from onnx_rerank_integrations.extras import bench as measure
from onnx_rerank_integrations.extras.cli.documents import read_documents
from onnx_rerank_integrations.extras.cli.options import JsonFlag, Model, ModelOptions, encoder_of, model_options
from onnx_rerank_integrations.extras.cli.output import write_json_lines, write_table

PER_CALL = 100
ENOUGH_CALLS = 6
"""One that isn't counted, and five that are."""


@model_options()
def bench(
    model: Model = None,
    documents: Annotated[
        Path | None,
        typer.Option(
            help="Documents, as rank reads them: 100 new ones in each call if there are 600, else all in every call.",
            show_default="100 passages of 60 to 200 words, new in each call",
        ),
    ] = None,
    query: Annotated[str | None, typer.Option(help="The query.", show_default=False)] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Measure for at least so long.")] = 10.0,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Most pairs of a batch.", show_default=False)] = None,
    parallel: Annotated[
        int | None, typer.Option(min=0, help="Batches that run at once; 0 for one per CPU.", show_default=False)
    ] = None,
    as_json: JsonFlag = False,
    *,
    options: ModelOptions,
) -> None:
    """Measure a model's speed and memory on this machine.

    \b
    onnx-rerank bench --model embedded
    onnx-rerank bench --model ./my-model --documents passages.txt --threads 1
    """
    encoder = encoder_of(model, options)
    texts = measure.new_passages() if documents is None else _calls(documents)
    speed = measure.bench(
        encoder, texts, query=query or measure.QUERY, seconds=seconds, batch_size=batch_size, parallel=parallel
    )
    if as_json:
        write_json_lines([{"model": encoder.model_name, "computed_by": encoder.load().computed_by, **asdict(speed)}])
        return
    rows = [
        ["computed by", encoder.load().computed_by],
        ["texts", speed.texts],
        ["documents per call", f"{speed.documents:,}"],
        ["tokens per call", f"{speed.tokens:,}"],
        ["calls", f"{speed.calls:,}"],
        ["documents per second", f"{speed.documents_per_second:,.0f}"],
        ["tokens per second", f"{speed.tokens_per_second:,.0f}"],
        ["p50 of a call", f"{speed.p50 * 1000:,.1f} ms"],
        ["p99 of a call", f"{speed.p99 * 1000:,.1f} ms"],
        ["CPU time of a call", f"{speed.cpu * 1000:,.1f} ms"],
        ["peak memory of the process", f"{speed.peak_memory / 1e6:,.0f} MB" if speed.peak_memory else "unknown"],
    ]
    write_table([encoder.model_name, "measured"], rows)


def _calls(path: Path) -> Sequence[str] | Iterator[Sequence[str]]:
    """A file's documents: 100 for each call where there are enough for that, else all of them in every call."""
    texts = [document.text for document in read_documents([str(path)], "auto", ["text"])]
    if len(texts) < ENOUGH_CALLS * PER_CALL:
        return texts
    return iter([texts[start : start + PER_CALL] for start in range(0, len(texts) - PER_CALL + 1, PER_CALL)])

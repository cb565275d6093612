"""``onnx-rerank rank``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer

from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.scoring import Activation, activation_function, best_first, sigmoid
from onnx_rerank_integrations.core.types import RankedDocument
from onnx_rerank_integrations.extras.cli.documents import STDIN, Document, Split, read_documents
from onnx_rerank_integrations.extras.cli.options import JsonFlag, Model, ModelOptions, encoder_of, model_options
from onnx_rerank_integrations.extras.cli.output import note, write_json_lines, write_table

SHOW_PROGRESS_FROM = 500
"""Documents that take long enough for a progress bar on a terminal."""


@model_options()
def rank(
    query: Annotated[str, typer.Argument(help="What to look for: a question, a phrase.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Text files, plain or gzip, and with the extra [files] PDF and Word files; '-' is stdin.",
            show_default="stdin, in a pipe",
        ),
    ] = None,
    split: Annotated[
        Split,
        typer.Option(
            help="What one document is. auto goes by the file's name: a section with its heading in Markdown, "
            "reStructuredText and Word, a page of PDF, a record of JSON, JSON lines or CSV, a line in all others."
        ),
    ] = "auto",
    text_field: Annotated[
        list[str] | None,
        typer.Option(help="The field of a record to score; repeat to join several.", show_default="text"),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="The files' encoding, such as windows-1252.", show_default="UTF-8, or UTF-16 with its mark"),
    ] = None,
    model: Model = None,
    top_n: Annotated[int, typer.Option("--top-n", "-n", min=1, help="Most documents shown.")] = 10,
    show_all: Annotated[bool, typer.Option("--all", help="Show every document, whatever --top-n says.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Lowest score shown, always on the sigmoid scale of 0..1.", show_default="none"
        ),
    ] = None,
    activation: Annotated[
        Activation,
        typer.Option(help="The scale of the scores shown: 0..1, raw logits, or what the model's config asks for."),
    ] = "sigmoid",
    full: Annotated[bool, typer.Option("--full", help="Show texts whole, whatever their length.")] = False,
    as_json: JsonFlag = False,
    *,
    options: ModelOptions,
) -> None:
    """Rank texts by their relevance to a query, the best first.

    A document is what --split says. With --json, each line holds rank, score, text, source and index (the document's
    place in the input, from 0), and all fields of a record; a field of its own that has one of these names and another
    value is kept as original_NAME.

    \b
    Examples:
      onnx-rerank rank "how do I reset my password" faq.txt
      onnx-rerank rank "trade winds" *.md --model embedded
      grep -rh TODO src | onnx-rerank rank "thread safety" --threshold 0.5
      onnx-rerank rank "error codes" docs.jsonl --text-field body --json | jq .id
    """
    documents = read_documents(_paths(files), split, text_field or ["text"], encoding)
    if not documents:
        note("there are no documents: the input is empty")
    encoder = encoder_of(model, {"warn_truncated": False, **options})  # a note says it, with the flag that helps
    query = _as_utf8(query)
    if options.get("long_documents", "truncate") == "truncate":
        _note_truncated(encoder, query, documents)
    ranked = _rank(encoder, query, documents, None if show_all else top_n, threshold, activation)
    if as_json:
        write_json_lines(_record(place, one, documents[one.index]) for place, one in enumerate(ranked, start=1))
        return
    write_table(
        ["rank", "score", "source", "text"],
        [
            [str(place), f"{one.score:.4f}", documents[one.index].source, one.text]
            for place, one in enumerate(ranked, start=1)
        ],
        numbers=("rank", "score"),
        shortened=None if full else "text",
    )


def _paths(files: Sequence[str] | None) -> Sequence[str]:
    if files:
        return files
    if sys.stdin is None or sys.stdin.isatty():
        raise typer.BadParameter("no documents: name files, or pipe text in")
    return [STDIN]


def _rank(
    encoder: TextCrossEncoder,
    query: str,
    documents: Sequence[Document],
    top_n: int | None,
    threshold: float | None,
    activation: Activation,
) -> list[RankedDocument]:
    """As `TextCrossEncoder.rank`, but for the threshold: it is on the sigmoid scale whatever the activation."""
    show_progress = sys.stderr.isatty() and len(documents) >= SHOW_PROGRESS_FROM
    texts = [document.text for document in documents]
    logits = np.array(encoder.rerank(query, texts, activation="identity", show_progress=show_progress))
    kept = best_first(logits, sigmoid(logits), top_n=top_n, score_threshold=threshold)
    if documents and not kept:
        note(f"no document scores {threshold} or more; the best has {sigmoid(logits).max():.4f}")
    scores = activation_function(activation, encoder.config)(logits)
    return [RankedDocument(index=index, score=float(scores[index]), text=texts[index]) for index in kept]


def _note_truncated(encoder: TextCrossEncoder, query: str, documents: Sequence[Document]) -> None:
    cut = sum(encoder.truncated((query, document.text) for document in documents))
    if cut:
        note(
            f"{cut} of {len(documents)} documents are longer than the model's {encoder.max_length} tokens and were "
            "scored by their beginning; --long-documents max reads them whole"
        )


def _record(place: int, ranked: RankedDocument, document: Document) -> dict[str, Any]:
    ours = {
        "rank": place,
        "score": ranked.score,
        "text": ranked.text,
        "source": document.source,
        "index": ranked.index,
    }
    theirs = document.record or {}
    moved = {f"original_{name}": theirs[name] for name in ours if name in theirs and theirs[name] != ours[name]}
    return {**ours, **{name: value for name, value in theirs.items() if name not in ours}, **moved}


def _as_utf8(argument: str) -> str:
    """An argument's bytes read as UTF-8: Python reads them in the locale's encoding."""
    return os.fsencode(argument).decode("utf-8", "replace")

"""``onnx-rerank rank``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
import typer

from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.core.scoring import activation_function, best_first, sigmoid
from onnx_rerank_integrations.core.types import RankedDocument
from onnx_rerank_integrations.extras.cli.documents import STDIN, Document, Split, read_documents
from onnx_rerank_integrations.extras.cli.options import (
    MODEL_HELP,
    CacheDir,
    JsonFlag,
    Label,
    LocalFilesOnly,
    LongDocuments,
    LongDocumentsChoice,
    MaxLength,
    ModelFile,
    Providers,
    Revision,
    Threads,
)
from onnx_rerank_integrations.extras.cli.output import note, write_json_lines, write_table

SHOW_PROGRESS_FROM = 500
"""Documents that take long enough for a progress bar on a terminal."""


class ActivationChoice(StrEnum):
    """`Activation` of the core."""

    SIGMOID = "sigmoid"
    IDENTITY = "identity"
    MODEL = "model"


def rank(
    query: Annotated[str, typer.Argument(help="What to look for: a question, a phrase.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Text files, plain or gzip; '-' is stdin.", show_default="stdin, in a pipe"),
    ] = None,
    split: Annotated[
        Split,
        typer.Option(help="What one document is. auto: a record in files named .jsonl, a line in all others."),
    ] = Split.AUTO,
    text_field: Annotated[
        list[str] | None,
        typer.Option(help="The field of a JSONL record to score; repeat to join several.", show_default="text"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help=MODEL_HELP, show_default=f"$ONNX_RERANK_MODEL, else {registry.DEFAULT_MODEL}"
        ),
    ] = None,
    top_n: Annotated[int, typer.Option("--top-n", "-n", min=1, help="Most documents shown.")] = 10,
    show_all: Annotated[bool, typer.Option("--all", help="Show every document, whatever --top-n says.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Lowest score shown, always on the sigmoid scale of 0..1.", show_default="none"
        ),
    ] = None,
    activation: Annotated[
        ActivationChoice,
        typer.Option(help="The scale of the scores shown: 0..1, raw logits, or what the model's config asks for."),
    ] = ActivationChoice.SIGMOID,
    as_json: JsonFlag = False,
    model_file: ModelFile = None,
    revision: Revision = None,
    cache_dir: CacheDir = None,
    local_files_only: LocalFilesOnly = False,
    max_length: MaxLength = None,
    long_documents: LongDocuments = LongDocumentsChoice.TRUNCATE,
    label: Label = None,
    threads: Threads = None,
    provider: Providers = None,
) -> None:
    """Rank texts by their relevance to a query, the best first.

    A document is a line of the files, a JSONL record, or what --split says. With --json, each line holds rank, score,
    text, source and index (the document's place in the input, from 0), and all fields of a JSONL record; a field of
    its own that has one of these names and another value is kept as original_NAME.

    \b
    Examples:
      onnx-rerank rank "how do I reset my password" faq.txt
      onnx-rerank rank "trade winds" *.md --split paragraphs --model embedded
      grep -rh TODO src | onnx-rerank rank "thread safety" --threshold 0.5
      onnx-rerank rank "error codes" docs.jsonl --text-field body --json | jq .id
    """
    documents = read_documents(_paths(files), split, text_field or ["text"])
    if not documents:
        note("there are no documents: the input is empty")
    encoder = TextCrossEncoder(
        model,
        model_file=model_file,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        max_length=max_length,
        long_documents=long_documents.value,
        label=int(label) if label and label.isdecimal() else label,
        threads=threads,
        providers=provider or None,
    )
    query = _as_utf8(query)
    if long_documents is LongDocumentsChoice.TRUNCATE:
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
        shortened="text",
    )


def _paths(files: Sequence[str] | None) -> Sequence[str]:
    if files:
        return files
    if sys.stdin.isatty():
        raise typer.BadParameter("no documents: name files, or pipe text in")
    return [STDIN]


def _rank(
    encoder: TextCrossEncoder,
    query: str,
    documents: Sequence[Document],
    top_n: int | None,
    threshold: float | None,
    activation: ActivationChoice,
) -> list[RankedDocument]:
    """As `TextCrossEncoder.rank`, but for the threshold: it is on the sigmoid scale whatever the activation."""
    show_progress = sys.stderr.isatty() and len(documents) >= SHOW_PROGRESS_FROM
    texts = [document.text for document in documents]
    logits = np.array(encoder.rerank(query, texts, activation="identity", show_progress=show_progress))
    kept = best_first(logits, sigmoid(logits), top_n=top_n, score_threshold=threshold)
    if documents and not kept:
        note(f"no document scores {threshold} or more; the best has {sigmoid(logits).max():.4f}")
    scores = activation_function(activation.value, encoder.config)(logits)
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

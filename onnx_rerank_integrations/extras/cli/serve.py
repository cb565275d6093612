"""``onnx-rerank serve``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.core.options import defaults, deprecated
from onnx_rerank_integrations.extras.cli.options import MODEL_HELP, NOT_FLAGS, ModelOptions, model_options
from onnx_rerank_integrations.extras.needs_extra import needs_extra
from onnx_rerank_integrations.extras.server.settings import API_KEYS_VARIABLE, ServerSettings, read_keys

OPTIONS = tuple(name for name in defaults() if name not in {*NOT_FLAGS, *deprecated(), "score_cache"})
"""All of a model's but the cache: the server scores batch by batch, below it."""


@model_options(*OPTIONS)
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help=f"{MODEL_HELP} Repeat to serve several; NAME=MODEL serves one under another name.",
            show_default=f"$ONNX_RERANK_MODEL, else {registry.DEFAULT_MODEL}",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine's.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 for any free one.")] = 8080,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="API keys that may come in, one a line.", show_default="those in $ONNX_RERANK_API_KEYS"),
    ] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Listen on other addresses than this machine's without a key.")
    ] = False,
    max_documents: Annotated[int, typer.Option(min=1, help="Documents of a request.")] = 2_000,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 16_000_000,
    max_document_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a document that are read.", show_default="what the model reads")
    ] = None,
    max_queue_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that wait, of all requests to a model: beyond them it answers 429.")
    ] = 500_000,
    request_timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for an answer.")] = 60.0,
    read_timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for a request's head and for its body.")] = (
        10.0
    ),
    drain_delay: Annotated[
        float, typer.Option(min=0, help="Seconds after SIGTERM in which it isn't ready and still takes requests.")
    ] = 0.0,
    drain_timeout: Annotated[float, typer.Option(min=1, help="Seconds after that to finish what was begun.")] = 30.0,
    log_requests: Annotated[bool, typer.Option("--log-requests", help="A line for each request, without texts.")] = (
        False
    ),
    *,
    options: ModelOptions,
) -> None:
    """Serve models to clients of Cohere, Jina and TEI, and a page to try them on.

    Pairs of concurrent requests share batches. /docs says what it understands, / is the page.

    \b
    Examples:
      onnx-rerank serve --model embedded
      onnx-rerank serve -m small=embedded -m large=BAAI/bge-reranker-base
      ONNX_RERANK_API_KEYS=... onnx-rerank serve --host 0.0.0.0
    """
    with needs_extra("server", "onnx-rerank serve"):
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    from onnx_rerank_integrations.extras.server import run

    settings = ServerSettings(
        host=host,
        port=port,
        api_keys=read_keys(api_key_file, os.environ.get(API_KEYS_VARIABLE)),
        allow_anonymous=allow_anonymous,
        max_body=max_body,
        max_documents=max_documents,
        max_document_tokens=max_document_tokens,
        max_queue_tokens=max_queue_tokens,
        request_timeout=request_timeout,
        read_timeout=read_timeout,
        drain_delay=drain_delay,
        drain_timeout=drain_timeout,
    )
    encoders = {
        name: TextCrossEncoder(where, **options, lazy_load=True)
        for name, where in named_models(model or [registry.default_model()])
    }
    run.serve(encoders, settings, log_requests=log_requests)


def named_models(models: Sequence[str]) -> list[tuple[str, str]]:
    """(name, model) of each ``MODEL`` or ``NAME=MODEL``.

    Raises:
        InputValueError: A name is taken.
    """
    named: dict[str, str] = {}
    for one in models:
        name, equals, model = one.partition("=")
        if not equals or Path(one).exists():
            name = model = one
        if name in named:
            raise InputValueError(f"two models are to be served as {name!r}: name them apart with NAME=MODEL")
        named[name] = model
    return list(named.items())

"""The routes of the server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

import onnx_rerank_integrations
from onnx_rerank_integrations.core.errors import (
    InputTypeError,
    InputValueError,
    RerankError,
    ScoreError,
    UnknownModelError,
)
from onnx_rerank_integrations.extras.server import shapes
from onnx_rerank_integrations.extras.server.docs_page import docs_page
from onnx_rerank_integrations.extras.server.gate import error_body
from onnx_rerank_integrations.extras.server.metrics import Metrics
from onnx_rerank_integrations.extras.server.models import NotReadyError, ServedModel, ServedModels
from onnx_rerank_integrations.extras.server.pair_queue import QueueFullError, Scored, TruncatedError
from onnx_rerank_integrations.extras.server.settings import ServerSettings

STATUSES: Mapping[type[RerankError], tuple[int, str]] = {
    UnknownModelError: (404, "validation"),
    NotReadyError: (503, "unhealthy"),
    QueueFullError: (429, "overloaded"),
    TruncatedError: (413, "validation"),
    InputValueError: (422, "validation"),
    InputTypeError: (422, "validation"),
    ScoreError: (500, "backend"),
}
"""Our errors as HTTP's status and TEI's word, the narrowest class first."""

ONE_DOCUMENT = "must be a string, or an object with a string as its text"

RETRY_WHILE_STARTING = 2
"""Seconds."""


class Json(Response):
    """JSON in ASCII: a lone surrogate in a text stays what it is."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document."""
    return {status: {"model": shapes.Error} for status in statuses}


REFUSALS = errors(400, 401, 404, 408, 413, 422, 429, 500, 503, 504)


def create_app(settings: ServerSettings, models: ServedModels, metrics: Metrics) -> FastAPI:
    """The application: routes over the models. `Gate` goes around it."""
    app = FastAPI(
        title="onnx-rerank",
        version=onnx_rerank_integrations.__version__,
        description="Reranks documents by relevance to a query, in the shapes of Cohere, Jina and TEI.",
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    started = int(time.time())

    async def score(request: shapes.DocumentsRequest | shapes.TextsRequest, model: ServedModel) -> Scored:
        check_count(len(request.texts), settings.max_documents)
        caps = (settings.max_document_tokens, getattr(request, "max_tokens_per_doc", None))
        found = await model.queue.score(
            [(request.query, text) for text in request.texts],
            document_tokens=min((cap for cap in caps if cap is not None), default=None),
            may_truncate=request.truncate is None or shapes.is_set(request.truncate),
        )
        metrics.documents(model.name, len(request.texts))
        return found

    @app.post(
        "/rerank", summary="Rerank", response_model=shapes.RerankAnswer | list[shapes.TextRank], responses=REFUSALS
    )
    @app.post(
        "/v1/rerank",
        summary="Rerank, as Cohere's v1 and Jina have it",
        response_model=shapes.RerankAnswer | list[shapes.TextRank],
        responses=REFUSALS,
    )
    @app.post(
        "/v2/rerank",
        summary="Rerank, as Cohere's v2 has it",
        response_model=shapes.RerankAnswer | list[shapes.TextRank],
        responses=REFUSALS,
    )
    async def rerank(body: shapes.RerankRequest, request: Request) -> Response:
        """Scores each document for the query and gives the best first.

        With `documents` the request and its answer are Cohere's and Jina's, with `texts` they are TEI's.
        """
        model = models.find(body.model)
        found = await score(body, model)
        tokens = sum(found.tokens)
        headers = {"x-compute-tokens": str(tokens)}
        if body.ignored:
            headers["x-ignored-fields"] = str(len(body.ignored))
        if isinstance(body, shapes.TextsRequest):
            return Json(shapes.texts_answer(body, found.logits), headers=headers)
        version = "2" if request.url.path.startswith("/v2") else "1"
        return Json(shapes.documents_answer(body, model.name, version, found.logits, tokens), headers=headers)

    @app.post("/tokens", summary="Count tokens", response_model=list[shapes.TokenCount], responses=REFUSALS)
    async def tokens(body: shapes.RerankRequest) -> Response:
        """How many tokens the model would read of each document beside the query, and which are truncated."""
        model = models.find(body.model)
        check_count(len(body.texts), settings.max_documents)
        cap = getattr(body, "max_tokens_per_doc", None) or settings.max_document_tokens
        counts, cut = await model.queue.count([(body.query, text) for text in body.texts], cap)
        return Json([{"index": i, "tokens": counts[i], "truncated": cut[i]} for i in range(len(counts))])

    @app.get("/health", summary="Whether the process is alive", response_model=shapes.State)
    async def health() -> Response:
        return Json({"status": "ok"})

    @app.get(
        "/ready",
        summary="Whether requests are taken",
        response_model=shapes.State,
        responses={503: {"model": shapes.Error}},
    )
    async def ready() -> Response:
        """False while models are opened, and from the first moment of a stop."""
        if not models.is_ready:
            raise NotReadyError("stopping" if models.is_draining else "opening the models")
        return Json({"status": "ready"})

    def described(name: str) -> dict[str, Any]:
        opened = models.opened(name)
        return {
            "id": name,
            "object": "model",
            "created": started,
            "owned_by": "onnx-rerank",
            "max_length": opened.encoder.max_length if opened else None,
            "license": opened.encoder.files.license if opened else None,
            "ready": opened is not None,
        }

    @app.get("/v1/models", summary="The models", response_model=shapes.Models, responses=errors(401))
    async def list_models() -> Response:
        return Json({"object": "list", "data": [described(name) for name in models.names]})

    @app.get(
        "/v1/models/{name:path}",
        summary="One model and its config",
        response_model=shapes.ModelDetails,
        responses=errors(401, 404, 422, 503),
    )
    async def model_details(name: str) -> Response:
        model = models.find(name)
        return Json({**described(model.name), "config": dict(model.encoder.config)})

    @app.get("/info", summary="The first model, as TEI has it", response_model=shapes.Info, responses=errors(401))
    async def info() -> Response:
        opened = models.opened(models.names[0])
        return Json(
            {
                "model_id": models.names[0],
                "max_input_length": opened.encoder.max_length if opened else None,
                "max_client_batch_size": settings.max_documents,
                "version": onnx_rerank_integrations.__version__,
            }
        )

    @app.get(
        "/metrics",
        summary="What is counted, for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **errors(401)},
    )
    async def prometheus() -> Response:
        return Response(metrics.text(models), headers={"content-type": metrics.content_type})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(
            docs_page(app.openapi()),
            headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    page = files(onnx_rerank_integrations).joinpath("extras/server/page.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return HTMLResponse(page, headers={"content-security-policy": page_policy(page)})

    @app.exception_handler(RerankError)
    async def our_error(request: Request, error: RerankError) -> Response:
        status, error_type = next(
            (found for kind, found in STATUSES.items() if isinstance(error, kind)), (500, "backend")
        )
        headers = {}
        if isinstance(error, QueueFullError):
            headers["retry-after"] = str(error.retry_after)
        if isinstance(error, NotReadyError):
            headers["retry-after"] = str(RETRY_WHILE_STARTING)
        return Json(error_body(str(error), error_type, type(error).__name__), status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        status, error_type = (400, "empty") if is_empty(error) else (422, "validation")
        return Json(error_body(described_faults(error), error_type, "InputValueError"), status)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return Json(error_body(str(error.detail), "validation"), error.status_code, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return Json(error_body("the server failed; its log says how", "backend"), 500)

    return app


def check_count(documents: int, most: int) -> None:
    if documents > most:
        raise HTTPException(413, f"{documents:,} documents are more than the {most:,} of a request: send them in parts")


def is_empty(error: RequestValidationError) -> bool:
    """Whether all that is wrong is that there are no documents."""
    return all(one["type"] == "too_short" and one["loc"][-1] in ("documents", "texts") for one in error.errors())


def described_faults(error: RequestValidationError) -> str:
    """What is wrong where, without the texts themselves."""
    faults: dict[str, str] = {}
    for one in error.errors():
        field = [part for part in one["loc"] if part != "body"][1:3]  # after the name of the shape
        fault = ONE_DOCUMENT if field[:1] == ["documents"] and len(field) == 2 else str(one["msg"])
        faults.setdefault(".".join(map(str, field)) or "the body", fault)
    return "; ".join(f"{place}: {fault}" for place, fault in [*faults.items()][:5])


def page_policy(page: str) -> str:
    """The Content-Security-Policy that lets the page's own script and style run, and nothing else."""

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in found)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

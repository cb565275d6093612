"""What a request passes before a route sees it: its key, its size, its time; and what is counted of it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from onnx_rerank_integrations.extras.server.metrics import Metrics
from onnx_rerank_integrations.extras.server.settings import ApiKeys, ServerSettings

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN_TO_ALL = frozenset({"/health", "/ready"})
"""What a load balancer asks, which has no key."""

CLIENT_LEFT = 499
"""nginx's number, in metrics and logs only."""

MOST_HEADER_BYTES = 16_384
"""Of a request's address and headers together. h11 holds to it only where they come in several parts."""

ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class RefusedError(Exception):
    """A request that no route sees."""

    def __init__(self, status: int, message: str, error_type: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.error_type, self.headers = status, message, error_type, headers or {}


class ClientLeftError(Exception):
    """Nobody waits for the answer any more."""


class Gate:
    """An ASGI application around another.

    A request gets in with a key, where the server has any; its body is read whole, within its limits; then it has so
    long for its answer. Where the time is over or the client leaves, its route is cancelled.
    """

    def __init__(self, application: Application, settings: ServerSettings, metrics: Metrics) -> None:
        self._application = application
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *ALWAYS]}
            await send(message)

        try:
            await self._pass(scope, receive, noted_send)
        except RefusedError as refused:
            await answer(noted_send, refused)
        except ClientLeftError:
            status = CLIENT_LEFT
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(route, status, seconds)
            logger.info("%s %s %d %.1f ms", scope["method"] if route != "other" else "-", route, status, seconds * 1000)

    async def _pass(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        settings = self._settings
        texts = [scope["raw_path"], scope["query_string"], *(part for header in scope["headers"] for part in header)]
        if sum(map(len, texts)) > MOST_HEADER_BYTES:
            message = f"the request's address and headers are larger than {MOST_HEADER_BYTES:,} bytes"
            raise RefusedError(431, message, "validation", {"connection": "close"})
        if scope["path"] not in OPEN_TO_ALL and not may_enter(scope["headers"], settings.api_keys):
            raise RefusedError(401, "no API key, or one that isn't known here", "unauthorized", UNAUTHORIZED)
        body = await self._read(scope, receive)
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        leaves = asyncio.ensure_future(client_leaves(receive))
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            with suppress(StopIteration):
                return next(given)
            await asyncio.shield(leaves)
            return {"type": "http.disconnect"}

        route = asyncio.ensure_future(self._application(scope, replay, send_and_note))
        try:
            await asyncio.wait({route, leaves}, timeout=settings.request_timeout, return_when=asyncio.FIRST_COMPLETED)
            if route.done():
                await route
            elif leaves.done():
                raise ClientLeftError
            elif not started:
                message = f"no answer within {settings.request_timeout:g} s: send fewer or shorter documents"
                raise RefusedError(504, message, "overloaded")
        finally:
            for task in (route, leaves):
                task.cancel()
            await asyncio.wait({route, leaves})

    async def _read(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        most = self._settings.max_body
        too_large = RefusedError(
            413, f"the request is larger than {most:,} bytes", "validation", {"connection": "close"}
        )
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or len(declared) > 18 or int(declared) > most:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.read_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeftError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            message_ = f"the request's body didn't arrive within {self._settings.read_timeout:g} s"
            raise RefusedError(408, message_, "validation", {"connection": "close"}) from None


async def client_leaves(receive: Receive) -> None:
    """Returns when the connection is closed."""
    while (await receive())["type"] != "http.disconnect":
        pass


UNAUTHORIZED = {"www-authenticate": 'Basic realm="onnx-rerank: any name, the API key as password", Bearer'}
"""With Basic, a browser asks for the key, so that the page can be used."""


def may_enter(headers: list[tuple[bytes, bytes]], keys: ApiKeys) -> bool:
    """Whether the request has a key, as a bearer token or as the password of a browser."""
    if not keys:
        return True
    given = dict(headers).get(b"authorization", b"").decode("latin-1")
    scheme, _, credentials = given.partition(" ")
    if scheme.lower() == "basic":
        try:
            credentials = base64.b64decode(credentials, validate=True).decode("latin-1").partition(":")[2]
        except binascii.Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    return keys.accept(credentials.strip())


def error_body(message: str, error_type: str, code: str = "") -> dict[str, str]:
    """The one body of every error."""
    return {"message": message, "detail": message, "error": message, "error_type": error_type, "code": code}


async def answer(send: Send, refused: RefusedError) -> None:
    body = json.dumps(error_body(refused.message, refused.error_type)).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})

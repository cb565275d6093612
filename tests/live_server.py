"""A reranking server on loopback, as the command runs it, in a thread of the test's process."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from onnx_rerank_integrations import TextCrossEncoder

if TYPE_CHECKING:
    from onnx_rerank_integrations.extras.server.run import RerankServer


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def running(encoders: Mapping[str, TextCrossEncoder], *, wait: bool = True, **settings: Any) -> Iterator[RerankServer]:
    """The server on a free port; with `wait`, once its models are open."""
    from onnx_rerank_integrations.extras.server.run import RerankServer
    from onnx_rerank_integrations.extras.server.settings import ServerSettings

    server = RerankServer(encoders, ServerSettings(**{"port": 0, **settings}))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started and (server.models.is_ready or not wait))
    try:
        yield server
    finally:
        server.should_exit = server.force_exit = True
        thread.join(120)
        assert not thread.is_alive()


def until(condition: Any, seconds: float = 120.0) -> None:
    """Waits until a function is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def ask(
    url: str, path: str, body: Any = None, *, method: str | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One request; a body that is no bytes is sent as JSON."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    try:
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        sent = {**({"content-type": "application/json"} if body is not None else {}), **(headers or {})}
        connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()

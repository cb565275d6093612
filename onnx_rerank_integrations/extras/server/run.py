"""The process: uvicorn with a limit on every wait, and a stop that finishes what was begun."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.errors import RerankError
from onnx_rerank_integrations.extras.server.app import create_app
from onnx_rerank_integrations.extras.server.gate import MOST_HEADER_BYTES, Gate
from onnx_rerank_integrations.extras.server.metrics import Metrics
from onnx_rerank_integrations.extras.server.models import ServedModels
from onnx_rerank_integrations.extras.server.settings import ServerSettings

logger = logging.getLogger(__name__)


class PunctualProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose next request's head doesn't arrive in time.

    uvicorn's own timeout ends with the first byte, and doesn't begin before the first request.
    """

    read_timeout = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # whatever handlers its logger has: its lines hold what clients put into addresses

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.read_timeout, self._close)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._deadline.cancel()

    def on_response_complete(self) -> None:
        self._deadline.cancel()
        self._deadline = self.loop.call_later(self.read_timeout, self._close)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def _close(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class RerankServer(uvicorn.Server):
    """A server of some models.

    On SIGTERM or SIGINT readiness turns false at once. After `drain_delay` no connection is taken any more, and what
    is being answered has `drain_timeout` to end. A second signal ends it now.
    """

    def __init__(self, encoders: Mapping[str, TextCrossEncoder], settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = ServedModels(encoders, max_tokens=settings.max_queue_tokens, on_batch=self.metrics.batch)
        self.app = create_app(settings, self.models, self.metrics)
        self.failure: RerankError | None = None
        self._background: list[asyncio.Task[None]] = []
        protocol = type("Protocol", (PunctualProtocol,), {"read_timeout": settings.read_timeout})
        super().__init__(
            uvicorn.Config(
                Gate(self.app, settings, self.metrics),
                host=settings.host,
                port=settings.port,
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=MOST_HEADER_BYTES,
                limit_concurrency=settings.max_connections,
                timeout_keep_alive=max(int(settings.read_timeout), 1),
                timeout_graceful_shutdown=max(round(settings.drain_timeout), 1),
            )
        )

    @property
    def url(self) -> str:
        """Where it listens, once it is started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            logger.warning("listening on %s, opening %s", self.url, ", ".join(self.models.names))
            self._background.append(asyncio.create_task(self._open()))

    async def shutdown(self, sockets: Any = None) -> None:
        self.models.is_draining = True
        await super().shutdown(sockets)
        for task in self._background:
            task.cancel()
        self.models.close()

    async def _open(self) -> None:
        try:
            await self.models.open()
        except RerankError as error:
            self.failure = error
            self.should_exit = True
        else:
            logger.warning("ready")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.models.is_draining:
            self.should_exit = self.force_exit = True
            return
        self.models.is_draining = True
        self._stop_at(signal.Signals(sig).name)

    def _stop_at(self, why: str) -> None:
        delay = self.settings.drain_delay
        logger.warning("%s: not ready any more; stopping in %g s", why, delay)

        async def stop() -> None:
            await asyncio.sleep(delay)
            self.should_exit = True

        self._loop.call_soon_threadsafe(lambda: self._background.append(self._loop.create_task(stop())))

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        await super().main_loop()


def serve(encoders: Mapping[str, TextCrossEncoder], settings: ServerSettings, *, log_requests: bool = False) -> None:
    """Serves until a signal.

    Args:
        encoders: By the names that clients call them, lazily loaded; the first is the default.
        settings: Limits and times.
        log_requests: Log a line for each request, without its texts.

    Raises:
        RerankError: A model can't be opened.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger(f"{__package__}.gate").setLevel(logging.INFO if log_requests else logging.WARNING)
    server = RerankServer(encoders, settings)
    server.run()
    if server.failure:
        raise server.failure

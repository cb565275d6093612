"""What is counted, for Prometheus: numbers only, never a text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from onnx_rerank_integrations.extras.server.models import ServedModels
from onnx_rerank_integrations.extras.server.pair_queue import Batch

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "onnx_rerank_requests", "Requests by route and status; 499 is a client that left.", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "onnx_rerank_request_seconds", "Time of a request, its body's reading included.", ["route"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._documents = Counter("onnx_rerank_documents", "Documents scored.", ["model"], registry=registry)
        self._tokens = Counter("onnx_rerank_tokens", "Tokens computed.", ["model"], registry=registry)
        self._padded = Counter("onnx_rerank_padded_tokens", "The same with padding.", ["model"], registry=registry)
        self._batch_pairs = Histogram(
            "onnx_rerank_batch_pairs", "Pairs of a batch.", ["model"], buckets=COUNTS, registry=registry
        )
        self._batch_requests = Histogram(
            "onnx_rerank_batch_requests", "Requests that share a batch.", ["model"], buckets=COUNTS, registry=registry
        )
        self._batch_seconds = Histogram(
            "onnx_rerank_batch_seconds", "Time of a batch.", ["model"], buckets=SECONDS, registry=registry
        )
        self._queue = Gauge(
            "onnx_rerank_queue_tokens", "Tokens that wait or are computed.", ["model"], registry=registry
        )
        self._ready = Gauge("onnx_rerank_ready", "1 when requests are taken.", registry=registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def documents(self, model: str, count: int) -> None:
        self._documents.labels(model).inc(count)

    def batch(self, model: str, batch: Batch, seconds: float) -> None:
        self._tokens.labels(model).inc(batch.tokens)
        self._padded.labels(model).inc(batch.padded_tokens)
        self._batch_pairs.labels(model).observe(len(batch.encodings))
        self._batch_requests.labels(model).observe(len(batch.parts))
        self._batch_seconds.labels(model).observe(seconds)

    def text(self, models: ServedModels) -> bytes:
        """All of them in Prometheus' format."""
        self._ready.set(models.is_ready)
        for name in models.names:
            opened = models.opened(name)
            self._queue.labels(name).set(opened.queue.tokens if opened else 0)
        return bytes(generate_latest(self._registry))

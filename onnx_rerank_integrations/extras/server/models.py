"""The models that are served, by name: opened in a thread while the server answers /health already."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from onnx_rerank_integrations.core.cross_encoder import OnnxCrossEncoder, TextCrossEncoder
from onnx_rerank_integrations.core.errors import RerankError, UnknownModelError
from onnx_rerank_integrations.extras.server.pair_queue import Batch, PairQueue

logger = logging.getLogger(__name__)


class NotReadyError(RerankError):
    """The server is starting or stopping."""


class ServedModel:
    """One model and the queue in front of it."""

    def __init__(self, name: str, encoder: OnnxCrossEncoder, queue: PairQueue) -> None:
        self.name = name
        self.encoder = encoder
        self.queue = queue


class ServedModels:
    """All models of a server; the first is the default.

    Args:
        encoders: By the names that clients call them, lazily loaded.
        max_tokens: As for `PairQueue`, of each.
        on_batch: Called with a model's name, a batch that was run and its seconds.
    """

    def __init__(
        self,
        encoders: Mapping[str, TextCrossEncoder],
        *,
        max_tokens: int,
        on_batch: Callable[[str, Batch, float], None],
    ) -> None:
        self._encoders = dict(encoders)
        self._max_tokens = max_tokens
        self._on_batch = on_batch
        self._opened: dict[str, ServedModel] = {}
        self.is_draining = False

    @property
    def names(self) -> list[str]:
        return list(self._encoders)

    @property
    def is_ready(self) -> bool:
        return not self.is_draining and len(self._opened) == len(self._encoders)

    async def open(self) -> None:
        """Opens one after the other.

        Raises:
            RerankError: One can't be opened.
        """
        for name, encoder in self._encoders.items():
            opened = await asyncio.to_thread(encoder.load)
            queue = PairQueue(opened, max_tokens=self._max_tokens, on_batch=partial(self._on_batch, name))
            self._opened[name] = ServedModel(name, opened, queue)
            logger.info("%s is open: %d tokens, %d at once", name, opened.max_length, opened.lanes)

    def close(self) -> None:
        for model in self._opened.values():
            model.queue.close()

    def opened(self, name: str) -> ServedModel | None:
        return self._opened.get(name)

    def find(self, name: str | None) -> ServedModel:
        """The model of that name, the first for none.

        Raises:
            UnknownModelError: There is no such model here.
            NotReadyError: It is being opened.
        """
        wanted = name or self.names[0]
        if wanted not in self._encoders:
            raise UnknownModelError(f"no model {wanted!r:.200} is served here: there is {', '.join(self.names)}")
        model = self._opened.get(wanted)
        if model is None:
            raise NotReadyError(f"the model {wanted} is being opened: try again in a few seconds")
        return model

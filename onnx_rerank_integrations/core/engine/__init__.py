"""What computes: onnxruntime or OpenVINO, one file each, behind one protocol (`session.Session`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from onnx_rerank_integrations.core.engine.onnxruntime import InferenceSession, providers_for
from onnx_rerank_integrations.core.engine.openvino import OpenVinoSession
from onnx_rerank_integrations.core.engine.session import Session
from onnx_rerank_integrations.core.errors import InputValueError, InvalidModelError
from onnx_rerank_integrations.core.options import Engine

logger = logging.getLogger(__name__)


def open_session(
    path: Path, engine: Engine, *, threads: int | None, output_ranks: Sequence[int], otherwise: Path | None = None
) -> Session:
    """Opens the graph with the chosen backend.

    Args:
        path: The graph.
        engine: The user's options.
        threads: In place of the options' own.
        output_ranks: As for `Signature`.
        otherwise: The graph that `path` is a copy of, to open where the copy can't be (any more).

    Raises:
        InputValueError: Options that don't go with the backend.
    """
    if engine.backend == "openvino":
        if engine.providers is not None:
            raise InputValueError("providers are onnxruntime's, and don't go with backend=\"openvino\"")
        if engine.precision not in ("fp32", "bf16"):
            raise InputValueError(f"precision={engine.precision!r} is onnxruntime's, and doesn't go with \"openvino\"")
        openvino = partial(OpenVinoSession, threads=threads, precision=engine.precision, output_ranks=output_ranks)
        try:
            return openvino(path)
        except InvalidModelError as error:
            if otherwise is None:
                raise
            logger.warning("the copy %s can't be opened, the model runs as it is: %s", path, error)
            return openvino(otherwise)
    if engine.precision == "bf16":
        raise InputValueError('precision="bf16" needs backend="openvino"')
    return InferenceSession(
        path,
        providers=providers_for(engine.providers, engine.precision),
        threads=threads,
        idle_threads=engine.idle_threads,
        output_ranks=output_ranks,
        otherwise=otherwise,
    )

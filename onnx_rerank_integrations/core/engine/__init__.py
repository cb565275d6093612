"""What computes: onnxruntime or OpenVINO, one file each, behind one protocol (`session.Session`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx_rerank_integrations.core.engine.onnxruntime import InferenceSession
from onnx_rerank_integrations.core.engine.openvino import OpenVinoSession
from onnx_rerank_integrations.core.engine.session import Session
from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.core.options import Engine


def open_session(path: Path, engine: Engine, *, threads: int | None, output_ranks: Sequence[int]) -> Session:
    """Opens the graph with the chosen backend.

    Args:
        path: The graph.
        engine: The user's options.
        threads: In place of the options' own.
        output_ranks: As for `Signature`.

    Raises:
        InputValueError: Options that don't go with the backend.
    """
    if engine.backend == "openvino":
        if engine.providers is not None:
            raise InputValueError("providers are onnxruntime's, and don't go with backend=\"openvino\"")
        return OpenVinoSession(path, threads=threads, precision=engine.precision, output_ranks=output_ranks)
    if engine.precision != "fp32":
        raise InputValueError(
            f'precision={engine.precision!r} needs backend="openvino"; onnxruntime computes in the graph\'s own types'
        )
    return InferenceSession(
        path,
        providers=engine.providers,
        threads=threads,
        idle_threads=engine.idle_threads,
        output_ranks=output_ranks,
    )

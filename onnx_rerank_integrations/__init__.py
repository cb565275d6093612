"""Rescore and truncate retrieved documents with ONNX cross-encoders: fast on a plain CPU, no torch.

The core is here; the frameworks' doors are in ``onnx_rerank_integrations.langchain``, ``.llama_index`` and
``.haystack``, and importing this package imports none of the frameworks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnx_rerank_integrations.core.cross_encoder import OnnxCrossEncoder, TextCrossEncoder, TextCrossEncoderBase
from onnx_rerank_integrations.core.errors import (
    InputTypeError,
    InputValueError,
    InvalidModelError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
    OutOfMemoryError,
    ProviderError,
    RemoteError,
    RerankError,
    RerankTimeoutError,
    ScoreError,
    UnknownModelError,
    UnsupportedModelError,
)
from onnx_rerank_integrations.core.types import ModelDescription, Pair, RankedDocument

if TYPE_CHECKING:
    from onnx_rerank_integrations.remote import RemoteCrossEncoder

__version__ = "0.1.0"

__all__ = [
    "InputTypeError",
    "InputValueError",
    "InvalidModelError",
    "MissingExtraError",
    "ModelDescription",
    "ModelError",
    "ModelNotFoundError",
    "OnnxCrossEncoder",
    "OutOfMemoryError",
    "Pair",
    "ProviderError",
    "RankedDocument",
    "RemoteCrossEncoder",
    "RemoteError",
    "RerankError",
    "RerankTimeoutError",
    "ScoreError",
    "TextCrossEncoder",
    "TextCrossEncoderBase",
    "UnknownModelError",
    "UnsupportedModelError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """A server's client, which only those pay for who ask for it."""
    if name != "RemoteCrossEncoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.remote").RemoteCrossEncoder

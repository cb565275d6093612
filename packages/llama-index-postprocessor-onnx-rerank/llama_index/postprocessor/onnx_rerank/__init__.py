"""ONNX cross-encoders as rerankers in LlamaIndex: the names of `onnx_rerank_integrations.llama_index`."""

from onnx_rerank_integrations import __version__
from onnx_rerank_integrations.llama_index import OnnxRerank

__all__ = ["OnnxRerank", "__version__"]

"""ONNX cross-encoders as rerankers in LangChain: the names of `onnx_rerank_integrations.langchain`."""

from onnx_rerank_integrations import __version__
from onnx_rerank_integrations.langchain import (
    OnnxCrossEncoderModel,
    OnnxRerank,
    OnnxRerankRetriever,
    RerankInput,
    RerankStep,
)

__all__ = ["OnnxCrossEncoderModel", "OnnxRerank", "OnnxRerankRetriever", "RerankInput", "RerankStep", "__version__"]

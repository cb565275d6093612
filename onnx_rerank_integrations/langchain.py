"""The LangChain door: documents to texts, scores back to documents. The only file that imports langchain_core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any, NotRequired

from onnx_rerank_integrations.core.errors import InputTypeError, MissingExtraError
from onnx_rerank_integrations.core.types import RankedDocument

try:
    from langchain_core.callbacks import Callbacks
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.load.serializable import Serializable, SerializedConstructor, SerializedNotImplemented
    from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
    from pydantic import Field  # comes with the framework, and so does what the door is made of
    from typing_extensions import TypedDict  # pydantic reads no typing.TypedDict before Python 3.12

    from onnx_rerank_integrations.door import RETRIEVAL_SCORE, EncoderOptions, RerankOptions, chosen_text
except ImportError as error:
    raise MissingExtraError("onnx_rerank_integrations.langchain", "langchain") from error

__all__ = ["OnnxCrossEncoderModel", "OnnxRerank", "RerankInput"]


class RerankInput(TypedDict):
    """What `OnnxRerank.as_runnable` takes; further keys are left alone."""

    query: str
    documents: Sequence[Document]
    top_n: NotRequired[int | None]


class OnnxRerank(RerankOptions, BaseDocumentCompressor, Serializable):
    """Rescores retrieved documents with an ONNX cross-encoder and keeps the best ones.

    Goes wherever LangChain takes a document compressor: as ``base_compressor`` of a `ContextualCompressionRetriever`,
    in a `DocumentCompressorPipeline`; and, by `as_runnable`, into a chain.

    Returns copies, best first, each with its score in ``metadata["relevance_score"]``; the given documents are left
    as they were. A blank document or an empty query is scored like any other text. Each call is one run named
    "rerank" in the caller's traces, also when there is nothing to rank.

    ``dumps`` writes the options, and ``loads(..., allowed_objects=[OnnxRerank],
    valid_namespaces=["onnx_rerank_integrations"])`` reads them.

    Example:
        >>> from langchain_core.documents import Document
        >>> from onnx_rerank_integrations.langchain import OnnxRerank
        >>> texts = ["Soup is eaten warm.", "In winter the bees stay in the hive and live on their honey."]
        >>> documents = [Document(text) for text in texts]
        >>> rerank = OnnxRerank(model="embedded", top_n=1)
        >>> [best] = rerank.compress_documents(documents, "what do bees do in winter")
        >>> best.page_content
        'In winter the bees stay in the hive and live on their honey.'
        >>> 0 <= best.metadata["relevance_score"] <= 1
        True
    """

    model_config = RerankOptions.model_config  # Serializable would ignore unknown options

    score_key: str = Field(default="relevance_score", min_length=1, description="The metadata key of the score.")

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """At most `top_n` copies of the documents, best first.

        Args:
            documents: N documents.
            query: The question.
            callbacks: The caller's, to trace the call under.

        Raises:
            InputTypeError: The query is no str, or a document is no `Document`; the message names its index.
            ScoreError: The model gave NaN or infinity for a document.
        """
        return self.as_runnable().invoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """As `compress_documents`, in a thread of which `max_concurrency` run at once."""
        return await self.as_runnable().ainvoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    def rerank(
        self,
        documents: Sequence[str | Document | dict[str, Any]],
        query: str,
        *,
        top_n: int | EllipsisType | None = ...,
    ) -> list[dict[str, Any]]:
        """Ranks texts of any kind, without copies and traces.

        Args:
            documents: Each a text, a `Document`, or a dict: its content is its ``"text"``, and its fields are there
                for the option `text`.
            query: The question.
            top_n: Most results; None for all; left out, this object's own.

        Returns:
            ``{"index": place in the input, "relevance_score": float}`` of each kept document, best first.

        Raises:
            InputTypeError: The query is no str, or a document is of another type; the message names its index.
            InputValueError: `top_n` is below 1.
            ScoreError: The model gave NaN or infinity for a document.
        """
        ranked = self._ranking(documents, query, top_n)
        return [{"index": one.index, "relevance_score": one.score} for one in ranked]

    def as_runnable(self) -> Runnable[RerankInput, list[Document]]:
        """This object as a step of a chain, from ``{"query", "documents"}`` and, if need be, ``"top_n"``."""
        return TracedRerank(self)

    def _compress(self, inputs: RerankInput) -> list[Document]:
        documents = inputs["documents"]
        for index, document in enumerate(documents):
            if not isinstance(document, Document):
                raise InputTypeError(
                    f"document {index} must be a Document, not {type(document).__name__}; rerank() takes other kinds"
                )
        ranked = self._ranking(documents, inputs["query"], inputs.get("top_n", ...))
        return [self._scored(documents[one.index], one.score) for one in ranked]

    async def _acompress(self, inputs: RerankInput) -> list[Document]:
        return await self._in_thread(self._compress, inputs)

    def _ranking(
        self, documents: Sequence[str | Document | dict[str, Any]], query: str, top_n: int | EllipsisType | None
    ) -> list[RankedDocument]:
        if isinstance(documents, (str, Document, Mapping)):
            raise InputTypeError(f"documents must be several, not one {type(documents).__name__}: put it in a list")
        texts = [self._text_of(document, index) for index, document in enumerate(documents)]
        return self._rank(query, texts, self.top_n if isinstance(top_n, EllipsisType) else top_n)

    def _text_of(self, document: str | Document | dict[str, Any], index: int) -> str:
        if isinstance(document, Document):
            return chosen_text(self.text, document, document.page_content, document.metadata, index)
        if isinstance(document, str):
            return chosen_text(self.text, document, document, {}, index)
        if not isinstance(document, Mapping):
            raise InputTypeError(f"document {index} must be a str, a Document or a dict, not {type(document).__name__}")
        if self.text == "content" and not isinstance(document.get("text"), str):
            raise InputTypeError(
                f'document {index} is a dict without a str at "text": name its fields in the option text'
            )
        return chosen_text(self.text, document, document.get("text", ""), document, index)

    def _scored(self, document: Document, score: float) -> Document:
        metadata = dict(document.metadata)  # a deep copy would fail on locks and clients
        if self.keep_retrieval_score and "score" in metadata:
            metadata.setdefault(RETRIEVAL_SCORE, metadata["score"])
        metadata[self.score_key] = score
        return document.model_copy(update={"metadata": metadata})

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """For ``dumps``: the options that differ from their defaults.

        Raises:
            ValueError: `model` is a live encoder, or `text` a function.
        """
        serialized = super().to_json()
        if serialized["type"] == "constructor":
            serialized["kwargs"] = self.model_dump(mode="json", include=set(serialized["kwargs"]))
        return serialized


class TracedRerank(Runnable[RerankInput, list[Document]]):
    """Each call of an `OnnxRerank` as one run named "rerank", with the model and the counts in its metadata."""

    name = "rerank"

    def __init__(self, reranker: OnnxRerank) -> None:
        self._reranker = reranker

    def invoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        inputs = checked_inputs(input)
        return self._run(inputs).invoke(inputs, config, **kwargs)

    async def ainvoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        inputs = checked_inputs(input)
        return await self._run(inputs).ainvoke(inputs, config, **kwargs)

    def _run(self, inputs: RerankInput) -> Runnable[RerankInput, list[Document]]:
        reranker = self._reranker
        facts = {
            "model": reranker.model_name,
            "documents": len(inputs["documents"]),
            "top_n": inputs.get("top_n", reranker.top_n),
        }
        return RunnableLambda(reranker._compress, reranker._acompress).with_config(run_name="rerank", metadata=facts)


class OnnxCrossEncoderModel(EncoderOptions, BaseCrossEncoder):
    """An ONNX cross-encoder for LangChain's own `CrossEncoderReranker`. Takes the same options as a `TextCrossEncoder`.

    Example:
        >>> from onnx_rerank_integrations.langchain import OnnxCrossEncoderModel
        >>> model = OnnxCrossEncoderModel(model="embedded")
        >>> bees, soup = model.score([("bees in winter", "Bees live on honey."), ("bees in winter", "Soup is warm.")])
        >>> bees > soup
        True
    """

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """The raw logit of each (query, document) pair, in input order: sigmoids of high logits would tie."""
        return self.encoder.rerank_pairs(text_pairs, activation="identity", batch_size=self.batch_size)


def checked_inputs(inputs: object) -> RerankInput:
    if not isinstance(inputs, Mapping) or not {"query", "documents"} <= inputs.keys():
        found = sorted(map(str, inputs)) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise InputTypeError(f'reranking takes {{"query": str, "documents": [Document, ...]}}, not {found}')
    return {**inputs, "documents": list(inputs["documents"])}  # type: ignore[typeddict-item]

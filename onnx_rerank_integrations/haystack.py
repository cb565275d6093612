"""The Haystack door: documents to texts, scores back to documents. The only file that imports haystack."""

# Annotations stay objects: Haystack 2 compares a socket's type as it is, and a text equals none.
from collections.abc import Mapping
from dataclasses import replace
from inspect import Parameter, Signature
from types import EllipsisType
from typing import Any

from onnx_rerank_integrations.core.checks import check_list, check_top_n
from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.errors import InputTypeError, MissingExtraError

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from pydantic import Field  # comes with the framework, and so does what the door is made of

    from onnx_rerank_integrations.door import (
        RETRIEVAL_SCORE,
        RerankOptions,
        check_query,
        described,
        refuse_unknown_options,
    )
except ImportError as error:
    raise MissingExtraError("onnx_rerank_integrations.haystack", "haystack") from error

__all__ = ["OnnxRerank"]


class Options(RerankOptions):
    """The doors' options, where Haystack differs: `warm_up` opens the model, not the constructor."""

    lazy_load: bool = Field(default=True, description="Open the model by `warm_up` or at its first use, not now.")


KEYWORDS: Mapping[str, Any] = {
    "top_k" if name == "top_n" else name: field for name, field in Options.model_fields.items()
}
"""The component's parameters: `top_n` is called `top_k`, as everywhere in Haystack."""


@component
class OnnxRerank:
    """Rescores retrieved documents with an ONNX cross-encoder and keeps the best ones.

    Takes the options of the other doors as keywords, with `top_n` called `top_k`. Returns copies, best first, each
    with its `score`; the given documents are left as they were. A document without text is scored as the empty text
    that it is. An empty query is scored like any other.

    Haystack 3 reads a pipeline's file with it where ``allowed_modules=["onnx_rerank_integrations.haystack"]`` is given.

    Example:
        >>> from haystack import Document
        >>> from onnx_rerank_integrations.haystack import OnnxRerank
        >>> texts = ["Soup is eaten warm.", "In winter the bees stay in the hive and live on their honey."]
        >>> ranker = OnnxRerank(model="lexical", top_k=1)
        >>> ranker.warm_up()
        >>> documents = [Document(content=text) for text in texts]
        >>> [best] = ranker.run(query="what do bees do in winter", documents=documents)["documents"]
        >>> best.content
        'In winter the bees stay in the hive and live on their honey.'
        >>> 0 <= best.score <= 1
        True
    """

    def __init__(self, *, top_k: int | None = 3, **options: Any) -> None:
        refuse_unknown_options(type(self).__name__, options, KEYWORDS)
        check_top_n(top_k, "top_k")
        self.options = Options(top_n=top_k, **options)

    def warm_up(self) -> None:
        """Opens the model, so that the first query needn't wait for it."""
        if isinstance(encoder := self.options.encoder, TextCrossEncoder):
            encoder.load()

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]  # the framework's
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """At most `top_k` copies of the documents, best first.

        Args:
            query: The question.
            documents: N documents.
            top_k: Most documents returned; None for the component's own.
            score_threshold: The lowest score returned (>=); None for the component's own.

        Raises:
            InputTypeError: The query is no str, or a document is no `Document`; the message names its index.
            InputValueError: `top_k` is below 1.
            ScoreError: The model gave NaN or infinity for a document.
        """
        return {"documents": self._ranked(query, documents, top_k, score_threshold)}

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]  # the framework's
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """As `run`, in a thread of which `max_concurrency` run at once."""
        return {
            "documents": await self.options._in_thread(self._ranked, query, documents, top_k, score_threshold),
        }

    def _ranked(
        self, query: str, documents: list[Document], top_k: int | None, score_threshold: float | None
    ) -> list[Document]:
        check_query(query)
        check_top_n(top_k, "top_k")
        check_list("documents", documents, "Document")
        documents = list(documents)
        for index, document in enumerate(documents):
            if not isinstance(document, Document):
                raise InputTypeError(f"document {index} must be a Document, not {type(document).__name__}")
        texts = self.options._texts((document, document.content or "", document.meta) for document in documents)
        threshold: float | EllipsisType = ... if score_threshold is None else score_threshold
        ranked = self.options._rank(query, texts, self.options.top_n if top_k is None else top_k, threshold)
        return [self._scored(documents[one.index], one.score) for one in ranked]

    def _scored(self, document: Document, score: float) -> Document:
        meta = dict(document.meta)
        if self.options.keep_retrieval_score and document.score is not None:
            meta.setdefault(RETRIEVAL_SCORE, document.score)
        return replace(document, meta=meta, score=score)

    def to_dict(self) -> dict[str, Any]:
        """The model and the options that differ from their defaults, for a pipeline's file.

        Raises:
            ValueError: `model` is a live encoder, or `text` a function.
        """
        fields = Options.model_fields
        told = {name for name, field in fields.items() if getattr(self.options, name) != field.default}
        written = self.options.model_dump(mode="json", include=told | {"top_n"})
        data: dict[str, Any] = default_to_dict(self, top_k=written.pop("top_n"), **written)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "OnnxRerank":
        """The component that `to_dict` wrote."""
        ranker: OnnxRerank = default_from_dict(cls, data)
        return ranker


OnnxRerank.__init__.__signature__ = Signature(  # type: ignore[attr-defined]  # what help() and Haystack's tools read
    [Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)]
    + [
        Parameter(name, Parameter.KEYWORD_ONLY, default=field.default if not field.default_factory else None)
        for name, field in KEYWORDS.items()
    ]
)
OnnxRerank.__doc__ = (
    f"{(OnnxRerank.__doc__ or '').rstrip()}\n\n    Args:\n{described(KEYWORDS)}\n    "  # what help() shows
)

"""The LangChain door: documents to texts, scores back to documents. The only file that imports langchain_core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from types import EllipsisType
from typing import Any, NotRequired

from onnx_rerank_integrations.core.base import counted_truncations
from onnx_rerank_integrations.core.checks import check_list, check_top_n
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError, MissingExtraError

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForChainRun,
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForChainRun,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.load.serializable import Serializable, SerializedConstructor, SerializedNotImplemented
    from langchain_core.retrievers import BaseRetriever, RetrieverLike
    from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable, ensure_config
    from langchain_core.runnables.base import RunnableBindingBase
    from langchain_core.runnables.config import merge_configs
    from langchain_core.runnables.configurable import DynamicRunnable
    from langchain_core.runnables.utils import ConfigurableFieldSpec
    from langchain_core.tools import BaseTool
    from pydantic import (
        BaseModel,
        Field,
        SerializerFunctionWrapHandler,
        StrictInt,
        create_model,
        field_validator,
        model_serializer,
    )  # comes with the framework, and so does what the door is made of
    from typing_extensions import TypedDict  # pydantic reads no typing.TypedDict before Python 3.12

    from onnx_rerank_integrations.door import (
        RETRIEVAL_SCORE,
        EncoderOptions,
        Limits,
        RerankOptions,
        refuse_unknown_options,
    )
except ImportError as error:
    raise MissingExtraError("onnx_rerank_integrations.langchain", "langchain") from error

__all__ = ["OnnxCrossEncoderModel", "OnnxRerank", "OnnxRerankRetriever", "RerankInput", "RerankStep"]


LIMITS = tuple(Limits.model_fields)


class RerankInput(TypedDict):
    """What `OnnxRerank.as_runnable` takes; further keys are left alone."""

    query: str
    documents: Sequence[Document]
    top_n: NotRequired[int | None]
    score_threshold: NotRequired[float | None]


class _StepInput(BaseModel):
    """What a step takes; further keys are left alone."""

    query: str = Field(description="What to look for.")
    documents: list[Document] = Field(description="What to rank.")

    @model_serializer(mode="wrap")
    def _given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the limits that weren't given, so that a config's come before the step's own in a tool too."""
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}


class OnnxRerank(RerankOptions, BaseDocumentCompressor, Serializable):
    """Rescores retrieved documents with an ONNX cross-encoder and keeps the best ones.

    `as_retriever` puts it behind a retriever, and `as_runnable` into a chain or a graph. Goes wherever LangChain takes
    a document compressor, too: as ``base_compressor`` of langchain-classic's `ContextualCompressionRetriever`, in a
    `DocumentCompressorPipeline`.

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

    score_key: str = Field(
        default="relevance_score",
        min_length=1,
        description="The metadata key of the score.",
        examples=["rerank_score"],
    )

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
        if isinstance(documents, (str, Document, Mapping)):
            raise InputTypeError(f"documents must be several, not one {type(documents).__name__}: put it in a list")
        check_list("documents", documents, "str, Document or dict")
        texts = self._texts(self._parts(document, index) for index, document in enumerate(documents))
        ranked = self._rank(query, texts, self.top_n if isinstance(top_n, EllipsisType) else top_n)
        return [{"index": one.index, "relevance_score": one.score} for one in ranked]

    def as_retriever(self, retriever: RetrieverLike, *, k: int | None = None) -> OnnxRerankRetriever:
        """A retriever that finds with another one and keeps the best of what was found.

        Args:
            retriever: Finds the documents: a `BaseRetriever`, or a chain from a query to documents.
            k: How many documents it is asked for; None for its own setting.
        """
        return OnnxRerankRetriever(retriever=retriever, reranker=self, k=k)

    def as_runnable(self) -> RerankStep:
        """This object as a step of a chain, from ``{"query", "documents"}`` to the best documents."""
        # All of it is checked already, and a step is made for every call.
        return RerankStep.model_construct(reranker=self, top_n=self.top_n, score_threshold=self.score_threshold)

    def _compress(
        self,
        inputs: RerankInput,
        run_manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun | None = None,
    ) -> list[Document]:
        documents = inputs["documents"]
        for index, document in enumerate(documents):
            if not isinstance(document, Document):
                raise InputTypeError(
                    f"document {index} must be a Document, not {type(document).__name__}; rerank() takes other kinds"
                )
        with counted_truncations() as counts:
            texts = self._texts((document, document.page_content, document.metadata) for document in documents)
            ranked = self._rank(inputs["query"], texts, inputs["top_n"], inputs["score_threshold"])
        if run_manager is not None:
            run_manager.metadata["truncated"] = counts.truncated  # the dict that tracers hold
        return [self._scored(documents[one.index], one.score) for one in ranked]

    async def _acompress(
        self, inputs: RerankInput, run_manager: AsyncCallbackManagerForChainRun | None = None
    ) -> list[Document]:
        return await self._in_thread(self._compress, inputs, run_manager)

    def _parts(self, document: str | Document | dict[str, Any], index: int) -> tuple[Any, str, Mapping[str, Any]]:
        """The document, its content and its metadata."""
        if isinstance(document, Document):
            return document, document.page_content, document.metadata
        if isinstance(document, str):
            return document, document, {}
        if not isinstance(document, Mapping):
            raise InputTypeError(f"document {index} must be a str, a Document or a dict, not {type(document).__name__}")
        if self.text == "content" and not isinstance(document.get("text"), str):
            raise InputTypeError(
                f'document {index} is a dict without a str at "text": name its fields in the option text'
            )
        return document, document.get("text", ""), document

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
            given = set(serialized["kwargs"])
            written = self.model_dump(mode="json", include=given)  # its exclude_defaults leaves `text` in
            usual = {name: field.default for name, field in type(self).model_fields.items()}
            serialized["kwargs"] = {name: value for name, value in written.items() if value != usual[name]}
        return serialized


class Reranking(Limits):
    """What has a reranker, and limits of its own that begin as the reranker's."""

    model_config = RerankOptions.model_config

    reranker: OnnxRerank = Field(
        description="What reranks, such as ``reranker=OnnxRerank(model=...)``; or give its options here, as `model`."
    )

    def __init__(self, **options: Any) -> None:
        own = type(self).model_fields
        refuse_unknown_options(type(self).__name__, options, [*own, *OnnxRerank.model_fields])
        rerankers = {name: options.pop(name) for name in list(options) if name not in own}
        if "reranker" not in options:
            options["reranker"] = OnnxRerank(**rerankers)
        elif rerankers:
            raise InputValueError(
                f"{', '.join(rerankers)} can't be combined with a ready reranker: give them to that OnnxRerank"
            )
        if isinstance(options["reranker"], OnnxRerank):
            options = {**options["reranker"].model_dump(include=set(LIMITS)), **options}
        super().__init__(**options)


class RerankStep(Reranking, RunnableSerializable[RerankInput, list[Document]]):
    """An `OnnxRerank` as a step of a chain or in the node of a graph. `OnnxRerank.as_runnable` makes it.

    Takes ``{"query": str, "documents": [Document, ...]}`` and gives at most `top_n` copies, best first. ``"top_n"`` and
    ``"score_threshold"`` in the input come before ``config["configurable"]``, and that before the step's own; as
    keywords (``step.bind(top_n=5)``) they come before all. Each call is one run named "rerank", with the
    model, the number of documents, of those that were cut, and the limits in its metadata.

    Example:
        >>> from langchain_core.documents import Document
        >>> from onnx_rerank_integrations.langchain import OnnxRerank
        >>> documents = [Document("Soup is eaten warm."), Document("In winter the bees live on their honey.")]
        >>> step = OnnxRerank(model="lexical", top_n=2).as_runnable()
        >>> call = {"query": "what do bees do in winter", "documents": documents}
        >>> [document.page_content for document in step.invoke(call, {"configurable": {"top_n": 1}})]
        ['In winter the bees live on their honey.']
    """

    name: str | None = "rerank"

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """Of the input, with the step's own limits as defaults."""
        limits = Limits.model_fields
        own: dict[str, Any] = {
            name: (limits[name].rebuild_annotation(), Field(getattr(self, name), description=limits[name].description))
            for name in LIMITS
        }
        return create_model("RerankInput", __base__=_StepInput, **own)

    def as_tool(
        self,
        args_schema: Any = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, type] | None = None,
    ) -> BaseTool:
        """As every runnable's `as_tool`; where no schema is given, an agent may leave the limits out."""
        description = description or "Ranks documents by how relevant they are to a query, and gives the best."
        tool = super().as_tool(args_schema, name=name, description=description, arg_types=arg_types)
        if args_schema is None and arg_types is None:
            tool.args_schema = self.get_input_schema()  # the oldest langchain-core takes each field for required
        return tool

    def invoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        inputs, config = self._prepared(input, config, kwargs)
        return self._call_with_config(self.reranker._compress, inputs, config)

    async def ainvoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        inputs, config = self._prepared(input, config, kwargs)
        return await self._acall_with_config(self.reranker._acompress, inputs, config)

    def _prepared(
        self, input: RerankInput, config: RunnableConfig | None, limits_given: Mapping[str, Any]
    ) -> tuple[RerankInput, RunnableConfig]:
        """The checked input with its limits, and the config with what a trace should tell."""
        if not isinstance(input, Mapping) or not {"query", "documents"} <= input.keys():
            found = sorted(map(str, input)) if isinstance(input, Mapping) else type(input).__name__
            raise InputTypeError(f'reranking takes {{"query": str, "documents": [Document, ...]}}, not {found}')
        documents = input["documents"]
        if type(documents) is not list:
            check_list("documents", documents, "Document")
        documents = list(documents)
        if unknown := sorted(limits_given.keys() - set(LIMITS)):
            raise InputTypeError(f"reranking takes top_n and score_threshold beside its input, not {unknown}")
        asked = {**configurable_of(config), **input, **limits_given}
        limits = {name: asked.get(name, getattr(self, name)) for name in LIMITS}
        facts = {"model": self.reranker.model_name, "documents": len(documents), **limits}
        inputs = {**input, "documents": documents, **limits}
        return inputs, merge_configs({"metadata": facts}, config)  # type: ignore[return-value]

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """For ``dumps``: the reranker, and the limits, also where they are None and the reranker's aren't."""
        serialized = super().to_json()
        if serialized["type"] == "constructor":
            serialized["kwargs"] |= self.model_dump(include=set(LIMITS))
        return serialized


class OnnxRerankRetriever(Reranking, BaseRetriever):
    """A retriever that finds with another one, and keeps the best of what was found, best first.

    Needs langchain-core alone. Takes a ready `reranker`, or the options of an `OnnxRerank` as its own. Each call is one
    retriever run, with the run of the first stage and the one named "rerank" under it.

    `top_n` and `score_threshold` can be given to a call: as ``invoke(query, top_n=5)``, or as
    ``config={"configurable": {"top_n": 5}}``, which the first stage gets, too; `k` as ``invoke(query, k=50)``.
    `configurable_fields` gives any of them a name of its own.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> from onnx_rerank_integrations.langchain import OnnxRerankRetriever
        >>> texts = ["Soup is eaten warm.", "In winter the bees live on their honey.", "Copper turns green."]
        >>> store = InMemoryVectorStore.from_texts(texts, DeterministicFakeEmbedding(size=8))
        >>> retriever = OnnxRerankRetriever(retriever=store.as_retriever(), k=3, model="lexical", top_n=1)
        >>> [best] = retriever.invoke("what do bees do in winter")
        >>> best.page_content
        'In winter the bees live on their honey.'
    """

    retriever: RetrieverLike = Field(
        description="The first stage: a retriever, or a chain from a query to documents, such as "
        "``retriever=store.as_retriever()``."
    )
    k: StrictInt | None = Field(
        default=None,
        ge=1,
        description="How many documents the first stage is asked for, where it takes `k` when it is called, as vector "
        "stores' retrievers do; None for its own setting.",
        examples=[50],
    )

    @field_validator("retriever", mode="before")
    @classmethod
    def _no_store(cls, value: Any) -> Any:
        if hasattr(value, "as_retriever") and not isinstance(value, Runnable):
            raise ValueError(f"a retriever is needed: {type(value).__name__} gives one by as_retriever()")
        return value

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._asked_for(None)

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        return super().invoke(input, config, configurable=configurable_of(config), **kwargs)

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        return await super().ainvoke(input, config, configurable=configurable_of(config), **kwargs)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        top_n: int | EllipsisType | None = ...,
        score_threshold: float | EllipsisType | None = ...,
        configurable: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        asked_for = self._asked_for(k)
        config: RunnableConfig = {"callbacks": run_manager.get_child(), "configurable": dict(configurable or {})}
        found = self.retriever.invoke(query, config, **asked_for)
        return self._step.invoke(step_input(query, found, top_n, score_threshold), config)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        top_n: int | EllipsisType | None = ...,
        score_threshold: float | EllipsisType | None = ...,
        configurable: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        asked_for = self._asked_for(k)
        config: RunnableConfig = {"callbacks": run_manager.get_child(), "configurable": dict(configurable or {})}
        found = await self.retriever.ainvoke(query, config, **asked_for)
        return await self._step.ainvoke(step_input(query, found, top_n, score_threshold), config)

    @property
    def _step(self) -> RerankStep:
        return RerankStep(reranker=self.reranker, top_n=self.top_n, score_threshold=self.score_threshold)

    def _asked_for(self, k: int | None) -> dict[str, int]:
        """What the first stage is called with: nothing, or ``k`` where it takes that."""
        wanted = self.k if k is None else k
        check_top_n(wanted, "k")
        if wanted is None:
            return {}
        if not takes_k(self.retriever):
            raise InputValueError(
                f"k={wanted} can't be asked of {type(self.retriever).__name__}, which takes no k when it is called: "
                "set there how many documents it finds, and leave k out"
            )
        return {"k": wanted}

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What the first stage lets be configured, as it gets this retriever's config."""
        return self.retriever.config_specs


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
        return self.encoder.rerank_pairs(
            text_pairs, activation="identity", batch_size=self.batch_size, timeout=self.timeout
        )


def configurable_of(config: RunnableConfig | None) -> dict[str, Any]:
    return ensure_config(config).get("configurable", {})


def step_input(
    query: str,
    documents: list[Document],
    top_n: int | EllipsisType | None,
    score_threshold: float | EllipsisType | None,
) -> RerankInput:
    """A step's input, without the limits that weren't given."""
    inputs: RerankInput = {"query": query, "documents": documents}
    if not isinstance(top_n, EllipsisType):
        inputs["top_n"] = top_n
    if not isinstance(score_threshold, EllipsisType):
        inputs["score_threshold"] = score_threshold
    return inputs


def takes_k(retriever: RetrieverLike) -> bool:
    """Whether a retriever takes ``k`` when it is called; LangChain drops what a retriever doesn't take in silence."""
    while isinstance(retriever, (DynamicRunnable, RunnableBindingBase)):
        retriever = retriever.default if isinstance(retriever, DynamicRunnable) else retriever.bound
    if not isinstance(retriever, BaseRetriever):
        return False
    parameters = signature(retriever._get_relevant_documents).parameters.values()
    return any(one.name == "k" or one.kind is Parameter.VAR_KEYWORD for one in parameters)

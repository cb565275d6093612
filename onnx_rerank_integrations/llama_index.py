"""The LlamaIndex door: nodes to texts, scores back to nodes. The only file that imports llama_index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from onnx_rerank_integrations.core.base import counted_truncations
from onnx_rerank_integrations.core.checks import check_list
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError, MissingExtraError

try:
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # not in an __all__
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
    from pydantic import Field  # comes with the framework, and so does what the door is made of

    from onnx_rerank_integrations.door import RETRIEVAL_SCORE, RerankOptions, check_query
except ImportError as error:
    raise MissingExtraError("onnx_rerank_integrations.llama_index", "llama-index") from error

__all__ = ["OnnxRerank"]

dispatcher = get_dispatcher(__name__)


class OnnxRerank(RerankOptions, BaseNodePostprocessor):
    """Rescores retrieved nodes with an ONNX cross-encoder and keeps the best ones.

    Goes wherever LlamaIndex takes ``node_postprocessors``: query engines, chat engines, retriever tools.

    Returns new `NodeWithScore` objects, best first; the given ones keep their order and their scores. The node inside
    is the caller's own, copied only where `keep_retrieval_score` writes to its metadata. A node without text, such as
    an image, is scored as the empty text that it is, plus the metadata `metadata_mode` shows. An empty query is scored
    like any other; no query is an error.

    Example:
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> from onnx_rerank_integrations.llama_index import OnnxRerank
        >>> texts = ["Soup is eaten warm.", "In winter the bees stay in the hive and live on their honey."]
        >>> nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]
        >>> rerank = OnnxRerank(model="embedded", top_n=1)
        >>> [best] = rerank.postprocess_nodes(nodes, query_str="what do bees do in winter")
        >>> best.text
        'In winter the bees stay in the hive and live on their honey.'
        >>> 0 <= best.score <= 1
        True

        ``index.as_query_engine(similarity_top_k=20, node_postprocessors=[rerank])`` reranks every query.
    """

    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED,
        description='The metadata that text="content" shows of a node: what the embedding saw, what the LLM will see, '
        "all or none. Where `text` names metadata fields, 'content' is the node's own text.",
        examples=["llm"],
    )

    @classmethod
    def class_name(cls) -> str:
        return "OnnxRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = checked_query(query_bundle)
        nodes = checked_nodes(nodes)
        if not nodes:
            return []
        with self._reported(query, nodes) as reranked:
            reranked += self._reranked(query, nodes)
        return reranked

    @dispatcher.span  # the framework gives spans to what is abstract in its base class, and this isn't
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = checked_query(query_bundle)
        nodes = checked_nodes(nodes)
        if not nodes:
            return []
        with self._reported(query, nodes) as reranked:
            reranked += await self._in_thread(self._reranked, query, nodes)
        return reranked

    def _reranked(self, query: QueryBundle, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        mode = self.metadata_mode if self.text == "content" else MetadataMode.NONE
        texts = self._texts((one.node, one.node.get_content(metadata_mode=mode), one.node.metadata) for one in nodes)
        ranked = self._rank(query.query_str, texts, self.top_n)
        return [self._rescored(nodes[one.index], one.score) for one in ranked]

    def _rescored(self, scored: NodeWithScore, score: float) -> NodeWithScore:
        node = with_retrieval_score(scored) if self.keep_retrieval_score else scored.node
        return scored.model_copy(update={"node": node, "score": score})

    @contextmanager
    def _reported(self, query: QueryBundle, nodes: list[NodeWithScore]) -> Iterator[list[NodeWithScore]]:
        """Reports one reranking to LlamaIndex's callbacks and events; the caller fills the list with what it gives.

        In this order: the callback's start, `ReRankStartEvent`, `ReRankEndEvent`, the callback's end with the nodes.
        After an exception: the callback's start, `ReRankStartEvent`, the callback's end with the exception; then the
        span around is dropped, which stands for the missing end event.
        """
        reranked: list[NodeWithScore] = []
        top_n = self.top_n or len(nodes)
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model_name,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=self.model_name))
            with counted_truncations() as counts:
                yield reranked
            truncated = {"truncated": counts.truncated}
            dispatcher.event(ReRankEndEvent(nodes=reranked, tags=truncated))
            event.on_end(payload={EventPayload.NODES: reranked, **truncated})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> OnnxRerank:
        """Shares the callback manager: nobody reads what a copied handler hears, and many can't be copied."""
        memo = {} if memo is None else memo
        memo[id(self.callback_manager)] = self.callback_manager
        return super().__deepcopy__(memo)


def with_retrieval_score(scored: NodeWithScore) -> BaseNode:
    """The node with its score in the metadata, as a copy; the node itself where it has none or keeps an earlier one.

    The key is kept out of the text that an LLM or an embedding model sees.
    """
    node = scored.node
    if scored.score is None or RETRIEVAL_SCORE in node.metadata:
        return node
    return node.model_copy(
        update={
            "metadata": {**node.metadata, RETRIEVAL_SCORE: float(scored.score)},
            "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, RETRIEVAL_SCORE],
            "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, RETRIEVAL_SCORE],
        }
    )


def checked_query(query_bundle: QueryBundle | None) -> QueryBundle:
    if query_bundle is None:
        raise InputValueError("reranking needs a query and there is none: give query_str or query_bundle")
    if not isinstance(query_bundle, QueryBundle):
        raise InputTypeError(
            f"query_bundle must be a QueryBundle, not {type(query_bundle).__name__}: give a plain text as query_str"
        )
    check_query(query_bundle.query_str)
    return query_bundle


def checked_nodes(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
    """A list of the caller's nodes, from any iterable."""
    check_list("nodes", nodes, "NodeWithScore")
    nodes = list(nodes)
    for index, node in enumerate(nodes):
        if not isinstance(node, NodeWithScore):
            raise InputTypeError(
                f"node {index} must be a NodeWithScore, not {type(node).__name__}: wrap it in NodeWithScore(node=...)"
            )
    return nodes

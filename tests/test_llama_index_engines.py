"""The LlamaIndex door inside LlamaIndex: engines, agents, evaluators and a vector store, all real but the LLM and the
embedding, which are fixed (case 29 of the table in test_llama_index.py)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from onnx_rerank_integrations import TextCrossEncoder

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.postprocessor import LongContextReorder, SimilarityPostprocessor
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import RetrieverTool

from onnx_rerank_integrations.llama_index import OnnxRerank

MODEL = "lexical"

QUERY = "what do bees do in winter"
TEXTS = [
    "In winter the museum is closed on Mondays.",
    "What bees do in spring is another story.",
    "They stay in the hive, close together, and live on their honey.",
    "Copper turns green in the rain, iron turns brown.",
    "From the sea, from dry lakes, and from mines deep under the hills.",
    "In winter bees keep each other warm and eat what they gathered in summer.",
    "The keeper repairs the old lighthouse before sunrise.",
    "An altimeter shows the height above the sea, in metres or in feet.",
]
TOP_N = 3


class BagOfWords(BaseEmbedding):
    """A fixed embedding: each word counts at the place that its checksum gives it."""

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = [0.001] * 256
        for word in text.lower().split():
            vector[zlib.crc32(word.strip(".,?").encode()) % 256] += 1.0
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class Scripted(CustomLLM):
    """An LLM that says its lines, one a call, and remembers the prompts."""

    lines: list[str]
    prompts: list[str] = []  # noqa: RUF012 - a pydantic field

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(num_output=-1)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        self.prompts.append(prompt)
        return CompletionResponse(text=self.lines.pop(0))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponseGen:
        text = self.complete(prompt).text
        return (CompletionResponse(text=said, delta=said) for said in [text])


def nodes() -> list[TextNode]:
    return [TextNode(id_=f"n{place}", text=text) for place, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    return VectorStoreIndex(nodes(), embed_model=BagOfWords())


@pytest.fixture
def llm() -> MockLLM:
    """Says its prompt back, so what reached the LLM can be read in the answer."""
    return MockLLM()


@pytest.fixture(scope="module")
def encoder() -> TextCrossEncoder:
    return TextCrossEncoder(MODEL)


@pytest.fixture
def rerank() -> OnnxRerank:
    return OnnxRerank(model=MODEL, top_n=TOP_N)


@pytest.fixture(scope="module")
def expected(encoder: TextCrossEncoder) -> list[str]:
    """The node ids of all texts as the core alone ranks them."""
    return [f"n{one.index}" for one in encoder.rank(QUERY, TEXTS)]


def ids(found: Sequence[NodeWithScore]) -> list[str]:
    return [scored.node_id for scored in found]


def test_the_reranked_order_is_another_than_the_retrieved_one(index: VectorStoreIndex, expected: list[str]) -> None:
    retrieved = ids(index.as_retriever(similarity_top_k=len(TEXTS)).retrieve(QUERY))

    assert sorted(retrieved) == sorted(expected)
    assert retrieved[:TOP_N] != expected[:TOP_N], "these texts can't tell a reranking from none"


def test_query_engine(
    index: VectorStoreIndex, llm: MockLLM, rerank: OnnxRerank, encoder: TextCrossEncoder, expected: list[str]
) -> None:
    engine = index.as_query_engine(llm=llm, similarity_top_k=len(TEXTS), node_postprocessors=[rerank])

    response = engine.query(QUERY)

    assert ids(response.source_nodes) == expected[:TOP_N]
    ranked = encoder.rank(QUERY, TEXTS, top_n=TOP_N, activation="sigmoid")
    assert [scored.score for scored in response.source_nodes] == pytest.approx([one.score for one in ranked])
    places = [str(response).index(one.text) for one in ranked]
    assert places == sorted(places), "the LLM reads the best node first"
    assert sum(text in str(response) for text in TEXTS) == TOP_N


async def test_query_engine_async(
    index: VectorStoreIndex, llm: MockLLM, rerank: OnnxRerank, expected: list[str]
) -> None:
    engine = index.as_query_engine(llm=llm, similarity_top_k=len(TEXTS), node_postprocessors=[rerank])

    assert ids((await engine.aquery(QUERY)).source_nodes) == expected[:TOP_N]


def test_query_engine_streaming(index: VectorStoreIndex, llm: MockLLM, rerank: OnnxRerank, expected: list[str]) -> None:
    engine = index.as_query_engine(llm=llm, similarity_top_k=len(TEXTS), node_postprocessors=[rerank], streaming=True)

    response = engine.query(QUERY)

    assert TEXTS[int(expected[0][1:])] in "".join(response.response_gen)
    assert ids(response.source_nodes) == expected[:TOP_N]


def test_retriever_query_engine_gives_it_the_callback_manager(
    index: VectorStoreIndex, llm: MockLLM, rerank: OnnxRerank, expected: list[str]
) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    engine = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=len(TEXTS)),
        llm=llm,
        node_postprocessors=[rerank],
        callback_manager=CallbackManager([handler]),
    )

    response = engine.query(QUERY)

    assert ids(response.source_nodes) == expected[:TOP_N]
    assert len(handler.get_event_pairs(CBEventType.RERANKING)) == 1
    assert handler.get_event_pairs(CBEventType.RERANKING)[0][1].payload["nodes"] == response.source_nodes


@pytest.mark.parametrize("chat_mode", ["context", "condense_plus_context"])
def test_chat_engine(
    chat_mode: Any, index: VectorStoreIndex, llm: MockLLM, rerank: OnnxRerank, expected: list[str]
) -> None:
    engine = index.as_chat_engine(chat_mode, llm=llm, similarity_top_k=len(TEXTS), node_postprocessors=[rerank])

    response = engine.chat(QUERY)

    assert ids(response.source_nodes) == expected[:TOP_N]
    assert TEXTS[int(expected[0][1:])] in str(response)


@pytest.mark.parametrize("chat_mode", ["context", "condense_plus_context"])
async def test_chat_engine_async(
    chat_mode: Any, index: VectorStoreIndex, llm: MockLLM, rerank: OnnxRerank, expected: list[str]
) -> None:
    engine = index.as_chat_engine(chat_mode, llm=llm, similarity_top_k=len(TEXTS), node_postprocessors=[rerank])

    assert ids((await engine.achat(QUERY)).source_nodes) == expected[:TOP_N]


def test_citation_query_engine(index: VectorStoreIndex, llm: MockLLM, rerank: OnnxRerank, expected: list[str]) -> None:
    engine = CitationQueryEngine.from_args(index, llm=llm, similarity_top_k=len(TEXTS), node_postprocessors=[rerank])

    response = engine.query(QUERY)

    assert len(response.source_nodes) == TOP_N
    for place, (source, node_id) in enumerate(zip(response.source_nodes, expected, strict=False), start=1):
        text = source.node.get_content()
        assert f"Source {place}:" in text
        assert TEXTS[int(node_id[1:])] in text


def test_query_fusion_retriever(index: VectorStoreIndex, llm: MockLLM, rerank: OnnxRerank, expected: list[str]) -> None:
    retriever = QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=4), index.as_retriever(similarity_top_k=len(TEXTS))],
        llm=llm,
        similarity_top_k=len(TEXTS),
        num_queries=1,
        use_async=False,
    )
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm, node_postprocessors=[rerank])

    assert ids(engine.query(QUERY).source_nodes) == expected[:TOP_N]


def test_similarity_postprocessor_after_it(
    index: VectorStoreIndex, llm: MockLLM, rerank: OnnxRerank, encoder: TextCrossEncoder, expected: list[str]
) -> None:
    second = encoder.rank(QUERY, TEXTS, activation="sigmoid")[1].score
    cutoff = SimilarityPostprocessor(similarity_cutoff=second - 1e-6)
    engine = index.as_query_engine(llm=llm, similarity_top_k=len(TEXTS), node_postprocessors=[rerank, cutoff])

    assert ids(engine.query(QUERY).source_nodes) == expected[:2]


def test_long_context_reorder_after_it(
    index: VectorStoreIndex, llm: MockLLM, rerank: OnnxRerank, expected: list[str]
) -> None:
    engine = index.as_query_engine(
        llm=llm, similarity_top_k=len(TEXTS), node_postprocessors=[rerank, LongContextReorder()]
    )

    best, second, third = expected[:TOP_N]

    assert ids(engine.query(QUERY).source_nodes) == [best, third, second]  # the best nodes at both ends


def test_two_rerankers_in_a_row_and_the_first_score_is_kept(
    index: VectorStoreIndex, llm: MockLLM, expected: list[str]
) -> None:
    wide = OnnxRerank(model=MODEL, top_n=5, keep_retrieval_score=True)
    narrow = wide.model_copy(update={"top_n": 2})
    retrieved = index.as_retriever(similarity_top_k=len(TEXTS)).retrieve(QUERY)
    engine = index.as_query_engine(llm=llm, similarity_top_k=len(TEXTS), node_postprocessors=[wide, narrow])

    response = engine.query(QUERY)

    first_stage = {scored.node_id: scored.score for scored in retrieved}
    assert ids(response.source_nodes) == expected[:2]
    for scored in response.source_nodes:
        assert scored.metadata["retrieval_score"] == first_stage[scored.node_id]
    assert "retrieval_score" not in str(response)
    assert "retrieval_score" not in str(engine.query(QUERY)), "the index's own nodes are as they were"


@pytest.fixture
def tool(index: VectorStoreIndex, rerank: OnnxRerank) -> RetrieverTool:
    retriever = index.as_retriever(similarity_top_k=len(TEXTS))
    return RetrieverTool.from_defaults(retriever, node_postprocessors=[rerank], name="search", description="Finds.")


async def test_retriever_tool(tool: RetrieverTool, expected: list[str]) -> None:
    best = "\n\n".join(TEXTS[int(node_id[1:])] for node_id in expected[:TOP_N])

    assert tool.call(QUERY).content.strip() == best
    assert (await tool.acall(QUERY)).content.strip() == best


async def test_an_agent_with_the_tool(tool: RetrieverTool, encoder: TextCrossEncoder) -> None:
    llm = Scripted(
        lines=[
            f'Thought: I need to look.\nAction: search\nAction Input: {{"input": "{QUERY}"}}',
            "Thought: I can answer without using any more tools.\nAnswer: They stay in the hive.",
        ]
    )
    agent = ReActAgent(tools=[tool], llm=llm, streaming=False)

    answer = await agent.run(user_msg=QUERY)

    observation = llm.prompts[1].rpartition("Observation:")[2]
    best = encoder.rank(f"input is {QUERY}", TEXTS, top_n=TOP_N)  # the tool writes its arguments' names into the query
    assert [text for text in TEXTS if text in observation] == sorted((one.text for one in best), key=TEXTS.index)
    assert str(answer) == "They stay in the hive."


async def test_retriever_evaluator_calls_it_inside_a_running_loop(
    index: VectorStoreIndex, rerank: OnnxRerank, expected: list[str]
) -> None:
    evaluator = RetrieverEvaluator.from_metric_names(
        ["mrr", "hit_rate"],
        retriever=index.as_retriever(similarity_top_k=len(TEXTS)),
        node_postprocessors=[rerank],
    )

    result = await evaluator.aevaluate(QUERY, expected_ids=[expected[1]])

    assert result.retrieved_ids == expected[:TOP_N]
    assert result.metric_vals_dict == {"mrr": 0.5, "hit_rate": 1.0}


def test_over_a_qdrant_collection(llm: MockLLM, rerank: OnnxRerank, expected: list[str], tmp_path: Path) -> None:
    qdrant_client = pytest.importorskip("qdrant_client")
    qdrant = pytest.importorskip("llama_index.vector_stores.qdrant")
    client = qdrant_client.QdrantClient(path=str(tmp_path))
    store = qdrant.QdrantVectorStore(collection_name="bees", client=client)
    stored = VectorStoreIndex(
        [TextNode(text=node.text, metadata={"place": node.node_id}) for node in nodes()],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=BagOfWords(),
    )
    rerank.text = ["content"]
    rerank.keep_retrieval_score = True
    engine = stored.as_query_engine(llm=llm, similarity_top_k=len(TEXTS), node_postprocessors=[rerank])

    response = engine.query(QUERY)
    client.close()

    assert [scored.metadata["place"] for scored in response.source_nodes] == expected[:TOP_N]
    for scored in response.source_nodes:
        assert type(scored.score) is float
        assert 0 < scored.metadata["retrieval_score"] < 1
        assert scored.to_json()

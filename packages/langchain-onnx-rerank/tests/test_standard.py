"""LangChain's own suite for retrievers, on the names of this package as it is installed."""

from __future__ import annotations

from typing import Any

import langchain_onnx_rerank
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_onnx_rerank import OnnxCrossEncoderModel, OnnxRerank, OnnxRerankRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests

QUERY = "What is the capital of France?"
TEXTS = ["Berlin is the capital of Germany.", "Paris is the capital of France.", "France borders Spain.", "Soup."]


class TestOnnxRerankRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[OnnxRerankRetriever]:
        return OnnxRerankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        store = InMemoryVectorStore.from_texts(TEXTS, DeterministicFakeEmbedding(size=8))
        return {"retriever": store.as_retriever(search_kwargs={"k": 4}), "model": "lexical"}

    @property
    def retriever_query_example(self) -> str:
        return QUERY

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"


def test_it_ranks() -> None:
    [best] = OnnxRerank(model="lexical", top_n=1).compress_documents([Document(text) for text in TEXTS], QUERY)
    scores = OnnxCrossEncoderModel(model="lexical").score([(QUERY, text) for text in TEXTS])

    assert best.page_content == TEXTS[1]
    assert scores[1] == max(scores)


def test_it_gives_all_names_of_the_door_and_its_version() -> None:
    import onnx_rerank_integrations
    from onnx_rerank_integrations import langchain as door

    assert set(langchain_onnx_rerank.__all__) == {*door.__all__, "__version__"}
    assert all(getattr(langchain_onnx_rerank, name) is getattr(door, name) for name in door.__all__)
    assert langchain_onnx_rerank.__version__ == onnx_rerank_integrations.__version__

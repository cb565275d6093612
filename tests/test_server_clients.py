"""Clients that people have already, unmodified, against the server on loopback."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.core.types import RankedDocument
from tests.live_server import running

pytest.importorskip("fastapi", reason='NOT RUN: the server\'s tests need pip install ".[server]"')

from onnx_rerank_integrations.extras.server.settings import ApiKeys

KEY = "a-key-of-many-characters"
QUERY = "What is the capital of France?"
DOCUMENTS = [
    "Soup is eaten warm.",
    "Berlin is the capital of Germany.",
    "Paris is the capital of France.",
    "France borders Spain.",
]


def client(module: str, package: str) -> Any:
    """A client's module; where it isn't installed, the test says so."""
    return pytest.importorskip(module, reason=f"NOT RUN: this client is missing: pip install {package}")


@pytest.fixture(scope="module")
def encoder() -> TextCrossEncoder:
    return TextCrossEncoder("lexical")


@pytest.fixture(scope="module")
def url(encoder: TextCrossEncoder) -> Iterator[str]:
    with running({"lexical": encoder}, api_keys=ApiKeys([KEY])) as server:
        yield server.url


@pytest.fixture(scope="module")
def ranked(encoder: TextCrossEncoder) -> list[RankedDocument]:
    """What the encoder itself says: the clients must say the same."""
    return encoder.rank(QUERY, DOCUMENTS, activation="sigmoid")


def same(found: list[tuple[int, float]], ranked: list[RankedDocument]) -> bool:
    """Equal order, and equal scores up to the rounding of another batch."""
    return [index for index, _ in found] == [one.index for one in ranked] and [
        score for _, score in found
    ] == pytest.approx([one.score for one in ranked], abs=1e-6)


def nodes() -> list[Any]:
    schema = client("llama_index.core.schema", "llama-index-core")
    return [schema.NodeWithScore(node=schema.TextNode(text=text), score=0.1) for text in DOCUMENTS]


def test_cohere_v1(url: str, ranked: list[RankedDocument]) -> None:
    cohere = client("cohere", "cohere")

    found = cohere.Client(KEY, base_url=url).rerank(
        model="lexical", query=QUERY, documents=DOCUMENTS, top_n=3, return_documents=True
    )

    assert same([(one.index, one.relevance_score) for one in found.results], ranked[:3])
    assert [one.document.text for one in found.results] == [one.text for one in ranked[:3]]
    assert found.meta.billed_units.search_units == 1


def test_cohere_v2(url: str, ranked: list[RankedDocument]) -> None:
    cohere = client("cohere", "cohere")

    found = cohere.ClientV2(KEY, base_url=url).rerank(
        model="lexical", query=QUERY, documents=DOCUMENTS, max_tokens_per_doc=4096
    )

    assert same([(one.index, one.relevance_score) for one in found.results], ranked)
    assert found.id


async def test_cohere_v2_async(url: str, ranked: list[RankedDocument]) -> None:
    cohere = client("cohere", "cohere")

    async with cohere.AsyncClientV2(KEY, base_url=url) as asynchronous:
        found = await asynchronous.rerank(model="lexical", query=QUERY, documents=DOCUMENTS)

    assert same([(one.index, one.relevance_score) for one in found.results], ranked)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"model": "other"}, "NotFoundError"),
        ({"documents": []}, "BadRequestError"),
        ({"documents": ["a"] * 2001}, "ApiError"),
        ({"top_n": 0}, "UnprocessableEntityError"),
    ],
)
def test_cohere_understands_errors(asked: dict[str, Any], error: str, url: str) -> None:
    cohere = client("cohere", "cohere")
    expected = getattr(cohere, error, None) or importlib.import_module("cohere.core.api_error").ApiError

    with pytest.raises(expected) as raised:
        cohere.ClientV2(KEY, base_url=url).rerank(
            **{"model": "lexical", "query": QUERY, "documents": DOCUMENTS, **asked}
        )
    assert raised.value.body["message"]
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2("another-key", base_url=url).rerank(model="lexical", query=QUERY, documents=DOCUMENTS)


def test_langchain_cohere(url: str, ranked: list[RankedDocument]) -> None:
    langchain_cohere = client("langchain_cohere", "langchain-cohere")
    from langchain_core.documents import Document

    rerank = langchain_cohere.CohereRerank(base_url=url, cohere_api_key=KEY, model="lexical", top_n=2)
    documents = [Document(page_content=text, metadata={"place": i}) for i, text in enumerate(DOCUMENTS)]

    found = rerank.compress_documents(documents, QUERY)

    assert same([(one.metadata["place"], one.metadata["relevance_score"]) for one in found], ranked[:2])


def test_langchain_jina(url: str, ranked: list[RankedDocument], monkeypatch: pytest.MonkeyPatch) -> None:
    jina = client("langchain_community.document_compressors.jina_rerank", "langchain-community")
    from langchain_core.documents import Document

    monkeypatch.setattr(jina, "JINA_API_URL", f"{url}/v1/rerank")  # the class has no argument for it
    rerank = jina.JinaRerank(jina_api_key=KEY, model="lexical", top_n=2)
    documents = [Document(page_content=text, metadata={"place": i}) for i, text in enumerate(DOCUMENTS)]

    found = rerank.compress_documents(documents, QUERY)

    assert same([(one.metadata["place"], one.metadata["relevance_score"]) for one in found], ranked[:2])


def test_llama_index_tei(url: str, ranked: list[RankedDocument]) -> None:
    tei = client("llama_index.postprocessor.tei_rerank", "llama-index-postprocessor-tei-rerank")
    rerank = tei.TextEmbeddingInference(top_n=3, base_url=url, auth_token=f"Bearer {KEY}")

    found = rerank.postprocess_nodes(nodes(), query_str=QUERY)

    assert same([(DOCUMENTS.index(one.text), one.score) for one in found], ranked[:3])


def test_llama_index_tei_never_batches(url: str) -> None:
    tei = client("llama_index.postprocessor.tei_rerank", "llama-index-postprocessor-tei-rerank")
    schema = client("llama_index.core.schema", "llama-index-core")
    many = [schema.NodeWithScore(node=schema.TextNode(text=f"text {i}")) for i in range(1500)]

    found = tei.TextEmbeddingInference(top_n=1500, base_url=url, auth_token=f"Bearer {KEY}").postprocess_nodes(
        many, query_str="text 1234"
    )

    assert len(found) == 1500


def test_llama_index_cohere(url: str, ranked: list[RankedDocument]) -> None:
    cohere = client("llama_index.postprocessor.cohere_rerank", "llama-index-postprocessor-cohere-rerank")
    rerank = cohere.CohereRerank(top_n=2, model="lexical", api_key=KEY, base_url=url)

    found = rerank.postprocess_nodes(nodes(), query_str=QUERY)

    assert same([(DOCUMENTS.index(one.text), one.score) for one in found], ranked[:2])


def test_llama_index_jina(url: str, ranked: list[RankedDocument]) -> None:
    jina = client("llama_index.postprocessor.jinaai_rerank", "llama-index-postprocessor-jinaai-rerank")
    rerank = jina.JinaRerank(top_n=2, model="lexical", api_key=KEY, base_url=f"{url}/v1")

    found = rerank.postprocess_nodes(nodes(), query_str=QUERY)

    assert same([(DOCUMENTS.index(one.text), one.score) for one in found], ranked[:2])


@pytest.mark.parametrize(
    ("provider", "base"), [("cohere", "/v2/rerank"), ("cohere", "/v1/rerank"), ("jina_ai", ""), ("huggingface", "")]
)
def test_litellm(provider: str, base: str, url: str, ranked: list[RankedDocument]) -> None:
    litellm = client("litellm", "litellm")

    found = litellm.rerank(
        model=f"{provider}/lexical", query=QUERY, documents=DOCUMENTS, top_n=4, api_base=url + base, api_key=KEY,
        return_documents=True,
    )  # fmt: skip

    results = [one if isinstance(one, dict) else one.model_dump() for one in found.results]
    assert same([(one["index"], one["relevance_score"]) for one in results], ranked)

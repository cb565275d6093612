"""The names of this package as it is installed, in LlamaIndex."""

from __future__ import annotations

import llama_index.postprocessor.onnx_rerank as package
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.onnx_rerank import OnnxRerank

QUERY = "What is the capital of France?"
TEXTS = ["Berlin is the capital of Germany.", "Paris is the capital of France.", "France borders Spain."]


def test_class() -> None:
    assert BaseNodePostprocessor.__name__ in [base.__name__ for base in OnnxRerank.__mro__]
    assert OnnxRerank.class_name() == "OnnxRerank"


async def test_it_reranks() -> None:
    rerank = OnnxRerank(model="lexical", top_n=1)
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]

    [best] = rerank.postprocess_nodes(nodes, query_str=QUERY)

    assert best.text == TEXTS[1]
    assert await rerank.apostprocess_nodes(nodes, query_str=QUERY) == [best]
    assert OnnxRerank.from_json(rerank.to_json()) == rerank


def test_it_gives_all_names_of_the_door_and_its_version() -> None:
    import onnx_rerank_integrations
    from onnx_rerank_integrations import llama_index as door

    assert set(package.__all__) == {*door.__all__, "__version__"}
    assert all(getattr(package, name) is getattr(door, name) for name in door.__all__)
    assert package.__version__ == onnx_rerank_integrations.__version__

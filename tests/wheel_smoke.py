"""Run by CI with the installed wheel in an empty environment: it ranks offline, and drags nothing in."""

import sys

import onnx_rerank_integrations
from onnx_rerank_integrations import TextCrossEncoder

documents = ["Berlin is the capital of Germany.", "Paris is the capital of France."]
ranked = TextCrossEncoder("embedded").rank("What is the capital of France?", documents, top_n=1)
assert ranked[0].index == 1, ranked

top_level = {name.partition(".")[0] for name in sys.modules}
unwanted = top_level & {"torch", "transformers", "langchain_core", "llama_index", "onnx", "pydantic", "typer"}
assert not unwanted, unwanted
assert "site-packages" in onnx_rerank_integrations.__file__, onnx_rerank_integrations.__file__
print(f"{onnx_rerank_integrations.__version__} ranks from its wheel: {ranked[0].text} ({ranked[0].score:.2f})")

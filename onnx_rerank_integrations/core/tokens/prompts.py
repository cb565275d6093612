"""How rerankers that are language models want to be asked: their prompts, as data.

Such a model reads one prompt with the query and the document in it; how strongly it would go on with one word rather
than with another ("yes" rather than "no") is the score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_rerank_integrations.core.errors import InputValueError, UnsupportedModelError


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One family's prompt. Each text of a tuple is tokenized alone, as the reference does.

    Attributes:
        before: What stands before the query; ``{instruction}`` is filled in.
        query: The query's own text around ``{query}``.
        instructed_query: The same where an instruction is given and belongs there.
        query_tail: Text that is tokenized together with the query's end, and kept when the query is cut.
        between: What stands between query and document.
        document: The document's text around ``{document}``.
        after: What stands after the document; never cut off.
        positive: The word whose logit speaks for relevance.
        negative: The word whose logit speaks against it.
        instruction: The default instruction; None where there is none.
    """

    before: tuple[str, ...]
    query: str
    instructed_query: str | None = None
    query_tail: str = ""
    between: tuple[str, ...] = ()
    document: str
    after: tuple[str, ...]
    positive: str
    negative: str
    instruction: str | None = None


QWEN3 = Prompt(  # model card of Qwen/Qwen3-Reranker-0.6B
    before=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
        "<Instruct>: {instruction}\n<Query>:",
    ),
    query=" {query}",
    query_tail="\n<Document>:",
    document=" {document}",
    after=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    positive="yes",
    negative="no",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)

MXBAI_V2 = Prompt(  # mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py
    before=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n",
    ),
    query="query: {query}",
    instructed_query="instruction: {instruction}\nquery: {query}",
    between=("\n",),
    document="document: {document}",
    after=(
        "\n",
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    positive="1",
    negative="0",
)

PROMPTS = {"qwen3": QWEN3, "qwen2": MXBAI_V2}
"""By the config's model_type: Qwen3-Reranker, and mxbai-rerank-v2, which is a Qwen2."""


def is_causal(config: Mapping[str, Any]) -> bool:
    """Whether the model predicts the next token, rather than classifying the pair."""
    return any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ())


def prompt_for(config: Mapping[str, Any], instruction: str | None) -> Prompt | None:
    """The prompt of the model's family; None for an ordinary cross-encoder.

    Raises:
        UnsupportedModelError: A language model whose prompt isn't known here.
        InputValueError: An instruction for a model that takes none.
    """
    prompt = PROMPTS.get(str(config.get("model_type")))
    if prompt is None and is_causal(config):
        raise UnsupportedModelError(
            f"The model is a language model of type {config.get('model_type')!r}, and how to ask it for relevance "
            f"isn't known here; prompts are known for {', '.join(PROMPTS)}.\n"
            "Use a sequence classification model instead."
        )
    if prompt is None and instruction is not None:
        raise InputValueError(
            "instruction was given, and this model takes none: it is an ordinary cross-encoder of query and document"
        )
    return prompt

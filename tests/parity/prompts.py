"""How rerankers made from language models are asked: the texts, and what is cut when they are too long.

A prompt gives token ids. It takes the tokenizer as a function from a text to its ids, without anything added, so that
PyTorch's side and the bare check of the files ask in the same way.
"""

from __future__ import annotations

from collections.abc import Callable

Encode = Callable[[str], list[int]]

WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
"""Qwen3-Reranker's instruction where the user gives none."""


def qwen3(encode: Encode, query: str, document: str, *, instruction: str | None, max_length: int) -> list[int]:
    """Asks as Qwen3-Reranker's model card does: a body cut at its end, between a prefix and a suffix that never are.

    Query and document are one text for the tokenizer; prefix and suffix are tokenized apart.
    """
    prefix = encode(
        "<|im_start|>system\n"
        "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
        'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    body = encode(f"<Instruct>: {instruction or WEB_SEARCH}\n<Query>: {query}\n<Document>: {document}")
    return prefix + body[: max_length - len(prefix) - len(suffix)] + suffix


def mxbai_v2(encode: Encode, query: str, document: str, *, instruction: str | None, max_length: int) -> list[int]:
    """Asks as mxbai-rerank-v2 does (mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py): "1" or "0", every part apart.

    Of what the fixed parts leave, the query takes three quarters at most; then the document is cut at its end. That is
    the original with ``model_max_length`` as the limit: its own ``max_length`` doesn't count the fixed parts.
    """
    line_break = encode("\n")
    prefix = encode(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    task = encode(
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, then provide your "
        "binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    )
    suffix = encode("<|im_end|>\n<|im_start|>assistant\n")
    room = max_length - len(prefix) - len(line_break) - len(task) - len(suffix)
    asked = f"instruction: {instruction}\nquery: {query}" if instruction else f"query: {query}"
    asked_ids = encode(asked)[: room * 3 // 4]
    document_ids = (line_break + encode(f"document: {document}"))[: room - len(asked_ids)]
    return prefix + asked_ids + document_ids + line_break + task + suffix


PROMPTS = {"qwen3": qwen3, "mxbai-v2": mxbai_v2}

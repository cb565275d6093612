"""What other rerankers call an option that is called something else here."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

PEERS_NAMES = {
    "model_name": "model",
    "model_name_or_path": "model",
    "model_id": "model",
    "model_path": "model",
    "top_k": "top_n",
    "rerank_top_k": "top_n",
    "threshold": "score_threshold",
    "min_score": "score_threshold",
    "similarity_cutoff": "score_threshold",
    "device": 'providers, as in providers=["CUDAExecutionProvider"]',
    "devices": 'providers, as in providers=[("CUDAExecutionProvider", {"device_id": 1})]',
    "device_ids": 'providers, as in providers=[("CUDAExecutionProvider", {"device_id": 1})]',
    "device_id": 'providers, as in providers=[("CUDAExecutionProvider", {"device_id": 1})]',
    "cuda": 'providers, as in providers=["CUDAExecutionProvider"]',
    "use_fp16": "precision, or model_file for the path of a repository's fp16 file",
    "use_bf16": 'precision, as in precision="bf16" with backend="openvino"',
    "dtype": "precision, or model_file for one of a repository's files",
    "file_name": "model_file",
    "max_seq_length": "max_length",
    "max_tokens": "max_length",
    "cache_folder": "cache_dir",
    "num_threads": "threads",
    "normalize": 'activation, as in activation="sigmoid"',
    "scale_score": 'activation, as in activation="sigmoid"',
    "activation_fn": 'activation, as in activation="sigmoid"',
    "prefix_metadata": "score_key, the whole key",
    "rank_fields": "text, the fields that are scored",
    "meta_fields_to_embed": "text, the fields that are scored",
    "query_prefix": "instruction, for models that take one",
    "query_instruction_for_rerank": "instruction, for models that take one",
    "keep_score": "keep_retrieval_score",
    "base_retriever": "retriever",
    "base_compressor": "reranker",
}
"""What other rerankers call an option, and what it is called here."""

PEERS_NEEDLESS = {
    "return_documents": "leave it out, documents always come back; for indices and scores alone there is rerank()",
    "trust_remote_code": "leave it out, no code of a model is ever run",
    "api_key": "leave it out, the model runs on this machine",
    "cohere_api_key": "leave it out, the model runs on this machine",
    "jina_api_key": "leave it out, the model runs on this machine",
    "model_kwargs": "give each of them as an option of its own",
    "cross_encoder_kwargs": "give each of them as an option of its own",
    "client": "leave it out, and give model a name, a folder or a TextCrossEncoder",
}
"""Options of other rerankers that have no counterpart here, and what to do."""


def advice(name: str, known: Sequence[str]) -> str:
    """What to write instead of an unknown option, where `known` are those that there are."""
    if name in PEERS_NEEDLESS:
        return f"{name} is no option here: {PEERS_NEEDLESS[name]}"
    meant = PEERS_NAMES.get(name)
    if meant and meant.partition(" ")[0].rstrip(",") in known:
        return f"{name} is no option here: it is called {meant}"
    if close := get_close_matches(name, known, n=1):
        return f"{name} is no option here: did you mean {close[0]}?"
    return f"{name} is no option here: there are {', '.join(known)}"

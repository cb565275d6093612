"""The peers' signatures, parameter by parameter, and what stands for each here. The pages under docs/peers are made of it.

    python -m tests.peers FOLDER    compares it with the peers' code, installed or unpacked in FOLDER

The code is read, never run: no peer has to be importable. `.ci/run docs` fetches the packages alone, without what they
need, so a parameter that a new version adds, drops or gives another default shows there.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path

Mapping = dict[str, str]
"""A parameter of the peer's -> what to do here."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One callable of a peer.

    Attributes:
        name: Of the method; empty for the class itself, whose parameters may be pydantic fields.
        parameters: In the order of its signature.
        passed_over: Parameters that a user doesn't give.
    """

    name: str
    parameters: Mapping
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A class that people move from.

    Attributes:
        slug: The page's file name.
        title: Its name, with its framework where it has one.
        package: On the package index; its version is stated on the page.
        version: The one that was read.
        source: The file of the class inside the package.
        symbol: The class, or the function that makes one.
        here: The import and class that take its place.
        calls: Its constructor and methods.
        silent: What changes without an error.
        why: Reasons to move, and reasons to stay.
        before: A line or two of the peer's code, where the page of all libraries doesn't show it at length.
        after: What stands for it here, as the call that makes ours.
    """

    slug: str
    title: str
    package: str
    version: str
    source: str
    symbol: str
    here: str
    calls: tuple[Call, ...]
    silent: tuple[str, ...]
    why: tuple[str, ...] = field(default_factory=tuple)
    before: str = ""
    after: str = ""


CORE = "from onnx_rerank_integrations import TextCrossEncoder"
LANGCHAIN = "from onnx_rerank_integrations.langchain import OnnxRerank"
LLAMA_INDEX = "from onnx_rerank_integrations.llama_index import OnnxRerank"

SAME = "the same"
NO_KEY = "none: nothing leaves the machine"
HOSTED = (
    "The scores are another model's: choose the threshold anew.",
    "Documents aren't sent anywhere; the first use of a hub model downloads it.",
)
LOCAL = "No key, no cost per call, no network at query time; works where documents may not leave the house."
NO_TORCH = "No torch and no transformers to install, and the same scores within 1e-3 (`onnx-rerank check`)."

PEERS = (
    Peer(
        slug="fastembed",
        title="FastEmbed: TextCrossEncoder",
        package="fastembed",
        version="0.9.1",
        source="fastembed/rerank/cross_encoder/text_cross_encoder.py",
        symbol="TextCrossEncoder",
        here=CORE,
        calls=(
            Call(
                name="__init__",
                parameters={
                    "model_name": SAME + "; None is `Xenova/ms-marco-MiniLM-L-6-v2`",
                    "cache_dir": SAME + "; None is huggingface_hub's own cache, not the system's temporary folder",
                    "threads": SAME + ", as a keyword; they share the batches",
                    "providers": SAME + ", as a keyword; one that doesn't start is an error",
                    "cuda": '`providers=["CUDAExecutionProvider"]`',
                    "device_ids": '`providers=[("CUDAExecutionProvider", {"device_id": 1})]`, one encoder per device',
                    "lazy_load": SAME + ", as a keyword",
                },
            ),
            Call(
                name="rerank",
                parameters={
                    "query": SAME,
                    "documents": SAME,
                    "batch_size": "a cap, as a keyword: batches are made by length under a budget of tokens; leave it out",
                },
            ),
            Call(
                name="rerank_pairs",
                parameters={
                    "pairs": SAME,
                    "batch_size": "as for `rerank`",
                    "parallel": "batches side by side, in threads of one process; leave it out",
                },
            ),
            Call(
                name="add_custom_model",
                parameters={
                    "model": SAME,
                    "sources": 'a hub id, `{"hf": id}`, or a `ModelSource`',
                    "model_file": SAME,
                    "description": SAME,
                    "license": SAME,
                    "size_in_gb": SAME,
                    "additional_files": SAME,
                },
                passed_over=("cls",),
            ),
        ),
        silent=(
            "`rerank` gives a list, not a generator.",
            "Everything optional is a keyword here, positional there.",
            "`cuda=Device.AUTO` takes a GPU where there is one; here the CPU, unless `providers` names another.",
            "`specific_model_path` still works and warns; give the folder as the model.",
            "Any hub id or folder loads, also one that isn't listed.",
            "A name that isn't listed is looked for on the hub, where FastEmbed raises at once.",
        ),
        why=(
            "The same scores on a CPU in a quarter to a half of the time that its default takes, and a third to a seventh of "
            "the memory; in 0.5 to 0.86 of the time of its best batch size (with `[optimize]`; benchmarks/README.md).",
            "Ranking, thresholds, windows over long documents, a score cache, and doors to both frameworks.",
            "FastEmbed also embeds; this package only reranks.",
        ),
    ),
    Peer(
        slug="flashrank",
        title="FlashRank: Ranker",
        package="FlashRank",
        version="0.2.10",
        source="flashrank/Ranker.py",
        symbol="Ranker",
        here=CORE,
        calls=(
            Call(
                name="__init__",
                parameters={
                    "model_name": "a hub id (see the table of [FlashRank](migrating.md#flashrank)), or the downloaded folder",
                    "cache_dir": SAME + ", as a keyword",
                    "max_length": SAME + "; None is what the model was made for (FlashRank: 512)",
                    "log_level": 'none: `logging.getLogger("onnx_rerank_integrations").setLevel(...)`',
                },
            ),
            Call(
                name="rerank",
                parameters={
                    "request": '`encoder.rank(query, [passage["text"] for passage in passages], activation="sigmoid")`'
                },
            ),
        ),
        silent=(
            '`rank` gives logits unless `activation="sigmoid"`; FlashRank\'s scores are sigmoids.',
            "A passage's `meta` isn't carried along: take it from your list, at `RankedDocument.index`.",
            "Your passages stay as they were; FlashRank writes a float32 `score` into them and sorts them in place.",
            "FlashRank's default model is `ms-marco-TinyBERT-L-2-v2`, English; ours is MiniLM-L-6, English too.",
        ),
        why=(
            "The same model 2 to 4 times as fast on a CPU, in a fifth to a seventh of the memory (benchmarks/README.md).",
        ),
    ),
    Peer(
        slug="sentence-transformers",
        title="sentence-transformers: CrossEncoder",
        package="sentence-transformers",
        version="6.2.0",
        source="sentence_transformers/cross_encoder/model.py",
        symbol="CrossEncoder",
        here=CORE,
        calls=(
            Call(
                name="__init__",
                parameters={
                    "model_name_or_path": "`model_name`: a hub id with ONNX files, or a folder",
                    "modules": "none: a model is a folder; `onnx-rerank export` makes one",
                    "device": '`providers=["CUDAExecutionProvider"]` for `"cuda"`',
                    "prompts": "`prompt=`, a template, or `instruction=` for language models",
                    "default_prompt_name": "as `prompts`",
                    "cache_folder": "`cache_dir`",
                    "trust_remote_code": "none: no code of a model is ever run",
                    "revision": SAME,
                    "local_files_only": SAME,
                    "token": "`hf auth login`, or the environment variable HF_TOKEN",
                    "model_kwargs": '`model_file=` for `{"file_name": ...}`, `precision=` for `{"dtype": ...}`',
                    "processor_kwargs": "`max_length`, `truncation`; the rest is read from the model's own files",
                    "config_kwargs": "none",
                    "model_card_data": "none",
                    "backend": '`"onnxruntime"` (default) or `"openvino"`',
                    "num_labels": "read from the model; `label=` says which one to rank by",
                    "max_length": SAME,
                    "activation_fn": '`activation="identity"`, `"sigmoid"` or `"model"`',
                    "keep_in_fp32_modules": "none",
                },
            ),
            Call(
                name="predict",
                parameters={
                    "inputs": "`rerank_pairs(pairs)`",
                    "prompt_name": "as in the constructor",
                    "prompt": "as in the constructor",
                    "batch_size": "a cap; batches are made by length under a budget of tokens; leave it out",
                    "show_progress_bar": "`show_progress`",
                    "activation_fn": "`activation=`, of this call",
                    "apply_softmax": '`activation="sigmoid"` of the chosen label: for two labels it is their softmax',
                    "convert_to_numpy": "none: a list of floats",
                    "convert_to_tensor": "none",
                    "device": "the constructor's `providers`",
                    "pool": "none: threads share one model; `onnx-rerank batch`, Ray or Spark go further",
                    "chunk_size": "none: calls of any size take bounded memory",
                },
            ),
            Call(
                name="rank",
                parameters={
                    "query": SAME,
                    "documents": SAME,
                    "top_k": "`top_n`",
                    "return_documents": "always: `RankedDocument.text`",
                    "prompt_name": "as in the constructor",
                    "prompt": "as in the constructor",
                    "batch_size": "as for `predict`",
                    "show_progress_bar": "`show_progress`",
                    "activation_fn": "`activation=`",
                    "device": "the constructor's `providers`",
                    "pool": "none",
                    "chunk_size": "none",
                },
            ),
        ),
        silent=(
            'Logits by default: `activation="model"` gives what CrossEncoder gives (a sigmoid for most).',
            "A model of two labels gives one score, the log-odds of the relevant one; of three or more, `label=` is needed.",
        ),
        why=(
            NO_TORCH,
            "It can't train: train with sentence-transformers, then `onnx-rerank export`.",
            "`onnx-rerank quantize` makes an int8 copy and keeps it only if it ranks like the original.",
        ),
    ),
    Peer(
        slug="rerankers",
        title="rerankers: Reranker",
        package="rerankers",
        version="0.10.0",
        source="rerankers/reranker.py",
        symbol="Reranker",
        here=CORE,
        before=(
            "from rerankers import Reranker\n"
            "\n"
            'ranker = Reranker("cross-encoder/ms-marco-MiniLM-L-6-v2", model_type="cross-encoder")\n'
            "best = ranker.rank(query, documents).top_k(1)"
        ),
        after='TextCrossEncoder("lexical")',
        calls=(
            Call(
                name="",
                parameters={
                    "model_name": SAME + ": a hub id with ONNX files, or a folder",
                    "lang": "none: choose a multilingual model by name",
                    "model_type": "none: the kind is read from the model's files",
                    "verbose": "none: logging is yours",
                },
            ),
        ),
        silent=(
            "`ranker.rank(query, docs)` gives `RankedResults`; here a list of `RankedDocument`, best first.",
            "Short names such as `cross-encoder`, `flashrank` or `t5` stand for nothing here: name a model.",
        ),
        why=(
            NO_TORCH,
            "rerankers also wraps hosted services, ColBERT and rankers of lists; this package reranks with cross-encoders.",
        ),
    ),
    Peer(
        slug="langchain-huggingface-cross-encoder",
        title="langchain-community: HuggingFaceCrossEncoder",
        package="langchain-community",
        version="0.4.2",
        source="langchain_community/cross_encoders/huggingface.py",
        symbol="HuggingFaceCrossEncoder",
        here="from onnx_rerank_integrations.langchain import OnnxCrossEncoderModel, OnnxRerank",
        calls=(
            Call(
                name="",
                parameters={
                    "model_name": "`model`",
                    "model_kwargs": '`providers=["CUDAExecutionProvider"]` for `{"device": "cuda"}`, `max_length=...`',
                },
                passed_over=("client",),
            ),
            Call(name="score", parameters={"text_pairs": SAME + ", of `OnnxCrossEncoderModel`"}),
        ),
        silent=(
            "`OnnxCrossEncoderModel.score` gives logits, there most models a sigmoid; the order is the same.",
            "`OnnxRerank` is the model and the `CrossEncoderReranker` in one, and writes the score into the metadata.",
        ),
        why=(NO_TORCH, "langchain-community is being sunset."),
    ),
    Peer(
        slug="langchain-flashrank",
        title="langchain-community: FlashrankRerank",
        package="langchain-community",
        version="0.4.2",
        source="langchain_community/document_compressors/flashrank_rerank.py",
        symbol="FlashrankRerank",
        here=LANGCHAIN,
        calls=(
            Call(
                name="",
                parameters={
                    "client": "`model=`, a name or a ready encoder",
                    "top_n": SAME + " (3); here after the threshold",
                    "score_threshold": SAME + "; None (not 0.0) for none",
                    "model": "a hub id, or the folder that FlashRank downloaded",
                    "prefix_metadata": '`score_key="PREFIXrelevance_score"`',
                },
            ),
        ),
        silent=(
            "The threshold comes first, then `top_n`; there `top_n` first.",
            "`metadata[\"id\"]`, the place in the input, isn't written; the documents' own `id` is kept.",
            "The score is a plain float and always the new one.",
        ),
        why=(
            "Async that doesn't block, traces, a retriever of its own, and 2 to 4 times the speed.",
            "langchain-community is being sunset.",
            "`ms-marco-MultiBERT-L-12` has no ONNX counterpart by name: load the folder that FlashRank downloaded.",
        ),
    ),
    Peer(
        slug="langchain-jina",
        title="langchain-community: JinaRerank",
        package="langchain-community",
        version="0.4.2",
        source="langchain_community/document_compressors/jina_rerank.py",
        symbol="JinaRerank",
        here=LANGCHAIN,
        before=(
            "from langchain_community.document_compressors import JinaRerank\n"
            "\n"
            'rerank = JinaRerank(model="jina-reranker-v2-base-multilingual", top_n=1)\n'
            "found = rerank.compress_documents(documents, query)"
        ),
        after='OnnxRerank(model="lexical", top_n=1)',
        calls=(
            Call(
                name="",
                parameters={
                    "top_n": SAME + " (3)",
                    "model": '`"jinaai/jina-reranker-v1-turbo-en"`, `"jinaai/jina-reranker-v2-base-multilingual"` (non-commercial)',
                    "jina_api_key": NO_KEY,
                    "user_agent": "none",
                },
                passed_over=("session",),
            ),
            Call(
                name="rerank",
                parameters={
                    "documents": SAME,
                    "query": SAME,
                    "model": "the constructor's",
                    "top_n": SAME + "; None (not -1) for all",
                    "max_chunks_per_doc": '`long_documents="max"`',
                },
            ),
        ),
        silent=HOSTED,
        why=(LOCAL,),
    ),
    Peer(
        slug="langchain-openvino",
        title="langchain-community: OpenVINOReranker",
        package="langchain-community",
        version="0.4.2",
        source="langchain_community/document_compressors/openvino_rerank.py",
        symbol="OpenVINOReranker",
        here=LANGCHAIN,
        before=(
            "from langchain_community.document_compressors.openvino_rerank import OpenVINOReranker\n"
            "\n"
            'rerank = OpenVINOReranker(model_name_or_path="BAAI/bge-reranker-base", top_n=1)\n'
            "found = rerank.compress_documents(documents, query)"
        ),
        after='OnnxRerank(model="lexical", top_n=1)',
        calls=(
            Call(
                name="",
                parameters={
                    "ov_model": 'none; `backend="openvino"` opens the ONNX file',
                    "tokenizer": "none: the model's own tokenizer.json",
                    "model_name_or_path": "`model`",
                    "model_kwargs": '`precision="bf16"`, `threads=...`',
                    "top_n": SAME + "; the default is 3, there 4",
                },
            ),
            Call(name="save_model", parameters={"model_path": "none: models are kept in the hub's cache"}),
        ),
        silent=("`top_n` is 3 by default, there 4.", "Scores are sigmoids; there they are what the model gives."),
        why=("No torch, optimum or transformers: `[openvino]` alone.",),
    ),
    Peer(
        slug="langchain-cohere",
        title="langchain-cohere: CohereRerank",
        package="langchain-cohere",
        version="0.6.0",
        source="langchain_cohere/rerank.py",
        symbol="CohereRerank",
        here=LANGCHAIN,
        before=(
            "from langchain_cohere import CohereRerank\n"
            "\n"
            'rerank = CohereRerank(model="rerank-v3.5", top_n=1)\n'
            "found = rerank.compress_documents(documents, query)"
        ),
        after='OnnxRerank(model="lexical", top_n=1)',
        calls=(
            Call(
                name="",
                parameters={
                    "client": "none",
                    "top_n": SAME + " (3)",
                    "model": "a hub id: `BAAI/bge-reranker-v2-m3` is multilingual",
                    "cohere_api_key": NO_KEY,
                    "base_url": '`model="http://host:port"` asks a server of ours (see the page on serving)',
                    "user_agent": "none",
                },
            ),
            Call(
                name="rerank",
                parameters={
                    "documents": SAME,
                    "query": SAME,
                    "rank_fields": "`text=[...]`, of the constructor",
                    "model": "the constructor's",
                    "top_n": SAME + "; None (not -1) for all",
                    "max_tokens_per_doc": "`max_length`, of query and document together",
                },
            ),
        ),
        silent=HOSTED,
        why=(LOCAL, "CohereRerank itself works with a server of ours: `base_url=`."),
    ),
    Peer(
        slug="llama-index-sentence-transformers",
        title="LlamaIndex: SentenceTransformerRerank",
        package="llama-index-core",
        version="0.14.25",
        source="llama_index/core/postprocessor/sbert_rerank.py",
        symbol="SentenceTransformerRerank",
        here=LLAMA_INDEX,
        calls=(
            Call(
                name="__init__",
                parameters={
                    "top_n": SAME + "; the default is 3, there 2",
                    "model": "a hub id with ONNX files, or a folder",
                    "device": '`providers=["CUDAExecutionProvider"]` for `"cuda"`',
                    "keep_retrieval_score": SAME,
                    "trust_remote_code": "none: no code of a model is ever run",
                },
            ),
        ),
        silent=(
            "`top_n` is 3 by default, there `top_n=2`.",
            "The default model is MiniLM-L-6 for MS MARCO, there `cross-encoder/stsb-distilroberta-base`, for similarity.",
            "Scores are sigmoids; there the model's own activation: logits for MS MARCO models. A cutoff after it changes.",
            'Options are keywords here, positional there (`SentenceTransformerRerank(2, "model")`).',
            "It reads what the model was made for, 512 tokens for most; there 512.",
            "The given nodes keep their scores.",
        ),
        why=(NO_TORCH,),
    ),
    Peer(
        slug="llama-index-flag-embedding",
        title="LlamaIndex: FlagEmbeddingReranker",
        package="llama-index-postprocessor-flag-embedding-reranker",
        version="0.6.0",
        source="llama_index/postprocessor/flag_embedding_reranker/base.py",
        symbol="FlagEmbeddingReranker",
        here=LLAMA_INDEX,
        before=(
            "from llama_index.postprocessor.flag_embedding_reranker import FlagEmbeddingReranker\n"
            "\n"
            'rerank = FlagEmbeddingReranker(model="BAAI/bge-reranker-base", top_n=1)\n'
            "found = rerank.postprocess_nodes(nodes, query_str=query)"
        ),
        after='OnnxRerank(model="lexical", top_n=1)',
        calls=(
            Call(
                name="__init__",
                parameters={
                    "top_n": SAME + "; the default is 3, there 2",
                    "model": "`BAAI/bge-reranker-base`, `BAAI/bge-reranker-large`, `BAAI/bge-reranker-v2-m3`",
                    "use_fp16": '`precision="fp16"` with a GPU; `model_file="int8"` on a CPU, where the repository has one',
                },
            ),
        ),
        silent=("`top_n` is 3 by default, there 2.", "Scores are sigmoids, there logits."),
        why=(NO_TORCH,),
    ),
    Peer(
        slug="llama-index-flashrank",
        title="LlamaIndex: FlashRankRerank",
        package="llama-index-postprocessor-flashrank-rerank",
        version="0.3.0",
        source="llama_index/postprocessor/flashrank_rerank/base.py",
        symbol="FlashRankRerank",
        here=LLAMA_INDEX,
        before=(
            "from llama_index.postprocessor.flashrank_rerank import FlashRankRerank\n"
            "\n"
            'rerank = FlashRankRerank(model="ms-marco-MiniLM-L-12-v2", top_n=1)\n'
            "found = rerank.postprocess_nodes(nodes, query_str=query)"
        ),
        after='OnnxRerank(model="lexical", top_n=1)',
        calls=(
            Call(
                name="",
                parameters={
                    "model": "a hub id, or the folder that FlashRank downloaded",
                    "top_n": SAME + "; the default is 3, there 20",
                    "max_length": SAME + "; None is what the model was made for (there 512)",
                },
            ),
        ),
        silent=("`top_n` is 3 by default, there 20.",),
        why=("Events and callbacks in order, async, and 2 to 4 times the speed.",),
    ),
    Peer(
        slug="llama-index-cohere",
        title="LlamaIndex: CohereRerank",
        package="llama-index-postprocessor-cohere-rerank",
        version="0.10.0",
        source="llama_index/postprocessor/cohere_rerank/base.py",
        symbol="CohereRerank",
        here=LLAMA_INDEX,
        before=(
            "from llama_index.postprocessor.cohere_rerank import CohereRerank\n"
            "\n"
            'rerank = CohereRerank(model="rerank-v3.5", top_n=1)\n'
            "found = rerank.postprocess_nodes(nodes, query_str=query)"
        ),
        after='OnnxRerank(model="lexical", top_n=1)',
        calls=(
            Call(
                name="__init__",
                parameters={
                    "top_n": SAME + "; the default is 3, there 2",
                    "model": "a hub id",
                    "api_key": NO_KEY,
                    "base_url": '`model="http://host:port"` asks a server of ours',
                    "max_retries": "none in the process; a server's client retries by itself",
                },
            ),
        ),
        silent=("`top_n` is 3 by default, there 2.", *HOSTED),
        why=(LOCAL,),
    ),
    Peer(
        slug="llama-index-jina",
        title="LlamaIndex: JinaRerank",
        package="llama-index-postprocessor-jinaai-rerank",
        version="0.6.0",
        source="llama_index/postprocessor/jinaai_rerank/base.py",
        symbol="JinaRerank",
        here=LLAMA_INDEX,
        before=(
            "from llama_index.postprocessor.jinaai_rerank import JinaRerank\n"
            "\n"
            'rerank = JinaRerank(model="jina-reranker-v2-base-multilingual", top_n=1)\n'
            "found = rerank.postprocess_nodes(nodes, query_str=query)"
        ),
        after='OnnxRerank(model="lexical", top_n=1)',
        calls=(
            Call(
                name="__init__",
                parameters={
                    "top_n": SAME + "; the default is 3, there 2",
                    "model": "a hub id",
                    "base_url": '`model="http://host:port"` asks a server of ours',
                    "api_key": NO_KEY,
                },
            ),
        ),
        silent=("`top_n` is 3 by default, there 2.", *HOSTED),
        why=(LOCAL,),
    ),
)


AFTER = {
    CORE: ("encoder = {after}  # or a hub id\n[best] = encoder.rank(query, texts, top_n=1)\nprint(best.text)"),
    LANGCHAIN: (
        "rerank = {after}  # or a hub id\n"
        "[best] = rerank.compress_documents([Document(text) for text in texts], query)\n"
        "print(best.page_content)"
    ),
    LLAMA_INDEX: (
        "rerank = {after}  # or a hub id\n"
        "nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]\n"
        "[best] = rerank.postprocess_nodes(nodes, query_str=query)\n"
        "print(best.text)"
    ),
}
IMPORTS = {
    CORE: CORE,
    LANGCHAIN: f"from langchain_core.documents import Document\n{LANGCHAIN}",
    LLAMA_INDEX: f"from llama_index.core.schema import NodeWithScore, TextNode\n{LLAMA_INDEX}",
}
TEXTS = """\
query = "What do bees eat in winter?"
texts = ["A hive should stand in the sun.", "Bees live on stored honey in winter.", "Wasps are not bees."]"""


def code(peer: Peer) -> str:
    """Before and after, the second so that it runs by itself; empty where the page of all libraries has it."""
    if not peer.before:
        return ""
    after = f"{IMPORTS[peer.here]}\n\n{TEXTS}\n{AFTER[peer.here].format(after=peer.after)}"
    return (
        f"Before:\n\n```python not-run\n{peer.before}\n```\n\n"
        f"After:\n\n```python\n{after}\n```\n\n```text\nBees live on stored honey in winter.\n```\n\n"
    )


def page(peer: Peer) -> str:
    """The peer's page in Markdown."""
    parts = [
        f"# From {peer.title}",
        f"As of {peer.package} {peer.version}. Takes its place:",
        f"```python not-run\n{peer.here}\n```",
        *([] if peer.before else [f"[Code before and after](../migrating.md#{anchor(peer)})."]),
        tables(peer, heading="##").replace("(migrating.md", "(../migrating.md").strip(),
        "Other libraries: [Moving](../migrating.md). All [options](../options.md).",
    ]
    return "\n\n".join(parts) + "\n"


def anchor(peer: Peer) -> str:
    """Of its section on the page of all libraries: a framework's classes have their own, a library has one."""
    library, _, symbol = peer.title.lower().partition(": ")
    return library if library == peer.slug else f"{library}-{symbol}"


def tables(peer: Peer, *, heading: str = "###") -> str:
    """Its calls parameter by parameter, what changes in silence, and why to move."""
    parts = [code(peer).rstrip()] if peer.before else []
    for call in peer.calls:
        name = peer.symbol if call.name in ("", "__init__") else f"{peer.symbol}.{call.name}"
        rows = "\n".join(f"| `{one}` | {here} |" for one, here in call.parameters.items())
        parts.append(f"{heading} Parameters of `{name}`\n\n| parameter | here |\n| --- | --- |\n{rows}")
    changes = "\n".join(f"- {line}" for line in peer.silent)
    reasons = "\n".join(f"- {line}" for line in peer.why)
    parts.append(f"What changes in silence:\n\n{changes}\n\nWhy, and why not:\n\n{reasons}")
    return "\n\n".join(parts) + "\n"


def differences(folder: Path) -> Iterator[str]:
    """What the peers' code in a folder of packages says otherwise."""
    versions = {one.metadata["Name"].lower(): one.version for one in distributions(path=[str(folder)])}
    for peer in PEERS:
        path = folder / peer.source
        if not path.is_file():
            yield f"{peer.title}: {peer.source} isn't there"
            continue
        found = versions.get(peer.package.lower())
        for call in peer.calls:
            parameters = signature(ast.parse(path.read_text(encoding="utf-8")), peer.symbol, call)
            if parameters != list(call.parameters):
                yield (
                    f"{peer.title} {found}, {call.name or 'fields'}: has {', '.join(parameters)}; the page, of "
                    f"{peer.version}, has {', '.join(call.parameters)}"
                )


def signature(module: ast.Module, symbol: str, call: Call) -> list[str]:
    """The names of a callable's parameters, or of a class's public fields."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.name == symbol and not call.name:
            return _names(node, call)
        if isinstance(node, ast.ClassDef) and node.name == symbol:
            if not call.name:
                targets = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
                fields = [target.id for target in targets if isinstance(target, ast.Name)]
                return [name for name in fields if not name.startswith("_") and name not in call.passed_over]
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == call.name]
            return _names(methods[-1], call) if methods else []
    return []


def _names(function: ast.FunctionDef, call: Call) -> list[str]:
    arguments = [*function.args.args, *function.args.kwonlyargs]
    return [one.arg for one in arguments if one.arg != "self" and one.arg not in call.passed_over]


if __name__ == "__main__":
    found = list(differences(Path(sys.argv[1])))
    print("\n".join(found) or f"{len(PEERS)} peers: their signatures are what the pages say")
    sys.exit(bool(found))

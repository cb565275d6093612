"""Who is measured, each behind the same two calls: load a model folder with so many threads, score groups of texts.

Nothing but the standard library is imported until a contender is loaded, so each sample's process holds one contender
only. All give raw logits, so that their scores can be compared, but FlashRank, which has none.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.texts import Group

# Scores one workload: a number for each pair, in the order of the groups.
Scorer = Callable[[Sequence[Group]], list[float]]

SAFETENSORS = "model.safetensors"
MS_MARCO = "cross-encoder/ms-marco-MiniLM-L6-v2"

FASTEMBED_BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Contender:
    """One way to score.

    Attributes:
        load: Gives the scorer of a model folder at a number of threads.
        environment: Name of the environment it runs in; None is the running one.
        sigmoid: Whether it gives sigmoids and not logits.
        exact: Whether its scores must equal the reference's (fp32), or only be near them (int8, bf16).
        weights: The files of a model folder it reads; without them it sits that model out.
    """

    name: str
    label: str
    load: Callable[[Path, int], Scorer]
    environment: str | None = None
    sigmoid: bool = False
    exact: bool = True
    weights: str = "onnx/model.onnx"


def _pairs(groups: Sequence[Group]) -> list[tuple[str, str]]:
    return [(query, document) for query, documents in groups for document in documents]


def _in_input_order(
    groups: Sequence[Group], rank: Callable[[str, list[str]], Sequence[tuple[int, float]]]
) -> list[float]:
    """The scores of a peer that takes one query a call and gives (place, score), in any order."""
    scores: list[float] = []
    for query, documents in groups:
        by_place = dict(rank(query, documents))
        scores += [by_place[place] for place in range(len(documents))]
    return scores


def _load_fastembed(folder: Path, threads: int, batch_size: int) -> Scorer:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    name = f"local/{folder.name}"
    TextCrossEncoder.add_custom_model(model=name, sources=ModelSource(hf=name), model_file="onnx/model.onnx")
    encoder = TextCrossEncoder(name, specific_model_path=str(folder), threads=threads, cuda=False)

    def score(groups: Sequence[Group]) -> list[float]:
        if len(groups) == 1:
            [(query, documents)] = groups
            return list(encoder.rerank(query, documents, batch_size=batch_size))
        return list(encoder.rerank_pairs(_pairs(groups), batch_size=batch_size))

    return score


def fastembed(batch_size: int) -> Contender:
    """FastEmbed at a batch size; 64 is its default."""
    label = "FastEmbed, default (64)" if batch_size == 64 else f"FastEmbed, batch {batch_size}"
    return Contender(f"fastembed@{batch_size}", label, partial(_load_fastembed, batch_size=batch_size))


def _load_flashrank(folder: Path, threads: int) -> Scorer:
    import onnxruntime
    from flashrank import Ranker, RerankRequest

    # FlashRank has no option for threads and `flashrank.Ranker` is its class, hence the module by its full name: there
    # its onnxruntime is replaced by one whose sessions get our number of threads.
    module: Any = sys.modules["flashrank.Ranker"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    module.ort = SimpleNamespace(InferenceSession=partial(onnxruntime.InferenceSession, sess_options=options))
    module.model_file_map[folder.name] = "onnx/model.onnx"
    # It takes the smaller of this length and the model's own; the others take the model's own.
    ranker = Ranker(model_name=folder.name, cache_dir=str(folder.parent), max_length=10**6, log_level="ERROR")

    def rank(query: str, documents: list[str]) -> list[tuple[int, float]]:
        passages = [{"id": place, "text": document} for place, document in enumerate(documents)]
        ranked = ranker.rerank(RerankRequest(query=query, passages=passages))
        return [(passage["id"], float(passage["score"])) for passage in ranked]

    return lambda groups: _in_input_order(groups, rank)


def _load_sentence_transformers(folder: Path, threads: int, backend: str) -> Scorer:
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    options: dict[str, Any] = {}
    if backend == "onnx":
        import onnxruntime

        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = threads
        options = {
            "file_name": "onnx/model.onnx",
            "provider": "CPUExecutionProvider",
            "session_options": session_options,
        }
    encoder = CrossEncoder(
        str(folder), device="cpu", max_length=512, backend=backend, model_kwargs=options, local_files_only=True
    )
    identity = torch.nn.Identity()

    def score(groups: Sequence[Group]) -> list[float]:
        scores = encoder.predict(_pairs(groups), activation_fn=identity, show_progress_bar=False)
        return [float(value) for value in scores]

    return score


def _load_sentence_transformers_openvino(folder: Path, threads: int) -> Scorer:
    # It exports the model each time unless it is saved, which it says one should.
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    saved = folder / "st-openvino"
    options = {"ov_config": {"INFERENCE_NUM_THREADS": threads}}
    if not saved.exists():
        CrossEncoder(str(folder), device="cpu", max_length=512, backend="openvino").save_pretrained(str(saved))
    encoder = CrossEncoder(
        str(saved), device="cpu", max_length=512, backend="openvino", model_kwargs=options, local_files_only=True
    )

    def score(groups: Sequence[Group]) -> list[float]:
        scores = encoder.predict(_pairs(groups), activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return [float(value) for value in scores]

    return score


def _load_infinity(folder: Path, threads: int) -> Scorer:
    import asyncio

    import torch
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    torch.set_num_threads(threads)
    settings = EngineArgs(model_name_or_path=str(folder), engine="torch", device="cpu", model_warmup=False)
    engine = AsyncEmbeddingEngine.from_args(settings)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.astart())

    def rank(query: str, documents: list[str]) -> list[tuple[int, float]]:
        ranked, _ = loop.run_until_complete(engine.rerank(query=query, docs=documents, raw_scores=True))
        return [(one.index, one.relevance_score) for one in ranked]

    return lambda groups: _in_input_order(groups, rank)


def _load_fastretrieval(folder: Path, threads: int) -> Scorer:
    from fastretrieval import TextCrossEncoder
    from fastretrieval.common.model_description import BaseModelDescription, ModelSource

    name = f"local/{folder.name}"
    TextCrossEncoder.add_custom_model(BaseModelDescription(model=name, sources=ModelSource(hf=name)))
    encoder = TextCrossEncoder(name, specific_model_path=str(folder), threads=threads, cuda=False)

    def score(groups: Sequence[Group]) -> list[float]:
        if len(groups) == 1:
            [(query, documents)] = groups
            return list(encoder.rerank(query, documents))
        return list(encoder.rerank_pairs(_pairs(groups)))

    return score


def _link(folder: Path, place: Path) -> None:
    """Lay a model out where a peer that knows models by name alone looks for that name's files."""
    place.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", SAFETENSORS):
        if not (place / name).exists():
            (place / name).symlink_to(folder / name)


def _load_kjarni(folder: Path, threads: int) -> Scorer:
    # It has no option for threads; its pool is rayon's, which reads RAYON_NUM_THREADS (see sample.environment).
    import kjarni

    cache = folder / "kjarni"
    _link(folder, cache / "cross-encoder_ms-marco-MiniLM-L-6-v2")
    reranker = kjarni.Reranker("minilm-l6-v2-cross-encoder", cache_dir=str(cache), quiet=True)

    return lambda groups: _in_input_order(groups, lambda query, texts: [x[:2] for x in reranker.rerank(query, texts)])


def _load_candding(folder: Path, threads: int) -> Scorer:
    home, revision = folder / "candding", "0" * 40
    # It knows models by name, and finds them in the hub's cache. Threads are rayon's, as of kjarni.
    model = "BAAI/bge-reranker-base" if "xlm" in (folder / "config.json").read_text() else MS_MARCO
    cached = home / "hub" / f"models--{model.replace('/', '--')}"
    _link(folder, cached / "snapshots" / revision)
    (cached / "refs").mkdir(exist_ok=True)
    (cached / "refs" / "main").write_text(revision, encoding="utf-8")
    os.environ["HF_HOME"] = str(home)
    import candding

    encoder = candding.TextCrossEncoder(model, device="cpu")
    return lambda groups: _in_input_order(groups, encoder.rerank)


def _load_rerankers(folder: Path, threads: int) -> Scorer:
    import torch
    from rerankers import Reranker

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    ranker = Reranker(str(folder), model_type="cross-encoder", lang="en", device="cpu", dtype="float32", verbose=0)
    if ranker is None:
        raise RuntimeError("rerankers could not open the model, and says why only in a print")

    def rank(query: str, documents: list[str]) -> list[tuple[int, float]]:
        return [(one.document.doc_id, float(one.score)) for one in ranker.rank(query, documents).results]

    return lambda groups: _in_input_order(groups, rank)


def _load_ours(folder: Path, threads: int, **options: Any) -> Scorer:
    from onnx_rerank_integrations import TextCrossEncoder

    if options.get("optimize") == "auto":
        _require_first_token_graph(folder)
    encoder = TextCrossEncoder(folder, threads=threads, **options)

    def score(groups: Sequence[Group]) -> list[float]:
        if len(groups) == 1:
            [(query, documents)] = groups
            return encoder.rerank(query, documents)
        return encoder.rerank_pairs(_pairs(groups))

    return score


def _require_first_token_graph(folder: Path) -> None:
    """The package falls back to the plain graph, as it should; a figure under this name must not."""
    from onnx_rerank_integrations.core.graphs.optimized import optimized_path

    if optimized_path(folder / "onnx" / "model.onnx") is None:
        raise RuntimeError("this model's graph has no first-token copy")


REFERENCE = "sentence-transformers"

PEERS = (
    fastembed(64),
    Contender("flashrank", "FlashRank", _load_flashrank, sigmoid=True),
    Contender(
        REFERENCE,
        "sentence-transformers, torch",
        partial(_load_sentence_transformers, backend="torch"),
        weights=SAFETENSORS,
    ),
    Contender(
        "sentence-transformers-onnx",
        "sentence-transformers, ONNX",
        partial(_load_sentence_transformers, backend="onnx"),
        environment="st-onnx",
    ),
    Contender(
        "sentence-transformers-openvino",
        "sentence-transformers, OpenVINO",
        _load_sentence_transformers_openvino,
        environment="st-openvino",
        exact=False,  # OpenVINO computes in bf16 where the CPU has it, unless it is told not to
        weights=SAFETENSORS,
    ),
    Contender("infinity", "infinity-emb, torch", _load_infinity, environment="infinity", weights=SAFETENSORS),
    Contender("fastretrieval", "fastretrieval", _load_fastretrieval),
    Contender("kjarni", "kjarni", _load_kjarni, weights=SAFETENSORS),
    Contender("candding", "candding", _load_candding, weights=SAFETENSORS),
    Contender("rerankers", "rerankers, torch", _load_rerankers, weights=SAFETENSORS),
)


def _ours_int8(way: str) -> Contender:
    graph = f"onnx/model_int8_{way}.onnx"
    load = partial(_load_ours, model_file=graph)
    return Contender(f"ours-int8-{way}", f"this package, int8 {way}", load, exact=False, weights=graph)


OURS = (
    Contender("ours", "this package, plain graph", partial(_load_ours, optimize="off")),
    Contender("ours-first-token", "this package, first-token graph", partial(_load_ours, optimize="auto")),
    _ours_int8("static"),
    _ours_int8("dynamic"),
    Contender(
        "ours-bf16",
        "this package, bf16 (OpenVINO)",
        partial(_load_ours, backend="openvino", precision="bf16"),
        exact=False,
    ),
)

CONTENDERS = {contender.name: contender for contender in PEERS + OURS}


def by_name(name: str) -> Contender:
    """The contender of a name; `fastembed@N` is FastEmbed at batch size N."""
    if name.startswith("fastembed@"):
        return fastembed(int(name.removeprefix("fastembed@")))
    return CONTENDERS[name]

"""The supported models as data: what is known of each without downloading it.

The registry is no gate. Any hub id and any folder with ONNX files works; a row only adds facts (licence, size,
languages) and a better place to fetch from. Unknown facts are None.

Sources of the rows: FastEmbed 0.9.1 ``rerank/cross_encoder/onnx_text_cross_encoder.py`` for its eight models (name,
source, file, description, licence, size as there); the models' cards, exporters' code and issue threads for the rest.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from onnx_rerank_integrations.core.checks import check_list
from onnx_rerank_integrations.core.engine.forks import Lock
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError
from onnx_rerank_integrations.core.types import ModelDescription

Made = TypeVar("Made")


class HubSource(Protocol):
    """FastEmbed's ``ModelSource``, of which the hub id is taken."""

    @property
    def hf(self) -> str | None: ...


DEFAULT_MODEL = "Xenova/ms-marco-MiniLM-L-6-v2"
EMBEDDED = "embedded"
LEXICAL = "lexical"

PACKAGED = {EMBEDDED: "embedded", LEXICAL: "lexical"}
"""Models inside this package: their names, and their folders below ``models/``."""

_DEFAULT_MODEL_VARIABLE = "ONNX_RERANK_MODEL"


def default_model() -> str:
    """The model to load where none is named: the environment variable ``ONNX_RERANK_MODEL``, else `DEFAULT_MODEL`."""
    return os.environ.get(_DEFAULT_MODEL_VARIABLE, "").strip() or DEFAULT_MODEL


def list_supported_models() -> list[dict[str, Any]]:
    """Every model of the registry with its facts, custom models last. The dicts are the caller's own."""
    with _lock:
        descriptions = list(_models.values())
    return [
        asdict(description)
        | {"sources": dict(description.sources), "additional_files": list(description.additional_files)}
        for description in descriptions
    ]


def find(model_name: str) -> ModelDescription | None:
    """The registry's row for a name in any case, None where there is none."""
    with _lock:
        return _models.get(model_name.lower())


def add_custom_model(
    model: str,
    sources: str | Mapping[str, str] | HubSource,
    model_file: str = "onnx/model.onnx",
    description: str = "",
    license: str = "",
    size_in_gb: float = 0.0,
    additional_files: Sequence[str] | None = None,
) -> None:
    """Adds a model to the registry of this process.

    Args:
        model: The name to ask for it by.
        sources: A hub id, ``{"hf": "org/name"}``, or FastEmbed's ``ModelSource(hf="org/name")``.
        model_file: The ONNX file's path inside the source.
        description: One sentence.
        license: SPDX identifier, empty where unknown.
        size_in_gb: In 10**9 bytes, 0 where unknown.
        additional_files: Further files the graph needs. External data that the graph names is found without.

    Raises:
        InputTypeError: `model` or `sources` is of another type.
        InputValueError: The name is empty, or taken (in any case) by another model, or `sources` names no hub id.
    """
    if not isinstance(model, str):
        raise InputTypeError(f"model must be a str, got {type(model).__name__}")
    if not model.strip():
        raise InputValueError("model must not be empty: give the name to ask for it by")
    if additional_files is not None:
        check_list("additional_files", additional_files, "paths")
    row = ModelDescription(
        model=model,
        sources={"hf": _hub_id(model, sources)},
        model_file=model_file,
        description=description,
        license=license or None,
        size_in_GB=size_in_gb or None,
        additional_files=tuple(additional_files or ()),
    )
    with _lock:
        if (taken := _models.get(model.lower())) == row:
            return
        if taken:
            raise InputValueError(
                f"The name {model!r} is taken by the supported model {taken.model!r}. "
                "Names are compared without case: add yours under another name."
            )
        _models[model.lower()] = row


def custom_row(model_name: str) -> ModelDescription | None:
    """The row of a model that was added in this process, None for any other name."""
    row = find(model_name)
    return None if row is None or row in _OWN_MODELS else row


def make_with(row: ModelDescription | None, make: Callable[[], Made]) -> Made:
    """What `make` gives, once the row of a custom model is in this process's registry: unpickles what uses its name.

    Raises:
        InputValueError: The name stands for another model here.
    """
    if row is not None:
        with _lock:
            taken = _models.setdefault(row.model.lower(), row)
        if taken != row:
            raise InputValueError(
                f"{row.model!r} means {row.sources.get('hf')!r} where it was pickled, and {taken.sources.get('hf')!r} "
                "in this process. Add one of them under another name."
            )
    return make()


def similar_names(name: str, limit: int = 3) -> list[str]:
    """Names of the registry that look like `name`, nearest first; for error messages.

    The organisation may be missing or wrong: the part after the slash is compared as well.
    """
    with _lock:
        names = [description.model for description in _models.values()]
    wanted = name.lower()
    nearness = {
        known: max(_ratio(wanted, known.lower()), _ratio(_tail(wanted), _tail(known.lower()))) for known in names
    }
    near = [known for known in names if nearness[known] >= 0.6]
    return sorted(near, key=lambda known: -nearness[known])[:limit]


def _ratio(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, left, right).ratio()


def _tail(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _hub_id(model: str, sources: str | Mapping[str, str] | HubSource) -> str:
    if not isinstance(sources, str | Mapping) and not hasattr(sources, "hf"):
        raise InputTypeError(f'sources must be a hub id or {{"hf": "org/name"}}, got {type(sources).__name__}')
    hub_id = sources if isinstance(sources, str) else sources.get("hf") if isinstance(sources, Mapping) else sources.hf
    if not isinstance(hub_id, str) or not hub_id:
        raise InputValueError(f'sources of {model!r} must be a hub id or {{"hf": "org/name"}}, got {sources!r}')
    return hub_id


def _row(model: str, source: str | None = None, **facts: Any) -> ModelDescription:
    return ModelDescription(model=model, sources={"hf": source or model}, **facts)


_APACHE: dict[str, Any] = {"license": "apache-2.0"}
_ENGLISH_512: dict[str, Any] = {**_APACHE, "languages": "en", "max_length": 512}
_MS_MARCO: dict[str, Any] = {**_ENGLISH_512, "activation": "identity"}
_SIGMOID_512: dict[str, Any] = {**_ENGLISH_512, "activation": "sigmoid"}
_BGE_M3: dict[str, Any] = {"languages": "multilingual", "max_length": 8192, "activation": "sigmoid"}
_BGE: dict[str, Any] = {"license": "mit", "languages": "en, zh", "max_length": 512, "activation": "sigmoid"}


_FASTEMBED_MODELS = (
    _row(
        "Xenova/ms-marco-MiniLM-L-6-v2",
        description="MiniLM-L-6-v2 model optimized for re-ranking tasks.",
        size_in_GB=0.08,
        **_MS_MARCO,
    ),
    _row(
        "Xenova/ms-marco-MiniLM-L-12-v2",
        description="MiniLM-L-12-v2 model optimized for re-ranking tasks.",
        size_in_GB=0.12,
        **_MS_MARCO,
    ),
    _row(
        "BAAI/bge-reranker-base",
        description="BGE reranker base model for cross-encoder re-ranking.",
        size_in_GB=1.04,
        **_BGE,
    ),
    _row(
        "BAAI/bge-reranker-v2-m3",
        source="onnx-community/bge-reranker-v2-m3-ONNX",
        description="Multilingual BGE reranker based on BGE-M3.",
        license="apache-2.0",
        size_in_GB=2.27,
        additional_files=("onnx/model.onnx_data",),
        **_BGE_M3,
    ),
    _row(
        "BAAI/bge-reranker-v2-m3-int8",
        source="onnx-community/bge-reranker-v2-m3-ONNX",
        model_file="onnx/model_int8.onnx",
        description="Multilingual BGE reranker based on BGE-M3 (INT8 ONNX).",
        license="apache-2.0",
        size_in_GB=0.57,
        **_BGE_M3,
    ),
    _row(
        "jinaai/jina-reranker-v1-tiny-en",
        description=(
            "Designed for blazing-fast re-ranking with 8K context length and fewer parameters than "
            "jina-reranker-v1-turbo-en."
        ),
        size_in_GB=0.13,
        languages="en",
        max_length=8192,
        **_APACHE,
    ),
    _row(
        "jinaai/jina-reranker-v1-turbo-en",
        description="Designed for blazing-fast re-ranking with 8K context length.",
        size_in_GB=0.15,
        languages="en",
        max_length=8192,
        **_APACHE,
    ),
    _row(
        "jinaai/jina-reranker-v2-base-multilingual",
        description="A multi-lingual reranker model for cross-encoder re-ranking with 1K context length",
        license="cc-by-nc-4.0",
        size_in_GB=1.11,
        languages="multilingual",
        max_length=1024,
        activation="sigmoid",
    ),
)

_LEXICAL_MODEL = ModelDescription(
    model=LEXICAL,
    sources={},
    model_file="model.onnx",
    description="Compares words alone, some 10,000 pairs a second; inside the package, offline at once.",
    license="apache-2.0",
    size_in_GB=0.0002,
    languages="en",
    max_length=1024,
    activation="sigmoid",
)

_EMBEDDED_MODEL = ModelDescription(
    model=EMBEDDED,
    sources={},
    model_file="model.onnx",
    description="all-MiniLM-L6-v2 with late interaction and words, int8; inside the package, offline at once.",
    license="apache-2.0",
    size_in_GB=0.024,
    languages="en",
    max_length=512,
    activation="sigmoid",
)

_MORE_MODELS = (
    _row("Xenova/ms-marco-MiniLM-L-4-v2", description="MS MARCO passage reranker, 4 layers.", **_MS_MARCO),
    _row("Xenova/ms-marco-TinyBERT-L-2-v2", description="MS MARCO passage reranker, 2 layers of 128.", **_MS_MARCO),
    _row("cross-encoder/ms-marco-TinyBERT-L2", description="MS MARCO passage reranker, 2 layers of 128.", **_MS_MARCO),
    _row(
        "cross-encoder/ms-marco-TinyBERT-L2-v2",
        description="MS MARCO passage reranker, 2 layers of 128, second version.",
        size_in_GB=0.0176,
        **_MS_MARCO,
    ),
    _row(
        "cross-encoder/ms-marco-TinyBERT-L4", description="MS MARCO passage reranker, TinyBERT, 4 layers.", **_MS_MARCO
    ),
    _row(
        "cross-encoder/ms-marco-TinyBERT-L6", description="MS MARCO passage reranker, TinyBERT, 6 layers.", **_MS_MARCO
    ),
    _row(
        "cross-encoder/ms-marco-MiniLM-L2-v2",
        description="MS MARCO passage reranker, 2 layers of 384.",
        size_in_GB=0.0625,
        **_MS_MARCO,
    ),
    _row(
        "cross-encoder/ms-marco-MiniLM-L4-v2",
        description="MS MARCO passage reranker, 4 layers of 384.",
        size_in_GB=0.0768,
        **_MS_MARCO,
    ),
    _row(
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        description="MS MARCO passage reranker, 6 layers of 384.",
        size_in_GB=0.091,
        **_MS_MARCO,
    ),
    _row(
        "cross-encoder/ms-marco-MiniLM-L12-v2",
        description="MS MARCO passage reranker, 12 layers of 384.",
        size_in_GB=0.134,
        **_MS_MARCO,
    ),
    _row("cross-encoder/ms-marco-electra-base", description="MS MARCO passage reranker on ELECTRA base.", **_MS_MARCO),
    _row(
        "cross-encoder/mmarco-mMiniLMv2-L12-H384-v1",
        description="Multilingual MS MARCO passage reranker, 12 layers of 384.",
        languages="multilingual",
        max_length=512,
        **_APACHE,
    ),
    _row(
        "cross-encoder/stsb-TinyBERT-L4", description="Semantic similarity of two sentences, TinyBERT.", **_SIGMOID_512
    ),
    _row(
        "cross-encoder/stsb-distilroberta-base",
        description="Semantic similarity of two sentences, DistilRoBERTa.",
        size_in_GB=0.329,
        **_SIGMOID_512,
    ),
    _row(
        "cross-encoder/stsb-roberta-base",
        description="Semantic similarity of two sentences, RoBERTa base.",
        size_in_GB=0.499,
        **_SIGMOID_512,
    ),
    _row("cross-encoder/stsb-roberta-large", description="Semantic similarity, RoBERTa large.", **_SIGMOID_512),
    _row("cross-encoder/quora-distilroberta-base", description="Duplicate questions, DistilRoBERTa.", **_SIGMOID_512),
    _row("cross-encoder/quora-roberta-base", description="Duplicate questions, RoBERTa base.", **_SIGMOID_512),
    _row("cross-encoder/quora-roberta-large", description="Duplicate questions, RoBERTa large.", **_SIGMOID_512),
    _row(
        "cross-encoder/qnli-distilroberta-base",
        description="Does the passage answer the question? DistilRoBERTa.",
        **_SIGMOID_512,
    ),
    _row(
        "cross-encoder/qnli-electra-base",
        description="Does the passage answer the question? ELECTRA base.",
        size_in_GB=0.438,
        **_SIGMOID_512,
    ),
    *(
        _row(
            f"cross-encoder/nli-{name}",
            description="Contradiction, entailment, neutral: three labels, scored with label=.",
            size_in_GB=size,
            **_ENGLISH_512,
        )
        for name, size in (
            ("deberta-v3-xsmall", None),
            ("deberta-v3-small", 0.568),
            ("deberta-v3-base", 0.739),
            ("deberta-v3-large", 1.74),
            ("deberta-base", 0.557),
            ("roberta-base", None),
            ("distilroberta-base", None),
            ("MiniLM2-L6-H768", None),
        )
    ),
    _row("Xenova/bge-reranker-base", description="BGE reranker base with half precision and int8 files.", **_BGE),
    _row(
        "BAAI/bge-reranker-large",
        source="Xenova/bge-reranker-large",
        description="BGE reranker large for English and Chinese.",
        **_BGE,
    ),
    _row("Xenova/bge-reranker-large", description="BGE reranker large for English and Chinese.", **_BGE),
    _row(
        "onnx-community/bge-reranker-v2-m3-ONNX",
        description="Multilingual BGE reranker based on BGE-M3, with int8 files.",
        license="apache-2.0",
        size_in_GB=2.27,
        additional_files=("onnx/model.onnx_data",),
        **_BGE_M3,
    ),
    _row(
        "rozgo/bge-reranker-v2-m3",
        model_file="model.onnx",
        description="Multilingual BGE reranker based on BGE-M3, another export.",
        additional_files=("model.onnx.data",),
        **_BGE_M3,
    ),
    _row(
        "EmbeddedLLM/bge-reranker-v2-m3-onnx-o3-cpu",
        model_file="model.onnx",
        description="Multilingual BGE reranker based on BGE-M3, optimised for CPUs (O3).",
        **_BGE_M3,
    ),
    _row(
        "viplao5/bge-reranker-v2-m3-onnx",
        model_file="model.onnx",
        description="Multilingual BGE reranker based on BGE-M3, another export.",
        **_BGE_M3,
    ),
    _row(
        "mixedbread-ai/mxbai-rerank-xsmall-v1",
        description="English reranker on DeBERTa-v3 xsmall.",
        size_in_GB=0.284,
        **_SIGMOID_512,
    ),
    _row(
        "mixedbread-ai/mxbai-rerank-base-v1",
        description="English reranker on DeBERTa-v3 base.",
        size_in_GB=0.739,
        **_SIGMOID_512,
    ),
    _row(
        "mixedbread-ai/mxbai-rerank-large-v1",
        description="English reranker on DeBERTa-v3 large.",
        size_in_GB=1.74,
        **_SIGMOID_512,
    ),
    _row(
        "Alibaba-NLP/gte-reranker-modernbert-base",
        description="English reranker on ModernBERT base, long documents.",
        size_in_GB=0.599,
        languages="en",
        max_length=8192,
        activation="sigmoid",
        **_APACHE,
    ),
    _row(
        "onnx-community/gte-multilingual-reranker-base",
        description="Multilingual GTE reranker, long documents.",
        size_in_GB=1.26,
        languages="multilingual",
        max_length=8192,
        activation="sigmoid",
        **_APACHE,
    ),
    _row(
        "netease-youdao/Rerank",
        model_file="rerank.onnx",
        description="BCE reranker base.",
        size_in_GB=0.556,
        max_length=512,
        activation="sigmoid",
        **_APACHE,
    ),
    _row(
        "cross-encoder-testing/reranker-bert-tiny-gooaq-bce",
        description="A tiny reranker for tests, not for use.",
        size_in_GB=0.0175,
        languages="en",
        max_length=512,
    ),
    _row(
        "onnx-community/Qwen3-Reranker-0.6B-ONNX",
        model_file="onnx/model_quantized.onnx",
        description="Multilingual language model that answers yes or no, int8.",
        languages="multilingual",
        max_length=8192,
        kind="causal",
        **_APACHE,
    ),
)

_lock = Lock()
_OWN_MODELS = (*_FASTEMBED_MODELS, _EMBEDDED_MODEL, _LEXICAL_MODEL, *_MORE_MODELS)
_models: dict[str, ModelDescription] = {description.model.lower(): description for description in _OWN_MODELS}

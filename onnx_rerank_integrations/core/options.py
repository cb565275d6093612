"""Every option of an encoder, once: its type, default, words, check and description.

The keywords of `TextCrossEncoder` and their docstring, the doors' fields, the command line's flags, equality, pickles,
the score cache's key and the reference in the docs are made of what stands here. A new option is a field of this file,
the place that uses it, and a test.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from onnx_rerank_integrations.core.checks import (
    check_choice,
    check_flag,
    check_instruction,
    check_label,
    check_max_length,
    check_model_name,
    check_path,
    check_prompt,
    check_providers_option,
    check_threads,
)
from onnx_rerank_integrations.core.scoring import Activation

Truncation = Literal["longest_first", "only_second"]
SpecialTokensInText = Literal["special", "text"]
LongDocuments = Literal["truncate", "max", "mean", "first"]
IdleThreads = Literal["sleep", "spin"]
Batching = Literal["auto", "sorted"]
Optimize = Literal["auto", "off"]
Backend = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "tf32", "fp16", "bf16"]

Provider = str | tuple[str, dict[str, Any]]
"""An execution provider's name, alone or with its options, as onnxruntime takes it."""

Arguments = ParamSpec("Arguments")
Part = TypeVar("Part")
Value = TypeVar("Value")


def option(
    default: Any,
    description: str,
    *,
    example: Any,
    check: Callable[[Any], None] | None = None,
    deprecated: str | None = None,
) -> Any:
    """A field of an options class.

    Args:
        default: Its value where the user says nothing.
        description: What it does, its unit and what None means, for every place that shows options.
        example: A value somebody might give.
        check: Raises one of our errors for a value that can't be used. The words of a ``Literal`` need none.
        deprecated: What to do instead, for an option that will go.
    """
    return field(
        default=default,
        metadata={"description": description, "example": example, "check": check, "deprecated": deprecated},
    )


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model's files come from."""

    model_name: str | Path | None = field(
        default=None,
        kw_only=False,
        metadata={
            "description": 'A supported model\'s name, any hub id with ONNX files, or a folder; ``"embedded"`` and '
            '``"lexical"`` are inside the package. None for the environment variable ``ONNX_RERANK_MODEL``, else '
            "``Xenova/ms-marco-MiniLM-L-6-v2``.",
            "example": "BAAI/bge-reranker-base",
            "check": check_model_name,
        },
    )
    cache_dir: str | Path | None = option(
        None,
        "Where hub files are kept; None for huggingface_hub's own cache.",
        example="/srv/models",
        check=check_path("cache_dir"),
    )
    revision: str | None = option(None, "The hub's branch, tag or commit; None for ``main``.", example="main")
    local_files_only: bool = option(False, "Never ask the network.", example=True)
    specific_model_path: str | Path | None = option(
        None,
        "A folder to take the model's files from, instead of the hub.",
        deprecated="give the folder itself as the model",
        example="./my-model",
    )
    model_file: str | None = option(
        None,
        '``"auto"`` (or None), ``"fp32"``, ``"int8"`` (the variant that fits this CPU), a short name of '
        'transformers.js or optimum (``"fp16"``, ``"q8"``, ``"q4"``, ``"O3"``, ...), or a path in the repository.',
        example="int8",
    )
    expected_sha256: str | None = option(
        None,
        "The checksum of what is computed with, in hexadecimal; None for no check.",
        example="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    )


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How texts become tokens, and logits one score."""

    max_length: int | None = option(
        None,
        "Tokens of the longest pair, special tokens included; None for what the model was made for.",
        check=check_max_length,
        example=512,
    )
    truncation: Truncation = option(
        "longest_first",
        'How a longer pair is cut: ``"longest_first"`` takes tokens from the longer text, as sentence-transformers and '
        'FastEmbed do; ``"only_second"`` from the document, after a query that fills more than half of the room is cut '
        "to half.",
        example="only_second",
    )
    special_tokens_in_text: SpecialTokensInText = option(
        "special",
        '``"special"`` reads ``[SEP]`` and the like in a text as control tokens, as the reference implementations do; '
        '``"text"`` as plain characters, so that a document can\'t forge structure.',
        example="text",
    )
    long_documents: LongDocuments = option(
        "truncate",
        '``"truncate"``, or the ``"max"``, ``"mean"`` or ``"first"`` of the logits of overlapping windows over the '
        "document's tokens.",
        example="max",
    )
    instruction: str | None = option(
        None,
        "For rerankers that are language models (Qwen3-Reranker, mxbai-rerank-v2), what they are told to look for; "
        "None for the family's usual instruction.",
        check=check_instruction,
        example="Find the paragraph of a contract that answers the question",
    )
    prompt: str | None = option(
        None,
        "For rerankers that are language models, how they are asked: a template with ``{query}`` and ``{document}`` "
        '(and ``{instruction}``), the name of a known family (``"qwen3"``, ``"mxbai-v2"``, ``"nemotron"``), or '
        '``"none"`` for a plain pair; None for what the model\'s files say.',
        check=check_prompt,
        example="question: {query} passage: {document}",
    )
    label: int | str | None = option(
        None,
        "For models of several labels, the one to rank by, as its name or its place; None for the one that their names "
        "tell.",
        check=check_label,
        example="entailment",
    )
    warn_truncated: bool = option(
        True,
        "Log a warning when documents don't fit and are cut, once per encoder, with how many and what to do.",
        check=check_flag("warn_truncated"),
        example=False,
    )


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What computes, and how."""

    threads: int | None = option(
        None,
        "Threads that compute at once; None for all CPUs this process may use. Each runs batches of its own; a call "
        "with fewer documents than half of the threads has each batch computed by all of them.",
        check=check_threads,
        example=4,
    )
    providers: Sequence[Provider] | None = option(
        None,
        "onnxruntime's execution providers in order of preference; None for the CPU. One that isn't there or doesn't "
        "start is an error.",
        check=check_providers_option,
        example=["CUDAExecutionProvider"],
    )
    idle_threads: IdleThreads = option(
        "sleep",
        '``"sleep"`` between operators, or ``"spin"``.',
        deprecated="leave it out: threads sleep between operators, and spinning gained nothing where cores are shared",
        example="sleep",
    )
    batching: Batching = option(
        "auto",
        '``"auto"`` runs graphs whose scores would move with their batch mates pair by pair, ``"sorted"`` doesn\'t.',
        deprecated="leave it out, and prefer a static int8 model (onnx-rerank quantize), which needs no such choice",
        example="auto",
    )
    optimize: Optimize = option(
        "auto",
        '``"auto"`` runs a copy of the graph whose last layer computes only the token that the score is read from, '
        "where the extra ``[optimize]`` is installed and the graph allows it. The copy is made once, its scores are "
        "compared with the original's, and it is kept beside the hub's cache. ``\"off\"`` runs the graph as it is.",
        example="off",
    )
    backend: Backend = option(
        "onnxruntime",
        '``"onnxruntime"``, or ``"openvino"`` (the extra ``[openvino]``), which runs the graph.',
        example="openvino",
    )
    precision: Precision = option(
        "fp32",
        'What is computed in, on every device: ``"fp32"``; ``"tf32"`` on NVIDIA\'s tensor cores; ``"fp16"``, by a copy '
        "of the graph that is converted once (the extra ``[optimize]``), for GPUs: on a CPU it is slower than fp32; "
        '``"bf16"`` with OpenVINO, faster on CPUs that have it. Scores move by 1e-2 to 1e-1.',
        example="bf16",
    )


@dataclass(frozen=True, kw_only=True)
class Options(Engine, Reading, Source):  # a signature names the last one's first
    """All options of a `TextCrossEncoder`: it may be passed wherever one of its three parts is asked for.

    It inherits from its parts, so that type checkers and readers of a signature see each option as a keyword.

    Raises:
        InputTypeError, InputValueError: A value that can't be used.
    """

    activation: Activation = option(
        "identity",
        '``"identity"`` for raw logits, ``"sigmoid"`` for 0..1, ``"model"`` for what the model\'s config asks for, as '
        "sentence-transformers would.",
        example="sigmoid",
    )
    score_cache: int | str | Path | None = option(
        None,
        "Remembers the scores of pairs: so many in memory (an int), or in an SQLite file (a path), which processes may "
        "share. The key holds all that decides a score. None for no cache.",
        example=100_000,
    )
    lazy_load: bool = option(False, "Find and open the model when it is first used, not now.", example=True)

    def __post_init__(self) -> None:
        for one in fields(self):
            value = check_option(one.name, getattr(self, one.name))
            if (instead := one.metadata.get("deprecated")) and value != one.default:
                warnings.warn(f"{one.name} is deprecated: {instead}", DeprecationWarning, stacklevel=_callers_level())


def check_option(name: str, value: Value) -> Value:
    """The value, if the option can take it.

    Raises:
        InputTypeError, InputValueError: It can't.
    """
    kind = option_types()[name]
    if get_origin(kind) is Literal:
        check_choice(name, value, kind)
    elif check := _checks()[name]:
        check(value)
    return value


def values(options: object, part: type = Options, *, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """The options of one part by name."""
    return {name: getattr(options, name) for name in defaults(part) if name not in leave_out}


def changed(options: object, part: type = Options, *, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Those that differ from their defaults."""
    usual = defaults(part)
    return {name: value for name, value in values(options, part, leave_out=leave_out).items() if value != usual[name]}


def _callers_level() -> int:
    """How many frames up, from whoever asks, the first one outside of this package and of pydantic is."""
    inside = (__name__.partition(".")[0], "pydantic")
    frame, level = sys._getframe(2), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in inside:
        frame, level = frame.f_back, level + 1
    return level


@cache
def defaults(part: type = Options) -> Mapping[str, Any]:
    return {one.name: one.default for one in fields(part)}


@cache
def _checks() -> Mapping[str, Callable[[Any], None] | None]:
    return {one.name: one.metadata["check"] for one in fields(Options)}


@cache
def descriptions(part: type = Options) -> Mapping[str, str]:
    """What each option does, in reStructuredText's inline marks."""
    return {one.name: one.metadata["description"] for one in fields(part)}


@cache
def examples(part: type = Options) -> Mapping[str, Any]:
    """A value somebody might give, of each option."""
    return {one.name: one.metadata["example"] for one in fields(part)}


@cache
def deprecated() -> frozenset[str]:
    """The options that will go."""
    return frozenset(one.name for one in fields(Options) if one.metadata.get("deprecated"))


@cache
def option_types(part: type = Options) -> Mapping[str, Any]:
    return get_type_hints(part)


def words(name: str) -> tuple[str, ...]:
    """The values of an option that takes a few words, empty for any other."""
    kind = option_types()[name]
    return get_args(kind) if get_origin(kind) is Literal else ()


def takes(
    options: Callable[Arguments, Any],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, Arguments], None]]:
    """Gives an ``__init__`` the keywords of an options class, for readers, type checkers and `inspect`."""

    def with_keywords(init: Callable[..., None]) -> Callable[Concatenate[Any, Arguments], None]:
        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        signature = inspect.signature(options)
        init.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect reads it
            parameters=[itself, *signature.parameters.values()]
        )
        return init

    return with_keywords


def documented(kind: type[Part]) -> type[Part]:
    """Puts the options into a class's docstring, where it says ``{options}``."""
    kind.__doc__ = (kind.__doc__ or "").replace("        {options}", listed(descriptions()))
    return kind


def listed(texts: Mapping[str, str]) -> str:
    """Options and what they do, as a docstring of a class lists them."""
    return "\n".join(
        textwrap.fill(
            f"{name}: {text}", 116, initial_indent=" " * 8, subsequent_indent=" " * 12, break_on_hyphens=False
        )
        for name, text in texts.items()
    )


PEERS_NAMES = {
    "model_name": "model",
    "model_name_or_path": "model",
    "model_id": "model",
    "model_path": "model",
    "model_dir": "model",
    "path": "model",
    "base_url": 'model, as in model="http://host:port"',
    "endpoint": 'model, as in model="http://host:port"',
    "url": 'model, as in model="http://host:port"',
    "top_k": "top_n",
    "rerank_top_k": "top_n",
    "k": "top_n",
    "n": "top_n",
    "limit": "top_n",
    "num_results": "top_n",
    "threshold": "score_threshold",
    "min_score": "score_threshold",
    "similarity_cutoff": "score_threshold",
    "cutoff": "score_threshold",
    "score_cutoff": "score_threshold",
    "min_relevance": "score_threshold",
    "relevance_threshold": "score_threshold",
    "device": 'providers, as in providers=["CUDAExecutionProvider"]',
    "devices": 'providers, as in providers=[("CUDAExecutionProvider", {"device_id": 1})]',
    "device_ids": 'providers, as in providers=[("CUDAExecutionProvider", {"device_id": 1})]',
    "device_id": 'providers, as in providers=[("CUDAExecutionProvider", {"device_id": 1})]',
    "cuda": 'providers, as in providers=["CUDAExecutionProvider"]',
    "gpu": 'providers, as in providers=["CUDAExecutionProvider"]',
    "use_gpu": 'providers, as in providers=["CUDAExecutionProvider"]',
    "use_cuda": 'providers, as in providers=["CUDAExecutionProvider"]',
    "use_fp16": "precision, or model_file for the path of a repository's fp16 file",
    "use_bf16": 'precision, as in precision="bf16" with backend="openvino"',
    "dtype": "precision, or model_file for one of a repository's files",
    "torch_dtype": "precision, or model_file for one of a repository's files",
    "quantize": 'model_file, as in model_file="int8"',
    "quantized": 'model_file, as in model_file="int8"',
    "subfolder": "model_file, the path in the repository",
    "file_name": "model_file",
    "max_seq_length": "max_length",
    "max_tokens": "max_length",
    "max_tokens_per_doc": "max_length",
    "cache_folder": "cache_dir",
    "models_dir": "cache_dir",
    "offline": "local_files_only",
    "num_threads": "threads",
    "n_threads": "threads",
    "intra_op_num_threads": "threads",
    "normalize": 'activation, as in activation="sigmoid"',
    "normalize_scores": 'activation, as in activation="sigmoid"',
    "apply_softmax": 'activation, as in activation="sigmoid"',
    "apply_sigmoid": 'activation, as in activation="sigmoid"',
    "sigmoid": 'activation, as in activation="sigmoid"',
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
    "token": "leave it out, and log in with `hf auth login` or set HF_TOKEN",
    "hf_token": "leave it out, and log in with `hf auth login` or set HF_TOKEN",
    "show_progress": "leave it out, and give it to rerank() of a TextCrossEncoder",
    "show_progress_bar": "leave it out, and give show_progress to rerank() of a TextCrossEncoder",
    "verbose": "leave it out, logging is yours",
    "log_level": "leave it out, logging is yours",
    "similarity_top_k": "leave it out, and give it to the retriever or engine before it",
    "llm": "leave it out, no language model is asked",
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

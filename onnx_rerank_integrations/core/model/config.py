"""What a model's configs say, read once: its kind.

Each value is looked at before it's used: JSON that people write holds a str for a list, null for a number, and more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onnx_rerank_integrations.core.errors import InputValueError, InvalidModelError, UnsupportedModelError
from onnx_rerank_integrations.core.scoring import is_vector_name, label_count
from onnx_rerank_integrations.core.types import ModelFiles

Json = Mapping[str, Any]

FALLBACK_MAX_LENGTH = 512
LARGEST_DEFAULT_LENGTH = 8192
"""Some language models state 131,072 tokens; one such row would take all memory before the user asked for it."""

LARGEST_BELIEVABLE_LENGTH = 10**6
"""transformers writes model_max_length = 1e30 for 'not known'."""

LEXICAL_TOKEN_BUDGET = 4096
"""The lexical model computes next to nothing per token, so what counts is the cost of a run: one thread and large
batches are quickest (benchmarks/README.md)."""

FEWEST_DIMENSIONS = 32
"""A vector per text has as many numbers, and hardly a classifier as many labels."""

POSITIONS_AFTER_PADDING = frozenset(
    (
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xlm-roberta-flash",
        "xmod",
        "camembert",
        "mpnet",
        "longformer",
        "data2vec-text",
        "ibert",
        "luke",
        "mluke",
        "lilt",
        "layoutlmv3",
        "markuplm",
        "bridgetower",
    )
)
"""Model types that number positions from pad_token_id + 1, and so lose that many of max_position_embeddings."""

POSITIONS_WITHOUT_END = frozenset(
    (
        "modernbert",
        "modernbert-decoder",
        "gte",
        "new",
        "nomic_bert",
        "jina_embeddings_v3",
        "eurobert",
        "neobert",
        "t5",
        "mt5",
        "umt5",
        "xlnet",
        "llama",
        "llama_bidirec",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "phi",
        "phi3",
        "gpt_neox",
        "olmo",
        "olmo2",
        "cohere",
        "bloom",
        "mpt",
    )
)
"""Model types with rotary, relative or ALiBi positions: a number that they state is what they were trained on."""

DECODERS = frozenset(
    (
        "llama",
        "llama_bidirec",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "phi",
        "phi3",
        "gpt2",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "opt",
        "olmo",
        "olmo2",
        "cohere",
        "bloom",
        "mpt",
        "falcon",
        "starcoder2",
        "stablelm",
        "granite",
        "smollm3",
        "modernbert-decoder",
    )
)
"""Model types whose classifier reads the last token that isn't padding."""


@dataclass(frozen=True, kw_only=True)
class PromptFamily:
    """How a family whose prompt is known is recognised.

    Attributes:
        name: As in `tokens.prompts.FAMILIES`.
        names: What the model's own name, or that of its repository, holds.
        types: The config's model_type, which a name alone doesn't outweigh.
        own_types: Types of no other model: they are the family's name, too.
        words: What the family's chat template holds and no other does.
    """

    name: str
    names: re.Pattern[str]
    types: frozenset[str]
    own_types: frozenset[str] = frozenset()
    words: str | None = None


PROMPT_FAMILIES = (
    PromptFamily(
        name="qwen3",
        names=re.compile(r"qwen3[-_.]?(vl[-_.]?)?(reranker|seq[-_]?cls)", re.IGNORECASE),
        types=frozenset({"qwen3"}),
        words="Judge whether the Document meets the requirements",
    ),
    PromptFamily(
        name="mxbai-v2",
        names=re.compile(r"mxbai[-_]?rerank([-_](base|large))?[-_]v2", re.IGNORECASE),
        types=frozenset({"qwen2"}),
        words="You are a search relevance expert",
    ),
    PromptFamily(
        name="nemotron",
        names=re.compile(r"nemotron[-_]rerank|nv[-_]rerankqa", re.IGNORECASE),
        types=frozenset({"llama", "llama_bidirec", "mistral"}),
        own_types=frozenset({"llama_bidirec"}),
    ),
)

NOT_POINTWISE = (
    (re.compile(r"jina[-_]reranker[-_]v3|JinaForRanking"), "ranks a whole list of documents in one run"),
    (re.compile(r"rank[-_]?(zephyr|vicuna|gpt|mistral)|lit5|listt5|castorini/first", re.IGNORECASE), "writes an order"),
    (re.compile(r"duo[-_]?(t5|bert)", re.IGNORECASE), "compares two documents with each other"),
    (re.compile(r"HF_ColBERT|colbert|ColPali|ColQwen", re.IGNORECASE), "gives a vector per token (late interaction)"),
)
"""Rerankers that don't score a query and a document by themselves, by name or architecture."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a model is, as its configs say.

    Attributes:
        model_type: The config's; empty where it has none.
        causal: It predicts the next token, and two tokens' logits are the score.
        decoder: Its head reads the last token that isn't padding.
        lexical: It compares tokens, and has no layers to speak of.
        final: Its graph was written by training/, and leaves nothing to optimize.
        threads: That suit it where the user names none; None for all.
        token_budget: Padded tokens of a batch that suit it; None for what suits the session.
        max_length: Tokens of the longest pair where the user asks for no other.
        positions: Tokens that its position embeddings reach for; None where nothing ends.
        first_position: The position of a row's first token; None where the configs don't tell.
        pad_token_id: The config's.
        prompt: The family whose prompt it was trained with, as far as its names or its chat template tell.
        chat_template: The tokenizer's, empty where it has none, and where the family is known by it.
        instruction: What sentence-transformers would put into the chat template, or before each query without one.
        chat_options: What else it would.
    """

    model_type: str
    causal: bool
    decoder: bool
    lexical: bool
    final: bool
    threads: int | None
    token_budget: int | None
    max_length: int
    positions: int | None
    first_position: int | None
    pad_token_id: int | None
    prompt: str | None
    chat_template: str
    instruction: str | None
    chat_options: Mapping[str, Any]


def read_kind(files: ModelFiles) -> Kind:
    """Reads the configs of a model.

    Raises:
        InvalidModelError: A value is of another type than its name asks for.
        UnsupportedModelError: The model doesn't score a query and a document by themselves.
    """
    config = files.config
    check_types(config, _CONFIG_TYPES)
    check_types(files.tokenizer_config, _TOKENIZER_TYPES)
    model_type = text(config, "model_type") or ""
    architectures = texts(config, "architectures")
    names = names_of(files)
    refuse_other_rankers([*names, *architectures])
    causal = any(name.endswith("ForCausalLM") for name in architectures)
    causal = causal or (files.description is not None and files.description.kind == "causal")
    chat_template = default_chat_template(files.tokenizer_config.get("chat_template"))
    pad_token_id = whole_number(config, "pad_token_id")
    pad_token_id = pad_token_id if pad_token_id is not None and pad_token_id >= 0 else None
    settings = files.sentence_transformers
    family = next((family.name for family in PROMPT_FAMILIES if family.words and family.words in chat_template), None)
    return Kind(
        model_type=model_type,
        causal=causal,
        decoder=causal or model_type in DECODERS or is_decoder_name(architectures),
        lexical=is_lexical(config),
        final=is_lexical(config) or model_type == "bert-pair-of-encoders",
        threads=1 if is_lexical(config) else None,
        token_budget=LEXICAL_TOKEN_BUDGET if is_lexical(config) else None,
        max_length=default_length(files),
        positions=usable_positions(config),
        first_position=first_position(config) if model_type else None,
        pad_token_id=pad_token_id,
        prompt=family or prompt_family(names, model_type),
        chat_template="" if family else chat_template,
        instruction=default_prompt(settings),
        chat_options=chat_options(settings),
    )


def chosen_max_length(asked: int | None, kind: Kind, name: str, fixed_length: int | None) -> int:
    """The user's `max_length` if the model has that many positions, else the model's own.

    Raises:
        InputValueError: The user asks for more than there are.
    """
    limits = [limit for limit in (kind.positions, fixed_length) if limit]
    if asked is None:
        return min([kind.max_length, *limits])
    if limits and asked > min(limits):
        raise InputValueError(f"max_length={asked} is more than the {min(limits)} positions that {name} has")
    return asked


def default_length(files: ModelFiles) -> int:
    """What the registry says, so that it is what its list says; else the smallest number that the files state."""
    if files.description is not None and files.description.max_length:
        return files.description.max_length
    stated = stated_length(files.config, files.tokenizer_config, files.sentence_transformers)
    return FALLBACK_MAX_LENGTH if stated is None else min(stated, LARGEST_DEFAULT_LENGTH)


def stated_length(config: Json, tokenizer_config: Json, sentence_transformers: Json | None = None) -> int | None:
    """The smallest number of tokens that a model's files state, as sentence-transformers takes it; None for none.

    Where nothing ends, the number of positions is still what the model was trained on.
    """
    positions = usable_positions(config)
    numbers = [
        whole_number(tokenizer_config, "model_max_length"),
        whole_number(sentence_transformers or {}, "max_seq_length"),
        whole_number(config, "max_position_embeddings") if positions is None else positions,
    ]
    believable = [number for number in numbers if number is not None and 0 < number < LARGEST_BELIEVABLE_LENGTH]
    return min(believable, default=None)


def usable_positions(config: Mapping[str, Any]) -> int | None:
    """Tokens the position embeddings reach for; None where the config doesn't say, or where nothing ends."""
    positions = whole_number(config, "max_position_embeddings")
    if positions is None and config.get("model_type") == "gpt2":
        positions = whole_number(config, "n_positions")
    if positions is None or positions < 1 or reaches_on(config):
        return None
    return positions - (first_position(config) if config.get("model_type") in POSITIONS_AFTER_PADDING else 0)


def reaches_on(config: Mapping[str, Any]) -> bool:
    """Whether positions are relative, rotary or ALiBi, so that a longer row than was trained on can be read."""
    kind = config.get("position_embedding_type")
    if isinstance(kind, str) and kind not in ("absolute", "relative_key", "relative_key_query"):
        return True
    if config.get("model_type") in POSITIONS_WITHOUT_END or config.get("alibi_starting_size"):
        return True
    if any(name.startswith(("rope_", "rotary_")) and value not in (None, False) for name, value in config.items()):
        return True
    return config.get("relative_attention") is True and config.get("position_biased_input") is False


def first_position(config: Mapping[str, Any]) -> int:
    """The position of a row's first token."""
    if config.get("model_type") not in POSITIONS_AFTER_PADDING:
        return 0
    padding = None if config.get("model_type") == "mpnet" else whole_number(config, "pad_token_id")
    return (1 if padding is None else padding) + 1  # MPNet counts from 2 whatever its padding is


def prompt_family(names: Sequence[str], model_type: str) -> str | None:
    """The family whose prompt the model was trained with, as its names say."""
    for family in PROMPT_FAMILIES:
        named = any(family.names.search(name) for name in names) and model_type in family.types
        if named or model_type in family.own_types:
            return family.name
    return None


def refuse_other_rankers(names: Sequence[str]) -> None:
    for pattern, what in NOT_POINTWISE:
        for name in names:
            if pattern.search(name):
                raise UnsupportedModelError(
                    f"{name!r} is a reranker that {what}; it gives no score for a query and one document, and so "
                    "can't be run here.\nUse a pointwise reranker, such as BAAI/bge-reranker-v2-m3."
                )


def names_of(files: ModelFiles) -> list[str]:
    """The names that a model has: as it was asked for, in the registry, on the hub, in its config, its folder's."""
    repository = next((part for part in files.folder.parts if part.startswith("models--")), "")
    row = files.description
    return [
        *("/".join(files.name.replace("\\", "/").rstrip("/").split("/")[-2:]), files.folder.name),
        *([row.model, *row.sources.values()] if row is not None else []),
        *([repository.removeprefix("models--").replace("--", "/")] if repository else []),
        *(value for value in [files.config.get("_name_or_path")] if isinstance(value, str)),
    ]


def refuse_embeddings(files: ModelFiles, output: str, columns: int) -> None:
    """Raises UnsupportedModelError where an output is a vector per text, and no scores by label."""
    labels = label_count(files.config)
    sizes = {whole_number(files.config, name) for name in ("hidden_size", "dim", "d_model", "projection_dim")}
    is_vector = is_vector_name(output) or columns in sizes or columns >= FEWEST_DIMENSIONS
    if columns != labels and columns > 1 and is_vector:
        raise UnsupportedModelError(
            f"{files.name} is an embedding model: its output {output!r} is a vector of {columns} numbers for each "
            "text, and no score for a pair.\n"
            "A reranker reads query and document together and gives one number; embeddings are for the first stage.\n"
            "Use a cross-encoder (`onnx-rerank models` lists some), or export one with its classification head."
        )


def is_decoder_name(architectures: Sequence[str]) -> bool:
    stems = ("Llama", "Mistral", "Qwen", "Gemma", "Phi", "GPT", "OPT", "Olmo", "Cohere", "Falcon", "Granite", "Bloom")
    return any(name.startswith(stems) for name in architectures)


def is_lexical(config: Mapping[str, Any]) -> bool:
    """Whether the model is of the lexical one's kind."""
    return config.get("model_type") == "lexical-cross-encoder"


def default_chat_template(value: Any) -> str:
    """The template that is used where none is named: some files list several."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = {item.get("name"): item.get("template") for item in value if isinstance(item, Mapping)}
    if isinstance(value, Mapping):
        value = value.get("rerank") or value.get("default")
    return value if isinstance(value, str) else ""


def default_prompt(settings: Mapping[str, Any]) -> str | None:
    """The prompt that config_sentence_transformers.json names as the default; None where it names none.

    Raises:
        InvalidModelError: It names one that isn't there, or that is no text.
    """
    prompts, name = settings.get("prompts"), text(settings, "default_prompt_name")
    if name is None:
        return None
    if not isinstance(prompts, Mapping) or not isinstance(prompts.get(name), str):
        held = ", ".join(map(repr, prompts)) if isinstance(prompts, Mapping) and prompts else "none"
        raise InvalidModelError(
            f"A config of the model has default_prompt_name={name!r}, and its prompts are {held}.\nCorrect "
            "config_sentence_transformers.json, or fetch it again."
        )
    return prompts[name] or None


def chat_options(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    options = settings.get("processing_kwargs")
    chat = options.get("chat_template") if isinstance(options, Mapping) else None
    return (
        {name: value for name, value in chat.items() if name != "restore_suffix"} if isinstance(chat, Mapping) else {}
    )


_Wanted = Literal[
    "a whole number", "a text", "a list of texts", "an object", "a list or an object", "a text, a list or an object"
]

_LIST_OR_OBJECT: tuple[tuple[type, ...], _Wanted] = ((list, dict), "a list or an object")
_TEXT: tuple[tuple[type, ...], _Wanted] = ((str,), "a text")
_OBJECT: tuple[tuple[type, ...], _Wanted] = ((dict,), "an object")

_CONFIG_TYPES = {
    "id2label": _LIST_OR_OBJECT,
    "label2id": _OBJECT,
    "problem_type": _TEXT,
    "tokenizer_class": _TEXT,
}
_TOKENIZER_TYPES: Mapping[str, tuple[tuple[type, ...], _Wanted]] = {
    "tokenizer_class": _TEXT,
    "added_tokens_decoder": _OBJECT,
    "extra_special_tokens": _LIST_OR_OBJECT,
    "additional_special_tokens": _LIST_OR_OBJECT,
    "chat_template": ((str, list, dict), "a text, a list or an object"),
}


def check_types(values: Json, types: Mapping[str, tuple[tuple[type, ...], _Wanted]]) -> None:
    """Refuses a value that would be passed over, or read as something else, for its type."""
    for name, (allowed, wanted) in types.items():
        value = values.get(name)
        if value is not None and not isinstance(value, allowed):
            raise _other_type(name, value, wanted)
    texts(values, "model_input_names")


def whole_number(values: Json, name: str) -> int | None:
    """A number of a config; None where it is missing or null.

    Raises:
        InvalidModelError: It is something else.
    """
    value = values.get(name)
    if value is None:
        return None
    if value == math.inf:
        return LARGEST_BELIEVABLE_LENGTH
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not float(value).is_integer():
        raise _other_type(name, value, "a whole number")
    return int(value)


def text(values: Json, name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise _other_type(name, value, "a text")
    return value


def texts(values: Json, name: str) -> list[str]:
    """A list of texts of a config; a single text stands for a list of one."""
    value = values.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise _other_type(name, value, "a list of texts")
    return list(value)


def _other_type(name: str, value: object, wanted: _Wanted) -> InvalidModelError:
    return InvalidModelError(
        f"A config of the model has {name}={value!r}, which isn't {wanted}.\nCorrect the file, or fetch it again."
    )

"""What a model's configs say of its lengths, its kind and its special tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.core.types import ModelFiles

FALLBACK_MAX_LENGTH = 512
LARGEST_DEFAULT_LENGTH = 8192
"""Some language models state 131,072 tokens; one such row would take all memory before the user asked for it."""

LARGEST_BELIEVABLE_LENGTH = 10**6
"""transformers writes model_max_length = 1e30 for 'not known'."""

POSITIONS_AFTER_PADDING = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "data2vec-text",
}
"""Model types that number positions from pad_token_id + 1, and so lose that many of max_position_embeddings."""


def chosen_max_length(asked: int | None, files: ModelFiles, fixed_length: int | None) -> int:
    """The user's `max_length` if the model has that many positions, else the smallest limit that the files state."""
    positions = usable_positions(files.config)
    limits = [limit for limit in (positions, fixed_length) if limit]
    if asked is None:
        stated = [files.tokenizer_config.get("model_max_length"), files.tokenizer_config.get("max_length")]
        believable = [int(value) for value in stated if value and 0 < value < LARGEST_BELIEVABLE_LENGTH]
        return min([*believable, *limits, LARGEST_DEFAULT_LENGTH]) if believable or limits else FALLBACK_MAX_LENGTH
    if limits and asked > min(limits):
        raise InputValueError(f"max_length={asked} is more than the {min(limits)} positions that {files.name} has")
    return asked


def usable_positions(config: Mapping[str, Any]) -> int | None:
    """Tokens the position embeddings reach for; None where the config doesn't say."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.get("model_type") in POSITIONS_AFTER_PADDING:
        positions -= int(config.get("pad_token_id", 1)) + 1
    return positions


def is_lexical(config: Mapping[str, Any]) -> bool:
    """Whether the model is of the embedded one's kind: it compares tokens, and has no layers to speak of."""
    return config.get("model_type") == "lexical-cross-encoder"


def token_text(token: Any) -> str | None:
    """A special token's text from tokenizer_config.json, where it is a str or ``{"content": str}``."""
    return token.get("content") if isinstance(token, Mapping) else token

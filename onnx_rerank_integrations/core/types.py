"""The data that passes between files, and the letters their shapes are written in.

N  documents (or pairs) of one call
B  pairs of one batch
T  tokens of the longest pair of a batch, padding included
L  labels (columns) of the model's head
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Pair = tuple[str, str]
"""(query, document)"""


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """One document of a ranking.

    Attributes:
        index: The document's place in the caller's input, from 0.
        score: Its relevance, higher is better, in the activation's scale.
        text: The document as it was given.
    """

    index: int
    score: float
    text: str


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What is known of a supported model without loading it. Unknown facts are None.

    Attributes:
        model: The name users ask for.
        sources: Where its files live, by kind: ``{"hf": "org/name"}``; empty for the models inside the package.
        model_file: The ONNX file's path inside the source.
        description: One sentence.
        license: SPDX identifier in lower case, as the model card states it.
        size_in_GB: Size of the ONNX file with its external data, in 10**9 bytes.
        additional_files: Further files the graph needs, such as external data.
        languages: ``"en"``, ``"multilingual"``, ...
        max_length: The longest pair the model was made for, in tokens.
        activation: What sentence-transformers applies to its logits by default: ``"identity"`` or ``"sigmoid"``.
        kind: ``"classifier"`` (logits of a head) or ``"causal"`` (a language model whose next token says yes or no).
    """

    model: str
    sources: Mapping[str, str]
    model_file: str = "onnx/model.onnx"
    description: str = ""
    license: str | None = None
    size_in_GB: float | None = None  # noqa: N815 - the key FastEmbed's users read
    additional_files: tuple[str, ...] = ()
    languages: str | None = None
    max_length: int | None = None
    activation: str | None = None
    kind: Literal["classifier", "causal"] = "classifier"


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model's files on this machine, ready to be opened.

    Attributes:
        name: The name the user asked for, for messages.
        folder: Where modules.json and other optional files lie: the folder, or the snapshot in the hub's cache.
        onnx: The graph; external data lies where the graph expects it.
        tokenizer: tokenizer.json.
        config: config.json, ``{}`` where there is none.
        tokenizer_config: tokenizer_config.json, ``{}`` where there is none, with the special tokens and the chat
            template that lie beside it.
        sentence_transformers: config_sentence_transformers.json and sentence_bert_config.json, ``{}`` without them.
        description: The registry's row, None where there is none.
        license: From the registry, None where unknown.
        commit: The commit on the hub that the files are from, None for a folder.
        cache_dir: The hub's cache that was asked for; what this package makes of the model is kept below it.
        files: Every file that decides the scores, in a fixed order: graph, external data, tokenizer, configs, modules.
    """

    name: str
    folder: Path
    onnx: Path
    tokenizer: Path
    config: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    sentence_transformers: Mapping[str, Any] = field(default_factory=dict)
    description: ModelDescription | None = None
    license: str | None = None
    commit: str | None = None
    cache_dir: Path | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The tokens whose logits are a causal model's score: words, or their ids.

    Attributes:
        positive: Speaks for relevance.
        negative: Speaks against it; None where the first one's logit alone is the score.
    """

    positive: str | int
    negative: str | int | None

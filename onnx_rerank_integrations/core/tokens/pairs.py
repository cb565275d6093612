"""Pairs of texts to arrays of token ids.

Queries and documents are tokenized apart and joined here, by the tokenizer's own pair template, which is what the
library does inside too. So each text is tokenized once however many pairs it is in, truncation and padding are plain
arithmetic on arrays, and the tokenizer is never changed after it was loaded: any number of threads may use it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.errors import InputValueError, InvalidModelError, UnsupportedModelError
from onnx_rerank_integrations.core.options import LongDocuments, SpecialTokensInText, Truncation
from onnx_rerank_integrations.core.tokens.auto import Side, TokenizerSettings, side, token_text
from onnx_rerank_integrations.core.tokens.prompts import Prompt, split_template
from onnx_rerank_integrations.core.tokens.texts import (
    clean,
    control_tokens,
    encode_clipped,
    encode_whole,
    first_clip,
    largest_id,
    load_tokenizer,
    token_ids_function,
)
from onnx_rerank_integrations.core.types import Pair

logger = logging.getLogger(__name__)


QUERY_SHARE = 0.5
"""With ``truncation="only_second"`` and with windows, the part of the room for text that a query may fill."""

PROMPT_QUERY_SHARE = 0.75
"""The same within a prompt, as mxbai-rerank-v2 has it; Qwen3-Reranker's own code lets a query push out the document."""

MOST_DRAWN = 2**13
"""Ids below it are drawn for trials: so much of a vocabulary is enough, and quickly listed."""

WINDOW_OVERLAP = 0.25
"""Windows of a long document share this part of their document tokens with the one before."""


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """The tokens of one pair, as long as they are: nothing is padded yet.

    Attributes:
        pair: The pair's place in the sequence that was encoded. Windows of one document share it.
        ids: (length,) int32.
        type_ids: (length,) int8, 0 for the query's part and 1 for the document's where the template says so.
        truncated: Whether tokens of the query or the document were left out.
    """

    pair: int
    ids: NDArray[np.int32]
    type_ids: NDArray[np.int8]
    truncated: bool

    @property
    def length(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Segment:
    """Special tokens that stand at a fixed place of every pair."""

    ids: NDArray[np.int32]
    type_ids: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Template:
    """A tokenizer's pair template: before, query, between, document, after."""

    before: Segment
    query_type: int
    between: Segment
    document_type: int
    after: Segment
    document_first: bool = False

    def without_types(self) -> Template:
        segments = (self.before, self.between, self.after)
        before, between, after = (Segment(one.ids, np.zeros_like(one.type_ids)) for one in segments)
        return replace(self, before=before, between=between, after=after, query_type=0, document_type=0)

    @property
    def special_tokens(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def join(self, query: NDArray[np.int32], document: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        """Ids and token types of one pair, each (length,)."""
        if self.document_first:
            query, document = document, query
        ids = np.concatenate((self.before.ids, query, self.between.ids, document, self.after.ids))
        type_ids = np.concatenate(
            (
                self.before.type_ids,
                np.full(len(query), self.query_type, dtype=np.int8),
                self.between.type_ids,
                np.full(len(document), self.document_type, dtype=np.int8),
                self.after.type_ids,
            )
        )
        return ids, type_ids


class PairTokenizer:
    """Tokenizes (query, document) pairs as the model was trained to see them.

    Args:
        path: tokenizer.json.
        settings: What the folder says of the tokenizer beside that file; None to take it as it is.
        max_length: Tokens of the longest encoded pair, special tokens included.
        truncation: ``"longest_first"`` takes tokens from the longer of the two, as sentence-transformers and FastEmbed
            do. ``"only_second"`` takes them from the document; a query that fills more than `QUERY_SHARE` of the room
            is cut to that share first.
        truncation_side: Which end of a text is cut off; None for what the settings say.
        padding_side: Which end of a row is padded; None for what the settings say.
        pad_token_id: The config's pad token: fills the rows up where the tokenizer has none of its own.
        pads_by_config: Whether `pad_token_id` comes first: a decoder's head finds a row's end by it.
        special_tokens_in_text: ``"special"`` reads ``[SEP]`` and the like inside a text as control tokens, as the
            reference implementations do; ``"text"`` reads them as the characters they are.
        long_documents: ``"truncate"`` gives one encoded pair per pair. ``"max"``, ``"mean"`` and ``"first"`` cut a
            document that is too long into overlapping windows, each beside the whole query.
        prompt: For a language model, the prompt that takes the place of the tokenizer's pair template, as parts or as a
            template with ``{query}`` and ``{document}``. Only the document, and a query beyond `PROMPT_QUERY_SHARE`,
            are truncated in it.
        instruction: Fills the prompt's place for one; None for the prompt's own.
        query_prefix: Put before each query where there is no prompt.

    Raises:
        InvalidModelError: tokenizer.json can't be read.
        InputValueError: `max_length` leaves no room for a text beside the special tokens.
        UnsupportedModelError: The tokenizer joins pairs in a way that isn't query, then document.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_length: int,
        settings: TokenizerSettings | None = None,
        truncation: Truncation = "longest_first",
        truncation_side: Side | None = None,
        padding_side: Side | None = None,
        pad_token_id: int | None = None,
        pads_by_config: bool = False,
        special_tokens_in_text: SpecialTokensInText = "special",
        long_documents: LongDocuments = "truncate",
        prompt: Prompt | str | None = None,
        instruction: str | None = None,
        query_prefix: str = "",
    ) -> None:
        config = settings.config if settings else {}
        loaded = load_tokenizer(path, settings=settings, has_prompt=prompt is not None)
        control = loaded.tokenizer
        self._tokenizer = control
        if special_tokens_in_text == "text":
            self._tokenizer = load_tokenizer(path, "text", settings=settings, has_prompt=prompt is not None).tokenizer
        self._token_ids = token_ids_function(self._tokenizer)
        if isinstance(prompt, str):
            prompt = split_template(prompt, control_tokens(control).values())
        self._wording = wording(control, prompt, instruction, query_prefix)
        self._template = self._wording.template or pair_template(control, path)
        if not gives_token_types(config):
            self._template = self._template.without_types()
        self.max_length = max_length
        default_side: Side = settings.padding_side if settings else "right"
        self.padding_side: Side = padding_side or side(config, "padding_side", loaded.padding, default_side)
        self._truncation_side: Side = truncation_side or side(config, "truncation_side", loaded.truncation, "right")
        stored_pad = (loaded.padding or {}).get("pad_token")
        self.pad_id = pad_id(
            self._tokenizer,
            token_text(config.get("pad_token")) or stored_pad,
            pad_token_id=pad_token_id,
            config_first=pads_by_config,
        )
        self.largest_id = largest_id(self._tokenizer)
        self._control_tokens = control_tokens(self._tokenizer) if special_tokens_in_text == "text" else {}
        self._room = max_length - self._template.special_tokens
        if self._room < 2:
            special_tokens = self._template.special_tokens
            raise InputValueError(
                f"max_length={max_length} leaves no room for a query and a document beside the {special_tokens} "
                f"special tokens of this model: use {special_tokens + 2} or more"
            )
        self._longest_unclipped = first_clip(self._room)
        room_and_between = self._room + (len(self._template.between) if prompt else 0)
        self._query_room = int(room_and_between * self._wording.query_share)
        self._truncation: Truncation = "only_second" if prompt else truncation
        self._long_documents: LongDocuments = long_documents

    def encode(self, pairs: Sequence[Pair], *, document_tokens: int | None = None) -> list[EncodedPair]:
        """Encodes N pairs, in order; a document in windows gives several with the same ``pair``.

        Args:
            pairs: N texts with their queries.
            document_tokens: Most tokens of a document that are read; None for as many as fit.
        """
        whole_documents = self._long_documents in ("max", "mean")
        queries = self._encode_texts((query for query, _ in pairs), self._wording.query, clip=True)
        documents = self._encode_texts(
            (document for _, document in pairs), self._wording.document, clip=not whole_documents
        )
        encoded: list[EncodedPair] = []
        for index, (query_text, document_text) in enumerate(pairs):
            query, document = queries[query_text], documents[document_text]
            if document_tokens is None and len(query) + len(document) <= self._room:
                encoded.append(self._join(index, query, document, truncated=False))
            else:
                encoded += self._fitted(index, query, document, document_tokens)
        return encoded

    def _fitted(
        self, pair: int, query: NDArray[np.int32], document: NDArray[np.int32], most: int | None
    ) -> Iterable[EncodedPair]:
        """A pair whose document may be too long, for the model or for the caller, who wants at most so many tokens."""
        capped = False
        if most is not None and len(document) > most:
            document, capped = self._cut(document, most, self._wording.document_tail), True
        fit = self._truncate if self._long_documents == "truncate" else self._windows
        return fit(pair, query, document, capped)

    def _truncate(
        self, pair: int, query: NDArray[np.int32], document: NDArray[np.int32], capped: bool
    ) -> Iterable[EncodedPair]:
        query_length, document_length = self._fit_lengths(len(query), len(document), self._truncation)
        truncated = capped or query_length < len(query) or document_length < len(document)
        cut_query, cut_document = (
            self._cut(query, query_length, self._wording.query_tail),
            self._cut(document, document_length, self._wording.document_tail),
        )
        yield self._join(pair, cut_query, cut_document, truncated)

    def _windows(
        self, pair: int, query: NDArray[np.int32], document: NDArray[np.int32], capped: bool
    ) -> Iterable[EncodedPair]:
        query_length, window = self._fit_lengths(len(query), len(document), "only_second")
        cut_query = self._cut(query, query_length, self._wording.query_tail)
        tail = self._wording.document_tail
        document, window = document[: len(document) - len(tail)], max(window - len(tail), 1)
        for start in window_starts(len(document), window):
            part = np.concatenate((document[start : start + window], tail))
            rest = self._long_documents == "first" and window < len(document)
            truncated = capped or rest or len(cut_query) < len(query)
            yield self._join(pair, cut_query, part, truncated)
            if self._long_documents == "first":
                return

    def _fit_lengths(self, query: int, document: int, truncation: Truncation) -> tuple[int, int]:
        return fit_lengths(query, document, self._room, truncation, self._query_room)

    def _join(self, pair: int, query: NDArray[np.int32], document: NDArray[np.int32], truncated: bool) -> EncodedPair:
        ids, type_ids = self._template.join(query, document)
        if len(ids) == 0:  # two empty texts and no special tokens: a model can't run on nothing
            ids, type_ids = np.array([self.pad_id], dtype=np.int32), np.zeros(1, dtype=np.int8)
        return EncodedPair(pair, ids, type_ids, truncated)

    def _cut(self, ids: NDArray[np.int32], length: int, tail: NDArray[np.int32]) -> NDArray[np.int32]:
        """The ids cut to a length; a prompt's words at their end, the tail, are kept."""
        if len(tail) and length < len(ids):
            return np.concatenate((ids[: max(length - len(tail), 0)], tail))
        return ids[len(ids) - length :] if self._truncation_side == "left" else ids[:length]

    def trial_rows(self, size: tuple[int, int], count: int) -> Iterator[EncodedPair]:
        """Encoded pairs of so many drawn tokens of query and document, the same ones each time."""
        random = np.random.default_rng(size[0])
        ordinary = np.setdiff1d(
            np.arange(min(self.largest_id + 1, MOST_DRAWN)), [self.pad_id, *control_tokens(self._tokenizer)]
        )
        lengths = self._fit_lengths(*size, "longest_first")
        for _ in range(count):
            query, document = (random.choice(ordinary, length).astype(np.int32) for length in lengths)
            yield self._join(0, query, document, truncated=False)

    def token_id(self, word: str | int) -> int:
        """The id of a word that is one token, or that is an id.

        Raises:
            UnsupportedModelError: The vocabulary lacks it.
        """
        found = self._tokenizer.token_to_id(word) if isinstance(word, str) else word
        if found is None or not 0 <= found <= self.largest_id:
            raise UnsupportedModelError(
                f"The tokenizer has no token {word!r}, which this model's scores are read from.\n"
                "Use the tokenizer.json that belongs to the model."
            )
        return int(found)

    def _encode_texts(
        self, texts: Iterable[str], worded: Callable[[str], str], *, clip: bool
    ) -> dict[str, NDArray[np.int32]]:
        """Token ids of each distinct text, without special tokens; at least as many as can be used."""
        ordered = list(dict.fromkeys(texts))
        cleaned = [worded(text if text.isascii() else clean(text)) for text in ordered]
        clip = clip and self._truncation_side == "right"
        clip = clip and max(map(len, cleaned), default=0) > self._longest_unclipped
        encode = partial(encode_clipped, self._token_ids, needed=self._room) if clip else self._token_ids
        ids = encode(cleaned)
        if self._control_tokens:
            forged = [i for i, found in enumerate(ids) if np.isin(found, list(self._control_tokens)).any()]
            spelled_out = [self._spell_out(cleaned[i]) for i in forged]
            for i, found in zip(forged, encode(spelled_out), strict=True):
                ids[i] = found
        return dict(zip(ordered, ids, strict=True))

    def _spell_out(self, text: str) -> str:
        """The text with a space inside each control token's name.

        ``encode_special_tokens`` isn't enough where the vocabulary itself holds the name as a word (Unigram models do),
        also as what the normalizer makes of look-alike characters.
        """
        normalizer = self._tokenizer.normalizer
        text = normalizer.normalize_str(text) if normalizer else text
        for name in self._control_tokens.values():
            text = text.replace(name, f"{name[0]} {name[1:]}")
        return text


@dataclass(frozen=True, slots=True)
class Wording:
    """How a pair is worded: the texts as they are, or within a prompt.

    Attributes:
        query: The words that a query becomes.
        document: The words that a document becomes.
        query_tail: Tokens at the end of each query that stay when it is cut.
        document_tail: The same of each document.
        query_share: The part of the room that a query may fill where only the document is truncated.
        template: The prompt's fixed parts; None for the tokenizer's own pair template.
    """

    query: Callable[[str], str] = str
    document: Callable[[str], str] = str
    query_tail: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    document_tail: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    query_share: float = QUERY_SHARE
    template: Template | None = None


def wording(tokenizer: Any, prompt: Prompt | None, instruction: str | None, query_prefix: str = "") -> Wording:
    """The prompt's words around queries and documents; plain texts without a prompt."""
    if prompt is None:
        return Wording(query=lambda text: query_prefix + text) if query_prefix else Wording()
    asked = instruction or prompt.instruction
    query = prompt.instructed_query if asked and prompt.instructed_query else prompt.query

    def segment(texts: Iterable[str], before: Sequence[int] = (), after: Sequence[int] = ()) -> Segment:
        ids = [*before, *(id_ for part in encode_whole(tokenizer, list(texts)) for id_ in part), *after]
        return Segment(np.array(ids, dtype=np.int32), np.zeros(len(ids), dtype=np.int8))

    start, end = frame(tokenizer) if prompt.framed else ([], [])
    return Wording(
        query=lambda text: query.format(query=text, instruction=asked) + prompt.query_tail,
        document=lambda text: prompt.document.format(document=text) + prompt.document_tail,
        query_tail=segment([prompt.query_tail]).ids,
        document_tail=segment([prompt.document_tail]).ids,
        query_share=PROMPT_QUERY_SHARE,
        template=Template(
            before=segment((text.format(instruction=asked) for text in prompt.before), before=start),
            query_type=0,
            between=segment(prompt.between),
            document_type=0,
            after=segment(prompt.after, after=end),
            document_first=prompt.document_first,
        ),
    )


def frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a single text."""
    inner = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a").ids
    start = next((place for place in range(len(whole)) if whole[place : place + len(inner)] == inner), len(whole))
    return whole[:start], whole[start + len(inner) :]


def gives_token_types(config: Mapping[str, Any]) -> bool:
    """Whether the tokenizer tells the document's part from the query's: files may list its inputs without the types."""
    inputs = config.get("model_input_names")
    return inputs is None or "token_type_ids" in inputs


def fit_lengths(query: int, document: int, room: int, truncation: Truncation, query_room: int) -> tuple[int, int]:
    """How many tokens of a query and of a document are kept, so that their sum is at most `room`.

    ``"longest_first"`` gives the same numbers as the tokenizers library (``truncate_encodings``): the shorter text is
    kept whole where it takes at most half of the room, otherwise both get half and the second the odd token.
    ``"only_second"`` cuts a query to `query_room` first.
    """
    if query + document <= room:
        return query, document
    if truncation == "only_second":
        kept = min(query, query_room)
        return kept, min(document, room - kept)
    half = room // 2
    if query <= document:
        return (query, room - query) if query <= half else (half, room - half)
    return (room - document, document) if document <= half else (room - half, half)


def window_starts(length: int, window: int) -> range:
    """Where windows of `window` tokens begin so that they cover `length` tokens and overlap by `WINDOW_OVERLAP`."""
    stride = max(1, round(window * (1 - WINDOW_OVERLAP)))
    return range(0, length - window + stride, stride) if length > window else range(1)


INPUTS: Mapping[str, np.dtype[Any]] = dict.fromkeys(
    ("input_ids", "attention_mask", "token_type_ids", "position_ids"), np.dtype(np.int64)
)
"""What a text classifier may ask for of each token."""


def collate(
    batch: Sequence[EncodedPair],
    *,
    pad_id: int,
    padding_side: Side = "right",
    length: int | None = None,
    first_position: int = 0,
    inputs: Mapping[str, np.dtype[Any]] = INPUTS,
) -> dict[str, NDArray[Any]]:
    """Pads B encoded pairs into one array per input that is asked for.

    Args:
        batch: B encoded pairs.
        pad_id: The token id that fills the rows up.
        padding_side: Where it is put.
        length: T; None for the longest pair of the batch.
        first_position: The position of each row's first token; those of the RoBERTa family count from their padding's.
        inputs: The element types of those `INPUTS` that are asked for.

    Returns:
        Each input's array, (B, T).
    """
    shape = (len(batch), length or max(len(encoded.ids) for encoded in batch))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    token_type_ids = np.zeros(shape, dtype=np.int64)
    for row, encoded in enumerate(batch):
        tokens = len(encoded.ids)
        filled = slice(tokens) if padding_side == "right" else slice(shape[1] - tokens, None)
        input_ids[row, filled] = encoded.ids
        attention_mask[row, filled] = 1
        token_type_ids[row, filled] = encoded.type_ids
    arrays = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
    if "position_ids" in inputs:
        arrays["position_ids"] = (
            np.maximum(attention_mask.cumsum(axis=1) - 1, 0)
            if first_position == 0
            else attention_mask.cumsum(axis=1) * attention_mask + first_position - 1
        )
    return {name: arrays[name].astype(dtype, copy=False) for name, dtype in inputs.items()}


def pair_template(tokenizer: Any, path: Path) -> Template:
    """Reads the pair template off one encoded pair: every post-processor of the library adds constants around texts."""
    query, document = _probe_texts(tokenizer, path)
    query_ids = tokenizer.encode(query, add_special_tokens=False).ids
    document_ids = tokenizer.encode(document, add_special_tokens=False).ids
    encoding = tokenizer.encode(query, document)
    is_special, ids, type_ids = encoding.special_tokens_mask, encoding.ids, encoding.type_ids

    query_start = _first(is_special, 0, start=0)
    query_end = query_start + len(query_ids)
    document_start = _first(is_special, 0, start=query_end)
    document_end = document_start + len(document_ids)
    rebuilt = ids[query_start:query_end] == query_ids and ids[document_start:document_end] == document_ids
    if not rebuilt or not all(is_special[query_end:document_start]) or not all(is_special[document_end:]):
        raise UnsupportedModelError(
            "The tokenizer doesn't join pairs as query, then document, with fixed tokens around them "
            f"({encoding.tokens}).\nUse a tokenizer.json whose pair template is of that form: {path}"
        )

    def segment(start: int, end: int) -> Segment:
        return Segment(np.array(ids[start:end], dtype=np.int32), np.array(type_ids[start:end], dtype=np.int8))

    return Template(
        before=segment(0, query_start),
        query_type=type_ids[query_start],
        between=segment(query_end, document_start),
        document_type=type_ids[document_start],
        after=segment(document_end, len(ids)),
    )


def _probe_texts(tokenizer: Any, path: Path) -> tuple[str, str]:
    """Two texts that this vocabulary gives different tokens for."""
    vocabulary = (tokenizer.id_to_token(token_id) or "" for token_id in range(tokenizer.get_vocab_size()))
    found: dict[tuple[int, ...], str] = {}
    for text in chain(("query", "document", "a", "b", "1"), vocabulary):
        ids = tuple(tokenizer.encode(text, add_special_tokens=False).ids)
        if ids:
            found.setdefault(ids, text)
        if len(found) == 2:
            first, second = found.values()
            return first, second
    raise InvalidModelError(f"The tokenizer gives no tokens for any text.\nCheck the vocabulary in {path}")


def _first(values: Sequence[int], wanted: int, *, start: int) -> int:
    try:
        return values.index(wanted, start)
    except ValueError:
        return len(values)


def pad_id(
    tokenizer: Any, pad_token: str | None, *, pad_token_id: int | None = None, config_first: bool = False
) -> int:
    """The id that pads: the tokenizer's pad token's, the config's, a usual name's, else 0. The mask hides it anyway."""
    if config_first and pad_token_id is not None:
        return pad_token_id
    if pad_token is not None and (found := tokenizer.token_to_id(pad_token)) is not None:
        return int(found)
    if pad_token_id is not None:
        return pad_token_id
    usual = (tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>", "<|endoftext|>"))
    return int(next((found for found in usual if found is not None), 0))

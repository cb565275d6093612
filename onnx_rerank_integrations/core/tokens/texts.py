"""Texts to token ids, without special tokens: loading a tokenizer, clipping long texts, remembering words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.errors import InvalidModelError, RerankError
from onnx_rerank_integrations.core.options import SpecialTokensInText
from onnx_rerank_integrations.core.tokens.auto import TokenizerSettings, adapt

FEW_WORDS = 128
"""So many words are encoded sooner one by one than by the library's threads, which have to be woken first: 16 words in
0.12 ms against 0.29, 128 in 0.82 against 1.02, 256 in 1.50 against 1.17, measured with two threads."""

CLIP_CHARACTERS_PER_TOKEN = 16
"""A first guess of how many characters fill a token at most; English prose has about 4.5."""

CLIP_MARGIN_TOKENS = 64
"""Tokens that a clipped text must give beyond those that are used, so that the cut can't have changed them."""


MOST_WORDS = 2**16
"""About 8 MB of memory. Beyond it all are forgotten, and the usual words are soon back."""

MOST_CHARACTERS = 2**18
"""Read at once by the memory of words, so that a call of millions of new words doesn't hold all of them."""

LONGEST_WORD = 32
"""Characters. A longer one (a URL, a line of Chinese) hardly comes twice, and would take the place of many."""

SPACE = re.compile("[ \n]")

TokenIds = Callable[[Sequence[str]], list[NDArray[np.int32]]]
"""Gives the token ids of whole texts, without special tokens."""


def token_ids_function(tokenizer: Any) -> TokenIds:
    """The tokenizer's own, behind a memory of words where that gives the same ids."""
    if reads_word_by_word(tokenizer):
        return WordMemo(partial(encode_words, tokenizer))
    return partial(encode_whole, tokenizer)


def reads_word_by_word(tokenizer: Any) -> bool:
    """Whether a text's ids are those of its space-separated words, in order: true of BERT's WordPiece.

    Its normalizer and its pre-tokenizer look at one character at a time, and split at each space and line break.
    """
    normalizer = tokenizer.normalizer
    steps = (normalizer, tokenizer.pre_tokenizer, tokenizer.model)
    if [type(step).__name__ for step in steps] != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]:
        return False
    added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
    return not any(character.isspace() for text in added for character in text + normalizer.normalize_str(text))


def encode_whole(tokenizer: Any, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """Token ids of whole texts, without special tokens."""
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]


def encode_words(tokenizer: Any, words: Sequence[str]) -> list[NDArray[np.int32]]:
    """Token ids of single words, without special tokens."""
    if len(words) > FEW_WORDS:
        return encode_whole(tokenizer, words)
    return [np.array(tokenizer.encode(word, add_special_tokens=False).ids, dtype=np.int32) for word in words]


def encode_clipped(encode: TokenIds, texts: Sequence[str], *, needed: int) -> list[NDArray[np.int32]]:
    """The first `needed` token ids of each text (or more, or all there are), without reading a long text to its end.

    A text is cut at a space far beyond where `needed` tokens should end, and further out for as long as the cut text
    gives too few: the ids are those of the whole text.
    """
    characters = [first_clip(needed)] * len(texts)
    ids: list[NDArray[np.int32]] = [np.empty(0, dtype=np.int32)] * len(texts)
    pending = list(range(len(texts)))
    while pending:
        clipped = [clip_at_space(texts[i], characters[i]) for i in pending]
        short = []
        for i, text, found in zip(pending, clipped, encode(clipped), strict=True):
            ids[i] = found
            if len(text) < len(texts[i]) and len(found) < needed + CLIP_MARGIN_TOKENS:
                characters[i] *= 8
                short.append(i)
        pending = short
    return ids


def first_clip(needed: int) -> int:
    """Characters that a text is clipped to at first where so many of its tokens are needed."""
    return CLIP_CHARACTERS_PER_TOKEN * needed + 1024


def clip_at_space(text: str, characters: int) -> str:
    """The text up to the last space within `characters`, so that no word is cut in two; the whole text if shorter."""
    if len(text) <= characters:
        return text
    space = text.rfind(" ", characters // 2, characters)
    return text[: space if space > 0 else characters]


def clean(text: str) -> str:
    """The text with each lone surrogate replaced by U+FFFD; the tokenizers library refuses them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class WordMemo:
    """Token ids of texts in which a space always parts tokens and changes nothing around it.

    Few words make up most of a text, so most of the tokenizer's work becomes a lookup: about seven times faster than
    the tokenizers library on English prose once a thousand passages were read; the first hundred take a fifth longer
    (benchmarks/README.md). Any number of threads may use one memo.

    Args:
        encode: Gives the token ids (length,) int32 of each of many texts.
    """

    def __init__(self, encode: Callable[[Sequence[str]], list[NDArray[np.int32]]]) -> None:
        self._encode = encode
        self._known: dict[str, bytes] = {}

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """What `encode` gives for these texts."""
        if sum(map(len, texts)) <= MOST_CHARACTERS:
            return self._read(texts)
        found: list[NDArray[np.int32]] = []
        for group in groups(texts):
            if len(group[0]) <= MOST_CHARACTERS:
                found += self._read(group)
            else:
                found.append(np.concatenate([self._read([part])[0] for part in parts(group[0])]))
        return found

    def _read(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        ids = known = self._known  # grows, and forgets nothing: one that is full is replaced
        texts_words = [text.replace("\n", " ").split(" ") for text in texts]
        words = set[str]().union(*texts_words)
        if new := [word for word in words if word not in known]:
            ids = self._learn(new) | {word: known[word] for word in words if word in known}
        return [np.frombuffer(b"".join(map(ids.__getitem__, words)), dtype=np.int32) for words in texts_words]

    def _learn(self, new: Sequence[str]) -> dict[str, bytes]:
        """The ids of words, of which those that may come again are kept."""
        known = self._known
        learned = {word: found.tobytes() for word, found in zip(new, self._encode(new), strict=True)}
        kept = {word: found for word, found in learned.items() if len(word) <= LONGEST_WORD}
        if len(known) + len(kept) > MOST_WORDS:
            known = self._known = {}
        known.update(islice(kept.items(), MOST_WORDS))
        if len(known) > MOST_WORDS:  # several threads learned at once
            self._known = {}
        return learned


def groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in groups of at most `MOST_CHARACTERS`; a longer one alone."""
    group: list[str] = []
    characters = 0
    for text in texts:
        if group and characters + len(text) > MOST_CHARACTERS:
            yield group
            group, characters = [], 0
        group.append(text)
        characters += len(text)
    if group:
        yield group


def parts(text: str) -> Iterator[str]:
    """The text in parts of about `MOST_CHARACTERS`, cut at spaces and line breaks, which are left out."""
    start = 0
    while cut := SPACE.search(text, start + MOST_CHARACTERS):
        yield text[start : cut.start()]
        start = cut.end()
    yield text[start:]


@contextmanager
def panics_as(error: Callable[[str], RerankError]) -> Iterator[None]:
    """Turns what the tokenizers library throws into one of our errors.

    It throws plain Exceptions, and panics: BaseExceptions, which a server's ``except Exception`` misses.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as thrown:
        if isinstance(thrown, Exception) and type(thrown) is not Exception:
            raise
        raise error(f"the tokenizers library failed: {type(thrown).__name__}: {thrown}") from thrown


@dataclass(frozen=True, slots=True)
class LoadedTokenizer:
    """A tokenizer that neither truncates nor pads, and how its file had it do so.

    Attributes:
        tokenizer: A ``tokenizers.Tokenizer``.
        truncation: What the file stores of it, None for nothing.
        padding: The same.
    """

    tokenizer: Any
    truncation: Mapping[str, Any] | None
    padding: Mapping[str, Any] | None


def load_tokenizer(
    path: Path,
    special_tokens_in_text: SpecialTokensInText = "special",
    *,
    settings: TokenizerSettings | None = None,
    has_prompt: bool = False,
) -> LoadedTokenizer:
    """A tokenizer, set up once as `settings` say; as its file has it without them.

    One text is encoded to see that the file is sound: a damaged one may panic in Rust, as a BaseException.
    """
    from tokenizers import Tokenizer

    def load() -> LoadedTokenizer:
        tokenizer = Tokenizer.from_file(str(path))
        loaded = LoadedTokenizer(tokenizer, tokenizer.truncation, tokenizer.padding)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if settings is not None:
            adapt(tokenizer, settings, has_prompt=has_prompt)
        split = settings is not None and settings.config.get("split_special_tokens") is True
        tokenizer.encode_special_tokens = split or special_tokens_in_text == "text"
        tokenizer.encode("What is a canary?", "A small bird, é 金丝雀 🐤.")
        return loaded

    return _convert_any_failure(load, path)


def _convert_any_failure(load: Callable[[], LoadedTokenizer], path: Path) -> LoadedTokenizer:
    try:
        return load()
    except (KeyboardInterrupt, SystemExit, GeneratorExit, RerankError):
        raise
    except BaseException as error:
        raise InvalidModelError(
            f"The tokenizer can't be used: {type(error).__name__}: {error}\n"
            f"Fetch {path} again, or make it anew with transformers: tokenizer.save_pretrained(folder)"
        ) from error


def largest_id(tokenizer: Any) -> int:
    """The largest token id a text can be given, without building the whole vocabulary in Python."""
    added = tokenizer.get_added_tokens_decoder()
    return int(max(tokenizer.get_vocab_size(with_added_tokens=True) - 1, max(added, default=0)))


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """The special tokens that give a pair its structure, id to name: all but the one for unknown words."""
    special = {id_: token.content for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    unknown = {int(id_) for id_ in tokenizer.encode("\U0010fffd", add_special_tokens=False).ids}
    return {id_: name for id_, name in special.items() if id_ not in unknown}

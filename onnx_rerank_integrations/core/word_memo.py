"""Remembers the token ids of words, for tokenizers that read a text word by word."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

MOST_WORDS = 2**16
"""About 8 MB of memory. Beyond it all are forgotten, and the usual words are soon back."""

LONGEST_WORD = 32
"""Characters. A longer one (a URL, a line of Chinese) hardly comes twice, and would take the place of many."""


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
        known = self._known
        texts_words = [text.replace("\n", " ").split(" ") for text in texts]
        words = set[str]().union(*texts_words)
        new = [word for word in words if word not in known]
        learned = {word: found.tobytes() for word, found in zip(new, self._encode(new), strict=True)}
        ids = learned | {word: known[word] for word in words if word in known}
        if len(known) + len(learned) > MOST_WORDS:
            known = self._known = {}
        known.update((word, found) for word, found in learned.items() if len(word) <= LONGEST_WORD)
        return [np.frombuffer(b"".join(map(ids.__getitem__, words)), dtype=np.int32) for words in texts_words]

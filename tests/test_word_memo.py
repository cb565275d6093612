"""Remembering words changes no token id, whatever the text and however it is set."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from onnx_rerank_integrations.core.tokens import texts as word_memo
from onnx_rerank_integrations.core.tokens.texts import (
    FEW_WORDS,
    WordMemo,
    clean,
    encode_words,
    reads_word_by_word,
    token_ids_function,
)
from tests.toy import make_toy

LETTERS = "abcé가金\u0301\u0130ßσς"
SPACES = " \n\t\r\x00\x0b\x1c\x85\u00a0\u200b\u2028\u3000\ufffd"
SIGNS = ",.#[]’-"

texts = st.one_of(
    st.text(LETTERS + SPACES + SIGNS, max_size=60),
    st.lists(st.sampled_from(["ab", "abc", "cab,", "[SEP]", "[sep]", "<new>", "a<new>b"]), max_size=12).map(" ".join),
    st.text(max_size=60),
)


def bert(**options: bool | None) -> Tokenizer:
    """A WordPiece tokenizer over a few letters, with added tokens of several kinds."""
    letters = [*LETTERS, *SIGNS]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "abc", "##bc", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {word: place for place, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.add_tokens([AddedToken("<new>", lstrip=True, rstrip=True), AddedToken("cab", single_word=True)])
    return tokenizer


SETTINGS = [
    {"clean_text": clean_text, "handle_chinese_chars": chinese, "strip_accents": accents, "lowercase": lowercase}
    for clean_text, chinese, accents, lowercase in itertools.product(
        (True, False), (True, False), (None, True, False), (True, False)
    )
]
TOKENIZERS = [bert(**options) for options in SETTINGS]
REMEMBERING = [token_ids_function(tokenizer) for tokenizer in TOKENIZERS]


@given(given_texts=st.lists(texts, max_size=4), place=st.integers(0, len(SETTINGS) - 1))
def test_any_text_has_the_librarys_ids_whatever_was_read_before(given_texts: list[str], place: int) -> None:
    cleaned = [clean(text) for text in given_texts]

    found = REMEMBERING[place](cleaned)

    assert isinstance(REMEMBERING[place], WordMemo)
    expected = TOKENIZERS[place].encode_batch_fast(cleaned, add_special_tokens=False)
    assert [ids.tolist() for ids in found] == [encoding.ids for encoding in expected]


def test_only_a_tokenizer_that_reads_word_by_word_has_a_memory(tmp_path: Path) -> None:
    toy = Tokenizer.from_file(str(make_toy(tmp_path) / "tokenizer.json"))
    stripping = bert()
    stripping.normalizer = normalizers.Sequence([normalizers.BertNormalizer(), normalizers.Replace(" ", "")])
    spaced = bert()
    spaced.add_tokens([AddedToken("a b")])
    widened = bert(handle_chinese_chars=True)
    widened.add_tokens([AddedToken("金")])

    assert reads_word_by_word(bert())
    assert not any(map(reads_word_by_word, (toy, stripping, spaced, widened)))


def test_many_new_words_at_once_have_the_ids_of_a_few_at_a_time() -> None:
    words = ["".join(letters) for letters in itertools.product("abc", repeat=5)]
    assert len(words) > FEW_WORDS

    at_once, few = encode_words(bert(), words), [encode_words(bert(), [word])[0] for word in words]

    assert [ids.tolist() for ids in at_once] == [ids.tolist() for ids in few]
    assert len({tuple(ids.tolist()) for ids in few}) > 100


class Counting:
    """Encodes a text as its characters' code points, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        self.asked += texts
        return [np.array([ord(letter) for letter in text], dtype=np.int32) for text in texts]


def test_a_word_is_encoded_once_and_a_long_one_is_not_kept() -> None:
    encode = Counting()
    memo = WordMemo(encode)
    long = "x" * (word_memo.LONGEST_WORD + 1)

    for _ in range(2):
        assert [len(ids) for ids in memo(["to be", f"be\n{long} "])] == [4, 2 + len(long)]

    assert sorted(encode.asked) == sorted(["to", "be", "", long, long])


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_memo, "MOST_WORDS", 10)
    memo = WordMemo(Counting())

    for start in range(0, 100, 5):
        assert memo([" ".join(map(str, range(start, start + 5)))])[0].tolist()[0] == ord(str(start)[0])
        assert len(memo._known) <= 10


def test_the_memory_is_bounded_within_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_memo, "MOST_WORDS", 50)
    monkeypatch.setattr(word_memo, "MOST_CHARACTERS", 100)
    encode = Counting()
    memo = WordMemo(encode)
    words = [str(number) for number in range(1000)]
    texts = [" ".join(words), "\n".join(words), " ".join(words[:7]), "", "x" * 500, " " * 300, "a b " * 100]

    found = memo(texts)

    assert ["".join(map(chr, ids)) for ids in found] == ["".join(text.split()) for text in texts]
    assert len(memo._known) <= 50
    assert memo(["".join(words)])[0].tolist() == [ord(digit) for digit in "".join(words)]
    assert memo([" ".join(words[:200])])[0].tolist() == [ord(digit) for digit in "".join(words[:200])]
    assert len(memo._known) <= 50


def test_many_threads_share_one_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_memo, "MOST_WORDS", 20)
    memo = WordMemo(Counting())
    wrong: list[str] = []

    def read(seed: int) -> None:
        for turn in range(300):
            text = " ".join(str((turn * seed + i) % 50) for i in range(8))
            if bytes(memo([text])[0].astype(np.uint8)).decode() != text.replace(" ", ""):
                wrong.append(text)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong

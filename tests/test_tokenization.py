"""The pairs' tokens are those of the tokenizers library, however the texts look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.core.errors import InputValueError, InvalidModelError, UnsupportedModelError
from onnx_rerank_integrations.core.tokens.pairs import LongDocuments, PairTokenizer, collate, fit_lengths, window_starts
from onnx_rerank_integrations.core.tokens.texts import clean
from tests.parity import fixtures
from tests.toy import make_toy, toy_score, toy_tokenizer

words = st.lists(st.sampled_from("abcdefgxyz"), max_size=40).map(" ".join)


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy")) / "tokenizer.json"


@pytest.fixture(scope="module")
def roberta_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer with two special tokens between the texts and no token types."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for letter in pre_tokenizers.ByteLevel.alphabet():
        vocabulary[letter] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    path = tmp_path_factory.mktemp("roberta") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_a_pair_has_the_templates_tokens_and_types(toy_file: Path) -> None:
    (pair,) = PairTokenizer(toy_file, max_length=64).encode([("a b", "c")])

    assert pair.ids.tolist() == toy_tokenizer().encode("a b", "c").ids
    assert pair.type_ids.tolist() == [0, 0, 0, 0, 1, 1]
    assert not pair.truncated


@given(query=words, document=words, max_length=st.integers(5, 30))
def test_longest_first_truncates_as_the_library_does(query: str, document: str, max_length: int) -> None:
    library = toy_tokenizer()
    library.enable_truncation(max_length)
    expected = library.encode(query, document)
    query_length, document_length = len(query.split()), len(document.split())

    kept = fit_lengths(query_length, document_length, max_length - 3, "longest_first", 0)

    assert kept == (expected.sequence_ids.count(0), expected.sequence_ids.count(1))


@settings(max_examples=200)
@given(query=st.text(max_size=60), document=st.text(max_size=200), max_length=st.integers(6, 40))
@pytest.mark.parametrize("name", ["toy", "roberta"])
def test_any_text_gives_the_librarys_ids(
    name: str, query: str, document: str, max_length: int, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(f"{name}_file")
    library = Tokenizer.from_file(str(path))
    library.enable_truncation(max_length)
    expected = library.encode(clean(query), clean(document))

    (pair,) = PairTokenizer(path, max_length=max_length).encode([(query, document)])

    assert pair.ids.tolist() == expected.ids
    assert pair.type_ids.tolist() == expected.type_ids


def test_what_tokenizer_json_stores_of_truncation_and_padding_is_left_aside(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=32)
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    (pair,) = PairTokenizer(tmp_path / "tokenizer.json", max_length=64).encode([("a b c", "d e f g")])

    assert pair.length == 10


@pytest.mark.parametrize("long_documents", ["truncate", "max"])
def test_a_document_is_told_as_cut_where_a_caller_wants_fewer_tokens_than_it_has(
    long_documents: LongDocuments, toy_file: Path
) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=64, long_documents=long_documents)

    for most, length in ((4, 10), (3, 9), (2, 8), (5, 10)):
        (pair,) = tokenizer.encode([("a b c", "d e f g")], document_tokens=most)
        assert (pair.length, pair.truncated) == (length, most < 4)


def test_only_second_cuts_the_document_and_caps_a_query_that_would_fill_the_row(toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=13, truncation="only_second")
    values = tokenizer.encode([("a b c", "d " * 50), ("a " * 50, "d " * 50)])

    assert [value.length for value in values] == [13, 13]
    assert values[0].type_ids.tolist() == [0] * 5 + [1] * 8
    assert values[1].type_ids.tolist() == [0] * 7 + [1] * 6
    assert values[1].truncated


@pytest.mark.parametrize(
    "text", ["word " * 300_000, "x" * 1_000_000, "a" + " " * 400_000 + "b c d", "金丝雀" * 200_000]
)
def test_clipping_a_long_text_changes_no_id(text: str, roberta_file: Path, toy_file: Path) -> None:
    for path in (roberta_file, toy_file):
        library = Tokenizer.from_file(str(path))
        library.enable_truncation(64)

        (pair,) = PairTokenizer(path, max_length=64).encode([("a", text)])

        assert pair.ids.tolist() == library.encode("a", text).ids


LONGEST_PIECE = 256


def long_pieces(kind: str, path: Path) -> Path:
    """A tokenizer whose pieces may be long and hold spaces, so that a text is hardly ever cut between two of them."""
    pieces = [unit * 2**power for unit in ("x", "y ") for power in range(9) if len(unit) * 2**power <= LONGEST_PIECE]
    specials = ["[UNK]", "[CLS]", "[SEP]"]
    if kind == "bpe":
        vocabulary = {piece: place for place, piece in enumerate([*specials, "y", " ", *pieces])}
        halves = [(piece[: len(piece) // 2], piece[len(piece) // 2 :]) for piece in pieces if len(piece) > 1]
        tokenizer = Tokenizer(models.BPE(vocabulary, halves, unk_token="[UNK]"))
    else:
        scored = [(piece, -1.0) for piece in [*specials, *pieces]]
        tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=False))
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A [SEP] $B:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(path))
    return path


# Not a Unigram with pieces across spaces: it weighs the whole text, and the end may decide on the first piece. Those in
# use split at spaces first.
@pytest.mark.parametrize(("kind", "unit"), [("bpe", "x"), ("bpe", "y "), ("unigram", "x")])
def test_a_cut_that_falls_into_a_long_token_changes_no_id(kind: str, unit: str, tmp_path: Path) -> None:
    long_pieces_file = long_pieces(kind, tmp_path / "tokenizer.json")
    text = unit * (LONGEST_PIECE // len(unit)) * 500
    for max_length in range(6, 12):
        library = Tokenizer.from_file(str(long_pieces_file))
        library.enable_truncation(max_length)
        expected = library.encode("x", text).ids

        (pair,) = PairTokenizer(long_pieces_file, max_length=max_length).encode([("x", text)])

        assert len(set(expected[3:])) == 1, "every token of the whole text is the longest one"
        assert pair.ids.tolist() == expected


@pytest.mark.parametrize("text", ["a b c d e f g h", "a " * 50_000 + "b c d e f g h"])
def test_a_text_that_is_cut_on_the_left_keeps_its_end(text: str, toy_file: Path) -> None:
    library = toy_tokenizer()
    library.enable_truncation(9, direction="left")
    tokenizer = PairTokenizer(toy_file, max_length=9, truncation_side="left")

    for pair in [("q", text), (text, "q")]:
        (encoded,) = tokenizer.encode([pair])

        assert encoded.ids.tolist() == library.encode(*pair).ids
        assert encoded.truncated


@pytest.mark.parametrize("long_documents", ["truncate", "max", "mean", "first"])
def test_a_cut_query_is_told_whatever_the_document(long_documents: LongDocuments, toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=13, long_documents=long_documents)
    fits, too_long = "a b", "a " * 50

    def cut(query: str, document: str) -> bool:
        return any(encoded.truncated for encoded in tokenizer.encode([(query, document)]))

    assert cut(too_long, "d")
    assert cut(too_long, "d " * 50)
    assert not cut(fits, "d e f")
    assert cut(fits, "d " * 50) == (long_documents in ("truncate", "first"))


@pytest.mark.parametrize("long_documents", ["max", "mean"])
def test_windows_reach_the_end_of_a_document_of_any_length(long_documents: LongDocuments, toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=40, long_documents=long_documents)

    windows = tokenizer.encode([("q", "a " * 20_000 + "x y z")])

    end = toy_tokenizer().encode("x y z", add_special_tokens=False).ids
    assert windows[-1].ids.tolist()[-4:-1] == end


def test_equal_tokens_of_other_types_are_another_pair(toy_file: Path) -> None:
    pairs = [("a", "b [SEP] c"), ("a [SEP] b", "c")]
    one, other = PairTokenizer(toy_file, max_length=64).encode(pairs)
    assert one.ids.tolist() == other.ids.tolist()

    scores = TextCrossEncoder(toy_file.parent).rerank_pairs(pairs)

    assert scores == [toy_score(*pair) for pair in pairs]
    assert scores[0] != scores[1]


@pytest.mark.parametrize("name", ["qwen3-reranker", "mxbai-rerank-v2"])
def test_a_long_query_keeps_what_its_prompt_says_after_it(name: str) -> None:
    encoder = TextCrossEncoder(fixtures.folder(name), max_length=220 if name == "qwen3-reranker" else 260)
    tokenizer = Tokenizer.from_file(str(fixtures.folder(name) / "tokenizer.json"))
    (fed,) = encoder.load().feeds([("salt " * 400, "bread " * 400)])

    text = tokenizer.decode(fed["input_ids"][0].tolist(), skip_special_tokens=False)

    between = "\n<Document>:" if name == "qwen3-reranker" else "\n"
    assert "salt salt" in text
    assert "bread bread" in text
    assert between in text[text.rindex("salt") : text.index("bread")]
    assert encoder.truncated([("salt " * 400, "bread"), ("salt", "bread")]) == [True, False]


def test_a_lone_surrogate_becomes_the_replacement_character_and_a_split_pair_is_joined() -> None:
    assert clean("a\ud800b") == "a\ufffdb"
    assert clean("\ud83d\udc26") == "🐦"
    assert clean("é\x00🐤") == "é\x00🐤"


def test_special_tokens_in_a_text_are_control_tokens_or_text_by_choice(toy_file: Path) -> None:
    special = PairTokenizer(toy_file, max_length=64).encode([("a", "b [SEP] c")])[0]
    text = PairTokenizer(toy_file, max_length=64, special_tokens_in_text="text").encode([("a", "b [SEP] c")])[0]

    assert special.ids.tolist().count(2) == 3
    assert text.ids.tolist().count(2) == 2


@given(length=st.integers(0, 300), window=st.integers(1, 50))
def test_windows_cover_each_token_and_none_is_left_over(length: int, window: int) -> None:
    starts = window_starts(length, window)
    covered = {place for start in starts for place in range(start, min(start + window, length))}

    assert covered == set(range(length))
    assert all(start < max(length, 1) for start in starts)
    if len(starts) > 1:
        assert starts[-2] + window < length


def test_windows_each_hold_the_whole_query(toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=15, long_documents="max")
    values = tokenizer.encode([("a b", "c " * 30), ("a b", "d")])

    assert [value.pair for value in values][-1] == 1
    assert [value.pair for value in values][:-1] == [0] * 4
    assert all(value.ids.tolist()[:4] == values[0].ids.tolist()[:4] for value in values)


def test_max_length_must_leave_room_for_both_texts(toy_file: Path) -> None:
    with pytest.raises(InputValueError, match=r"max_length=4 .* 3 special tokens .* use 5 or more"):
        PairTokenizer(toy_file, max_length=4)


def test_two_empty_texts_without_special_tokens_still_make_a_row(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.post_processor = processors.Sequence([])
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    (pair,) = PairTokenizer(tmp_path / "tokenizer.json", max_length=8).encode([("", "")])

    assert pair.length == 1


def test_a_template_that_puts_the_document_first_is_refused(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="$B:0 [SEP]:0 $A:1", special_tokens=[("[SEP]", 2)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    with pytest.raises(UnsupportedModelError, match="query, then document"):
        PairTokenizer(tmp_path / "tokenizer.json", max_length=8)


@pytest.mark.parametrize("content", ["", "{}", "{", "[1, 2]", '{"version": "1.0", "model": {"type": "WordLevel"}}'])
def test_a_broken_tokenizer_file_is_our_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)

    with pytest.raises(InvalidModelError, match=r"tokenizer can't be used"):
        PairTokenizer(tmp_path / "tokenizer.json", max_length=8)


@pytest.mark.parametrize("side", ["left", "right"])
def test_collate_pads_on_the_side_the_model_wants(side: str, toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=64)
    arrays = collate(tokenizer.encode([("a", "b"), ("a", "b c d")]), pad_id=9, padding_side=side)  # type: ignore[arg-type]

    row, mask = arrays["input_ids"][0].tolist(), arrays["attention_mask"][0].tolist()
    assert arrays["input_ids"].shape == (2, 7)
    assert all(array.dtype == np.int64 for array in arrays.values())
    assert (
        (row[:2], mask) == ([9, 9], [0, 0, 1, 1, 1, 1, 1])
        if side == "left"
        else (row[-2:], mask) == ([9, 9], [1] * 5 + [0, 0])
    )
    assert arrays["position_ids"][0][np.array(mask) == 1].tolist() == [0, 1, 2, 3, 4]

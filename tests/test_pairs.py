"""How the tokens of two texts are cut, joined, cut into windows and padded: numbers that a reader can check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from onnx_rerank_integrations.core.errors import InputValueError, InvalidModelError, UnsupportedModelError
from onnx_rerank_integrations.core.tokens.auto import TokenizerSettings
from onnx_rerank_integrations.core.tokens.pairs import (
    EncodedPair,
    PairTokenizer,
    Segment,
    Template,
    collate,
    fit_lengths,
    frame,
    gives_token_types,
    pad_id,
    pair_template,
    window_starts,
)
from tests.toy import make_toy, toy_tokenizer


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy")) / "tokenizer.json"


def read(encoded: EncodedPair) -> str:
    """The words of a pair, [CLS] and [SEP] as slashes."""
    words = [toy_tokenizer().id_to_token(int(token)) for token in encoded.ids]
    return " ".join("/" if word in ("[CLS]", "[SEP]") else word for word in words)


def segment(ids: list[int], kind: int) -> Segment:
    return Segment(np.array(ids, dtype=np.int32), np.full(len(ids), kind, dtype=np.int8))


def ids_of(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int32)


def test_a_template_puts_its_tokens_around_both_texts() -> None:
    template = Template(segment([1], 0), 0, segment([2, 3], 1), 1, segment([4], 2))

    ids, types = template.join(ids_of(10, 11), ids_of(20))

    assert ids.tolist() == [1, 10, 11, 2, 3, 20, 4]
    assert types.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert (ids.dtype, types.dtype) == (np.int32, np.int8)
    assert template.special_tokens == 4
    plain = template.without_types()
    assert plain.join(ids_of(10, 11), ids_of(20))[0].tolist() == ids.tolist()
    assert plain.join(ids_of(10, 11), ids_of(20))[1].tolist() == [0] * 7


def test_a_template_may_put_the_document_first() -> None:
    template = Template(segment([1], 0), 0, segment([2], 0), 1, segment([3], 1), document_first=True)

    assert template.join(ids_of(10, 11), ids_of(20))[0].tolist() == [1, 20, 2, 10, 11, 3]


@pytest.mark.parametrize(
    ("query", "document", "room", "expected"),
    [
        (3, 4, 7, (3, 4)),
        (3, 5, 7, (3, 4)),
        (3, 50, 7, (3, 4)),
        (4, 50, 7, (3, 4)),  # the second gets the odd token
        (50, 4, 7, (4, 3)),
        (50, 3, 7, (4, 3)),
        (50, 2, 7, (5, 2)),
        (4, 4, 7, (3, 4)),
        (5, 4, 8, (4, 4)),
        (50, 50, 8, (4, 4)),
        (0, 50, 7, (0, 7)),
        (50, 0, 7, (7, 0)),
    ],
)
def test_the_longer_text_is_cut_first(query: int, document: int, room: int, expected: tuple[int, int]) -> None:
    assert fit_lengths(query, document, room, "longest_first", 0) == expected


def test_only_the_document_is_cut_beside_a_query_within_its_share() -> None:
    assert fit_lengths(3, 4, 7, "only_second", 2) == (3, 4)
    assert fit_lengths(5, 50, 10, "only_second", 5) == (5, 5)
    assert fit_lengths(6, 50, 10, "only_second", 5) == (5, 5)
    assert fit_lengths(9, 2, 10, "only_second", 5) == (5, 2)
    assert fit_lengths(2, 50, 10, "only_second", 5) == (2, 8)


@pytest.mark.parametrize(
    ("length", "window", "starts"),
    [
        (0, 4, [0]),
        (4, 4, [0]),
        (5, 4, [0, 3]),
        (7, 4, [0, 3]),
        (8, 4, [0, 3, 6]),
        (20, 8, [0, 6, 12]),
        (21, 8, [0, 6, 12, 18]),
        (3, 1, [0, 1, 2]),
        (5, 2, [0, 2, 4]),
    ],
)
def test_windows_overlap_by_a_quarter(length: int, window: int, starts: list[int]) -> None:
    assert list(window_starts(length, window)) == starts


@pytest.mark.parametrize(
    ("options", "query", "document", "expected", "truncated"),
    [
        ({}, "a b", "c d e", ["/ a b / c d e /"], [False]),
        ({}, "a b", "c d e f", ["/ a b / c d e /"], [True]),
        ({}, "a b c d", "e f g", ["/ a b c / e f /"], [True]),
        ({"truncation_side": "left"}, "a b", "c d e f", ["/ a b / d e f /"], [True]),
        ({"truncation_side": "left"}, "a b c d", "e f g", ["/ b c d / f g /"], [True]),
        ({"truncation": "only_second"}, "a b", "c d e f", ["/ a b / c d e /"], [True]),
        ({"truncation": "only_second"}, "a b c", "d e f", ["/ a b / d e f /"], [True]),
        ({"truncation": "only_second"}, "a b c", "d e", ["/ a b c / d e /"], [False]),
        ({"long_documents": "max"}, "a", "c d e f", ["/ a / c d e f /"], [False]),
        ({"long_documents": "max"}, "a", "c d e f g", ["/ a / c d e f /", "/ a / f g /"], [False, False]),
        ({"long_documents": "mean"}, "a", "c d e f g", ["/ a / c d e f /", "/ a / f g /"], [False, False]),
        ({"long_documents": "first"}, "a", "c d e f g", ["/ a / c d e f /"], [True]),
        ({"long_documents": "first"}, "a b c d", "e f", ["/ a b / e f /"], [True]),
        ({"long_documents": "max"}, "a b c d", "e f", ["/ a b / e f /"], [True]),
    ],
)
def test_what_is_read_of_a_pair_in_eight_tokens(
    options: dict[str, Any], query: str, document: str, expected: list[str], truncated: list[bool], toy_file: Path
) -> None:
    encoded = PairTokenizer(toy_file, max_length=8, **options).encode([("x", "y"), (query, document)])[1:]

    assert [read(one) for one in encoded] == expected
    assert [one.truncated for one in encoded] == truncated
    assert {one.pair for one in encoded} == {1}
    assert [one.length for one in encoded] == [len(one.ids) for one in encoded]


def test_a_caller_may_read_less_of_documents(toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=8)

    encoded = tokenizer.encode([("a", "b c d"), ("a", "b c"), ("a", "b")], document_tokens=2)

    assert [read(one) for one in encoded] == ["/ a / b c /", "/ a / b c /", "/ a / b /"]
    assert [one.truncated for one in encoded] == [True, False, False]
    first = PairTokenizer(toy_file, max_length=8, long_documents="first")
    assert [one.truncated for one in first.encode([("a", "b c"), ("a", "b c d")], document_tokens=2)] == [False, True]
    windows = PairTokenizer(toy_file, max_length=8, long_documents="max")
    assert [read(one) for one in windows.encode([("a", "b c d e f g")], document_tokens=5)] == [
        "/ a / b c d e /",
        "/ a / e f /",
    ]


def test_each_distinct_text_is_tokenized_once(toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=8)
    asked: list[list[str]] = []
    token_ids = tokenizer._token_ids
    tokenizer._token_ids = lambda texts: asked.append(list(texts)) or token_ids(texts)  # type: ignore[func-returns-value]

    tokenizer.encode([("q", "a"), ("q", "b"), ("q", "a")])

    assert asked == [["q"], ["a", "b"]]


def test_a_prompts_query_may_fill_three_quarters_and_keeps_its_end(toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=14, prompt="x {query} y {document} z")

    def words(query: str, document: str) -> tuple[str, bool]:
        (encoded,) = tokenizer.encode([(query, document)])
        return read(encoded), encoded.truncated

    assert words("a b", "c d") == ("/ x a b y c d z /", False)
    assert words("a", "b " * 20) == ("/ x a y " + "b " * 8 + "z /", True)
    assert words("a " * 20, "b c") == ("/ x " + "a " * 7 + "y b c z /", True)
    assert words("a " * 7, "b c d")[0] == "/ x " + "a " * 7 + "y b c z /"


def test_a_prompts_words_after_a_text_are_in_each_window_and_have_no_types(toy_file: Path) -> None:
    def windows(max_length: int, document: str) -> list[str]:
        tokenizer = PairTokenizer(
            toy_file, max_length=max_length, prompt="x {query} y {document} z", long_documents="max"
        )
        encoded = tokenizer.encode([("a", document)])
        assert not any(one.type_ids.any() or one.truncated for one in encoded)
        return [read(one) for one in encoded]

    assert windows(14, "b c d e f g h i j k") == ["/ x a y b c d e f g h i z /", "/ x a y h i j k z /"]
    assert windows(14, "b c d e f g h i") == ["/ x a y b c d e f g h i z /"]
    assert windows(8, "b c d") == ["/ x a y b c z /", "/ x a y d z /"]
    assert windows(7, "b c d") == ["/ x a y b z /", "/ x a y c z /", "/ x a y d z /"]


def test_the_end_of_a_text_that_is_kept_whole_stays_as_it_is_tokenized_with_the_prompt(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.normalizer = normalizers.Replace("b y", "k")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pairs = PairTokenizer(tmp_path / "tokenizer.json", max_length=10, prompt="x {query} y {document} z")

    whole, cut = pairs.encode([("a b", "c d"), ("a b", "c " * 20)])

    assert read(whole) == "/ x a k c d z /"
    assert read(cut) == "/ x a k c c c c z /"


@pytest.mark.parametrize("how", ["special", "text"])
def test_a_prompt_takes_the_place_of_a_pair_template_that_nobody_names(how: Any, tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.post_processor = processors.Sequence([])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    options: dict[str, Any] = {"max_length": 9, "settings": TokenizerSettings(), "special_tokens_in_text": how}

    (encoded,) = PairTokenizer(tmp_path / "tokenizer.json", **options, prompt="x {query} y {document}").encode(
        [("a", "b")]
    )

    assert read(encoded) == "x a y b"
    with pytest.raises(UnsupportedModelError, match="has no pair template"):
        PairTokenizer(tmp_path / "tokenizer.json", **options)


def test_a_long_query_is_not_read_to_its_end_and_a_lone_surrogate_is_a_character(toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=8)
    longest: list[int] = []
    token_ids = tokenizer._token_ids
    tokenizer._token_ids = lambda texts: longest.append(max(map(len, texts))) or token_ids(texts)  # type: ignore[func-returns-value]

    long, surrogate = tokenizer.encode([("a " * 100_000, "b"), ("a \ud800", "b \udc00 c")])

    assert read(long) == "/ a a a a / b /"
    assert max(longest) < 10_000
    assert surrogate.length == 8


def test_a_text_that_spells_a_control_token_is_read_as_its_characters_on_request(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    plain, spelled = (
        PairTokenizer(tmp_path / "tokenizer.json", max_length=20, special_tokens_in_text=how)  # type: ignore[arg-type]
        for how in ("special", "text")
    )
    pairs = [("a", "b"), ("a", "b [SEP] c"), ("[CLS]", "c")]

    assert [read(one).count("/") for one in plain.encode(pairs)] == [3, 4, 4]
    assert [read(one).count("/") for one in spelled.encode(pairs)] == [3, 3, 3]
    assert read(spelled.encode(pairs)[0]) == "/ a / b /"
    assert read(spelled.encode(pairs)[1]).startswith("/ a / b ")
    assert read(spelled.encode(pairs)[1]).endswith(" c /")
    assert spelled._spell_out("b [SEP] c") == "b [ SEP] c"


def test_a_prefix_stands_before_each_query(toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=9, query_prefix="x ")

    assert [read(one) for one in tokenizer.encode([("a", "b"), ("c", "d")])] == ["/ x a / b /", "/ x c / d /"]


def test_a_prompts_words_are_kept_even_where_a_text_is_left_out(toy_file: Path) -> None:
    cut = PairTokenizer(toy_file, max_length=9)._cut

    kept = [cut(ids_of(1, 2, 8, 9), length, ids_of(8, 9)).tolist() for length in (4, 3, 2, 1)]
    assert kept == [[1, 2, 8, 9], [1, 8, 9], [8, 9], [8, 9]]


def test_trials_are_the_same_drawn_ordinary_tokens_each_time(toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=12)

    rows, again = (list(tokenizer.trial_rows((3, 4), 3)) for _ in range(2))

    assert [row.ids.tolist() for row in rows] == [row.ids.tolist() for row in again]
    assert len({tuple(row.ids.tolist()) for row in rows}) == 3
    for row in rows:
        assert [place for place, word in enumerate(read(row).split()) if word == "/"] == [0, 4, 9]
        assert row.length == 10
        assert not row.truncated
        assert row.pair == 0
    assert [row.length for row in tokenizer.trial_rows((30, 30), 2)] == [12, 12]
    drawn = {int(token) for row in tokenizer.trial_rows((4, 5), 300) for token in row.ids}
    assert drawn == set(range(toy_tokenizer().get_vocab_size())) - {tokenizer.pad_id}


def test_a_word_that_scores_are_read_from_is_one_of_the_vocabulary(toy_file: Path) -> None:
    tokenizer = PairTokenizer(toy_file, max_length=12)
    last = toy_tokenizer().get_vocab_size() - 1

    assert tokenizer.token_id("a") == toy_tokenizer().token_to_id("a")
    assert [tokenizer.token_id(number) for number in (0, last)] == [0, last]
    for word in ("unheard-of", -1, last + 1):
        with pytest.raises(UnsupportedModelError, match="has no token"):
            tokenizer.token_id(word)


def test_the_least_room_is_one_token_for_each_text(toy_file: Path) -> None:
    (encoded,) = PairTokenizer(toy_file, max_length=5).encode([("a b", "c d")])

    assert read(encoded) == "/ a / c /"
    with pytest.raises(InputValueError, match="use 5 or more"):
        PairTokenizer(toy_file, max_length=4)


def test_rows_of_nothing_are_one_pad_token(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.post_processor = processors.Sequence([])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pairs = PairTokenizer(tmp_path / "tokenizer.json", max_length=8)

    empty, full = pairs.encode([("", ""), ("a", "")])

    assert (empty.ids.tolist(), empty.type_ids.tolist()) == ([pairs.pad_id], [0])
    assert full.ids.tolist() == [toy_tokenizer().token_to_id("a")]


def row(*ids: int) -> EncodedPair:
    return EncodedPair(0, ids_of(*ids), np.array([0] * (len(ids) - 1) + [1], dtype=np.int8), False)


def test_rows_are_padded_on_the_right_or_on_the_left() -> None:
    right = collate([row(5, 6), row(7, 8, 9)], pad_id=3)
    left = collate([row(5, 6), row(7, 8, 9)], pad_id=3, padding_side="left")

    assert right["input_ids"].tolist() == [[5, 6, 3], [7, 8, 9]]
    assert right["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert right["token_type_ids"].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert right["position_ids"].tolist() == [[0, 1, 1], [0, 1, 2]]
    assert left["input_ids"].tolist() == [[3, 5, 6], [7, 8, 9]]
    assert left["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert left["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 1]]
    assert left["position_ids"].tolist() == [[0, 0, 1], [0, 1, 2]]
    assert collate([row(5)], pad_id=3, length=4)["input_ids"].tolist() == [[5, 3, 3, 3]]


def test_positions_may_begin_after_the_paddings() -> None:
    right = collate([row(5, 6), row(7, 8, 9)], pad_id=1, first_position=2)
    left = collate([row(5, 6), row(7, 8, 9)], pad_id=1, padding_side="left", first_position=2)

    assert right["position_ids"].tolist() == [[2, 3, 1], [2, 3, 4]]
    assert left["position_ids"].tolist() == [[1, 2, 3], [2, 3, 4]]


def test_inputs_have_the_types_that_are_asked_for() -> None:
    arrays = collate([row(5, 6)], pad_id=0, inputs={"input_ids": np.dtype(np.int32)})

    assert list(arrays) == ["input_ids"]
    assert arrays["input_ids"].dtype == np.int32


def test_the_template_is_read_off_a_pair(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A",
        pair="[CLS]:0 [SEP]:1 $A:1 [SEP]:2 [CLS]:0 $B:3 [SEP]:3",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )

    template = pair_template(tokenizer, tmp_path)

    assert [part.ids.tolist() for part in (template.before, template.between, template.after)] == [[1, 2], [2, 1], [2]]
    assert [part.type_ids.tolist() for part in (template.before, template.between, template.after)] == [
        [0, 1],
        [2, 0],
        [3],
    ]
    assert (template.query_type, template.document_type, template.document_first) == (1, 3, False)


@pytest.mark.parametrize("pair", ["$B:0 [SEP]:0 $A:1", "[CLS]:0 $A:0 $A:0 $B:1", "$A:0 $B:1 $B:1"])
def test_another_form_of_template_is_refused(pair: str, tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair=pair, special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )

    with pytest.raises(UnsupportedModelError, match="query, then document"):
        pair_template(tokenizer, tmp_path)


def test_a_template_whose_order_shows_in_one_text_alone_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("query", "a b"), normalizers.Replace("document", "b")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$B:0 $A:0", special_tokens=[])
    assert tokenizer.encode("query", "document").ids == [2, 1, 2], "the document stands where it would last"

    with pytest.raises(UnsupportedModelError, match="query, then document"):
        pair_template(tokenizer, tmp_path)


def test_the_template_is_read_off_texts_that_give_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE({"[C]": 0, "[S]": 1, "f": 2, "g": 3}, []))  # drops what it doesn't know
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[C] $A", pair="[C] $A [S] $B", special_tokens=[("[C]", 0), ("[S]", 1)]
    )
    assert tokenizer.encode("query").ids == [0]

    template = pair_template(tokenizer, tmp_path)

    assert [part.ids.tolist() for part in (template.before, template.between, template.after)] == [[0], [1], []]


def test_what_frames_a_single_text() -> None:
    assert frame(toy_tokenizer()) == ([1], [2])
    plain = toy_tokenizer()
    plain.post_processor = processors.Sequence([])
    assert frame(plain) == ([], [])


def test_a_vocabulary_of_unusual_words_is_probed_by_its_own(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "fish": 1, "fowl": 2}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    template = pair_template(tokenizer, tmp_path)

    assert template.special_tokens == 0
    tokenizer.normalizer = normalizers.Replace(Regex("."), "")
    with pytest.raises(InvalidModelError, match="gives no tokens"):
        pair_template(tokenizer, tmp_path)


def test_which_id_pads() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<pad>": 1, "[FILL]": 2, "<|endoftext|>": 3}, unk_token="a"))

    assert pad_id(tokenizer, "[FILL]") == 2
    assert pad_id(tokenizer, "[FILL]", pad_token_id=7) == 2
    assert pad_id(tokenizer, "[FILL]", pad_token_id=7, config_first=True) == 7
    assert pad_id(tokenizer, "[FILL]", config_first=True) == 2
    assert pad_id(tokenizer, "unknown", pad_token_id=7) == 7
    assert pad_id(tokenizer, None, pad_token_id=0) == 0
    assert pad_id(tokenizer, None) == 1
    bare = Tokenizer(models.WordLevel({"x": 0, "y": 1}, unk_token="x"))
    assert pad_id(bare, None) == 0
    bare.add_special_tokens([AddedToken("[PAD]")])
    assert pad_id(bare, None) == 2


def test_the_tokenizers_own_pad_token_comes_first_but_where_a_decoder_says_otherwise(
    toy_file: Path, tmp_path: Path
) -> None:
    own = toy_tokenizer().token_to_id("[PAD]")

    settings = TokenizerSettings(config={"pad_token": "[PAD]"})
    options: dict[str, Any] = {"max_length": 9, "settings": settings, "pad_token_id": own + 5}

    assert PairTokenizer(toy_file, **options).pad_id == own
    tokenizer = toy_tokenizer()
    tokenizer.enable_padding(pad_token="b", pad_id=tokenizer.token_to_id("b"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert PairTokenizer(tmp_path / "tokenizer.json", max_length=9).pad_id == tokenizer.token_to_id("b")
    assert PairTokenizer(tmp_path / "tokenizer.json", max_length=9, settings=settings).pad_id == own
    assert PairTokenizer(toy_file, **options, pads_by_config=True).pad_id == own + 5


def test_files_may_list_their_inputs_without_token_types(toy_file: Path) -> None:
    assert gives_token_types({})
    assert gives_token_types({"model_input_names": ["input_ids", "token_type_ids"]})
    assert not gives_token_types({"model_input_names": ["input_ids", "attention_mask"]})
    settings = TokenizerSettings(config={"model_input_names": ["input_ids"]})
    (encoded,) = PairTokenizer(toy_file, max_length=9, settings=settings).encode([("a", "b")])
    assert encoded.type_ids.tolist() == [0] * 5

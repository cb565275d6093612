"""What callers pass in is refused by name where it can't be meant, at the edge of what can."""

from __future__ import annotations

import math
from collections import UserDict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from onnx_rerank_integrations.core.checks import (
    MOST_THREADS,
    check_batch_size,
    check_choice,
    check_flag,
    check_instruction,
    check_label,
    check_list,
    check_max_length,
    check_model_name,
    check_parallel,
    check_path,
    check_prompt,
    check_providers_option,
    check_score_threshold,
    check_threads,
    check_timeout,
    check_top_n,
    checked_pairs,
    is_url,
    pairs_of,
    plain,
)
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError


class Loud(str):
    """A text that says that it looks otherwise."""

    def __str__(self) -> str:
        return "LOUD"


class Frame:
    """Looks like a data frame: it has columns, and iterates over their names."""

    columns = ("text",)

    def keys(self) -> tuple[str, ...]:
        return self.columns

    def __iter__(self) -> Any:
        return iter(self.columns)


class Columns:
    """Has columns, and gives texts: no data frame."""

    columns = 2

    def __iter__(self) -> Any:
        return iter(["a"])


def test_texts_become_pairs_of_plain_characters() -> None:
    pairs = pairs_of(Loud("q"), (text for text in ("a", Loud("b"))))

    assert pairs == [("q", "a"), ("q", "b")]
    assert {type(text) for pair in pairs for text in pair} == {str}
    assert plain("a") == "a"
    assert pairs_of("q", Columns()) == [("q", "a")]
    assert pairs_of("q", []) == []


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        (b"q", ["a"], "query must be a str, not bytes"),
        (None, ["a"], "query must be a str, not NoneType"),
        ("q", "one text", "not one str: put a single text in a list"),
        ("q", b"one", "not one bytes"),
        ("q", 3, "not one int"),
        ("q", {"a": 1}, r"documents must not be a dict, .*: give its texts: list\(documents.values\(\)\)"),
        ("q", UserDict(a=1), "documents must not be a UserDict"),
        ("q", Frame(), "documents must not be a Frame"),
        ("q", ["a", None], "document 1 must be a str, not NoneType"),
        ("q", [7, "a"], "document 0 must be a str, not int"),
    ],
)
def test_what_are_no_texts_is_told_by_its_type_and_place(query: Any, documents: Any, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        pairs_of(query, documents)


def test_pairs_may_be_tuples_or_lists_and_become_plain() -> None:
    assert checked_pairs([("q", "a"), ["r", "b"], (Loud("s"), Loud("c"))]) == [("q", "a"), ("r", "b"), ("s", "c")]
    assert checked_pairs(pair for pair in [("q", "a")]) == [("q", "a")]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("qa", r"an iterable of \(query, document\), not str"),
        (b"qa", "not bytes"),
        (3, "not int"),
        ({"q": "a"}, r"pairs must not be a dict, .*: give its pairs: list\(pairs.items\(\)\)"),
        ([("q", "a"), "qa"], r"pair 1 must be a \(query, document\) tuple, not str"),
        ([b"qa"], "pair 0 must be a"),
        ([{"q", "a"}], "pair 0 must be a .* not set"),
        ([("q",)], "pair 0 must be a"),
        ([("q", "a", "b")], "pair 0 must be a"),
        ([("q", "a"), ("q", 1)], "the document of pair 1 must be a str, not int"),
        ([(None, "a")], "the query of pair 0 must be a str, not NoneType"),
    ],
)
def test_what_are_no_pairs_is_told_by_its_type_and_place(pairs: Any, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        checked_pairs(pairs)


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (check_top_n, [None, 1, 2, 10**9, np.int64(3)]),
        (check_batch_size, [None, 1, 2]),
        (check_max_length, [None, 1, 512]),
        (check_parallel, [None, 0, 1, 2]),
        (check_threads, [None, 1, MOST_THREADS]),
        (check_score_threshold, [None, 0.5, -math.inf, math.inf, 1, 0, np.float32(0.5), np.int64(1)]),
        (check_timeout, [None, 0.001, 1, math.inf, np.float32(0.5)]),
        (check_label, [None, 0, -1, 2, "yes"]),
        (check_instruction, [None, "", "find"]),
        (check_flag("a flag"), [True, False]),
        (check_path("cache_dir"), [None, "", "a/b", Path("~/c")]),
        (check_model_name, [None, "name", Path("folder"), "ftp://x", "https"]),
        (check_prompt, [None, "none", "qwen3", "mxbai-v2", "nemotron", "{query} {document}"]),
        (check_providers_option, [None, [], ["A"], [("A", {})], [["A", {"x": 1}], "B"], ("A", "B")]),
    ],
)
def test_what_can_be_meant_is_taken(check: Any, good: list[Any]) -> None:
    for value in good:
        check(value)


@pytest.mark.parametrize(
    ("check", "error", "bad"),
    [
        (check_top_n, InputTypeError, [True, 1.0, "1", [1]]),
        (check_top_n, InputValueError, [0, -1]),
        (check_batch_size, InputTypeError, [False, 2.5, "a"]),
        (check_batch_size, InputValueError, [0, -3]),
        (check_max_length, InputTypeError, [True, 2.5]),
        (check_max_length, InputValueError, [0, -3]),
        (check_parallel, InputTypeError, [False, True, 0.5]),
        (check_parallel, InputValueError, [-1]),
        (check_threads, InputValueError, [0, -1, True, 1.0, "2", MOST_THREADS + 1]),
        (check_score_threshold, InputValueError, [math.nan]),
        (check_score_threshold, InputTypeError, [True, "0.5", [0.5], {}, 3j, 10**400]),
        (check_timeout, InputTypeError, [True, "3", [1], 10**400]),
        (check_timeout, InputValueError, [0, -1, math.nan, -math.inf]),
        (check_label, InputTypeError, [True, 1.0, [0]]),
        (check_instruction, InputTypeError, [3, b"find", ["find"]]),
        (check_flag("a flag"), InputTypeError, [None, 0, 1, "True"]),
        (check_path("cache_dir"), InputTypeError, [3, b"a", True]),
        (check_path("cache_dir"), InputValueError, ["\0", "a/\0/b", Path("a\0")]),
        (check_model_name, InputTypeError, [3, b"name", ["name"]]),
        (check_model_name, InputValueError, ["http://host", "HTTPS://host"]),
        (check_prompt, InputTypeError, [3, ["{query}"]]),
        (
            check_prompt,
            InputValueError,
            ["", "qwen", "{query}", "{document}", "{query}{query}{document}", "{query}{document}{document}"],
        ),
        (
            check_providers_option,
            InputTypeError,
            ["CPU", b"CPU", {"CPU": {}}, 3, [3], [("A",)], [("A", {}, 1)], [("A", 3)], [(1, {})], [{"A": {}}]],
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(check: Any, error: type[Exception], bad: list[Any]) -> None:
    for value in bad:
        with pytest.raises(error):
            check(value)


def test_refusals_name_the_option_and_say_what_it_takes() -> None:
    for check, value, message in [
        (check_top_n, 0, "top_n=0 must be 1 or more, or None for all documents"),
        (check_top_n, "x", "top_n must be a whole number from 1 or None for all documents, not 'x'"),
        (check_batch_size, 0, "batch_size=0 must be 1 or more, or None for the token budget alone"),
        (check_parallel, -1, "parallel=-1 must be 1 or more, or 0 for one per CPU"),
        (check_max_length, 0, "max_length=0 must be 1 or more, or None for what the model was made for"),
        (check_threads, 4096, "threads=4096 is more than 1024"),
        (check_path("cache_dir"), 7, "cache_dir must be a str, a Path or None, not 7"),
        (check_path("cache_dir"), "a\0", "cache_dir='a\\x00' can be no path"),
        (check_flag("lazy_load"), "yes", "lazy_load must be True or False, not 'yes'"),
    ]:
        with pytest.raises((InputTypeError, InputValueError)) as caught:
            check(value)  # type: ignore[operator]
        assert message in str(caught.value)
    with pytest.raises(InputValueError, match=f"prompt='{'x' * 80}' is no prompt"):
        check_prompt("x" * 100)
    with pytest.raises(InputValueError, match="keep=0 must be 1 or more"):
        check_top_n(0, name="keep")
    with pytest.raises(InputTypeError, match="names must be a list of words, not str: 'a'"):
        check_list("names", "a", "words")
    check_list("names", ["a"], "words")
    with pytest.raises(InputValueError, match="side='up' is not one of 'left', 'right'"):
        check_choice("side", "up", Literal["left", "right"])
    check_choice("side", "left", Literal["left", "right"])


def test_a_servers_address_is_told_from_a_models_name() -> None:
    assert is_url("http://host")
    assert is_url("HTTPS://host")
    assert not is_url("org/http://name")
    assert not is_url(Path("http://host"))
    assert not is_url(None)

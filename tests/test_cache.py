"""Remembered scores are the ones the model would give, whatever changes around them."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onnx_rerank_integrations import InputTypeError, InputValueError, ScoreError, TextCrossEncoder
from onnx_rerank_integrations.core.score_cache import DiskCache, MemoryCache, pair_keys
from tests.toy import make_toy, toy_score

DOCUMENTS = ["b c", "z", "", "b c", "k"]


class Runs:
    """Counts the pairs that really reach the model."""

    def __init__(self, encoder: TextCrossEncoder) -> None:
        self.pairs = 0
        opened = encoder.load()
        compute = opened._compute

        def counted(pairs: list[tuple[str, str]], **options: object) -> object:
            self.pairs += len(pairs)
            return compute(pairs, **options)  # type: ignore[arg-type]

        opened._compute = counted  # type: ignore[assignment]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_toy(tmp_path / "toy")


@pytest.fixture(params=["memory", "disk"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> int | Path:
    return 1000 if request.param == "memory" else tmp_path / "cache" / "scores.sqlite"


def test_a_pair_is_scored_once(where: int | Path, folder: Path) -> None:
    encoder = TextCrossEncoder(folder, score_cache=where)
    runs = Runs(encoder)
    expected = [toy_score("q", document) for document in DOCUMENTS]

    assert encoder.rerank("q", DOCUMENTS) == expected
    assert encoder.rerank("q", [*DOCUMENTS, "a"]) == [*expected, toy_score("q", "a")]
    assert runs.pairs == 4 + 1


def test_the_disk_outlives_the_encoder_and_an_option_that_changes_scores_is_another_key(
    folder: Path, tmp_path: Path
) -> None:
    where = tmp_path / "scores.sqlite"
    TextCrossEncoder(folder, score_cache=where).rerank("q", ["a b c d e f g h"])

    again = TextCrossEncoder(folder, score_cache=where)
    shorter = TextCrossEncoder(folder, score_cache=where, max_length=8)
    runs_again, runs_shorter = Runs(again), Runs(shorter)

    assert again.rerank("q", ["a b c d e f g h"]) == [toy_score("q", "a b c d e f g h")]
    assert shorter.rerank("q", ["a b c d e f g h"]) == [toy_score("q", "a b c d")]
    assert (runs_again.pairs, runs_shorter.pairs) == (0, 1)


def test_another_model_file_is_another_key(folder: Path, tmp_path: Path) -> None:
    where = tmp_path / "scores.sqlite"
    TextCrossEncoder(folder, score_cache=where).rerank("q", ["b"])
    make_toy(folder, head="two")

    assert TextCrossEncoder(folder, score_cache=where).rerank("q", ["b"]) == [2 * toy_score("q", "b")]


def test_memory_is_bounded_and_forgets_the_least_recently_used() -> None:
    cache = MemoryCache(2)
    cache.put({b"a": 1.0, b"b": 2.0})
    cache.get([b"a"])
    cache.put({b"c": 3.0})

    assert cache.get([b"a", b"b", b"c"]) == {b"a": 1.0, b"c": 3.0}


def test_the_disk_is_bounded_and_forgets_the_oldest(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "scores.sqlite", entries=1500)
    keys = [place.to_bytes(16, "little") for place in range(2000)]
    for start in range(0, 2000, 500):
        cache.put(dict.fromkeys(keys[start : start + 500], 1.0))

    assert cache.get(keys).keys() == set(keys[500:])


def test_texts_that_run_together_have_different_keys() -> None:
    keys = pair_keys(b"m", [("ab", "c"), ("a", "bc"), ("", "abc"), ("\ud800", "")])

    assert len(set(keys)) == 4


def test_nan_is_not_remembered(folder: Path) -> None:
    encoder = TextCrossEncoder(folder, score_cache=10)

    for _ in range(2):
        with pytest.raises(ScoreError, match="index 1"):
            encoder.rerank("q", ["a", "nan"])
    assert encoder.rerank("q", ["a"]) == [toy_score("q", "a")]


def test_threads_share_a_cache(where: int | Path, folder: Path) -> None:
    encoder = TextCrossEncoder(folder, score_cache=where)
    texts = [["a " * (1 + (i + j) % 13) for j in range(8)] for i in range(60)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda documents: encoder.rerank("q", documents), texts))

    assert results == [[toy_score("q", document) for document in documents] for documents in texts]


@pytest.mark.parametrize(
    ("bad", "error"), [(0, InputValueError), (-3, InputValueError), (True, InputTypeError), (1.5, InputTypeError)]
)
def test_what_is_no_cache_is_refused(bad: object, error: type[Exception], folder: Path) -> None:
    with pytest.raises(error, match="score_cache"):
        TextCrossEncoder(folder, score_cache=bad)  # type: ignore[arg-type]


def test_a_file_that_is_no_database_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are notes, and they stay as they are. " * 100)

    with pytest.raises(InputValueError, match=r"notes\.txt.* can't be used as an SQLite file"):
        TextCrossEncoder(folder, score_cache=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text().startswith("these are notes")
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(tmp_path / "notes.txt").execute("SELECT 1 FROM logits")

"""Remembered scores are the ones the model would give, whatever changes around them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer, normalizers

from onnx_rerank_integrations import InputTypeError, InputValueError, ScoreError, TextCrossEncoder
from onnx_rerank_integrations.core import score_cache
from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.score_cache import (
    DiskCache,
    MemoryCache,
    ScoreCache,
    open_store,
    packed,
    pair_keys,
    unpacked,
)
from onnx_rerank_integrations.core.scoring import Floats
from onnx_rerank_integrations.core.types import Pair
from tests.parity import fixtures
from tests.toy import make_toy, toy_score

DOCUMENTS = ["b c", "z", "", "b c", "k"]


class Runs:
    """Counts the rows that really reach onnxruntime."""

    def __init__(self) -> None:
        self.rows = 0

    def since(self) -> int:
        """Rows since it was last asked."""
        rows, self.rows = self.rows, 0
        return rows


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    counted = Runs()
    run = onnxruntime.InferenceSession.run

    def counting(session: Any, names: Any, feeds: Any, *rest: Any) -> Any:
        counted.rows += len(feeds["input_ids"])
        return run(session, names, feeds, *rest)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", counting)
    return counted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_toy(tmp_path / "toy")


@pytest.fixture(params=["memory", "disk"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> int | Path:
    return 1000 if request.param == "memory" else tmp_path / "cache" / "scores.sqlite"


def test_a_pair_is_scored_once(where: int | Path, folder: Path, runs: Runs) -> None:
    encoder = TextCrossEncoder(folder, score_cache=where)
    runs.since()
    expected = [toy_score("q", document) for document in DOCUMENTS]

    assert encoder.rerank("q", DOCUMENTS) == expected
    assert encoder.rerank("q", [*DOCUMENTS, "a"]) == [*expected, toy_score("q", "a")]
    assert runs.since() == 4 + 1


def test_the_disk_outlives_the_encoder(folder: Path, tmp_path: Path, runs: Runs) -> None:
    where = tmp_path / "scores.sqlite"
    TextCrossEncoder(folder, score_cache=where).rerank("q", DOCUMENTS)

    again = TextCrossEncoder(folder, score_cache=where, activation="sigmoid")
    runs.since()

    assert again.rerank("q", DOCUMENTS, activation="identity") == [toy_score("q", one) for one in DOCUMENTS]
    assert runs.since() == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"label": 0}, {"label": 2}),
        ({"label": "maybe"}, {"label": "yes"}),
        ({"label": 1}, {"label": 1, "special_tokens_in_text": "text"}),
        ({"label": 1}, {"label": 1, "max_length": 9}),
        ({"label": 1, "max_length": 9}, {"label": 1, "max_length": 9, "truncation": "only_second"}),
        ({"label": 1, "max_length": 9}, {"label": 1, "max_length": 9, "long_documents": "mean"}),
    ],
)
def test_an_option_that_changes_scores_is_another_key(
    one: dict[str, Any], other: dict[str, Any], tmp_path: Path
) -> None:
    names = {"id2label": {"0": "yes", "1": "no", "2": "maybe"}}
    folder, where = make_toy(tmp_path / "toy", head="three", config=names), tmp_path / "scores.sqlite"
    # Long enough to be cut, with a name of a control token in it, and so near 0 that each label has a score of its own.
    pairs = [("a [SEP] a a a a a a", "b"), ("a", "b c a a a a a a a a a")]
    fresh = TextCrossEncoder(folder, **other).rerank_pairs(pairs)
    remembered = TextCrossEncoder(folder, **one, score_cache=where).rerank_pairs(pairs)
    assert fresh != remembered, "the option decides nothing here, and the test would show nothing"

    assert TextCrossEncoder(folder, **other, score_cache=where).rerank_pairs(pairs) == fresh
    assert TextCrossEncoder(folder, **one, score_cache=where).rerank_pairs(pairs) == remembered


def test_another_instruction_is_another_key(tmp_path: Path) -> None:
    folder, where = fixtures.folder("qwen3-reranker"), tmp_path / "scores.sqlite"
    fresh = TextCrossEncoder(folder, instruction="find salt").rerank("salt", ["bread"])
    assert TextCrossEncoder(folder, score_cache=where).rerank("salt", ["bread"]) != fresh

    assert TextCrossEncoder(folder, instruction="find salt", score_cache=where).rerank("salt", ["bread"]) == fresh


def lower_case(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(folder / "tokenizer.json"))


def change(folder: Path, name: str, **settings: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def change_external_data(folder: Path) -> None:
    values = np.fromfile(folder / "values.bin", dtype=np.float32)
    (values * 2).tofile(folder / "values.bin")


@pytest.mark.parametrize(
    "changed",
    [
        lambda folder: make_toy(folder, head="column"),
        lower_case,
        change_external_data,
        lambda folder: change(folder, "tokenizer_config.json", truncation_side="left"),
        lambda folder: change(folder, "config.json", id2label={"0": "relevant", "1": "not_relevant"}),
    ],
    ids=["graph", "tokenizer", "external data", "truncation side", "labels"],
)
def test_a_file_of_the_model_that_changes_scores_is_another_key(
    changed: Callable[[Path], object], tmp_path: Path
) -> None:
    folder, where = make_toy(tmp_path / "toy", head="two"), tmp_path / "scores.sqlite"
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="values.bin", size_threshold=100)
    pairs = [("q", "B c d e f g h i j k l m n")]
    before = TextCrossEncoder(folder, max_length=12, score_cache=where).rerank_pairs(pairs)
    changed(folder)
    fresh = TextCrossEncoder(folder, max_length=12).rerank_pairs(pairs)
    assert fresh != before, "the change decides nothing here, and the test would show nothing"

    assert TextCrossEncoder(folder, max_length=12, score_cache=where).rerank_pairs(pairs) == fresh


def test_another_head_beside_the_graph_is_another_key(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fixtures.folder("ettin"), tmp_path / "ettin"))
    where = tmp_path / "scores.sqlite"
    before = TextCrossEncoder(folder, score_cache=where).rerank("salt", ["bread"])
    weights = bytearray((folder / "4_Dense" / "model.safetensors").read_bytes())
    weights[-4:] = np.float32(3).tobytes()
    (folder / "4_Dense" / "model.safetensors").write_bytes(weights)

    fresh = TextCrossEncoder(folder).rerank("salt", ["bread"])

    assert fresh != before
    assert TextCrossEncoder(folder, score_cache=where).rerank("salt", ["bread"]) == fresh


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


def test_nan_is_asked_for_again_and_its_neighbours_are_remembered(where: int | Path, folder: Path, runs: Runs) -> None:
    encoder = TextCrossEncoder(folder, score_cache=where)
    runs.since()

    for rows in (2, 1, 1):
        with pytest.raises(ScoreError, match="index 1"):
            encoder.rerank("q", ["a", "nan"])
        assert runs.since() == rows
    assert encoder.rerank("q", ["a"]) == [toy_score("q", "a")]
    assert runs.since() == 0


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


# --- a cache never costs the answer -----------------------------------------------------------------------------------

EXPECTED = [toy_score("q", document) for document in DOCUMENTS]


def spoiled(path: Path, fault: str) -> Callable[[], None]:
    """Does something to a cache's file; gives what mends it."""
    if fault == "removed":
        path.unlink()
    elif fault == "folder removed":
        shutil.rmtree(path.parent)
    elif fault == "overwritten":
        path.write_bytes(b"no database " * 500)
    elif fault == "emptied":
        path.write_bytes(b"")
    elif fault == "a folder in its place":
        path.unlink()
        path.mkdir()
    elif fault == "a pipe in its place":
        path.unlink()
        os.mkfifo(path)
    elif fault == "writable by others":
        path.chmod(0o666)
    elif fault == "planted log":
        path.with_name(path.name + "-wal").symlink_to("/etc/passwd")
    elif fault == "table dropped":
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DROP TABLE scores")
    elif fault == "another table of that name":
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DROP TABLE scores")
            connection.execute("CREATE TABLE scores (name TEXT)")
    elif fault == "locked":
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("CREATE TABLE other (x)")
        return connection.close
    return lambda: None


FAULTS = ["removed", "folder removed", "overwritten", "emptied", "a folder in its place", "a pipe in its place",
          "writable by others", "planted log", "table dropped", "another table of that name", "locked"]  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_cache_that_breaks_costs_no_answer_and_one_warning_at_most(
    folder: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(score_cache, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(score_cache, "START_SECONDS", 0.2)
    where = tmp_path / "cache" / "scores.sqlite"
    encoder = TextCrossEncoder(folder, score_cache=where)
    assert encoder.rerank("q", DOCUMENTS[:2]) == EXPECTED[:2]
    mend = spoiled(where, fault)

    for _ in range(3):
        assert encoder.rerank("q", DOCUMENTS) == EXPECTED
        encoder._store._resting_until = 0.0  # type: ignore[union-attr]
    mend()

    warnings = [record for record in caplog.records if "score_cache" in record.getMessage()]
    assert len(warnings) == (0 if fault in ("removed", "folder removed") else 1)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
@pytest.mark.parametrize("foreign", ["everybody may write", "others' log beside", "others' folder"])
def test_a_file_that_others_could_have_written_is_refused(folder: Path, tmp_path: Path, foreign: str) -> None:
    where = tmp_path / "cache" / "scores.sqlite"
    TextCrossEncoder(folder, score_cache=where).rerank("q", DOCUMENTS)
    if foreign == "everybody may write":
        where.chmod(0o666)
    elif foreign == "others' log beside":
        (tmp_path / "log").write_bytes(b"")
        where.with_name("scores.sqlite-wal").symlink_to(tmp_path / "log")
    else:
        where.parent.chmod(0o777)

    with pytest.raises(InputValueError, match="could have been written by others"):
        TextCrossEncoder(folder, score_cache=where)


def test_the_database_of_another_program_is_refused_and_left_as_it_is(folder: Path, tmp_path: Path) -> None:
    where = tmp_path / "history.sqlite"
    with closing(sqlite3.connect(where)) as connection, connection:
        connection.execute("CREATE TABLE history (url TEXT)")

    with pytest.raises(InputValueError, match="is the database of another program"):
        TextCrossEncoder(folder, score_cache=where)
    with closing(sqlite3.connect(where)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("history",)]


def test_a_place_that_cannot_be_used_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for where in (tmp_path / "file" / "scores.sqlite", "\0", "\ud800", tmp_path / ("a" * 300)):
        with pytest.raises(InputValueError, match="can't be made"):
            TextCrossEncoder(folder, score_cache=where)
    for where in ("", tmp_path, "/dev/null"):
        with pytest.raises(InputValueError, match="is no file"):
            TextCrossEncoder(folder, score_cache=where)


def test_a_relative_name_stays_the_same_file_when_the_process_goes_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = TextCrossEncoder(folder, score_cache="scores.sqlite")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    encoder.rerank("q", DOCUMENTS)

    assert list((tmp_path / "elsewhere").iterdir()) == []
    with closing(sqlite3.connect(tmp_path / "scores.sqlite")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM scores").fetchone() == (len(set(DOCUMENTS)),)


def test_others_read_while_one_writes_and_what_lies_beside_is_ours(tmp_path: Path) -> None:
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "scores.sqlite")
    DiskCache(tmp_path / "scores.sqlite")
    cache = DiskCache(tmp_path / "link.sqlite")
    cache.put({b"a": 1.0})

    with closing(sqlite3.connect(tmp_path / "scores.sqlite", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM scores")
        assert (tmp_path / "scores.sqlite-wal").exists()
        assert cache.get([b"a"]) == {b"a": 1.0}
        connection.execute("ROLLBACK")
    with cache._connect() as connection:
        settings = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 1], "a power cut may cost the latest scores, and no others"


def test_the_file_is_for_this_user_alone(folder: Path, tmp_path: Path) -> None:
    where = tmp_path / "new" / "scores.sqlite"
    TextCrossEncoder(folder, score_cache=where).rerank("q", DOCUMENTS)

    assert where.stat().st_mode & 0o777 == 0o600
    assert where.parent.stat().st_mode & 0o777 == 0o700


def test_a_damaged_score_is_not_used(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "scores.sqlite")
    cache.put({b"a" * 16: 1.5, b"b" * 16: 2.5})
    with closing(sqlite3.connect(tmp_path / "scores.sqlite")) as connection, connection:
        connection.execute("UPDATE scores SET entry = zeroblob(12) WHERE key = ?", (b"a" * 16,))

    assert cache.get([b"a" * 16, b"b" * 16]) == {b"b" * 16: 2.5}


def test_another_recipe_is_another_key() -> None:
    first = score_cache.model_key("content", {"label": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_cache, "RECIPE", score_cache.RECIPE + 1)
        assert score_cache.model_key("content", {"label": 1}) != first
    assert score_cache.model_key("content", {"label": 1}) == first
    assert score_cache.model_key("content", {"label": 2}) != first
    assert score_cache.model_key("other content", {"label": 1}) != first


# --- what the stores themselves promise ------------------------------------------------------------------------------


class Counted(TextCrossEncoderBase):
    """A document's logit is its length; tells how it was asked."""

    activation = "sigmoid"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    @property
    def config(self) -> dict[str, object]:
        return {"num_labels": 1}

    def logits(self, pairs: Sequence[Pair], **how: Any) -> Floats:
        self.asked.append({"pairs": list(pairs), **how})
        return np.array([float(len(document)) for _, document in pairs])

    def token_count(self, pairs: Iterable[Pair]) -> int:
        return 7

    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        return [True]


def test_a_remembering_encoder_is_otherwise_its_encoder() -> None:
    encoder = Counted()
    cached = ScoreCache(encoder, MemoryCache(10), b"key")

    assert (cached.activation, cached.config) == ("sigmoid", {"num_labels": 1})
    assert (cached.token_count([]), cached.truncated([])) == (7, [True])
    found = cached.logits([("q", "aa"), ("q", "b"), ("q", "aa")], batch_size=3, parallel=2, show_progress=True)
    assert found.tolist() == [2.0, 1.0, 2.0]
    assert cached.logits([("q", "b"), ("q", "")]).tolist() == [1.0, 0.0]
    assert encoder.asked == [
        {"pairs": [("q", "aa"), ("q", "b")], "batch_size": 3, "parallel": 2, "show_progress": True},
        {"pairs": [("q", "")], "batch_size": None, "parallel": None, "show_progress": False},
    ]


@pytest.mark.parametrize("change", [lambda logits: logits[:-1], lambda logits: np.append(logits, 7.0)])
def test_an_encoder_that_gives_another_number_of_logits_is_an_error_and_nothing_is_remembered(change: Any) -> None:
    class Wrong(Counted):
        def logits(self, pairs: Sequence[Pair], **how: Any) -> Floats:
            found: Floats = change(super().logits(pairs, **how))
            return found

    store = MemoryCache(10)

    with pytest.raises(ValueError, match="argument 2 is"):
        ScoreCache(Wrong(), store, b"key").logits([("q", "aa"), ("q", "b")])
    assert store.get(pair_keys(b"key", [("q", "aa"), ("q", "b")])) == {}


def test_keys_are_the_model_the_query_and_the_document() -> None:
    digest = hashlib.blake2b(b"model", digest_size=16)
    for text in (b"q", "\u00e9".encode()):
        digest.update(len(text).to_bytes(8, "little") + text)

    assert pair_keys(b"model", [("q", "\u00e9")]) == [digest.digest()]
    assert len(score_cache.model_key("content", {})) == 32
    assert score_cache.model_key("c", {"a": 1, "b": 2}) == score_cache.model_key("c", {"b": 2, "a": 1})


def test_a_memory_of_one_score_holds_one() -> None:
    cache = open_store(1)
    assert cache is not None
    cache.put({b"a": 1.0, b"b": 2.0})

    assert cache.get([b"a", b"b"]) == {b"b": 2.0}
    assert open_store(None) is None


def test_a_score_is_kept_with_a_checksum_of_it_and_its_key() -> None:
    entry = packed(b"key", 1.5)

    assert len(entry) == 12
    assert unpacked(b"key", entry) == 1.5
    assert unpacked(b"another key", entry) is None
    assert unpacked(b"key", entry[:-1]) is None
    assert unpacked(b"key", entry + b"\0") is None
    assert unpacked(b"key", entry[:11] + bytes([entry[11] ^ 1])) is None
    assert unpacked(b"key", bytes([entry[0] ^ 1]) + entry[1:]) is None
    for odd in (None, 1.5, "text", b""):
        assert unpacked(b"key", odd) is None


def test_a_file_that_failed_is_left_alone_for_a_minute_and_then_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.5  # a machine that has just started
    monkeypatch.setattr(score_cache.time, "monotonic", lambda: now)
    cache = DiskCache(tmp_path / "cache" / "scores.sqlite")
    cache.put({b"a": 1.0})
    assert cache.get([b"a"]) == {b"a": 1.0}
    cache._path.chmod(0o666)
    assert cache.get([b"a"]) == {}

    cache._path.chmod(0o600)
    now = 60.4
    assert cache.get([b"a"]) == {}
    now = 60.5
    assert cache.get([b"a"]) == {b"a": 1.0}


def test_a_start_waits_for_others_and_gives_up_in_half_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries, now = 0, 0.0
    connect = DiskCache._connect

    @contextlib.contextmanager
    def busy(cache: DiskCache) -> Iterator[sqlite3.Connection]:
        nonlocal tries
        tries += 1
        if tries < locked_for:
            raise sqlite3.OperationalError("database is locked")
        with connect(cache) as connection:
            yield connection

    def sleep(seconds: float) -> None:
        nonlocal now
        assert 0.01 <= seconds <= 0.05
        now += 1.0

    monkeypatch.setattr(score_cache.time, "monotonic", lambda: now)
    monkeypatch.setattr(score_cache.time, "sleep", sleep)
    monkeypatch.setattr(DiskCache, "_connect", busy)
    locked_for = 30
    DiskCache(tmp_path / "one.sqlite").put({b"a": 1.0})
    assert caplog.records == []

    tries, now, locked_for = 0, 0.0, 100
    DiskCache(tmp_path / "two.sqlite")
    assert (tries, now) == (32, 31.0)
    assert "is locked" in caplog.text


def test_a_database_that_cannot_be_read_is_no_reason_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(cache: DiskCache) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(DiskCache, "_connect", broken)
    monkeypatch.setattr(score_cache.time, "sleep", lambda seconds: pytest.fail("it waits"))

    assert DiskCache(tmp_path / "scores.sqlite").get([b"a"]) == {}
    assert "disk I/O error" in caplog.text


def test_what_older_versions_kept_is_left_and_not_read(tmp_path: Path) -> None:
    where = tmp_path / "scores.sqlite"
    with closing(sqlite3.connect(where)) as connection, connection:
        connection.execute("CREATE TABLE logits (key BLOB PRIMARY KEY, logit REAL)")
    where.chmod(0o600)

    cache = DiskCache(where)
    cache.put({b"a": 1.0})
    assert cache.get([b"a"]) == {b"a": 1.0}


def test_an_older_row_that_is_written_again_is_new(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "scores.sqlite", entries=2)
    cache.put({b"a": 1.0})
    cache.put({b"b": 2.0})
    cache.put({b"a": 3.0})
    cache.put({b"c": 4.0})

    assert cache.get([b"a", b"b", b"c"]) == {b"a": 3.0, b"c": 4.0}

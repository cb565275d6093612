"""Tables of candidates: the scores of one call, in any format, whatever interrupts the job.

The model is `lexical`, or the toy of tests/toy.py where scores are added up by hand or are NaN.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from onnx_rerank_integrations import InputValueError, ScoreError, TextCrossEncoder
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.core.scoring import sigmoid
from onnx_rerank_integrations.extras.cli.app import app
from tests.candidates import by_one_call, candidates
from tests.toy import make_toy, toy_score

pytest.importorskip("pyarrow", reason='pyarrow is missing: pip install "onnx-rerank-integrations[batch]"')
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_rerank_integrations.extras.batch import rerank_file
from onnx_rerank_integrations.extras.batch.inputs import open_table
from onnx_rerank_integrations.extras.batch.ranks import RanksOnDisk, ranked
from onnx_rerank_integrations.extras.batch.rerank import score_here
from onnx_rerank_integrations.extras.batch.scoring import worker_encoder, worker_options

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def lexical() -> TextCrossEncoder:
    return TextCrossEncoder("lexical")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> TextCrossEncoder:
    return TextCrossEncoder(make_toy(tmp_path_factory.mktemp("toy")))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.parquet"
    pq.write_table(candidates(5000), path)
    return path


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["batch", *map(str, arguments)])


def test_every_row_comes_out_in_order_with_the_score_of_one_call(
    source: Path, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    report = rerank_file(source, tmp_path / "out.parquet", lexical)

    table, out = pq.read_table(source), pq.read_table(tmp_path / "out.parquet")
    assert out.column_names == [*table.column_names, "score", "rank"]
    assert out.select(table.column_names).equals(table)
    assert out.column("score").to_pylist() == by_one_call(table, lexical)  # to the last bit: the batches are the same
    assert (report.rows, report.scored, report.null, report.failed) == (5000, 5000, 0, 0)
    assert (report.written, report.resumed) == (5000, 0)


def test_ranks_are_those_of_rank(source: Path, tmp_path: Path, lexical: TextCrossEncoder) -> None:
    rerank_file(source, tmp_path / "out.parquet", lexical)

    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for group in range(0, 100, 17):
        of_group = rows[50 * group : 50 * group + 50]
        expected = lexical.rank(of_group[0]["query"], [row["text"] for row in of_group])
        found = sorted(of_group, key=lambda row: row["rank"])
        assert [row["text"] for row in found] == [one.text for one in expected]
        assert [row["rank"] for row in found] == list(range(1, 51))


def test_the_progress_bar_counts_what_is_there_already(
    source: Path, tmp_path: Path, lexical: TextCrossEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(source, tmp_path / "out", lexical)

    rerank_file(source, tmp_path / "out", lexical, show_progress=True)

    shown = capsys.readouterr().err
    assert "82%" in shown  # 4,096 of 5,000 rows
    assert "100%" in shown
    assert "pair/s" in shown


def test_groups_need_not_lie_together(tmp_path: Path, lexical: TextCrossEncoder) -> None:
    table = candidates(1000)
    order = list(range(1000))
    random.Random(1).shuffle(order)
    pq.write_table(table, tmp_path / "sorted.parquet")
    pq.write_table(table.take(order), tmp_path / "mixed.parquet")

    for name in ("sorted", "mixed"):
        rerank_file(tmp_path / f"{name}.parquet", tmp_path / f"{name}-out.parquet", lexical, checkpoint_rows=64)

    tables = [pq.read_table(tmp_path / f"{name}-out.parquet") for name in ("sorted", "mixed")]
    ranks = [
        dict(zip(*(table.column(name).to_pylist() for name in ("doc_id", "rank")), strict=True)) for table in tables
    ]
    assert ranks[0] == ranks[1]


def as_jsonl(table: pa.Table, path: Path) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def as_beir(table: pa.Table, folder: Path) -> Path:
    folder.mkdir()
    rows = table.to_pylist()
    queries = {row["query_id"]: row["query"] for row in rows}
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in queries.items()))
    corpus = "".join(json.dumps({"_id": row["doc_id"], "text": row["text"], "title": ""}) + "\n" for row in rows)
    (folder / "corpus.jsonl").write_text(corpus.replace(', "title": ""', ""))
    run = (f"{row['query_id']} Q0 {row['doc_id']} {place} {-place} bm25\n" for place, row in enumerate(rows))
    (folder / "bm25.trec").write_text("".join(run))
    return folder


def as_parts(table: pa.Table, folder: Path) -> Path:
    folder.mkdir()
    for part, first in enumerate((0, 7, 900)):
        piece = table.slice(first, (7, 893, len(table) - 900)[part])
        pq.write_table(piece, folder / f"part-{part}.parquet", row_group_size=100)
    (folder / "_SUCCESS").touch()
    return folder


@pytest.mark.parametrize(
    ("write", "name"), [(as_jsonl, "in.jsonl"), (as_jsonl, "in.jsonl.gz"), (as_beir, "beir"), (as_parts, "parts")]
)
def test_every_format_gives_the_same(write: Any, name: str, tmp_path: Path, lexical: TextCrossEncoder) -> None:
    table = candidates(1500)
    path = write(table, tmp_path / name)

    rerank_file(path, tmp_path / "out.parquet", lexical, keep_columns=["doc_id", "text"], checkpoint_rows=512)

    out = pq.read_table(tmp_path / "out.parquet")
    assert out.select(["doc_id", "text"]).equals(table.select(["doc_id", "text"]))
    np.testing.assert_allclose(out.column("score").to_pylist(), by_one_call(table, lexical), atol=1e-6)


def test_the_runs_own_score_and_rank_are_kept_under_other_names(tmp_path: Path, lexical: TextCrossEncoder) -> None:
    rerank_file(as_beir(candidates(10), tmp_path / "beir"), tmp_path / "out.parquet", lexical)

    out = pq.read_table(tmp_path / "out.parquet")
    assert out.column_names[4:] == ["original_rank", "original_score", "score", "rank"]
    assert out.column("original_rank").to_pylist() == list(range(10))
    assert out.column("original_score").to_pylist() == [-float(place) for place in range(10)]


def test_top_n_and_threshold_leave_the_best_in_the_rows_order(
    source: Path, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    rerank_file(source, tmp_path / "all.parquet", lexical, activation="sigmoid")
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    least = sorted(row["score"] for row in rows if row["rank"] <= 3)[100]
    best = [row for row in rows if row["rank"] <= 3 and row["score"] >= least]

    report = rerank_file(
        source, tmp_path / "best.parquet", lexical, activation="sigmoid", top_n=3, score_threshold=least
    )

    assert len(best) == 200
    assert pq.read_table(tmp_path / "best.parquet").to_pylist() == best
    assert report.written == len(best)
    assert report.scored == 5000


def test_a_null_gives_a_null_score_and_blank_text_a_score(tmp_path: Path, toy: TextCrossEncoder) -> None:
    table = pa.table(
        {
            "query_id": [1, 1, 1, None, None],
            "query": ["a", "a", None, "a", "a"],
            "text": ["b", None, "c", "", "z"],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")

    report = rerank_file(tmp_path / "in.parquet", tmp_path / "out.parquet", toy)
    cut = rerank_file(tmp_path / "in.parquet", tmp_path / "best.parquet", toy, top_n=5)

    out = pq.read_table(tmp_path / "out.parquet")
    scores = [toy_score("a", "b"), None, None, toy_score("a", ""), toy_score("a", "z")]
    assert out.column("score").to_pylist() == scores
    assert out.column("rank").to_pylist() == [1, None, None, 2, 1]  # rows without a group are a group
    assert (report.rows, report.scored, report.null, report.failed, report.written) == (5, 3, 2, 0, 5)
    assert cut.written == 3


def test_a_row_without_a_finite_score_stops_the_job_or_is_counted(tmp_path: Path, toy: TextCrossEncoder) -> None:
    texts = ["a", "b", "c", "nan", "e"]
    pq.write_table(pa.table({"query": ["q"] * 5, "text": texts}), tmp_path / "in.parquet")
    out = tmp_path / "out.parquet"

    with pytest.raises(ScoreError, match=r"row 3 \(from 0\)"):
        rerank_file(tmp_path / "in.parquet", out, toy, checkpoint_rows=2)
    assert not out.exists()
    report = rerank_file(tmp_path / "in.parquet", out, toy, checkpoint_rows=2, on_error="null", overwrite=True)

    assert (report.scored, report.null, report.failed, report.written) == (4, 0, 1, 5)
    scores = [toy_score("q", text) for text in texts]
    assert pq.read_table(out).column("score").to_pylist() == [*scores[:3], None, scores[4]]
    assert pq.read_table(out).column("rank").to_pylist() == [4, 3, 2, None, 1]


def test_equal_scores_are_ordered_by_id_then_by_row(tmp_path: Path, lexical: TextCrossEncoder) -> None:
    table = pa.table({"query": ["q"] * 4, "text": ["same"] * 4, "doc_id": ["b", "a", "c", "a"]})
    pq.write_table(table, tmp_path / "ids.parquet")
    pq.write_table(table.drop_columns(["doc_id"]), tmp_path / "rows.parquet")

    for name in ("ids", "rows"):
        rerank_file(tmp_path / f"{name}.parquet", tmp_path / f"{name}-out.parquet", lexical)

    assert pq.read_table(tmp_path / "ids-out.parquet").column("rank").to_pylist() == [3, 1, 4, 2]
    assert pq.read_table(tmp_path / "rows-out.parquet").column("rank").to_pylist() == [1, 2, 3, 4]


def test_the_order_is_decided_on_logits_where_sigmoids_tie(tmp_path: Path, toy: TextCrossEncoder) -> None:
    pq.write_table(pa.table({"query": ["z z"] * 3, "text": ["x", "z", "y"]}), tmp_path / "in.parquet")

    rerank_file(tmp_path / "in.parquet", tmp_path / "out.parquet", toy, activation="sigmoid")

    out = pq.read_table(tmp_path / "out.parquet")
    assert out.column("score").to_pylist() == [1.0, 1.0, 1.0]
    assert out.column("rank").to_pylist() == [3, 1, 2]


class Recorder:
    """Scores here, and says which blocks it was asked for; after so many, the process is killed."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.first_rows: list[int] = []
        self._kill_after = kill_after

    def __call__(self, blocks: Any, encoder: TextCrossEncoder, **options: Any) -> Iterator[tuple[int, Any]]:
        for first_row, logits in score_here(blocks, encoder, **options):
            self.first_rows.append(first_row)
            yield first_row, logits
            if len(self.first_rows) == self._kill_after:
                os.kill(os.getpid(), signal.SIGKILL)


KILLED_JOB = """
import sys
from onnx_rerank_integrations.extras.batch import rerank_file
from tests.test_batch import Recorder
rerank_file(sys.argv[1], sys.argv[2], "lexical", checkpoint_rows=500, scorer=Recorder(kill_after=int(sys.argv[3])))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("kill_after", [3, 10])  # while it scores; when all is scored and nothing written
def test_a_killed_job_is_gone_on_with(kill_after: int, source: Path, tmp_path: Path, lexical: TextCrossEncoder) -> None:
    out = tmp_path / "out.parquet"
    killed = subprocess.run([sys.executable, "-c", KILLED_JOB, source, out, str(kill_after)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    recorder = Recorder()

    report = rerank_file(source, out, TextCrossEncoder("lexical", threads=1), checkpoint_rows=500, scorer=recorder)

    assert recorder.first_rows == list(range(500 * kill_after, 5000, 500))
    assert report.resumed == 500 * kill_after
    assert report.rows == report.scored == report.written == 5000
    rerank_file(source, tmp_path / "whole.parquet", lexical, checkpoint_rows=500)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))
    assert sorted(os.listdir(tmp_path)) == ["in.parquet", "out.parquet", "whole.parquet"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_the_command_goes_on_after_kill_minus_9(tmp_path: Path, lexical: TextCrossEncoder) -> None:
    pq.write_table(candidates(40_000), tmp_path / "in.parquet")
    out, arguments = (
        tmp_path / "out",
        ["in.parquet", "out", "--model", "lexical", "--checkpoint-rows", "1000", "--json"],
    )
    command = [sys.executable, "-m", "onnx_rerank_integrations", "batch", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = [sys.executable, "-m", "tests.stopped_batch", "SIGKILL", "5", *arguments]
    assert subprocess.run(killed, cwd=tmp_path, env=environment).returncode == -signal.SIGKILL
    assert not out.exists()

    again = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)

    first, second = json.loads(again.stdout), json.loads(done.stdout)
    assert first["resumed"] == 5000
    assert first["rows"] == first["scored"] == first["written"] == 40_000
    assert second["resumed"] == 40_000
    table = pq.read_table(out)
    assert table.column("doc_id").equals(pq.read_table(tmp_path / "in.parquet").column("doc_id"))
    expected = sigmoid(np.array(by_one_call(table, lexical)))
    np.testing.assert_allclose(table.column("score").to_pylist(), expected, atol=1e-6)


@pytest.mark.parametrize(("sent", "code", "word"), [("SIGINT", 130, "Interrupted"), ("SIGTERM", 143, "Terminated")])
def test_a_signal_is_told_with_the_way_on(sent: str, code: int, word: str, source: Path, tmp_path: Path) -> None:
    arguments = [source, tmp_path / "out", "--model", "lexical", "--checkpoint-rows", "500"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.stopped_batch", sent, "3", *arguments], cwd=ROOT, capture_output=True, text=True
    )

    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"{word}. The same command goes on where it stopped.\n"
    assert rerank_file(source, tmp_path / "out", "lexical", checkpoint_rows=500, activation="sigmoid").resumed == 1500
    assert sorted(os.listdir(tmp_path)) == ["in.parquet", "out"]


def test_too_little_memory_is_told_with_the_way_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("onnx_rerank_integrations.extras.batch.rerank_file", without_memory)

    done = invoke(source, tmp_path / "out", "-m", "lexical")

    assert done.exit_code == 1
    assert done.stderr == "Error: there isn't enough memory. Hold fewer rows in it at once, with --checkpoint-rows.\n"


def test_a_finished_job_does_nothing_and_another_one_is_refused(
    source: Path, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    out = tmp_path / "out.parquet"
    first = rerank_file(source, out, lexical, top_n=3)
    made, recorder = out.stat().st_mtime_ns, Recorder()

    again = rerank_file(source, out, lexical, top_n=3, scorer=recorder)

    assert recorder.first_rows == []
    assert out.stat().st_mtime_ns == made
    assert again.resumed == 5000
    assert (again.rows, again.scored, again.written) == (first.rows, first.scored, first.written) == (5000, 5000, 300)
    others: dict[str, tuple[Any, str]] = {
        "top_n": (4, "top_n was 3, now 4"),
        "score_threshold": (0.5, "score_threshold was None, now 0.5"),
        "activation": ("sigmoid", "activation was 'identity', now 'sigmoid'"),
        "keep_columns": (["text"], r"columns was \[.*\], now \['text'\]"),
        "group_by": ("query", "group_by was 'query_id', now 'query'"),
        "id_column": ("text", "id_column was 'doc_id', now 'text'"),
    }
    for name, (value, message) in others.items():
        with pytest.raises(InputValueError, match=message):
            rerank_file(source, out, lexical, **{"top_n": 3, name: value})
    assert rerank_file(source, out, lexical, top_n=4, overwrite=True).written == 400


def interrupt(source: Path, out: Path, encoder: TextCrossEncoder, **options: Any) -> None:
    def stop(blocks: Any, encoder: TextCrossEncoder, **options: Any) -> Iterator[tuple[int, Any]]:
        yield next(score_here(blocks, encoder, **options))
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        rerank_file(source, out, encoder, scorer=stop, **options)


def test_scores_of_another_job_are_never_gone_on_with(source: Path, tmp_path: Path, lexical: TextCrossEncoder) -> None:
    out = tmp_path / "out.parquet"
    interrupt(source, out, lexical)

    with pytest.raises(InputValueError, match="another job: options was"):
        rerank_file(source, out, TextCrossEncoder("lexical", max_length=8))
    with pytest.raises(InputValueError, match="text_column was 'text', now 'doc_id'"):
        rerank_file(source, out, lexical, text_column="doc_id")
    assert rerank_file(source, out, lexical, top_n=2).resumed == 4096  # what comes out isn't what is scored


def test_an_input_that_changed_meanwhile_is_refused(source: Path, tmp_path: Path, lexical: TextCrossEncoder) -> None:
    interrupt(source, tmp_path / "out", lexical)
    pq.write_table(candidates(5000, seed=1), source)

    with pytest.raises(InputValueError, match="input was"):
        rerank_file(source, tmp_path / "out", lexical)


def test_two_processes_dont_write_the_same_output(source: Path, tmp_path: Path, lexical: TextCrossEncoder) -> None:
    def meanwhile(blocks: Any, encoder: TextCrossEncoder, **options: Any) -> Iterator[tuple[int, Any]]:
        code = "import sys; from onnx_rerank_integrations.extras.batch import rerank_file\n"
        code += "rerank_file(sys.argv[1], sys.argv[2], 'lexical')"
        other = subprocess.run(
            [sys.executable, "-c", code, source, tmp_path / "out"], cwd=ROOT, capture_output=True, check=False
        )
        assert b"another process is writing out" in other.stderr
        yield from score_here(blocks, encoder, **options)

    assert rerank_file(source, tmp_path / "out", lexical, scorer=meanwhile).written == 5000


def test_the_output_says_what_made_it(source: Path, tmp_path: Path) -> None:
    model = ROOT / "onnx_rerank_integrations" / "models" / "lexical" / "model.onnx"

    rerank_file(source, tmp_path / "out", TextCrossEncoder("lexical", max_length=64, threads=1), top_n=1)

    [part] = (tmp_path / "out").iterdir()
    made = json.loads(pq.read_schema(part).metadata[b"onnx_rerank"])
    assert part.name == "part-00000.parquet"
    assert made["model"] == "lexical"
    assert made["files"]["model.onnx"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert made["options"] == {"max_length": 64}
    assert (made["top_n"], made["rows"], made["scored"], made["activation"]) == (1, 5000, 5000, "identity")


def test_numbers_and_nested_fields_of_json_lines_come_out_as_they_were(
    tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    records = [
        {"query": "river", "text": "a bank", "n": 1, "tags": ["x"]},
        {"query": "river", "text": "lone \ud800 surrogate", "n": 2.5, "extra": {"deep": True}},
        {"text": "no query at all"},
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, records)) + "\n\n")

    report = rerank_file(path, tmp_path / "out.parquet", lexical)

    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["n"] for row in rows] == [1.0, 2.5, None]
    assert [row["tags"] for row in rows] == [["x"], None, None]
    assert rows[1]["extra"] == {"deep": True}
    assert [row["score"] for row in rows[:2]] == lexical.rerank("river", [r["text"] for r in records[:2]])
    assert (report.scored, report.null) == (2, 1)


def test_csv_is_called_so(tmp_path: Path, lexical: TextCrossEncoder) -> None:
    (tmp_path / "in.csv").write_text("query,text\na,b\n")

    with pytest.raises(InputValueError, match=r"in\.csv is CSV: write it as parquet or JSON lines first"):
        rerank_file(tmp_path / "in.csv", tmp_path / "out", lexical)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"query": "a", "text": "b"}\nnonsense\n', r"in\.jsonl:2: not JSON"),
        ('{"query": "a", "text": 7}\n', "the column 'text' must hold text, found int64"),
        ('{"query": "a", "body": "b"}\n', "no column 'text'; found 'query', 'body'"),
        (
            '{"query": "a", "text": "b", "n": 1}\n\n{"query": "a", "text": "b", "n": "x"}\n',
            "'n' can't be a column: int in line 1 and str in line 3",
        ),
        ('{"query": "a", "text": "b"}\n{"query": "a", "text": 7}\n', "'text' can't be a column: str in line 1 and int"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_with_an_input_is_said_before_anything_is_scored(
    content: str, message: str, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    (tmp_path / "in.jsonl").write_text(content)

    with pytest.raises(InputValueError, match=message):
        rerank_file(tmp_path / "in.jsonl", tmp_path / "out", lexical, scorer=Recorder(kill_after=0))
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_a_run_that_names_an_unknown_document_is_refused_by_its_line(tmp_path: Path, lexical: TextCrossEncoder) -> None:
    folder = as_beir(candidates(10), tmp_path / "beir")
    with (folder / "bm25.trec").open("a") as run:
        run.write("q0 Q0 nowhere 11 -11 bm25\n")

    with pytest.raises(InputValueError, match=r"bm25\.trec:11: the document 'nowhere' isn't in corpus\.jsonl"):
        rerank_file(folder, tmp_path / "out", lexical)


def test_an_output_of_somebody_elses_is_left_alone(source: Path, tmp_path: Path, lexical: TextCrossEncoder) -> None:
    theirs = tmp_path / "theirs.parquet"
    pq.write_table(candidates(3), theirs)

    with pytest.raises(InputValueError, match="not from an earlier run"):
        rerank_file(source, theirs, lexical)
    for itself in (source, source.parent / "elsewhere" / ".." / source.name):
        with pytest.raises(InputValueError, match="is the input"):
            rerank_file(source, itself, lexical)
    with pytest.raises(InputValueError, match="lies in the input"):
        rerank_file(source.parent, source.parent / "out.parquet", lexical)
    assert pq.read_metadata(theirs).num_rows == 3


@pytest.mark.parametrize("name", ["out.jsonl", "out.CSV", "out.jsonl.gz"])
def test_a_name_of_another_kind_of_file_is_refused(
    name: str, source: Path, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    with pytest.raises(InputValueError, match=r"rows come out as parquet. Name a file, .*\.parquet, or a folder"):
        rerank_file(source, tmp_path / name, lexical)


def test_a_field_of_mixed_values_can_be_left_out(tmp_path: Path, lexical: TextCrossEncoder) -> None:
    (tmp_path / "in.jsonl").write_text('{"query": "a", "text": "b", "n": 1}\n{"query": "a", "text": "b", "n": "x"}\n')

    rerank_file(tmp_path / "in.jsonl", tmp_path / "out.Parquet", lexical, keep_columns=["text"])

    assert pq.read_table(tmp_path / "out.Parquet").column_names == ["text", "score", "rank"]


def test_a_job_of_which_nothing_comes_out_still_has_its_columns(
    source: Path, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    for out in (tmp_path / "out.parquet", tmp_path / "folder"):
        report = rerank_file(source, out, lexical, score_threshold=1e9, keep_columns=[])

        assert report.written == 0
        assert pq.read_table(out).column_names == ["score", "rank"]


@settings(max_examples=25, deadline=None)
@given(first=st.integers(0, 1400), size=st.integers(1, 700))
def test_blocks_can_begin_anywhere(first: int, size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    table = candidates(1400)
    folder = tmp_path_factory.mktemp("blocks")
    for path in (as_parts(table, folder / "parts"), as_jsonl(table, folder / "in.jsonl")):
        blocks = list(open_table(path).blocks(["doc_id"], size, first))

        assert [place for place, _ in blocks] == list(range(first, 1400, size))
        assert [row for _, block in blocks for row in block.column("doc_id").to_pylist()] == [
            f"d{row:06}" for row in range(first, 1400)
        ]


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", None]),
            st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("nan"), float("inf")]),
            st.integers(0, 3),
        ),
        max_size=30,
    ),
    size=st.integers(1, 7),
)
def test_ranks_on_disk_and_in_memory_are_those_of_a_sort(
    rows: list[tuple[str | None, float, int]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected: dict[int, int] = {}
    for group in {row[0] for row in rows}:
        members = [i for i, row in enumerate(rows) if row[0] == group and np.isfinite(row[1])]
        members.sort(key=lambda i: (-rows[i][1], rows[i][2], i))
        expected |= {row: place for place, row in enumerate(members, start=1)}

    ranks = RanksOnDisk(tmp_path_factory.mktemp("ranks") / "ranks.sqlite")
    for first in range(0, len(rows), size):
        groups, logits, ids = zip(*rows[first : first + size], strict=True)
        ranks.add(first, groups, np.array(logits), ids)
    assert list(ranks.by_row()) == sorted(expected.items())
    ranks.close()

    logits = np.array([row[1] for row in rows])
    table = pa.table(
        {
            "group": pa.array([row[0] for row in rows], pa.string()),
            "logit": pa.array(logits, pa.float64(), mask=~np.isfinite(logits)),
            "id": pa.array([row[2] for row in rows], pa.int64()),
            "row": pa.array(range(len(rows)), pa.int64()),
        }
    )
    found = ranked(table, "group", "logit", "id")
    in_memory = dict(zip(found.column("row").to_pylist(), found.column("rank").to_pylist(), strict=True))
    assert {row: rank for row, rank in in_memory.items() if rank is not None} == expected
    assert len(in_memory) == len(rows)


def test_the_command_reports_and_takes_its_threshold_on_the_sigmoid_scale(source: Path, tmp_path: Path) -> None:
    options = ["--model", "lexical", "--threshold", 0.2, "--json"]

    scaled = invoke(source, tmp_path / "scaled.parquet", *options)
    raw = invoke(source, tmp_path / "raw.parquet", *options, "--activation", "identity")
    table = invoke(source, tmp_path / "raw.parquet", *options[:-1], "--activation", "identity")

    report = json.loads(scaled.stdout)
    assert 0 < report["written"] < 5000
    assert json.loads(raw.stdout)["written"] == report["written"]
    logits = np.array(pq.read_table(tmp_path / "raw.parquet").column("score").to_pylist())
    np.testing.assert_allclose(
        sigmoid(logits), pq.read_table(tmp_path / "scaled.parquet").column("score").to_pylist(), atol=1e-12
    )
    assert "| scored by an earlier run | 5,000 |" in table.stdout


def test_the_command_takes_columns_by_name(tmp_path: Path) -> None:
    names = ["question_id", "question", "passage_id", "passage"]
    pq.write_table(candidates(200).rename_columns(names), tmp_path / "in.parquet")

    done = invoke(
        *(tmp_path / "in.parquet", tmp_path / "best", "-m", "lexical", "--top-n", 2),
        *("--query", "question", "--text", "passage", "--group-by", "question_id", "--id", "passage_id"),
        *("--keep-columns", "question_id", "--keep-columns", "passage_id"),
    )

    assert done.exit_code == 0, done.output
    assert pq.read_table(tmp_path / "best").column_names == ["question_id", "passage_id", "score", "rank"]
    assert pq.read_table(tmp_path / "best").num_rows == 8


def test_the_command_refuses_an_address_without_ray(source: Path, tmp_path: Path) -> None:
    done = invoke(source, tmp_path / "out", "-m", "lexical", "--address", "auto")

    assert done.exit_code == 2
    assert "--engine ray" in done.stderr


@pytest.mark.parametrize("missing", ["pyarrow", "filelock"])
def test_a_missing_extra_names_the_pip_command(missing: str, source: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom onnx_rerank_integrations.extras.cli import main\n"
    code += f"sys.exit(main(['batch', {str(source)!r}, {str(tmp_path / 'out')!r}, '-m', 'lexical']))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert 'pip install "onnx-rerank-integrations[batch]"' in done.stderr


PEAK = """
import resource, sys
from onnx_rerank_integrations.extras.batch import rerank_file
rerank_file(sys.argv[1], sys.argv[2], "lexical")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_ten_times_the_rows_take_hardly_more_memory(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="peak memory is read by a module that Windows lacks")
    table = candidates(20_000)
    peaks = []
    for times in (1, 10):
        path = tmp_path / f"{times}.parquet"
        with pq.ParquetWriter(path, table.schema) as writer:
            for seed in range(times):
                writer.write_table(candidates(20_000, seed=seed), row_group_size=20_000)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, path, tmp_path / f"{times}-out.parquet"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        peaks.append(int(done.stdout))

    assert peaks[1] < 1.25 * peaks[0], peaks


def test_what_a_worker_opens_means_there_what_it_meant_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray and Spark start workers: another process, another working directory, none of this one's models."""
    place = make_toy(tmp_path / "house")
    monkeypatch.chdir(tmp_path)
    registry.add_custom_model("house/worker", "org/model")
    folder = pickle.dumps(worker_options("house", threads=1))
    custom = pickle.dumps(worker_options(TextCrossEncoder("house/worker", lazy_load=True), threads=2))
    elsewhere = {name: row for name, row in registry._models.items() if name != "house/worker"}

    monkeypatch.setattr(registry, "_models", elsewhere)
    monkeypatch.chdir("/")

    assert worker_encoder(pickle.loads(folder)).rerank("q", ["a"]) == [toy_score("q", "a")]
    assert pickle.loads(folder).model_name == str(place)
    options = pickle.loads(custom)
    assert (options.model_name, options.threads) == ("house/worker", 2)
    row = registry.find("house/worker")
    assert row is not None
    assert row.sources == {"hf": "org/model"}

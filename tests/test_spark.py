"""Spark on two CPUs of this machine (`local[2,4]`): the scores of one process, whatever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_rerank_integrations import InputValueError, TextCrossEncoder
from tests.candidates import best_by_one_call, by_one_call, candidates, processes_named
from tests.toy import make_toy, toy_score

pytest.importorskip("pyspark", reason='Spark is missing: pip install "onnx-rerank-integrations[spark]"')
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from onnx_rerank_integrations.extras.batch.scoring import worker_encoder, worker_options
from onnx_rerank_integrations.extras.spark import rerank_dataframe, score_dataframe

ROOT = Path(__file__).parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not (shutil.which("java") or os.environ.get("JAVA_HOME")), reason="Spark needs Java 17 or newer"
    ),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="worker processes are found in /proc"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    os.environ["PYTHONPATH"] = str(ROOT)  # what the workers import
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[2,4]").appName("onnx-rerank")
    for name, value in {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    }.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("FATAL")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def lexical() -> TextCrossEncoder:
    return TextCrossEncoder("lexical", threads=1)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> TextCrossEncoder:
    return TextCrossEncoder(make_toy(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return candidates(6000)


def frame(spark: SparkSession, table: pa.Table, folder: Path, *, partitions: int = 8) -> DataFrame:
    pq.write_table(table, folder / "in.parquet")
    return spark.read.parquet(str(folder / "in.parquet")).repartition(partitions)


def check_scores(rows: Iterable[Any], table: pa.Table, encoder: TextCrossEncoder) -> None:
    found = [(row["doc_id"], row["score"]) for row in rows]
    scores = dict(found)
    assert len(found) == len(scores) == len(table)
    expected = by_one_call(table, encoder)
    np.testing.assert_allclose([scores[one] for one in table.column("doc_id").to_pylist()], expected, atol=1e-6)


def as_set(rows: Iterable[Any]) -> set[tuple[str, str, int, float]]:
    listed = [(row["query_id"], row["doc_id"], row["rank"], round(row["score"], 5)) for row in rows]
    assert len(set(listed)) == len(listed), "a row came out twice"
    return set(listed)


def test_a_dataframe_gets_the_scores_of_one_process(
    spark: SparkSession, table: pa.Table, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    df = frame(spark, table, tmp_path)

    scored = score_dataframe(df, lexical)

    assert scored.columns == [*table.column_names, "score"]
    assert df.columns == table.column_names  # its schema isn't touched
    check_scores(scored.collect(), table, lexical)


def test_the_best_of_each_query_are_those_of_one_process(
    spark: SparkSession, table: pa.Table, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    best = rerank_dataframe(frame(spark, table, tmp_path), lexical, top_n=3)

    assert best.columns == ["query_id", "doc_id", "score", "rank"]
    assert as_set(best.collect()) == best_by_one_call(table, lexical, 3)


def test_a_worker_killed_amid_the_job_loses_and_repeats_no_row(
    spark: SparkSession, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    table = candidates(12_000)
    options = worker_options(lexical, threads=1)
    marker = tmp_path / "a worker is amid its rows"

    def marked(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        worker_encoder(options)
        for place, batch in enumerate(batches):
            if place == 2 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is short
            yield batch

    df = frame(spark, table, tmp_path, partitions=4)

    scored = score_dataframe(df, lexical)
    rows = scored.mapInArrow(marked, scored.schema).collect()

    assert marker.exists()
    check_scores(rows, table, lexical)


def test_a_worker_killed_while_it_scores_is_replaced(
    spark: SparkSession, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    table = candidates(6000)
    gates, opened = tmp_path / "gates", tmp_path / "opened"
    gates.mkdir()

    def gate(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for place, batch in enumerate(batches):
            if place == 2:  # the scorer that is fed by this process has rows, and isn't done
                (gates / str(os.getpid())).touch()
                while not opened.exists():
                    time.sleep(0.01)
            yield batch

    df = frame(spark, table, tmp_path, partitions=4)
    scored = score_dataframe(df.mapInArrow(gate, df.schema), lexical)
    killed: list[int] = []

    def kill_the_scorers() -> None:
        while not killed:
            time.sleep(0.01)
            waiting = {int(path.name) for path in gates.iterdir()}
            _daemon, *workers = sorted(processes_named("pyspark.daemon")) or [0]
            if waiting:
                killed.extend(worker for worker in workers if worker not in waiting)
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        opened.touch()

    killer = threading.Thread(target=kill_the_scorers)
    killer.start()
    spark.sparkContext.setJobGroup("killed", "a job whose scorers are killed")
    rows = scored.collect()
    killer.join()

    tracker = spark.sparkContext.statusTracker()
    stages = [stage for job in tracker.getJobIdsForGroup("killed") for stage in tracker.getJobInfo(job).stageIds]
    assert sum(tracker.getStageInfo(stage).numFailedTasks for stage in stages) >= 1
    check_scores(rows, table, lexical)


def test_a_query_with_very_many_candidates_is_scored_in_all_partitions(
    spark: SparkSession, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    hot, others = candidates(5000, per_query=5000), candidates(1000, per_query=10, seed=1)
    others = others.set_column(0, "query_id", pa.array([f"cold {name}" for name in others.column(0).to_pylist()]))
    table = pa.concat_tables([hot, others])

    best = rerank_dataframe(frame(spark, table, tmp_path), lexical, top_n=5)

    plan = best._jdf.queryExecution().executedPlan().toString()
    assert plan.index("hashpartitioning(query_id") < plan.index("MapInArrow")  # printed from the end to the beginning
    assert as_set(best.collect()) == best_by_one_call(table, lexical, 5)


def test_nulls_come_out_without_a_score_and_are_among_no_best(
    spark: SparkSession, tmp_path: Path, toy: TextCrossEncoder
) -> None:
    table = pa.table(
        {
            "query_id": ["q", "q", "q", None, None],
            "query": ["a", "a", None, "a", "a"],
            "doc_id": ["1", "2", "3", "4", "5"],
            "text": ["b", None, "c", "", "z"],
        }
    )
    df = frame(spark, table, tmp_path, partitions=2)
    scores = {"1": toy_score("a", "b"), "2": None, "3": None, "4": toy_score("a", ""), "5": toy_score("a", "z")}

    assert {row["doc_id"]: row["score"] for row in score_dataframe(df, toy).collect()} == scores
    best = rerank_dataframe(df, toy, top_n=5).collect()
    everything = rerank_dataframe(df, toy, top_n=None).collect()

    assert {row["doc_id"]: row["rank"] for row in best} == {"1": 1, "4": 2, "5": 1}
    assert {row["doc_id"]: row["rank"] for row in everything} == {"1": 1, "2": None, "3": None, "4": 2, "5": 1}


def test_a_text_without_a_score_fails_the_job_or_is_null(
    spark: SparkSession, tmp_path: Path, toy: TextCrossEncoder
) -> None:
    table = pa.table({"query": ["q"] * 3, "text": ["a", "nan", "b"], "doc_id": ["1", "2", "3"]})
    df = frame(spark, table, tmp_path, partitions=1)

    with pytest.raises(Exception, match="gave no finite score for 1 of 3 pairs"):
        score_dataframe(df, toy).collect()
    rows = score_dataframe(df, toy, on_error="null").collect()

    assert {row["doc_id"]: row["score"] for row in rows} == {
        "1": toy_score("q", "a"),
        "2": None,
        "3": toy_score("q", "b"),
    }


def test_a_stopped_job_goes_on_with_what_was_written(
    spark: SparkSession, table: pa.Table, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    df = frame(spark, table, tmp_path)
    out = str(tmp_path / "scored")
    score_dataframe(df.where("doc_id < 'd002500'"), lexical).write.parquet(out)  # what was done when it stopped

    rest = df.join(spark.read.parquet(out).select("doc_id"), "doc_id", "left_anti")
    assert rest.count() == 3500
    score_dataframe(rest.select(df.columns), lexical).write.mode("append").parquet(out)

    check_scores(spark.read.parquet(out).collect(), table, lexical)


def test_each_worker_process_opens_the_model_once(spark: SparkSession, table: pa.Table, tmp_path: Path) -> None:
    options = worker_options(TextCrossEncoder("lexical", lazy_load=True), threads=1)

    def count_uses(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            pass
        encoder = worker_encoder(options)
        encoder.uses = getattr(encoder, "uses", 0) + 1  # type: ignore[attr-defined]  # a note on the object itself
        yield pa.record_batch({"process": [os.getpid()], "uses": [encoder.uses]})  # type: ignore[attr-defined]

    rows = frame(spark, table, tmp_path).mapInArrow(count_uses, "process long, uses long").collect()

    by_process: dict[int, list[int]] = {}
    for row in rows:
        by_process.setdefault(row["process"], []).append(row["uses"])
    assert len(rows) == 8
    assert len(by_process) < 8
    for uses in by_process.values():
        assert sorted(uses) == list(range(1, len(uses) + 1))


def test_an_own_score_column_is_kept_under_another_name(
    spark: SparkSession, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    table = candidates(100).append_column("score", pa.array([float(row) for row in range(100)]))

    scored = score_dataframe(frame(spark, table, tmp_path), lexical, activation="sigmoid")

    assert scored.columns == ["query_id", "query", "doc_id", "text", "original_score", "score"]
    rows = scored.collect()
    assert {row["doc_id"]: row["original_score"] for row in rows} == {f"d{row:06}": float(row) for row in range(100)}
    assert all(0 < row["score"] < 1 for row in rows)


def test_a_column_that_isnt_there_or_holds_no_text_is_refused(
    spark: SparkSession, table: pa.Table, tmp_path: Path
) -> None:
    df = frame(spark, table, tmp_path)

    with pytest.raises(InputValueError, match="no column 'body'; found 'query_id', 'query', 'doc_id', 'text'"):
        score_dataframe(df, "lexical", text_column="body")
    with pytest.raises(InputValueError, match="'text' must hold text, found int"):
        score_dataframe(df.selectExpr("query", "1 AS text"), "lexical")

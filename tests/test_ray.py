"""Ray on two CPUs of this machine: the scores of one process, whatever is killed."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_rerank_integrations import InputValueError, ScoreError, TextCrossEncoder
from tests.candidates import best_by_one_call, by_one_call, candidates
from tests.toy import make_toy, toy_score

pytest.importorskip("ray.data", reason='Ray is missing: pip install "onnx-rerank-integrations[ray]"')
pytest.importorskip("pyarrow", reason='pyarrow is missing: pip install "onnx-rerank-integrations[ray]"')
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from onnx_rerank_integrations.core.errors import WorkerError
from onnx_rerank_integrations.extras import ray as on_ray
from onnx_rerank_integrations.extras.batch import rerank_file
from onnx_rerank_integrations.extras.ray import RayScorer, rerank_dataset, score_dataset

ROOT = Path(__file__).parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here"),
]


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = str(ROOT)  # what the workers import
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _node_ip_address="127.0.0.1"
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def lexical() -> TextCrossEncoder:
    return TextCrossEncoder("lexical", threads=1)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> TextCrossEncoder:
    return TextCrossEncoder(make_toy(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return candidates(6000)


@pytest.fixture
def source(table: pa.Table, tmp_path: Path) -> Path:
    pq.write_table(table, tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def scores_by_id(rows: list[dict[str, Any]]) -> dict[str, float]:
    found = {row["doc_id"]: row["score"] for row in rows}
    assert len(found) == len(rows), "a row came out twice"
    return found


def as_set(rows: list[dict[str, Any]]) -> set[tuple[str, str, int, float]]:
    found = {(row["query_id"], row["doc_id"], row["rank"], round(row["score"], 5)) for row in rows}
    assert len(found) == len(rows), "a row came out twice"
    return found


def failure(run: Callable[..., Any], *arguments: Any) -> str:
    """What a failing job says. Its exception is kept nowhere, neither in pytest's log: while it is, Ray Data keeps the
    job's workers, and their CPUs."""
    said = ""
    logging.disable()
    try:
        run(*arguments)
    except Exception as error:  # noqa: BLE001 - Ray's own kind, which holds ours
        said = str(error)
    finally:
        logging.disable(logging.NOTSET)
        gc.collect()
    assert said, "it didn't fail"
    return said


def test_a_file_scored_by_rays_workers_is_the_same_to_the_last_bit(
    source: Path, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    rerank_file(source, tmp_path / "here.parquet", lexical, checkpoint_rows=1024)

    report = rerank_file(source, tmp_path / "ray.parquet", lexical, checkpoint_rows=1024, scorer=RayScorer())

    assert pq.read_table(tmp_path / "ray.parquet").equals(pq.read_table(tmp_path / "here.parquet"))
    assert report.rows == report.scored == report.written == 6000


def dying_at(first_row: int, deaths: Path, times: int) -> type[on_ray._Scorer]:
    """A scorer whose process is killed while it scores the block from a row; so many times, noted in a folder."""
    deaths.mkdir()

    class Dying(on_ray._Scorer):
        def logits(self, row: int, *arguments: Any, **options: Any) -> Any:
            if row == first_row and len(list(deaths.iterdir())) < times:
                (deaths / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().logits(row, *arguments, **options)

    return Dying


def test_a_worker_killed_amid_a_file_loses_and_repeats_no_row(
    source: Path, tmp_path: Path, lexical: TextCrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scorer(blocks: Any, encoder: TextCrossEncoder, **options: Any) -> Iterator[tuple[int, Any]]:
        for first_row, logits in RayScorer()(blocks, encoder, **options):
            scored.append(first_row)
            yield first_row, logits

    scored: list[int] = []
    monkeypatch.setattr(on_ray, "_Scorer", dying_at(2000, tmp_path / "deaths", times=1))
    rerank_file(source, tmp_path / "out.parquet", lexical, checkpoint_rows=100, scorer=scorer)

    assert len(list((tmp_path / "deaths").iterdir())) == 1
    assert sorted(scored) == list(range(0, 6000, 100))
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.column("doc_id").to_pylist() == [f"d{row:06}" for row in range(6000)]
    np.testing.assert_allclose(out.column("score").to_pylist(), by_one_call(out, lexical), atol=1e-6)


def test_a_block_whose_workers_die_again_and_again_is_an_error(
    source: Path, tmp_path: Path, lexical: TextCrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "RETRIES", 1)
    monkeypatch.setattr(on_ray, "_Scorer", dying_at(2000, tmp_path / "deaths", times=1000))

    with pytest.raises(WorkerError, match=r"The block from row 2,[01]00 \(from 0\) wasn't scored: 2 workers died"):
        rerank_file(source, tmp_path / "out.parquet", lexical, checkpoint_rows=100, scorer=RayScorer(num_workers=1))
    assert len(list((tmp_path / "deaths").iterdir())) >= 2
    assert 0 < rerank_file(source, tmp_path / "out.parquet", lexical, checkpoint_rows=100).resumed <= 2000


def test_workers_without_a_cpu_are_not_waited_for(source: Path, tmp_path: Path, lexical: TextCrossEncoder) -> None:
    @ray.remote(num_cpus=1)
    class Other:
        def here(self) -> None:
            pass

    other = Other.remote()
    ray.get(other.here.remote())
    try:
        report = rerank_file(source, tmp_path / "out.parquet", lexical, scorer=RayScorer(num_workers=4))
    finally:
        ray.kill(other)
    assert report.scored == 6000


def test_a_text_without_a_score_stops_a_file_with_its_row(tmp_path: Path, toy: TextCrossEncoder) -> None:
    pq.write_table(pa.table({"query": ["q"] * 4, "text": ["a", "b", "nan", None]}), tmp_path / "in.parquet")

    with pytest.raises(ScoreError, match=r"row 2 \(from 0\)"):
        rerank_file(tmp_path / "in.parquet", tmp_path / "out", toy, scorer=RayScorer(num_workers=1))
    report = rerank_file(
        tmp_path / "in.parquet", tmp_path / "null", toy, scorer=RayScorer(num_workers=1), on_error="null"
    )

    assert (report.scored, report.null, report.failed) == (2, 1, 1)


def test_a_second_ray_is_not_started_beside_one_that_is_initialized(
    source: Path, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    with pytest.raises(InputValueError, match="Ray is initialized already"):
        rerank_file(source, tmp_path / "out", lexical, scorer=RayScorer(address="127.0.0.1:6379"))
    assert ray.is_initialized()


def test_the_command_starts_a_ray_of_its_own_and_goes_on_after_kill_minus_9(
    tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    table = candidates(20_000)
    pq.write_table(table, tmp_path / "in.parquet")
    arguments = [
        "in.parquet",
        "out",
        "--model",
        "lexical",
        "--activation",
        "identity",
        "--engine",
        "ray",
        "--checkpoint-rows",
        "500",
        "--json",
    ]
    command = [sys.executable, "-m", "onnx_rerank_integrations", "batch", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    killed = [sys.executable, "-m", "tests.stopped_batch", "SIGKILL", "3", *arguments]
    assert subprocess.run(killed, cwd=tmp_path, env=environment).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()

    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)

    report = json.loads(again.stdout.splitlines()[-1])
    assert report["resumed"] == 1500
    assert report["rows"] == report["scored"] == report["written"] == 20_000
    out = pq.read_table(tmp_path / "out")
    assert out.select(table.column_names).equals(table)
    np.testing.assert_allclose(out.column("score").to_pylist(), by_one_call(table, lexical), atol=1e-6)


def test_a_dataset_gets_the_scores_of_one_process(table: pa.Table, lexical: TextCrossEncoder) -> None:
    scored = score_dataset(ray.data.from_arrow(table), lexical).take_all()

    assert list(scored[0]) == [*table.column_names, "score"]
    expected = dict(zip(table.column("doc_id").to_pylist(), by_one_call(table, lexical), strict=True))
    found = scores_by_id(scored)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[one] for one in expected], list(expected.values()), atol=1e-6)


def test_a_dataset_of_many_blocks_is_reranked_with_every_cpu_taken(table: pa.Table, lexical: TextCrossEncoder) -> None:
    ds = ray.data.from_arrow([table.slice(first, 200) for first in range(0, 6000, 200)])

    best = rerank_dataset(ds, lexical, top_n=3, num_workers=2, rows_per_task=256).take_all()

    assert list(best[0]) == ["query_id", "doc_id", "score", "rank"]
    assert as_set(best) == best_by_one_call(table, lexical, 3)


def test_a_worker_killed_amid_a_dataset_loses_and_repeats_no_row(
    table: pa.Table, tmp_path: Path, lexical: TextCrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(on_ray._ScoreRows):
        def __call__(self, block: pa.Table) -> pa.Table:
            if "d003000" in block.column("doc_id").to_pylist() and not death.exists():
                death.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(block)

    death = tmp_path / "death"
    monkeypatch.setattr(on_ray, "_ScoreRows", Dying)
    ds = ray.data.from_arrow([table.slice(first, 100) for first in range(0, 6000, 100)])

    scored = score_dataset(ds, lexical, rows_per_task=100).take_all()

    assert death.exists()
    expected = dict(zip(table.column("doc_id").to_pylist(), by_one_call(table, lexical), strict=True))
    found = scores_by_id(scored)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[one] for one in expected], list(expected.values()), atol=1e-6)


def test_a_query_with_very_many_candidates_is_scored_by_all_workers(lexical: TextCrossEncoder) -> None:
    hot, others = candidates(5000, per_query=5000), candidates(1000, per_query=10, seed=1)
    others = others.set_column(0, "query_id", pa.array([f"cold {name}" for name in others.column(0).to_pylist()]))
    table = pa.concat_tables([hot, others])

    scored = score_dataset(ray.data.from_arrow(table), lexical, rows_per_task=500).materialize()
    rows_of_tasks = [block.num_rows for block in map(ray.get, scored.get_internal_block_refs())]
    best = rerank_dataset(ray.data.from_arrow(table), lexical, top_n=5, rows_per_task=500).take_all()

    assert max(rows_of_tasks) <= 500  # of the 5,000 rows of one query, no task has more
    assert as_set(best) == best_by_one_call(table, lexical, 5)


def test_nulls_come_out_without_a_score_and_are_among_no_best(toy: TextCrossEncoder) -> None:
    table = pa.table(
        {
            "query_id": ["q", "q", "q", None, None],
            "query": ["a", "a", None, "a", "a"],
            "doc_id": ["1", "2", "3", "4", "5"],
            "text": ["b", None, "c", "", "z"],
        }
    )
    ds = ray.data.from_arrow(table)
    scores = {"1": toy_score("a", "b"), "2": None, "3": None, "4": toy_score("a", ""), "5": toy_score("a", "z")}

    assert scores_by_id(score_dataset(ds, toy).take_all()) == scores
    best = rerank_dataset(ds, toy, top_n=5).take_all()
    everything = rerank_dataset(ds, toy, top_n=None).take_all()

    assert {row["doc_id"]: row["rank"] for row in best} == {"1": 1, "4": 2, "5": 1}
    assert {row["doc_id"]: row["rank"] for row in everything} == {"1": 1, "2": None, "3": None, "4": 2, "5": 1}


def test_a_text_without_a_score_fails_a_dataset_or_is_null(toy: TextCrossEncoder) -> None:
    ds = ray.data.from_arrow(pa.table({"query": ["q"] * 3, "text": ["a", "nan", "b"], "doc_id": ["1", "2", "3"]}))

    assert "gave no finite score for 1 of 3 pairs" in failure(score_dataset(ds, toy).take_all)
    scored = scores_by_id(score_dataset(ds, toy, on_error="null").take_all())

    assert scored == {"1": toy_score("q", "a"), "2": None, "3": toy_score("q", "b")}


def test_a_stopped_job_on_a_dataset_goes_on_with_what_isnt_written(
    table: pa.Table, tmp_path: Path, lexical: TextCrossEncoder
) -> None:
    (tmp_path / "in").mkdir()
    for first in range(0, 6000, 1000):
        pq.write_table(table.slice(first, 1000), tmp_path / "in" / f"{first:04}.parquet")
    out = str(tmp_path / "out")
    half = ray.data.read_parquet(sorted(map(str, (tmp_path / "in").iterdir()))[:3])
    score_dataset(half, lexical).write_parquet(out)  # what was done when it stopped

    done = pa.array(pq.read_table(out, columns=["doc_id"]).column("doc_id").to_pylist())
    rest = ray.data.read_parquet(str(tmp_path / "in")).map_batches(
        lambda block: block.filter(pc.invert(pc.is_in(block["doc_id"], done))), batch_format="pyarrow"
    )
    assert rest.count() == 3000
    score_dataset(rest, lexical).write_parquet(out)

    expected = dict(zip(table.column("doc_id").to_pylist(), by_one_call(table, lexical), strict=True))
    found = scores_by_id(pq.read_table(out).to_pylist())
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[one] for one in expected], list(expected.values()), atol=1e-6)


def test_workers_that_leave_no_cpu_to_read_with_are_refused(table: pa.Table) -> None:
    with pytest.raises(InputValueError, match="a worker takes 2 CPUs and Ray has 2"):
        score_dataset(ray.data.from_arrow(table), "lexical", threads_per_worker=2)


def test_the_options_go_to_the_workers_and_no_session_does(table: pa.Table) -> None:
    import pickle

    from onnx_rerank_integrations.extras.batch.scoring import worker_options

    encoder = TextCrossEncoder("lexical", max_length=16)
    options = worker_options(encoder, threads=1)
    scored = score_dataset(ray.data.from_arrow(table.slice(0, 300)), encoder).take_all()

    assert len(pickle.dumps(options)) < 2000
    found = scores_by_id(scored)
    expected = by_one_call(table.slice(0, 300), encoder)
    np.testing.assert_allclose([found[f"d{row:06}"] for row in range(300)], expected, atol=1e-6)
    assert expected != by_one_call(table.slice(0, 300), TextCrossEncoder("lexical"))

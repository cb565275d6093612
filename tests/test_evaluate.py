"""Evaluation on small collections whose measures can be worked out by hand.

The toy model (tests/toy.py) scores a document of later letters higher, whatever the query.
"""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from onnx_rerank_integrations import InputValueError, TextCrossEncoder
from onnx_rerank_integrations.extras.cli.app import app
from onnx_rerank_integrations.extras.evaluate import Evaluation, evaluate
from onnx_rerank_integrations.extras.evaluate.measures import measure
from onnx_rerank_integrations.extras.evaluate.results import duration
from onnx_rerank_integrations.extras.evaluate.significance import SAMPLES, holm, paired_difference
from tests.toy import make_toy

ROOT = Path(__file__).parent.parent
LETTERS = "abcdef"


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_toy(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="module")
def toy(toy_folder: str) -> TextCrossEncoder:
    return TextCrossEncoder(toy_folder)


def make_collection(folder: Path, *, relevant: str = "f", order: str = LETTERS, queries: int = 12) -> Path:
    """Documents a to f, which are their texts; every query has one relevant one, and the first stage one order."""
    folder.mkdir(exist_ok=True)
    write_lines(folder / "corpus.jsonl", [{"_id": letter, "title": "", "text": letter} for letter in LETTERS])
    write_lines(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"q {n}"} for n in range(queries)])
    write_text(folder / "qrels.tsv", [f"q{n}\t{relevant}\t1" for n in range(queries)], "query-id\tcorpus-id\tscore")
    write_text(folder / "first.trec", run_lines({f"q{n}": order for n in range(queries)}))
    return folder


def run_lines(rankings: dict[str, str]) -> list[str]:
    return [
        f"{query_id} Q0 {letter} {place} {10 - place} first"
        for query_id, order in rankings.items()
        for place, letter in enumerate(order, start=1)
    ]


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_text(path: Path, lines: Sequence[str], header: str | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in ([header] if header else []) + list(lines)), encoding="utf-8")


def test_measures_are_those_worked_out_by_hand(tmp_path: Path, toy: TextCrossEncoder) -> None:
    # The first stage has the relevant document d at place 4, the toy's order f e d ... at place 3.
    evaluation = evaluate(make_collection(tmp_path / "c", relevant="d"), toy, top_k=6)

    first, (model,) = evaluation.first_stage, evaluation.models
    assert {name: first.mean(name) for name in first.measures} == {
        "nDCG@10": pytest.approx(1 / math.log2(5)),
        "MRR@10": 1 / 4,
        "MAP": 1 / 4,
        "recall@10": 1,
        "recall@6": 1,
    }
    assert model.mean("nDCG@10") == pytest.approx(1 / math.log2(4))
    assert model.mean("MRR@10") == pytest.approx(1 / 3)
    assert evaluation.best_possible.mean() == 1


@pytest.mark.parametrize("ids", [("1", "2"), ("2", "1")])
def test_ties_keep_the_order_of_the_first_stage_whatever_the_ids(
    tmp_path: Path, toy: TextCrossEncoder, ids: tuple[str, str]
) -> None:
    folder = make_collection(tmp_path / "c")
    write_lines(folder / "corpus.jsonl", [{"_id": one, "text": "the same"} for one in sorted(ids)])
    write_text(folder / "qrels.tsv", [f"q0\t{ids[0]}\t1"])
    write_text(folder / "first.trec", [f"q0 Q0 {ids[0]} 1 0.5 first", f"q0 Q0 {ids[1]} 2 0.5 first"])

    evaluation = evaluate(folder, toy)

    assert evaluation.first_stage.mean("MRR@10") == 1
    assert evaluation.models[0].mean("MRR@10") == 1


def test_grades_count_in_ndcg_and_unranked_queries_count_as_nothing() -> None:
    grades = {"q1": {"a": 2, "b": 1, "c": -1}, "q2": {"a": 1}}

    values = measure(grades, {"q1": ["b", "c", "a"], "q2": []}, top_k=2)

    ideal = 2 + 1 / math.log2(3)
    assert values["nDCG@10"] == {"q1": pytest.approx((1 + 2 / math.log2(4)) / ideal), "q2": 0}
    assert values["recall@2"] == {"q1": 1 / 2, "q2": 0}


def test_a_model_that_helps_is_a_yes_with_its_figures(tmp_path: Path, toy: TextCrossEncoder) -> None:
    evaluation = evaluate(make_collection(tmp_path / "c", relevant="f"), toy)

    (comparison,) = evaluation.comparisons
    assert comparison.difference == comparison.low == comparison.high == pytest.approx(1 - 1 / math.log2(7))
    assert (comparison.better, comparison.worse) == (12, 0)
    assert comparison.p_value == pytest.approx(2 / 2**12, abs=0.0005)
    assert evaluation.answer.startswith(
        f"Yes: reranking the first 100 of first.trec with {toy.model_name} raises nDCG@10 from 0.356 to 1.000 "
        "(+0.644, 95 % interval +0.644 to +0.644, p < 0.001), at "
    )
    assert "ms per query (median; 99 % within " in evaluation.answer


def test_a_model_that_harms_is_a_no(tmp_path: Path, toy: TextCrossEncoder) -> None:
    evaluation = evaluate(make_collection(tmp_path / "c", relevant="a"), toy)

    assert evaluation.answer.startswith("No: reranking ")
    assert "lowers nDCG@10 from 1.000 to 0.356" in evaluation.answer


def test_a_model_that_changes_nothing_is_not_shown_to_help(tmp_path: Path, toy: TextCrossEncoder) -> None:
    evaluation = evaluate(make_collection(tmp_path / "c", order=LETTERS[::-1]), toy)

    assert evaluation.comparisons[0].p_value == 1
    assert evaluation.answer.startswith("Not shown: reranking ")
    assert "may be chance with 12 queries" in evaluation.answer


def test_two_models_are_compared_with_the_first_stage_and_each_other(
    tmp_path: Path, toy: TextCrossEncoder, toy_folder: str
) -> None:
    backwards = make_toy(tmp_path / "backwards", head="three", config={"id2label": {"0": "x", "1": "y", "2": "z"}})
    models = {"toy": toy, "same": toy_folder, "backwards": TextCrossEncoder(backwards, label="z")}

    evaluation = evaluate(make_collection(tmp_path / "c"), models)

    pairs = [(one.system, one.baseline) for one in evaluation.comparisons]
    assert pairs[:3] == [("toy", "first.trec"), ("same", "first.trec"), ("backwards", "first.trec")]
    assert pairs[3:] == [("same", "toy"), ("backwards", "toy"), ("backwards", "same")]
    assert evaluation.comparison("same", "toy").p_value == 1
    assert evaluation.comparison("backwards", "toy").difference < 0
    assert evaluation.comparison("backwards", "toy").is_significant
    assert evaluation.comparison("backwards", "first.trec").p_value == 1


def test_the_quicker_of_two_models_as_good_is_named() -> None:
    def system(name: str, milliseconds: float, value: float) -> Any:
        from onnx_rerank_integrations.extras.evaluate import System

        measures = {"nDCG@10": {str(n): value + n / 1000 for n in range(20)}}
        return System(name=name, measures=measures, milliseconds=dict.fromkeys(map(str, range(20)), milliseconds))

    from onnx_rerank_integrations.extras.evaluate.evaluation import _compare

    first, systems = system("first", 1, 0.2), [system("large", 90, 0.5), system("small", 9, 0.5)]
    evaluation = Evaluation(
        collection="c",
        top_k=10,
        corpus_size=1,
        queries={},
        first_stage=first,
        models=systems,
        best_possible=first,
        comparisons=_compare(first, systems, seed=0),
    )

    assert "with large raises" in evaluation.answer
    assert evaluation.answer.endswith(
        " small (0.509) isn't measurably worse (p = 1) and is quicker: 9 ms per query (median; 99 % within 9 ms)."
    )


def test_only_the_first_candidates_are_reranked(tmp_path: Path, toy: TextCrossEncoder) -> None:
    evaluation = evaluate(make_collection(tmp_path / "c", relevant="f"), toy, top_k=5)

    assert evaluation.models[0].mean("recall@5") == 0
    assert evaluation.models[0].documents == 5 * 12


def test_compressed_files_and_qrels_in_a_folder_give_the_same(tmp_path: Path, toy: TextCrossEncoder) -> None:
    plain = make_collection(tmp_path / "plain", relevant="d")
    packed = make_collection(tmp_path / "packed", relevant="d")
    for name in ("corpus.jsonl", "queries.jsonl", "first.trec"):
        (packed / f"{name}.gz").write_bytes(gzip.compress((packed / name).read_bytes()))
        (packed / name).unlink()
    (packed / "qrels").mkdir()
    (packed / "qrels.tsv").rename(packed / "qrels" / "dev.tsv")

    one, other = evaluate(plain, toy), evaluate(packed, toy, split="dev")

    assert one.models[0].measures == other.models[0].measures
    assert one.first_stage.measures == other.first_stage.measures


def test_queries_without_a_relevant_document_are_left_out_and_said(tmp_path: Path, toy: TextCrossEncoder) -> None:
    folder = make_collection(tmp_path / "c", queries=3)
    write_text(folder / "qrels.tsv", ["q0\tf\t1", "q1\tf\t0", "q0\tgone\t1"])

    evaluation = evaluate(folder, toy)

    assert list(evaluation.queries) == ["q0"]
    assert "may be chance with 1 query," in evaluation.answer
    assert evaluation.notes == [
        "Left out, without a document judged relevant: 2 of 3 queries.",
        "Not in the corpus: 1 of the judged documents, such as 'gone'.",
    ]


def test_queries_that_the_run_lacks_count_as_zero_and_are_said(tmp_path: Path, toy: TextCrossEncoder) -> None:
    folder = make_collection(tmp_path / "c", queries=4)
    write_text(folder / "first.trec", run_lines({"q0": "ef"}))

    evaluation = evaluate(folder, toy)

    assert evaluation.models[0].mean() == 1 / 4
    assert evaluation.notes == ["Counted as 0, without a candidate from the first stage: 3 of 4 queries."]


def test_a_run_is_ordered_by_score_and_ties_by_its_rank_column(tmp_path: Path, toy: TextCrossEncoder) -> None:
    folder = make_collection(tmp_path / "c", relevant="b", queries=1)
    write_text(folder / "first.trec", ["q0 Q0 a 3 1.5 x", "q0 Q0 b 2 1.5 x", "q0 Q0 c 1 -2 x", "q0 Q0 d 9 7e0 x"])

    assert evaluate(folder, toy).first_stage.mean("MRR@10") == 1 / 2


def test_without_a_run_the_candidates_are_found_by_bm25(tmp_path: Path, toy: TextCrossEncoder) -> None:
    folder = make_collection(tmp_path / "c")
    (folder / "first.trec").unlink()
    documents = ["Running shoes", "a shoe for runners and a shoe for walkers", "Tea", "the running", ""]
    write_lines(folder / "corpus.jsonl", [{"_id": str(n), "text": text} for n, text in enumerate(documents)])
    queries = ["shoes for running", "the and of", "unheard of words"]
    write_lines(folder / "queries.jsonl", [{"_id": str(n), "text": query} for n, query in enumerate(queries)])
    write_text(folder / "qrels.tsv", ["0\t3\t1", "1\t2\t1", "2\t2\t1"])

    evaluation = evaluate(folder, toy)

    assert evaluation.first_stage.name == "BM25"
    # "Running shoes" has both words, "the running" one in two words, the third one of them in many; Tea has none.
    assert evaluation.first_stage.measures["MRR@10"] == {"0": 1 / 2, "1": 0, "2": 0}
    assert evaluation.models[0].documents == 3
    assert evaluation.first_stage.latency(50) is not None


def test_a_title_is_read_with_its_text_unless_the_text_begins_with_it(tmp_path: Path, toy: TextCrossEncoder) -> None:
    folder = make_collection(tmp_path / "c", relevant="1", order="12", queries=1)
    # Alone, "a" would be below "c"; with the title "z" before it, it is above. "c" isn't doubled.
    write_lines(
        folder / "corpus.jsonl",
        [{"_id": "2", "title": "c", "text": "c"}, {"_id": "1", "title": "z", "text": "a"}],
    )
    (scores,) = [toy.rerank("q 0", ["c", "z a", "c c"])]
    assert scores[0] < scores[1]

    evaluation = evaluate(folder, toy)

    assert evaluation.models[0].mean("MRR@10") == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", '{"_id": "a", "text": "a"}\n{"_id": "b"}\n', r"corpus.jsonl:2: text must be .* only _id"),
        (
            "corpus.jsonl",
            '{"_id": "a", "text": "a"}\n\n{"_id": "a", "text": "b"}',
            r"corpus.jsonl:3: .* by line 1",
        ),
        ("corpus.jsonl", '{"_id": "a", "text": "a"}\n{"_id": "b", ', r"corpus.jsonl:2: not JSON"),
        ("corpus.jsonl", '{"_id": "a", "text": "a", "title": 5}', r"corpus.jsonl:1: title must be a string, found 5"),
        ("corpus.jsonl", "", r"corpus.jsonl is empty"),
        ("queries.jsonl", '{"id": "q0", "text": "a"}', r"queries.jsonl:1: _id must be a string, found only id, text"),
        ("queries.jsonl", b'{"_id": "q0", "text": "\xff"}', r"queries.jsonl:1: not UTF-8"),
        ("qrels.tsv", "q0\tf\n", r"qrels.tsv:1: .* tabs between, found 2 columns"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq0\tf\tyes\n", r"qrels.tsv:2: .* whole number, found 'yes'"),
        ("qrels.tsv", "q0\tf\t1\nq77\tf\t1\n", r"qrels.tsv:2: the query 'q77' isn't in queries.jsonl"),
        ("qrels.tsv", "q0\tf\t1\nq0\tf\t2\n", r"qrels.tsv:2: 'f' was judged before for query 'q0', otherwise"),
        ("qrels.tsv", "q0\tf\t0\n", r"qrels.tsv: no query has a relevant document"),
        ("first.trec", "q0 Q0 a 1 x first", r"first.trec:1: a line of a TREC run is query Q0 document rank score name"),
        ("first.trec", "q0 Q0 a 1 2 first\nq0 Q0 a 2 1 first", r"first.trec:2: 'a' is there before for query 'q0'"),
        ("first.trec", "q0 Q0 a 1 2 first\nq0 Q0 nix 2 1 first", r"first.trec:2: the document 'nix' isn't in corpus"),
        ("first.trec", "q0 Q0 a 1 nan first", r"first.trec:1: the score is NaN"),
        ("first.trec", "q99 Q0 a 1 2 first", r"first.trec: none of its queries is a judged one"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(
    tmp_path: Path, toy: TextCrossEncoder, file: str, content: str | bytes, message: str
) -> None:
    folder = make_collection(tmp_path / "c")
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(InputValueError, match=message):
        evaluate(folder, toy)


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path, toy: TextCrossEncoder, file: str) -> None:
    folder = make_collection(tmp_path / "c")
    (folder / file).unlink()

    with pytest.raises(InputValueError, match=rf"lacks (.* or )?{file} \(plain or .gz\); found .*first.trec"):
        evaluate(folder, toy)


def test_a_damaged_gzip_file_is_named(tmp_path: Path, toy: TextCrossEncoder) -> None:
    folder = make_collection(tmp_path / "c")
    packed = gzip.compress((folder / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").write_bytes(packed[:-20])

    with pytest.raises(InputValueError, match=r"corpus.jsonl can't be read: Compressed file ended"):
        evaluate(folder, toy)


def test_several_runs_in_the_folder_need_a_choice(tmp_path: Path, toy: TextCrossEncoder) -> None:
    folder = make_collection(tmp_path / "c", relevant="f")
    write_text(folder / "second.trec", run_lines({f"q{n}": "fedcba" for n in range(12)}))

    with pytest.raises(InputValueError, match=r"several first stages: first.trec, second.trec"):
        evaluate(folder, toy)
    assert evaluate(folder, toy, first_stage=folder / "second.trec").first_stage.mean() == 1


def test_two_models_of_one_name_and_no_model_are_errors(tmp_path: Path, toy: TextCrossEncoder) -> None:
    folder = make_collection(tmp_path / "c")

    with pytest.raises(InputValueError, match="two models are named"):
        evaluate(folder, [toy, toy])
    with pytest.raises(InputValueError, match="no models"):
        evaluate(folder, [])


def test_the_randomization_test_agrees_with_all_sign_flips() -> None:
    differences = [0.3, -0.1, 0.2, 0.05, 0.4, -0.02, 0.1, 0.0]
    means = [abs(np.dot(signs, differences)) for signs in product([1, -1], repeat=8)]
    exact = np.mean(np.array(means) >= abs(sum(differences)) - 1e-12)

    found = paired_difference(differences)

    assert found.p_value == pytest.approx(exact, abs=0.015)  # three standard errors of 10,000 samples
    assert found == paired_difference(differences)
    assert found.mean == pytest.approx(np.mean(differences))
    assert found.low < found.mean < found.high


def test_a_p_value_counts_what_was_found_among_the_samples_and_is_never_zero() -> None:
    assert paired_difference([1.0] * 60).p_value == 1 / (SAMPLES + 1)
    assert paired_difference([0.0] * 60).p_value == 1


def test_p_values_under_chance_are_small_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)

    p_values = [paired_difference(generator.normal(size=25), seed).p_value for seed in range(200)]

    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1


def test_the_interval_of_many_queries_is_the_textbook_one() -> None:
    values = np.random.default_rng(2).normal(loc=0.1, size=400)

    found = paired_difference(values)

    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_holms_adjustment_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_the_command_prints_the_table_and_writes_the_four_files(tmp_path: Path, toy_folder: str) -> None:
    folder = make_collection(tmp_path / "c", relevant="f")
    output = tmp_path / "new" / "evaluation"
    command = [sys.executable, "-m", "onnx_rerank_integrations", "evaluate", folder, "-m", toy_folder, "-o", output]

    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("| system | nDCG@10 | MRR@10 | MAP | recall@10 | recall@100 | change | p | docs/s |")
    assert f"| {toy_folder} | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 | +0.644 | < 0.001 |" in done.stdout
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    report = (output / "report.md").read_text(encoding="utf-8")
    assert results["answer"] in done.stdout
    assert report.splitlines()[:3] == ["# Does reranking help on c?", "", results["answer"]]
    assert results["models"][0]["measures"]["nDCG@10"] == 1
    assert results["models"][0]["documents_per_second"] > 0
    assert 0 < results["models"][0]["p50_milliseconds"] <= results["models"][0]["p99_milliseconds"]
    rows = [line.split("\t") for line in (output / "per_query.tsv").read_text(encoding="utf-8").splitlines()]
    assert rows[0][:3] == ["query-id", "system", "nDCG@10"]
    assert len(rows) == 1 + 12 * 3
    assert rows[2][:2] + rows[2][7:8] == ["q0", toy_folder, "+0.6438"]
    assert imread(output / "plot.png").std() > 0.01


def test_the_command_says_which_extra_is_missing_before_it_works(tmp_path: Path) -> None:
    code = "import sys; sys.modules['ir_measures'] = None\nfrom onnx_rerank_integrations.extras.cli import main\n"
    code += f"sys.exit(main(['evaluate', {str(tmp_path)!r}, '-m', 'lexical']))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        'Error: onnx-rerank evaluate needs an optional dependency: pip install "onnx-rerank-integrations[evaluate]"\n'
    )


def test_durations_are_numbers_that_people_read() -> None:
    times = [0.14612, 9.584, 25.44, 99.96, 1584.2]

    assert list(map(duration, times)) == ["0.146", "9.58", "25.4", "100", "1,584"]


def test_the_command_names_a_missing_collection_and_an_output_that_is_a_file(tmp_path: Path, toy_folder: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    there = make_collection(tmp_path / "c")

    missing = CliRunner().invoke(app, ["evaluate", str(tmp_path / "no"), "-m", toy_folder, "-o", str(tmp_path / "o")])
    file = CliRunner().invoke(app, ["evaluate", str(there), "-m", toy_folder, "-o", str(tmp_path / "file")])

    assert (missing.exit_code, file.exit_code) == (1, 1)
    assert missing.stderr == (
        f"Error: There is no {tmp_path / 'no'}: give a folder in BEIR layout, or a CSV file of judged pairs\n"
    )
    assert file.stderr.startswith(f"Error: {tmp_path / 'file'} can't be made a folder: ")


def test_the_picture_has_a_point_and_a_line_for_each_model(tmp_path: Path, toy: TextCrossEncoder) -> None:
    models = {f"some/quite-long-name-of-a-model-number-{n}": toy for n in range(7)}

    figure = evaluate(make_collection(tmp_path / "c"), models).figure()

    figure.savefig(tmp_path / "plot.png")
    quality, changes = figure.axes
    assert len(quality.containers) == 7
    assert len(changes.lines) == 7 + 1
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0
    assert legend.x1 <= figure.bbox.x1
    assert not legend.overlaps(quality.get_tightbbox())


JUDGED = """query,document,relevance,source
what do bees eat,soup is warm,0,a
what do bees eat,"bees eat
honey",2,b
what do bees eat,honey is sweet,1,c
who won,nobody knows,0,d
how warm is soup,soup is warm,1,e
how warm is soup,bees in winter,0,f
"""


def test_one_csv_file_of_judged_pairs_is_a_collection(tmp_path: Path) -> None:
    path = tmp_path / "judged.csv"
    path.write_text(JUDGED)

    evaluation = evaluate(path, "lexical")

    assert evaluation.collection == "judged.csv"
    assert evaluation.corpus_size == 5
    assert evaluation.queries == {"q1": "what do bees eat", "q3": "how warm is soup"}
    assert evaluation.first_stage.name == "order in the file"
    assert evaluation.first_stage.measures["MRR@10"] == {"q1": 0.5, "q3": 1.0}
    assert evaluation.models[0].measures["MRR@10"] == {"q1": 1.0, "q3": 1.0}
    assert "Left out, without a document judged relevant: 1 of 3 queries." in evaluation.notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query,text\nq,d\n", "lacks the column relevance; found query, text"),
        ("query,text,label\nq,d,yes\n", "judged.csv:2: relevance must be a whole number from 0, found 'yes'"),
        ("query,text,label\nq,d,1\nq,d,0\n", "judged.csv:3: this document was judged before"),
        ("query,text,label\nq,d,0\n", "no query has a relevant document"),
        ("query,text,label\nq,d\n", "judged.csv:2: 2 columns, fewer than the header names"),
        ("", "found no header"),
        ("query,text,label\nq,café,1\n".encode("latin-1"), "judged.csv:2: not UTF-8"),
        ('query,text,label\nq,"d,1\nq,e,0\n', "judged.csv:2: not CSV: "),
        ("label,query,text\n1,q,one, two\n", "judged.csv:2: 4 cells, and the header names 3"),
    ],
)
def test_a_csv_file_that_is_no_table_of_judged_pairs_says_where(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / "judged.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(InputValueError, match=message):
        evaluate(path, "lexical")


def test_a_first_stage_does_not_go_with_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "judged.csv"
    path.write_text(JUDGED)

    with pytest.raises(InputValueError, match=r"the candidates of .* are its rows"):
        evaluate(path, "lexical", first_stage=tmp_path / "run.trec")

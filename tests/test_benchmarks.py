"""The benchmark's own arithmetic, and one real run of it on a model small enough to build here."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("psutil", reason="pip install --group benchmarks")

from benchmarks import __main__ as command
from benchmarks import bars, contenders, engine, floor, measure, models, pressure, quality_speed, report, texts
from benchmarks.measure import Log, Measurement
from benchmarks.sample import Sample
from onnx_rerank_integrations import TextCrossEncoder


def a_sample(seconds: float, *, noise: float | None = 0.0, peak: int = 100_000_000, texts_bytes: int = 0) -> Sample:
    """A sample that cost so many CPU seconds and half of them on the clock."""
    return Sample(
        cpu_seconds=seconds,
        wall_seconds=seconds / 2,
        calls=1,
        first_score_seconds=0.5,
        peak_bytes=peak,
        texts_bytes=texts_bytes,
        pressure=noise,
        scores=None,
        versions={},
    )


def measured(
    contender: str, seconds: float, *, threads: int = 1, turn: int = 0, noisy: bool = False, workload: str = "W1"
) -> Measurement:
    """A kept sample of the MiniLM model."""
    return Measurement("minilm", workload, contender, threads, turn, 1, noisy, a_sample(seconds))


def a_log(path: Path, measurements: list[Measurement]) -> Log:
    """What a run writes down, of a made-up machine."""
    about = {
        "date": "2026-01-31",
        "machine": {"cpu": "Abacus", "cpus": 2, "flags": [], "memory_gib": 1, "system": "Linux 6, x86_64"},
        "models": {"minilm": "BERT 6x384"},
        "tokens": {"minilm W1": {"pairs": 100, "mean": 170.0, "p95": 256, "total": 17_000, "squares": 3_000_000}},
        "versions": {"main": {"onnxruntime": "1.0"}},
        "limit": {"1": 100e9, "2": 200e9},
    }
    return Log(path, about, measurements)


def test_scores_of_a_peer_that_ranks_come_back_in_the_order_of_the_texts():
    # given a peer that takes one query a call, and gives places and scores best first
    def rank(query: str, documents: list[str]) -> list[tuple[int, float]]:
        scored = [(place, float(len(query) * len(document))) for place, document in enumerate(documents)]
        return sorted(scored, key=lambda one: -one[1])

    groups = [("ab", ["x", "xxx", "xx"]), ("c", ["xxxx", "x"])]

    assert contenders._in_input_order(groups, rank) == [2.0, 6.0, 4.0, 4.0, 1.0]


def test_a_peer_that_is_quicker_than_this_package_anywhere_fails_the_bar(tmp_path):
    log = a_log(tmp_path / "results.json", [measured("kjarni", 0.9), measured(bars.FAST, 1.0)])

    [found] = [bar for bar in bars.bars(log) if bar.asked == "fp32 nowhere slower than a peer"]

    assert found.met is False
    assert found.found == "0.90 (minilm W1 against kjarni, 1 threads)"


def test_the_engine_is_measured_with_budgets_of_its_own(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setattr(models, "MODELS", tmp_path)
    monkeypatch.setattr(engine, "BUDGETS", (256, 512))
    monkeypatch.setattr(engine, "ROUNDS", 1)
    models.build(models.SIZES["lexical"])

    name, *times = engine.budgets("lexical", "W4")

    assert name == "lexical W4"
    assert len(times) == 2
    assert all(float(time) > 0 for time in times)


class TestFloor:
    @staticmethod
    def event(operator: str, inputs: list[list[int]], output: list[int]) -> dict[str, object]:
        """A kernel's event as onnxruntime's profile has it."""
        shapes = {"input_type_shape": [{"float": one} for one in inputs], "output_type_shape": [{"float": output}]}
        return {"name": "n_kernel_time", "args": {"op_name": operator, **shapes}}

    def test_a_product_with_a_packed_weight_has_its_shape_from_the_graph(self):
        found = floor.product_of(self.event("MatMul", [[4, 100, 384]], [4, 100, 1536]), {"n": (384, 1536)})
        assert found == floor.Product("n", (4, 100, 384), (384, 1536), True)
        assert found.operations == 2 * 4 * 100 * 384 * 1536

    def test_attention_is_a_product_of_two_activations_however_they_are_turned(self):
        scores = self.event("FusedMatMul", [[4, 12, 100, 32], [4, 12, 100, 32]], [4, 12, 100, 100])
        found = floor.product_of(scores, {})
        assert found == floor.Product("n", (4, 12, 100, 32), (4, 12, 32, 100), False)
        assert found.operations == 2 * 4 * 12 * 100 * 100 * 32

    def test_other_operators_are_no_products(self):
        assert floor.product_of(self.event("Add", [[4, 100, 384], [384]], [4, 100, 384]), {}) is None

    def test_the_products_alone_are_those_of_the_batch(self):
        products = [
            floor.Product("a", (2, 5, 8), (8, 16), True),
            floor.Product("b", (2, 3, 5, 4), (2, 3, 4, 5), False),
        ]
        alone = floor.ProductsAlone(products)

        bindings = alone.prepare(products)
        alone.run(bindings)

        assert [one.get_outputs()[0].shape() for one in bindings] == [[2, 5, 16], [2, 3, 5, 5]]

    def test_the_profile_of_a_graph_names_every_product_with_its_sizes(self):
        pytest.importorskip("onnx")
        graph = Path(__file__).parent / "graphs" / "bert_torchscript20.onnx"
        chance = np.random.default_rng(0)
        feeds = []
        for rows, length in ((2, 7), (1, 5)):
            ids = chance.integers(1, 60, (rows, length))
            feeds.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})

        operators, products = floor.profile(graph, feeds)

        assert operators["MatMul"] > 0
        assert len(products) == len(feeds)
        with_weights = [one for one in products[0] if one.constant and len(one.left) == 3]
        assert {one.left[:2] for one in with_weights} == {(2, 7)}
        assert {one.left[:2] for one in products[1] if one.constant and len(one.left) == 3} == {(1, 5)}
        assert any(not one.constant and one.left[-2] == one.right[-1] == 7 for one in products[0])


class TestTexts:
    def test_equal_arguments_give_equal_texts_and_another_seed_gives_others(self):
        workload = texts.WORKLOADS["W3"]
        assert texts.make_groups(workload) == texts.make_groups(workload)
        assert texts.make_groups(workload) != texts.make_groups(workload, seed=1)

    def test_a_workload_has_its_queries_and_its_passages_their_lengths_and_none_comes_twice(self):
        groups = texts.make_groups(texts.WORKLOADS["W3"])

        lengths = [len(document.split()) for _, documents in groups for document in documents]
        assert len(groups) == 64
        assert all(len(documents) == 32 for _, documents in groups)
        assert min(lengths) == 20
        assert max(lengths) == 100
        assert len({document for _, documents in groups for document in documents}) == 64 * 32

    def test_calls_have_texts_of_their_own_and_the_same_word_counts(self):
        one, other = texts.make_calls(texts.WORKLOADS["W4"], 2)
        assert one == texts.make_groups(texts.WORKLOADS["W4"])
        assert not {*one[0][1]} & {*other[0][1]}
        assert [len(text.split()) for text in one[0][1]] == [len(text.split()) for text in other[0][1]]

    @pytest.mark.parametrize(("name", "shape"), [("W1", (1, 50)), ("W3", (1, 32)), ("W3-8", (1, 32)), ("W4", (1, 10))])
    def test_a_smaller_workload_of_the_same_kind(self, name: str, shape: tuple[int, int]):
        small = texts.WORKLOADS[name].first(50)
        assert (small.queries, small.documents) == shape
        assert small.words == texts.WORKLOADS[name].words


class TestPressure:
    def test_the_kernels_text_is_read_in_seconds(self):
        text = "some avg10=0.27 avg60=0.50 avg300=0.17 total=3816464\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
        assert pressure.parse_pressure(text) == 3.816464

    def test_a_text_without_the_line_is_an_error_and_not_silence(self):
        with pytest.raises(ValueError, match="some"):
            pressure.parse_pressure("full avg10=0.00 total=7\n")

    def test_busy_and_stolen_time_are_read_from_the_summary(self):
        assert pressure.parse_stat("cpu  10 1 20 300 4 5 6 250 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n") == (0.42, 2.5)

    def test_waiting_while_others_ran_and_stolen_time_count_against_the_elapsed(self):
        before = pressure.PressureMark(10.0, 3.0, 1.0, 100.0, 5.0)
        after = pressure.PressureMark(20.0, 9.0, 2.0, 108.0, 5.5)
        assert pressure.share(before, after) == pytest.approx((1.0 + 0.5) / 10)

    def test_a_process_whose_own_threads_wait_for_each_other_is_alone(self):
        before = pressure.PressureMark(10.0, 3.0, 1.0, 100.0, 5.0)
        after = pressure.PressureMark(20.0, 22.8, 8.0, 120.0, 5.0)
        assert pressure.share(before, after) == pytest.approx(0.02)

    def test_where_the_kernel_counts_nothing_nothing_is_claimed(self):
        before, after = (pressure.PressureMark(seconds, 0.0, None, 0.0, 0.0) for seconds in (1.0, 2.0))
        assert pressure.share(before, after) is None


class TestRetries:
    def test_a_sample_under_pressure_is_taken_again_after_growing_pauses(self):
        waiting = [a_sample(3, noise=0.5), a_sample(2, noise=0.4), a_sample(1, noise=0.05)]
        pauses: list[float] = []

        sample, tries, noisy = measure.take_clean(lambda: waiting.pop(0), 3, pauses.append)

        assert (sample.cpu_seconds, tries, noisy) == (1, 3, False)
        assert pauses == [2.0, 10.0]

    def test_when_pressure_stays_the_least_pressed_sample_is_kept_and_marked(self):
        waiting = [a_sample(3, noise=0.5), a_sample(2, noise=0.3), a_sample(1, noise=0.4)]

        sample, tries, noisy = measure.take_clean(lambda: waiting.pop(0), 2, lambda seconds: None)

        assert (sample.cpu_seconds, tries, noisy) == (2, 3, True)

    def test_a_sample_of_unknown_pressure_is_kept(self):
        assert measure.take_clean(lambda: a_sample(1, noise=None), 3, pytest.fail)[1:] == (1, False)


class TestScores:
    def test_the_error_is_the_largest_and_the_correlation_that_of_the_ranks(self):
        error, correlation = measure.compare_scores([1.0, 2.0, 30.0], [1.0, 2.5, 29.0], sigmoid=False)
        assert error == 1.0
        assert correlation == pytest.approx(1.0)
        assert measure.compare_scores([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], sigmoid=False)[1] == pytest.approx(-1.0)

    def test_sigmoids_are_compared_with_the_references_sigmoids(self):
        scores = [1 / (1 + math.exp(-logit)) for logit in (-1.0, 0.0, 2.0)]
        assert measure.compare_scores(scores, [-1.0, 0.0, 2.0], sigmoid=True)[0] < 1e-12
        assert measure.compare_scores(scores, [-1.0, 0.0, 2.0], sigmoid=False)[0] > 1

    def test_a_score_that_is_no_number_never_passes(self):
        error, correlation = measure.compare_scores([1.0, math.nan, 3.0], [1.0, 2.0, 3.0], sigmoid=False)
        assert error > measure.SCORE_TOLERANCE
        assert correlation < measure.LEAST_CORRELATION


def test_a_dead_process_is_quoted_by_the_line_that_names_its_exception():
    errors = "Traceback (most recent call last):\n  File x\nonnx.errors.LoadError: no such file\nFetch it again.\n"
    assert measure.last_words(errors, 1) == "onnx.errors.LoadError: no such file"
    assert measure.last_words("Killed\n", 137) == "Killed"
    assert measure.last_words("", 137) == "no message, exit status 137"


class TestFigures:
    def test_a_figure_is_the_median_of_the_clean_rounds(self):
        rounds = [measured("ours", 1.0), measured("ours", 2.0), measured("ours", 9.0, noisy=True)]
        figure = report.figure_of(rounds)
        assert (figure.seconds, figure.lowest, figure.highest, figure.rounds) == (1.5, 1.0, 2.0, 2)
        assert not figure.noisy

    def test_without_a_clean_round_the_noisy_ones_are_used_and_marked(self):
        figure = report.figure_of([measured("ours", 8.0, noisy=True), measured("ours", 9.0, noisy=True)])
        assert (figure.seconds, figure.noisy) == (8.5, True)

    def test_one_thread_counts_cpu_time_and_two_the_clock(self):
        assert report.figure_of([measured("ours", 3.0)]).seconds == 3.0
        assert report.figure_of([measured("ours", 3.0, threads=2)]).seconds == 1.5

    def test_the_search_for_the_best_batch_is_no_round(self):
        log = [
            measured("fastembed@64", 9.0, turn=measure.SEARCH),
            measured("fastembed@8", 1.0, turn=measure.SEARCH),
            measured("fastembed@64", 4.0),
            measured("fastembed@4", 2.0),
            measured("ours", 1.0),
        ]
        default, best, ours = report.rows_of(log, "minilm", "W1")

        assert default.figures[1].seconds == 4.0
        assert best.label == "FastEmbed, best batch (4)"
        assert (ours.times_faster_than(default, 1), ours.times_faster_than(best, 1)) == (4.0, 2.0)
        assert ours.times_faster_than(best, 2) is None

    def test_where_the_default_is_the_best_batch_both_rows_say_so(self):
        log = [measured("fastembed@64", 4.0), measured("fastembed@64", 4.0, threads=2), measured("fastembed@1", 3.0)]
        default, best = report.rows_of(log, "minilm", "W1")
        assert best.label == "FastEmbed, best batch (1 / 64)"
        assert best.figures[2] == default.figures[2]

    def test_each_round_another_contender_is_first(self):
        assert measure.rotate(["a", "b", "c"], 1) == ["b", "c", "a"]
        assert measure.rotate(["a", "b", "c"], 3) == ["a", "b", "c"]


class TestReport:
    def test_the_table_shows_ratios_noise_the_limit_and_the_machine(self, tmp_path):
        log = a_log(
            tmp_path / "results.json",
            [
                measured("fastembed@64", 4.0),
                measured("fastembed@4", 2.0, turn=2),
                measured("ours", 1.25, noisy=True),
            ],
        )
        log.skipped.append({"model": "minilm", "workload": "W1", "contender": "flashrank", "reason": "too large"})

        text = report.document(log)

        flops = 6 * (2 * 17_000 * (4 * 384**2 + 2 * 384 * 1536) + 4 * 3_000_000 * 384)
        share = f"{100 * flops / 1.25 / 100e9:.0f}"
        assert "Abacus" in text
        assert "170 on average, 256 at p95; rounds: 3." in text
        assert f"| this package, plain graph | 1.25 ~ | 3.20 | 1.60 | {share} |" in text
        assert "flashrank on minilm W1: too large" in text

    def test_results_survive_a_round_trip_through_their_file(self, tmp_path):
        log = a_log(tmp_path / "run" / "results.json", [measured("ours", 1.0, threads=2, turn=1, noisy=True)])
        log.add_check("minilm", "ours", 1e-6, 1.0, True)

        log.write()

        assert dataclasses.asdict(Log.read(log.path)) == dataclasses.asdict(log)

    def test_a_run_that_goes_on_gives_what_failed_another_chance_and_keeps_the_rest(self, tmp_path):
        log = a_log(tmp_path / "results.json", [])
        for model, workload in (("tiny", "*"), ("tiny", "W1"), ("tiny", "W2"), ("minilm", "W1")):
            log.skip(model, workload, "flashrank", "too large")

        log.forget_skipped([("tiny", "W1")])

        assert [(one["model"], one["workload"]) for one in log.skipped] == [("tiny", "W2"), ("minilm", "W1")]

    def test_a_bar_is_met_missed_or_not_measured(self, tmp_path):
        fast = bars.FAST
        log = a_log(tmp_path / "results.json", [measured("fastembed@64", 4.0), measured(fast, 1.0)])
        by_text = {bar.asked: bar.met for bar in bars.bars(log)}
        assert by_text[f"minilm W1: {fast} at least 3.1 times faster than fastembed@64"] is True
        assert by_text[f"tiny W1: {fast} at least 1.6 times faster than ours"] is None

        slow = a_log(tmp_path / "results.json", [measured("fastembed@64", 2.0), measured(fast, 1.0)])
        by_text = {bar.asked: bar.met for bar in bars.bars(slow)}
        assert by_text[f"minilm W1: {fast} at least 3.1 times faster than fastembed@64"] is False


@pytest.mark.slow
def test_a_quick_run_on_a_real_model_writes_table_plot_and_results(tmp_path, monkeypatch):
    # given a model of one small layer
    for module in ("torch", "transformers", "matplotlib", "onnx", "fastembed"):
        pytest.importorskip(module)
    size = models.ModelSize("micro", "XLM-R", 2, 32, 2, 64, 8_000, ("W4",))
    monkeypatch.setattr(models, "MODELS", tmp_path)
    monkeypatch.setattr(models, "SIZES", {"micro": size})
    monkeypatch.setattr(report, "SIZES", {"micro": size})
    monkeypatch.setattr(command, "REFERENCE", "ours")

    # when the command runs on it
    out = tmp_path / "results"
    command.run(
        command.parse(["--quick", "--model", "micro", "--only", "ours", "--only", "fastembed@64", "--out", str(out)])
    )

    # then the samples are in the file, and the reports beside it
    results = json.loads((out / "results.json").read_text())
    taken = {(one["contender"], one["threads"]): one["sample"] for one in results["measurements"]}
    assert {("ours", 1), ("ours", 2), ("fastembed@64", 1), ("fastembed@64", 2)} <= set(taken)
    assert taken["ours", 1]["cpu_seconds"] > 0
    assert taken["ours", 1]["peak_bytes"] > 50e6
    assert {one["contender"] for one in results["checks"] if one["passed"]} == {"ours", "fastembed@64"}
    assert "this package, plain graph" in (out / "table.md").read_text()
    assert (out / "plot.png").stat().st_size > 1_000


def test_a_pair_is_scored_by_the_cosine_of_the_two_embeddings_that_a_sentence_model_gives_alone(tmp_path):
    # given a small BERT of random weights
    for module in ("torch", "transformers", "onnx"):
        pytest.importorskip(module)
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    from benchmarks import pair_embeddings

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    bert = BertModel(BertConfig(vocab_size=30_522, initializer_range=0.2, **shape)).eval()
    bert.save_pretrained(tmp_path / "bert")
    tokenizer = Tokenizer.from_file(str(models.LEXICAL / "tokenizer.json"))
    tokenizer.save(str(tmp_path / "bert" / "tokenizer.json"))

    # when its graph of pairs scores texts of several lengths, in one batch
    pair_embeddings.write(tmp_path / "bert", tmp_path / "pairs")
    query = "Where do bees live?"
    documents = ["In a hive.", "Soup is eaten warm, and in winter with bread.", "A bee has five eyes."]
    scores = TextCrossEncoder(tmp_path / "pairs").rerank(query, documents)

    # then each is the cosine of two mean-pooled embeddings
    def embedding(text: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer.encode(text).ids])
        return bert(input_ids=ids).last_hidden_state.detach().mean(1)

    expected = [torch.cosine_similarity(embedding(query), embedding(document)).item() for document in documents]
    assert scores == pytest.approx([pair_embeddings.SCALE * one for one in expected], abs=1e-4)
    assert max(expected) - min(expected) > 0.01


def test_pairs_in_company_are_padded_and_keep_their_order() -> None:
    pytest.importorskip("onnx")
    int8_scores = pytest.importorskip("benchmarks.int8_scores")
    encoder = TextCrossEncoder("lexical")
    pairs = [("trade winds", "The wind " * count + "trades.") for count in (1, 9, 4, 30, 2)]
    feeds = [feed for pair in pairs for feed in encoder.load().feeds([pair])]
    session = int8_scores.open_session(encoder.load().files.onnx)

    together = int8_scores.scores(session, feeds, batch=3)

    assert together.tolist() == pytest.approx(encoder.rerank_pairs(pairs), abs=1e-5)
    assert len(set(together.round(3))) == len(pairs)


class TestQualitySpeed:
    """`python -m benchmarks.quality_speed`, on a collection of three queries."""

    @pytest.fixture
    def collection(self, tmp_path: Path) -> Path:
        pytest.importorskip("ir_measures")
        folder = tmp_path / "bees"
        folder.mkdir()
        texts = {"d1": "Bees live on honey in winter.", "d2": "Soup is eaten warm.", "d3": "Snow fell in May."}
        (folder / "corpus.jsonl").write_text(
            "".join(json.dumps({"_id": name, "title": "", "text": text}) + "\n" for name, text in texts.items())
        )
        queries = {"q1": "what do bees eat", "q2": "how is soup eaten", "q3": "when did snow fall"}
        (folder / "queries.jsonl").write_text(
            "".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in queries.items())
        )
        judgments = "".join(f"q{number}\td{number}\t1\n" for number in (1, 2, 3))
        (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgments)
        return folder

    def test_some_queries_are_taken_with_their_judgments_and_all_documents(self, collection, tmp_path):
        out = tmp_path / "some"
        out.mkdir()

        folder = quality_speed.some_queries(collection, 2, out)

        assert [json.loads(line)["_id"] for line in (folder / "queries.jsonl").read_text().splitlines()] == ["q1", "q2"]
        assert (folder / "qrels.tsv").read_text().splitlines()[1:] == ["q1\td1\t1", "q2\td2\t1"]
        assert (folder / "corpus.jsonl").read_text() == (collection / "corpus.jsonl").read_text()
        assert quality_speed.some_queries(collection, None, out) == collection

    def test_a_row_holds_speed_and_quality_of_a_way_and_says_why_another_is_missing(self, collection, tmp_path):
        encoders = {name: TextCrossEncoder("lexical", threads=1) for name in (quality_speed.FP32, "again")}

        calls = quality_speed.some_calls([collection], 3, 2)
        rates = quality_speed.measure_speed(encoders, calls)
        quality = quality_speed.measure_quality(encoders, [collection], 3, tmp_path / "kept.json")
        table = quality_speed.table(quality, rates, {"bf16": "no such CPU"})

        rows = {
            line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines()
        }
        assert len(calls) >= 2
        assert set(map(len, calls)) == {1}, "BM25 finds one document for each query"
        assert rows[""][2] == "nDCG@10, bees"
        assert rows["again"][3] == "+0.000"
        assert rows["again"][2] == rows["fp32"][2] == "1.000"
        assert rows["again"][0] == f"{rates['again']:,.1f}"
        assert rows["bf16"][0] == "no such CPU"

    def test_quality_that_was_measured_is_kept_and_not_measured_again(self, collection, tmp_path):
        kept = tmp_path / "kept.json"
        first = quality_speed.measure_quality({"a": TextCrossEncoder("lexical")}, [collection], 3, kept)

        again = quality_speed.measure_quality({"a": None, "b": TextCrossEncoder("lexical")}, [collection], 3, kept)

        assert again["bees"].pop("b") == first["bees"]["a"]
        assert again == first

"""`onnx-rerank check` finds a difference and `onnx-rerank bench` measures, on models that are here."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="typer isn't installed: pip install 'onnx-rerank-integrations[cli]'")

from benchmarks.texts import WORKLOADS, make_calls
from onnx_rerank_integrations import InputValueError, ModelNotFoundError, TextCrossEncoder
from onnx_rerank_integrations.extras import bench, check
from onnx_rerank_integrations.extras.cli import main
from tests.parity import fixtures


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """Scores of the BERT fixture, by PyTorch."""
    scores = fixtures.scores("bert")
    path = tmp_path / "scores.jsonl"
    rows = zip(scores["pairs"], scores["logits"], strict=True)
    lines = [json.dumps({"query": q, "document": d, "score": row[0]}) for (q, d), row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_equal_scores_pass(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", str(fixtures.folder("bert")), "--reference", str(reference), "--tolerance", "1e-4"]

    assert main([*arguments, "--max-length", str(fixtures.scores("bert")["max_length"])]) == 0
    assert "| equal |" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["-m", "--model"])
def test_the_model_may_be_named_as_the_other_commands_take_it(
    flag: str, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bert = str(fixtures.folder("bert"))
    arguments = ["--reference", str(reference), "--max-length", str(fixtures.scores("bert")["max_length"]), "--json"]

    assert main(["check", flag, bert, *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("largest_difference") <= 1e-3
    pairs = len(fixtures.scores("bert")["pairs"])
    assert found == {"model": bert, "reference": str(reference), "pairs": pairs, "tolerance": 1e-3, "passed": True}
    assert main(["check", bert, flag, "lexical", *arguments]) == 2
    assert f"the model is given twice: {bert}, and --model lexical" in capsys.readouterr().err
    assert main(["check", *arguments]) == 2
    assert "a model is needed" in capsys.readouterr().err


def test_a_difference_is_shown_and_fails(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(fixtures.folder("roberta")), "--reference", str(reference), "--max-length", "64"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_a_model_without_published_scores_says_which_have_some(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "lexical"]) == 1
    assert "Xenova/ms-marco-MiniLM-L-6-v2" in capsys.readouterr().err


@pytest.mark.parametrize("line", ['{"query": "a"}', "[]", "{", '{"query": "a", "document": 3, "score": 1}'])
def test_a_line_that_is_no_record_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text('{"query": "a", "document": "b", "score": 1}\n\n' + line)

    with pytest.raises(InputValueError, match=r"scores\.jsonl, line 3"):
        check.read_reference(path, "lexical", activation="identity", tolerance=1e-3)


def test_a_reference_is_read_as_all_files_of_json_lines_are(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl.gz"
    path.write_bytes(gzip.compress('\ufeff{"query": "a\u2028b", "document": "c", "score": 1}\r\n'.encode()))

    assert check.read_reference(path, "x", activation="identity", tolerance=0).pairs == [("a\u2028b", "c")]
    with pytest.raises(InputValueError, match=re.escape(f"There is no file {tmp_path / 'no'}")):
        check.read_reference(tmp_path / "no", "x", activation="identity", tolerance=0)
    with pytest.raises(InputValueError, match="is a folder: give the files in it"):
        check.read_reference(tmp_path, "x", activation="identity", tolerance=0)


@pytest.mark.hub
@pytest.mark.parametrize("published", check.published(), ids=lambda one: f"{one.model} {one.source}")
def test_published_scores_of_real_models(published: check.Reference) -> None:
    known = {model["model"] for model in TextCrossEncoder.list_supported_models()}
    if published.model not in known:
        pytest.skip(f"{published.model} has no ONNX files that are known")
    try:
        encoder = TextCrossEncoder(published.model)
    except ModelNotFoundError as error:
        pytest.skip(f"the model can't be fetched: {error}")
    [comparison] = check.compare(encoder, [published])

    assert comparison.largest_difference <= published.tolerance


def test_published_scores_are_whole() -> None:
    for reference in check.published():
        assert len(reference.pairs) == len(reference.scores) > 0
        assert reference.activation in ("identity", "sigmoid")
        assert 0 < reference.tolerance <= 2e-2
        assert reference.source


def test_bench_counts_what_it_ran() -> None:
    encoder = TextCrossEncoder("lexical")
    passages = next(bench.new_passages(10, seed=1))

    speed = bench.bench(encoder, passages, seconds=0, calls=3)

    assert all(60 <= len(passage.split()) <= 200 for passage in passages)
    assert speed.texts == "the same in each call"
    assert (speed.documents, speed.calls) == (10, 3)
    assert speed.tokens == encoder.token_count((bench.QUERY, passage) for passage in passages)
    assert speed.documents_per_second == pytest.approx(10 / speed.p50)
    assert 0 < speed.p50 <= speed.p99
    assert speed.cpu > 0
    assert speed.peak_memory is not None
    assert speed.peak_memory > 10**7
    with pytest.raises(InputValueError, match="no documents"):
        bench.bench(encoder, [])


def test_bench_gives_each_call_and_each_process_texts_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = bench.new_passages(20)
    seen = [passage for _ in range(4) for passage in next(calls)]
    encoder = TextCrossEncoder("lexical")
    ranked: list[str] = []
    rerank = encoder.rerank
    monkeypatch.setattr(encoder, "rerank", lambda q, texts, **how: (ranked.extend(texts), rerank(q, texts, **how))[1])

    speed = bench.bench(encoder, bench.new_passages(20), seconds=0, calls=3)

    assert len(set(seen)) == 80
    assert len(set(ranked)) == 80
    assert not set(seen) & set(ranked)
    assert (speed.documents, speed.calls, speed.texts) == (20, 3, "new in each call")
    tokens = encoder.token_count(("", passage) for passage in seen) / sum(len(passage.split()) for passage in seen)
    assert 1.1 < tokens < 1.8


def test_the_words_of_bench_come_again_and_fall_into_tokens_as_those_of_the_benchmark_do() -> None:
    prose = [documents for [(_, documents)] in make_calls(WORKLOADS["W1"], 10)]
    made = [documents for _, documents in zip(range(10), bench.new_passages(seed=0), strict=False)]
    encoder = TextCrossEncoder("lexical")

    def shares_of_new_words(calls: list[list[str]]) -> list[float]:
        known: set[str] = set()
        shares = []
        for documents in calls:
            words = [word for document in documents for word in document.split()]
            shares.append(len(set(words) - known) / len(words))
            known |= set(words)
        return shares

    def tokens(calls: list[list[str]]) -> int:
        return encoder.token_count(("", document) for documents in calls for document in documents)

    there, here = shares_of_new_words(prose), shares_of_new_words(made)
    assert here[1] == pytest.approx(there[1], rel=0.25)  # 12 % of the words of a second call
    assert here[4] == pytest.approx(there[4], rel=0.25)
    assert max(here[9], there[9]) < 0.02
    assert tokens(made) == pytest.approx(tokens(prose), rel=0.03)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the inherited figure is to be had")
def test_peak_memory_is_this_process_own_and_not_its_parents() -> None:
    size = 300_000_000
    held = bytearray(b"x") * size  # by this process, the parent
    code = "from onnx_rerank_integrations.extras.bench import peak_memory; print(peak_memory())"

    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    del held
    assert 10**7 < int(child.stdout) < size


def test_bench_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "passages.txt").write_text("one passage\n\nanother passage\n")
    arguments = ["bench", "--model", "lexical", "--seconds", "0", "--documents", str(tmp_path / "passages.txt")]

    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "| documents per call | 2 |" in printed
    assert "| texts | the same in each call |" in printed
    assert "| computed by | onnxruntime, CPUExecutionProvider, 1 thread, fp32, its own graph |" in printed
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 2
    assert main([*arguments[:-1], str(tmp_path / "missing.txt")]) == 1
    assert "There is no file" in capsys.readouterr().err

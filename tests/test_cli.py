"""The command onnx-rerank: as a process where that matters, in this process for the rest.

The model is the toy of tests/toy.py unless a test says otherwise: a document of later letters scores higher.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.extras.cli.app import app
from onnx_rerank_integrations.extras.markdown import markdown_table
from tests.local_hub import LocalHub, environment
from tests.parity import fixtures
from tests.toy import make_toy, toy_score

ROOT = Path(__file__).parent.parent
LINES = "b c\n\nz\r\na a\nk\n"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_toy(tmp_path_factory.mktemp("toy")))


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    path = tmp_path / "letters.txt"
    path.write_bytes(LINES.encode())
    return path


def run(*arguments: object, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The real command, as a process of its own."""
    command = [sys.executable, "-m", "onnx_rerank_integrations", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, cwd=ROOT, env={**os.environ, **environment})


def invoke(*arguments: object, stdin: str | bytes | None = None) -> Result:
    """The command in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)), input=stdin)


def json_lines(output: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_lines_of_a_file_are_ranked_into_a_markdown_table(toy: str, letters: Path) -> None:
    done = run("rank", "q", letters, "--model", toy)

    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert done.stdout.decode().splitlines() == [
        "| rank | score | source | text |",
        "| ---: | ---: | --- | --- |",
        f"| 1 | 1.0000 | {letters}:3 | z |",
        f"| 2 | 1.0000 | {letters}:5 | k |",
        f"| 3 | 1.0000 | {letters}:1 | b c |",
        f"| 4 | 1.0000 | {letters}:4 | a a |",
    ]


@pytest.mark.parametrize("files", [[], ["-"]])
def test_stdin_is_ranked_where_no_file_is_named_or_a_dash_is(toy: str, files: list[str]) -> None:
    done = run("rank", "q", *files, "-m", toy, "--activation", "identity", "--json", "--top-n", 2, stdin=LINES.encode())

    assert done.returncode == 0, done.stderr
    assert json_lines(done.stdout) == [
        {"rank": 1, "score": toy_score("q", "z"), "text": "z", "source": "stdin:3", "index": 1},
        {"rank": 2, "score": toy_score("q", "k"), "text": "k", "source": "stdin:5", "index": 3},
    ]


def test_the_model_named_by_the_environment_is_used_where_none_is_given(toy: str) -> None:
    done = run("rank", "q", "--json", stdin=b"c\nb", ONNX_RERANK_MODEL=toy)

    assert [line["text"] for line in json_lines(done.stdout)] == ["c", "b"]


def test_utf8_is_read_and_written_whatever_the_locale(toy: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("é ü\n金丝雀\n", encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}

    table = run("rank", "é", tmp_path / "texts.txt", "-m", toy, **plain)
    records = run("rank", "é", tmp_path / "texts.txt", "-m", toy, "--json", **plain)

    assert "| é ü |" in table.stdout.decode()
    assert {line["text"] for line in json_lines(records.stdout)} == {"é ü", "金丝雀"}


def test_the_query_is_read_as_utf8_whatever_the_locale() -> None:
    model = fixtures.folder("bert")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    query = fixtures.scores("bert")["pairs"][0][0] + " é"
    expected, damaged = TextCrossEncoder(model, activation="sigmoid").rerank_pairs([(query, "a"), (query[:-1], "a")])

    done = run("rank", query, "-m", model, "--json", stdin=b"a", **plain)

    assert expected != damaged
    assert json_lines(done.stdout)[0]["score"] == expected


def test_a_closed_pipe_ends_the_command_without_a_traceback(toy: str, tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text("a b c d e f g h " * 1000 + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "onnx_rerank_integrations", "rank", "q", "-m", toy, "--all", "--json"]
    process = subprocess.Popen([*command, *[str(long)] * 500], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stderr is not None

    process.stdout.read(10)
    process.stdout.close()

    errors = process.stderr.read().decode()
    assert process.wait() == 141
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize(
    ("sent", "code", "said"), [("SIGINT", 130, b"Interrupted.\n"), ("SIGTERM", 143, b"Terminated.\n")]
)
def test_a_signal_ends_the_command_with_a_line(sent: str, code: int, said: bytes, toy: str, tmp_path: Path) -> None:
    fifo = tmp_path / "never-ending"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "onnx_rerank_integrations", "rank", "q", str(fifo), "-m", toy]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run in background
    )

    with fifo.open("wb"):  # opens once the command does, which then waits to read until this end is closed
        process.send_signal(signal.Signals[sent])
        with contextlib.suppress(subprocess.TimeoutExpired):  # where the signal came just before the read began
            process.wait(timeout=5)
    output, errors = process.communicate()

    assert (process.returncode, output, errors) == (code, b"", said)


@pytest.mark.skipif(sys.platform == "win32", reason="no stream is closed before a process starts here")
def test_a_closed_standard_input_is_said(toy: str) -> None:
    command = [sys.executable, "-m", "onnx_rerank_integrations", "rank", "q", "-", "-m", toy]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, preexec_fn=lambda: os.close(0))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: there is no standard input to read: name files\n"


def test_a_pattern_that_matches_no_file_is_said(toy: str, tmp_path: Path) -> None:
    result = invoke("rank", "q", tmp_path / "*.md", "-m", toy)

    assert result.exit_code == 1
    assert result.stderr == f"Error: There is no file that matches {tmp_path / '*.md'}\n"


def test_without_its_extra_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None\nfrom onnx_rerank_integrations.extras.cli import main\n"
    code += "sys.exit(main(['version']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        'The command onnx-rerank needs an optional dependency: pip install "onnx-rerank-integrations[cli]"\n'
    )


def test_help_is_shown_with_examples_and_starts_no_onnxruntime() -> None:
    code = "import sys; from onnx_rerank_integrations.extras.cli import main; main(['rank', '--help'])\n"
    code += "heavy = {'onnxruntime', 'torch', 'transformers', 'langchain_core', 'llama_index', 'matplotlib'}\n"
    code += "sys.exit(3 if heavy & set(sys.modules) else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    assert "onnx-rerank rank QUERY [FILES]" in done.stdout or "onnx-rerank rank [OPTIONS]" in done.stdout
    assert '  onnx-rerank rank "how do I reset my password" faq.txt\n' in done.stdout
    assert "--threshold" in done.stdout


def test_our_errors_are_one_message_on_stderr_and_exit_code_1(toy: str, tmp_path: Path) -> None:
    done = run("rank", "q", tmp_path / "nowhere.txt", "-m", toy)

    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"Error: There is no file {tmp_path / 'nowhere.txt'}\n"


def test_a_broken_model_is_one_message_on_stderr_and_exit_code_1(letters: Path, tmp_path: Path) -> None:
    (make_toy(tmp_path / "model") / "model.onnx").write_bytes(b"no graph")

    result = invoke("rank", "q", letters, "-m", tmp_path / "model")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "model.onnx" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["rank"], ["rank", "q", "--top-n", "0"], ["rank", "q", "--threshold", "1.5"], ["rank", "q", "--nothing"], ["no"]],
)
def test_a_wrong_use_is_exit_code_2_and_shows_the_usage(arguments: list[str]) -> None:
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_no_documents_at_a_terminal_is_a_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_rerank_integrations.extras.cli import rank

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(rank.sys, "stdin", Terminal())

    with pytest.raises(rank.typer.BadParameter, match="name files, or pipe text in"):
        rank._paths(None)


def test_jsonl_records_keep_their_fields(toy: str, tmp_path: Path) -> None:
    records = [{"id": 7, "text": "b", "tags": ["x"], "score": 12.5}, {"id": 8, "text": "z", "rank": 1}]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")

    result = invoke("rank", "q", tmp_path / "records.jsonl", "-m", toy, "--json", "--activation", "identity")

    assert json_lines(result.stdout) == [
        {"rank": 1, "score": toy_score("q", "z"), "text": "z", "source": f"{tmp_path / 'records.jsonl'}:2", "index": 1}
        | {"id": 8},
        {"rank": 2, "score": toy_score("q", "b"), "text": "b", "source": f"{tmp_path / 'records.jsonl'}:1", "index": 0}
        | {"id": 7, "tags": ["x"], "original_score": 12.5},
    ]


def test_the_text_of_a_record_may_be_in_other_fields_which_are_joined(toy: str) -> None:
    records = '{"title": "y", "body": "z", "text": "no"}\n{"body": "x"}\n'

    arguments = ("rank", "q", "--split", "jsonl", "--text-field", "title", "--text-field", "body", "-m", toy, "--json")
    found = json_lines(invoke(*arguments, stdin=records).stdout)

    assert [(record["text"], record.get("original_text")) for record in found] == [("y\nz", "no"), ("x", None)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"body": "x"}', "no field 'text', found 'body': name the one to score with --text-field"),
        ('{"text": 5}', "the text to score must be a string, found 5"),
        ('{"text": ', "not JSON: "),
        ('["text"]', "a JSON object is needed, found a list"),
    ],
)
def test_a_bad_record_is_named_with_its_file_and_line(toy: str, tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"text": "a"}\n\n' + line, encoding="utf-8")

    result = invoke("rank", "q", path, "-m", toy)

    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {path}:3: {message}")


def test_a_lone_surrogate_in_a_record_comes_out_as_it_went_in(toy: str) -> None:
    done = run("rank", "q", "--split", "jsonl", "-m", toy, "--json", stdin=rb'{"text": "a \ud800"}')

    assert json_lines(done.stdout)[0]["text"] == "a \ud800"


def test_paragraphs_are_runs_of_lines_between_blank_ones(toy: str) -> None:
    text = "\nb\nc\n\n \n z \n"

    found = json_lines(invoke("rank", "q", "--split", "paragraphs", "-m", toy, "--json", stdin=text).stdout)

    assert [(record["text"], record["source"]) for record in found] == [("z", "stdin:6"), ("b\nc", "stdin:2")]


def test_whole_files_can_be_documents_and_empty_ones_are_left_out(toy: str, tmp_path: Path) -> None:
    for name, content in [("one.txt", b"b\r\nc\r\n"), ("two.txt", b"z"), ("empty.txt", b"\n")]:
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in ("one.txt", "two.txt", "empty.txt")]

    found = json_lines(invoke("rank", "q", *paths, "--split", "files", "-m", toy, "--json").stdout)

    assert [(record["text"], record["source"]) for record in found] == [("z", str(paths[1])), ("b\nc", str(paths[0]))]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfb c\r\nz",
        gzip.compress(b"b c\nz\n"),
        "b c\r\nz".encode("utf-16"),
        b"\n\n  b c \n\t\nz\n\n",
    ],
    ids=["BOM and CRLF", "gzip", "UTF-16", "blank lines"],
)
def test_text_files_of_many_kinds_give_the_same_lines(toy: str, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "texts").write_bytes(content)

    found = json_lines(invoke("rank", "q", tmp_path / "texts", "-m", toy, "--json").stdout)

    assert [record["text"] for record in found] == ["z", "b c"]


def test_lines_end_only_at_line_feeds_and_carriage_returns(toy: str) -> None:
    text = "a\u2028b\x0cc\x85d\nz"

    found = json_lines(invoke("rank", "q", "-m", toy, "--json", stdin=text.encode()).stdout)

    assert {record["text"] for record in found} == {"a\u2028b\x0cc\x85d", "z"}


def test_bytes_that_are_no_utf8_are_replaced_and_said(toy: str, tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"a\ncaf\xe9 \xff\n")

    result = invoke("rank", "q", path, "-m", toy, "--json")

    assert {record["text"] for record in json_lines(result.stdout)} == {"a", "caf\ufffd \ufffd"}
    assert result.stderr.startswith(f"Note: {path}: bytes that are no UTF-8 were replaced: 2, the first on line 2; ")
    assert len(result.stderr.splitlines()) == 1


def test_documents_that_are_cut_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("bees " * 600)

    done = run("rank", "bees", tmp_path / "long.txt", "-m", "lexical", "--max-length", 64)

    assert done.stderr.decode() == (
        "Note: 1 of 1 documents are longer than the model's 64 tokens and were scored by their beginning; "
        "--long-documents max reads them whole\n"
    )


def test_empty_input_gives_an_empty_ranking_and_a_note(toy: str) -> None:
    result = invoke("rank", "q", "-m", toy, "--json", stdin="\n \n")

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Note: there are no documents: the input is empty\n"


@pytest.mark.parametrize("activation", ["sigmoid", "identity", "model"])
def test_the_threshold_is_on_the_sigmoid_scale_whatever_scores_are_shown(activation: str) -> None:
    reference = fixtures.scores("bert")
    query = reference["pairs"][0][0]
    documents = [document.replace("\n", " ").strip() for asked, document in reference["pairs"] if asked == query]
    documents = [document for document in documents if document]

    def ranked(*options: object) -> list[dict[str, Any]]:
        arguments = ("rank", query, "-m", fixtures.folder("bert"), "--json", "--all", *options)
        return json_lines(invoke(*arguments, stdin="\n".join(documents)).stdout)

    every = ranked()
    best, lowest = every[0]["score"], every[-1]["score"]

    assert len(every) == len(documents) > 1
    assert len(ranked("--activation", activation, "--threshold", lowest - 1e-6)) == len(documents)
    (kept,) = ranked("--activation", activation, "--threshold", best - 1e-6)
    assert kept["index"] == every[0]["index"]
    # This fixture's config asks for no activation, so "model" gives logits too.
    assert kept["score"] == pytest.approx(best if activation == "sigmoid" else np.log(best / (1 - best)))


def test_a_threshold_that_nothing_reaches_is_said(toy: str) -> None:
    result = invoke("rank", "q", "-m", fixtures.folder("bert"), "--threshold", 1, stdin="a\nb")

    assert result.exit_code == 0
    assert result.stdout.count("\n") == 2
    assert result.stderr.startswith("Note: no document scores 1.0 or more; the best has 0.")


def test_ten_documents_are_shown_unless_all_are_asked_for(toy: str) -> None:
    text = "\n".join("abcdefghijkl")

    assert len(json_lines(invoke("rank", "q", "-m", toy, "--json", stdin=text).stdout)) == 10
    assert len(json_lines(invoke("rank", "q", "-m", toy, "--json", "--all", stdin=text).stdout)) == 12


def test_documents_that_are_cut_are_said_and_can_be_read_in_windows(toy: str) -> None:
    text = "a a a a a a a a a a a a z\nb"
    options = ("rank", "q", "-m", toy, "--max-length", 8, "--json", "--activation", "identity")

    cut = invoke(*options, stdin=text)
    windows = invoke(*options, "--long-documents", "max", stdin=text)

    assert "1 of 2 documents are longer than the model's 8 tokens" in cut.stderr
    assert json_lines(cut.stdout)[0]["score"] == toy_score("q", "a a a a")
    assert windows.stderr == ""
    assert json_lines(windows.stdout)[0]["score"] > toy_score("q", "a a a a")


def test_a_label_is_chosen_by_its_place_or_its_name(tmp_path: Path) -> None:
    config: dict[str, object] = {"id2label": {"0": "yes", "1": "no", "2": "maybe"}}
    model = make_toy(tmp_path, head="three", config=config)

    orders = [
        [record["text"] for record in json_lines(invoke("rank", "q", "-m", model, *label, stdin="a\nz").stdout)]
        for label in (("--json", "--label", "yes"), ("--json", "--label", "0"), ("--json", "--label", "2"))
    ]

    assert orders == [["z", "a"], ["z", "a"], ["a", "z"]]


def test_cells_of_a_table_stay_on_their_line_and_in_their_column() -> None:
    table = markdown_table(["n", "text"], [["1", "a | b\n\x1b[31mred\x07  end"]], numbers=["n"])

    assert table == "| n | text |\n| ---: | --- |\n| 1 | a \\| b [31mred end |\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals here")
def test_a_terminal_gets_a_table_whose_long_texts_are_shortened(toy: str) -> None:
    import pty

    text = "[b]a[/b] " * 40 + "\n" + "[b]b[/b] " * 40
    terminal, screen = pty.openpty()
    command = [sys.executable, "-m", "onnx_rerank_integrations", "rank", "q", "-m", toy]
    variables = {**os.environ, "COLUMNS": "60", "TERM": "xterm", "NO_COLOR": "1"}
    done = subprocess.run(command, input=text.encode(), stdout=screen, env=variables, cwd=ROOT, stderr=subprocess.PIPE)
    lines = re.sub(rb"\x1b\[[0-9;]*m", b"", os.read(terminal, 65536)).decode().splitlines()

    assert done.returncode == 0, done.stderr
    assert lines[0].startswith("┏━")
    assert [len(line) for line in lines] == [60] * len(lines)
    assert "stdin:1" in lines[3]
    assert sum(line.count("[b]a[/b]") for line in lines) == 40  # the best one is wrapped, and whole
    assert [line.count("…") for line in lines if "stdin:2" in line] == [1]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals here")
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("60", [("system", "bm25", "reranked"), *((f"measure {n}", f"0.{n}00", f"0.{n}50") for n in range(6))]),
        ("120", [("system", *(f"measure {n}" for n in range(6))), ("bm25", *(f"0.{n}00" for n in range(6)))]),
    ],
)
def test_a_table_too_wide_for_a_terminal_has_its_rows_as_columns(columns: str, expected: list[tuple[str, ...]]) -> None:
    import pty

    code = """from onnx_rerank_integrations.extras.cli.output import write_table
headers = ["system", *(f"measure {n}" for n in range(6))]
rows = [[name, *(f"0.{n}{digit}0" for n in range(6))] for name, digit in (("bm25", 0), ("reranked", 5))]
write_table(headers, rows, numbers=headers[1:])"""
    terminal, screen = pty.openpty()
    variables = {**os.environ, "COLUMNS": columns, "TERM": "xterm", "NO_COLOR": "1"}
    subprocess.run([sys.executable, "-c", code], stdout=screen, env=variables, cwd=ROOT, check=True)
    shown = re.sub(rb"\x1b\[[0-9;]*m", b"", os.read(terminal, 65536)).decode()

    cells = [tuple(re.split(r"\s*[┃│]\s*", line.strip())[1:-1]) for line in shown.splitlines() if line[0] in "┃│"]
    assert cells[: len(expected)] == expected
    assert max(map(len, shown.splitlines())) <= int(columns)


def model_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_is_downloaded_its_folder_printed_and_ranks_without_a_network(tmp_path: Path) -> None:
    toy = make_toy(tmp_path / "toy", model_file="onnx/model.onnx")
    with LocalHub() as hub:
        hub.add("someone/toy", model_files(toy))
        variables = environment(hub, tmp_path / "home")
        done = run("download", "-m", "someone/toy", **variables)
    ranked = run("rank", "q", "-m", "someone/toy", "--json", stdin=b"a\nz", **variables)

    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.decode().removesuffix("\n"))
    assert (folder / "onnx" / "model.onnx").is_file()
    assert tmp_path / "home" in folder.parents
    assert [record["text"] for record in json_lines(ranked.stdout)] == ["z", "a"]


def test_a_licence_that_forbids_commercial_use_is_said_when_its_model_is_downloaded(tmp_path: Path) -> None:
    toy = make_toy(tmp_path / "toy", model_file="onnx/model.onnx")
    with LocalHub() as hub:
        hub.add("jinaai/jina-reranker-v2-base-multilingual", model_files(toy))
        done = run("download", "jinaai/jina-reranker-v2-base-multilingual", **environment(hub, tmp_path / "home"))

    assert done.returncode == 0, done.stderr
    assert "is cc-by-nc-4.0: not for commercial use" in done.stderr.decode()


def test_a_model_that_is_not_on_the_hub_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with LocalHub() as hub:
        done = run("download", "someone/missing", **environment(hub, tmp_path / "home"))

    assert (done.returncode, done.stdout) == (1, b"")
    assert "someone/missing" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_models_are_listed_with_size_licence_and_whether_they_are_cached(tmp_path: Path) -> None:
    toy = make_toy(tmp_path / "toy", model_file="onnx/model.onnx")
    name = "Xenova/ms-marco-MiniLM-L-6-v2"
    with LocalHub() as hub:
        hub.add(name, model_files(toy))
        variables = environment(hub, tmp_path / "home")
        before = run("models", "--json", **variables)
        run("download", name, **variables)
        after = run("models", "--json", **variables)
    table = run("models", **variables).stdout.decode().splitlines()

    assert {record["model"]: record["cached"] for record in json_lines(before.stdout)}[name] is False
    assert {record["model"]: record["cached"] for record in json_lines(after.stdout)}[name] is True
    assert table[0] == "| model | MB | languages | tokens | licence | here |"
    assert f"| {name} | 80 | en | 512 | apache-2.0 | yes |" in table
    assert "cc-by-nc-4.0 (non-commercial)" in next(line for line in table if "jina-reranker-v2" in line)
    assert len(table) == 2 + len(TextCrossEncoder.list_supported_models())


def test_the_version_names_the_package_and_onnxruntime() -> None:
    from onnx_rerank_integrations import __version__

    result = invoke("version")

    assert result.stdout.startswith(f"onnx-rerank-integrations {__version__} (onnxruntime ")

"""What `onnx-rerank rank` takes for a document, by the kind of file, and what it refuses."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")

from typer.testing import CliRunner

from onnx_rerank_integrations import InputValueError
from onnx_rerank_integrations.core.options import defaults, deprecated
from onnx_rerank_integrations.extras import text_files
from onnx_rerank_integrations.extras.cli.app import COMMANDS, app
from onnx_rerank_integrations.extras.cli.documents import Document, Split, read_documents
from onnx_rerank_integrations.extras.cli.options import NOT_FLAGS

MARKDOWN = """Intro without a heading.

# Guide

## Offline ##

The cache answers.

```sh
# no heading in code
```

Setext
======
More.
"""

REST = """=====
Title
=====

Section
-------
Some text.

Other
~~~~~
Other text.
"""


def read(folder: Path, name: str, content: str | bytes, split: Split = "auto", *fields: str) -> list[tuple[str, str]]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_documents([str(path)], split, fields or ("text",))
    return [(document.text, document.source.removeprefix(str(path))) for document in found]


def test_markdown_is_read_by_sections_with_their_headings(tmp_path: Path) -> None:
    assert read(tmp_path, "guide.md", MARKDOWN) == [
        ("Intro without a heading.", ":1"),
        ("Guide\nOffline\nThe cache answers.\n\n```sh\n# no heading in code\n```", ":3"),
        ("Setext\nMore.", ":13"),
    ]


def test_restructuredtext_is_read_by_sections_too(tmp_path: Path) -> None:
    assert read(tmp_path, "guide.rst", REST) == [("Title\nSection\nSome text.", ":2"), ("Other\nOther text.", ":9")]


def test_a_table_and_a_rule_are_no_headings(tmp_path: Path) -> None:
    table = "# H\n\na | b\n--- | ---\n1 | 2\n\ntext\n\n---\n\nmore\n"

    assert read(tmp_path, "table.md", table) == [(f"H\n{table[4:].strip()}".replace("\n\na", "\na"), ":1")]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_csv_is_read_by_its_header(tmp_path: Path, name: str) -> None:
    tab = "\t" if "tsv" in name else ","
    content = f'id{tab}text\n1{tab}"bees live on honey\nin winter"\n2{tab}soup is warm\n'.encode()

    found = read(tmp_path, name, gzip.compress(content) if name.endswith(".gz") else content)

    assert [text for text, _ in found] == ["bees live on honey\nin winter", "soup is warm"]


def test_a_csv_record_keeps_its_columns_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;body\n7;soup\n")

    [document] = read_documents([str(tmp_path / "a.csv")], "auto", ["body"])

    assert document == Document("soup", f"{tmp_path / 'a.csv'}:2", {"id": "7", "body": "soup"})
    with pytest.raises(InputValueError, match=r"no field 'text', found 'id', 'body'"):
        read_documents([str(tmp_path / "a.csv")], "auto", ["text"])


def test_a_csv_record_is_where_it_begins(tmp_path: Path) -> None:
    content = 'id,text\n\n1,"bees live\non honey"\n\n2,"soup, warm"\n,\n'

    assert read(tmp_path, "a.csv", content) == [("bees live\non honey", ":3"), ("soup, warm", ":6")]


def test_a_csv_record_that_does_not_fit_its_header_is_an_error(tmp_path: Path) -> None:
    """Its text would be cut at the comma, or run on to the end of the file."""
    with pytest.raises(InputValueError, match=r"a.csv:2: 3 cells, and the header names 2: put a cell that holds ','"):
        read(tmp_path, "a.csv", "id,text\n1,bees live, and thrive\n")
    with pytest.raises(InputValueError, match=r"a.csv:2: not CSV: .*--split lines"):
        read(tmp_path, "a.csv", 'id,text\n1,"bees\n2,soup\n3,snow\n')
    assert read(tmp_path, "a.csv", "id,text\n1,bees,,\n") == [("bees", ":2")]
    assert read(tmp_path, "a.csv", '"a;b";text\n1;"bees; and honey"\n') == [("bees; and honey", ":2")]
    with pytest.raises(InputValueError, match=r"a.csv: 2 columns are named 'text', and one is to be scored"):
        read(tmp_path, "a.csv", "text,text\nbees,soup\n")


def test_another_encoding_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id;text\n1;Käse im Café – 3 €\n".encode("cp1252"))

    [replaced] = read_documents([str(path)], "auto", ["text"])
    [named] = read_documents([str(path)], "auto", ["text"], "windows-1252")

    assert "\ufffd" in replaced.text
    assert "--encoding names another encoding, such as windows-1252" in capsys.readouterr().err
    assert named.text == "Käse im Café – 3 €"
    path.write_bytes("bees\nhoney".encode("utf-16-le"))
    assert [one.text for one in read_documents([str(path)], "lines", ["text"], "utf-16-le")] == ["bees", "honey"]
    with pytest.raises(InputValueError, match="there is no encoding 'klingon'; utf-8, windows-1252"):
        read_documents([str(path)], "lines", ["text"], "klingon")
    path.write_bytes("Käse".encode())
    with pytest.raises(InputValueError, match=r"a.csv isn't in ascii"):
        read_documents([str(path)], "lines", ["text"], "ascii")


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "bees"}, {"text": "soup"}]',
        '[\n "bees",\n "soup"]',
        '{"text": "bees"}\n{"text": "soup"}\n',
    ],
)
def test_json_is_an_array_or_lines_of_objects_whatever_its_name(tmp_path: Path, content: str) -> None:
    assert [text for text, _ in read(tmp_path, "a.json", content)] == ["bees", "soup"]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.xlsx", b"PK\x03\x04....xl/workbook.xml", "an Excel workbook"),
        ("a.odt", b"PK\x03\x04....mimetypeapplication/vnd.oasis.opendocument.text", "an OpenDocument file"),
        ("a.rtf", b"{\\rtf1 bees}", "an RTF file"),
        ("a.zip", b"PK\x03\x04....notes.txt", "a zip archive"),
        ("a.png", b"\x89PNG\r\n", "a picture"),
        ("a.bin", b"words" + bytes(3000), "binary data"),
        ("a.txt", b"PAR1....", "a parquet file"),
    ],
)
def test_a_file_that_is_no_text_is_called_by_its_kind(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    with pytest.raises(InputValueError, match=f"{name} is {kind}, not text(?s:.*)Extract its text"):
        read(tmp_path, name, content)


def test_broken_json_and_empty_csv_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputValueError, match=r"a.json: not JSON: .*line 1"):
        read(tmp_path, "a.json", "[1, 2")
    with pytest.raises(InputValueError, match=r"a.json\[0\]: an object or a text is needed, found 1"):
        read(tmp_path, "a.json", "[1]")
    assert read(tmp_path, "a.csv", "") == []
    assert read(tmp_path, "a.json", "\n") == []


def test_what_a_gzip_file_unpacks_to_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LARGEST_FILE", 1000)
    monkeypatch.setattr(text_files, "LARGEST_LINE", 1000)
    bomb = gzip.compress(b"a" * 100_000)

    with pytest.raises(InputValueError, match="more than 0 MB, which is the limit"):
        read(tmp_path, "bomb.txt.gz", bomb)
    with pytest.raises(InputValueError, match=r"bomb.txt.gz:1: a line of more than"):
        list(text_files.numbered_lines(tmp_path / "bomb.txt.gz"))


def test_json_lines_on_stdin_are_records(tmp_path: Path) -> None:
    lines = '{"id": 1, "text": "bees live on honey"}\n{"id": 2, "text": "soup is warm"}\n'
    arguments = ["rank", "bees in winter", "-m", "lexical", "--json"]

    result = CliRunner().invoke(app, arguments, input=lines)
    array = CliRunner().invoke(app, arguments, input='[\n{"text": "bees"},\n{"text": "soup"}\n]')
    no_array = CliRunner().invoke(app, arguments, input="[1]\n[2]\n")
    plain = CliRunner().invoke(app, arguments, input='{"an": "object without a text"}\nbees\n')

    assert [record["id"] for record in records(result.stdout)] == [1, 2]
    assert [record["text"] for record in records(array.stdout)] == ["bees", "soup"]
    assert [record["text"] for record in records(no_array.stdout)] == ["[1]", "[2]"]
    assert [record["text"] for record in records(plain.stdout)] == ["bees", '{"an": "object without a text"}']


def test_markup_is_ranked_as_it_stands_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(tmp_path, "a.html", "<p>bees</p>") == [("<p>bees</p>", ":1")]
    assert "a.html: HTML is read as plain text, marks and all" in capsys.readouterr().err


@pytest.mark.parametrize("command", [command.__name__ for command in COMMANDS])
def test_help_can_be_read_at_80_columns(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"}).stdout

    assert [line for line in shown.splitlines() if len(line) > 80] == []


def records(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("command", ["rank", "bench", "evaluate", "check"])
def test_every_option_of_the_encoder_is_a_flag_of_each_command_that_runs_one(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
    flags = {"providers": "--provider"}

    for name in set(defaults()) - NOT_FLAGS - deprecated():
        assert flags.get(name, f"--{name.replace('_', '-')}") in shown


def test_options_reach_the_model(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("bees\n")
    rank = ["rank", "bees", str(tmp_path / "a.txt"), "-m", "lexical"]

    assert CliRunner().invoke(app, [*rank, "--max-length", "2"]).exit_code == 1
    assert "'--truncation'" in CliRunner().invoke(app, [*rank, "--truncation", "none"]).stderr
    assert "takes none" in CliRunner().invoke(app, [*rank, "--instruction", "judge"]).stderr
    assert CliRunner().invoke(app, [*rank, "--score-cache", "10", "--threads", "1"]).exit_code == 0


def test_texts_are_shown_by_their_beginning_unless_asked_for_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("bees " * 100)
    rank = ["rank", "bees", str(tmp_path / "a.txt"), "-m", "lexical"]

    [short] = CliRunner().invoke(app, rank).stdout.splitlines()[2:]
    [whole] = CliRunner().invoke(app, [*rank, "--full"]).stdout.splitlines()[2:]

    assert short.endswith("bees ... |")
    assert len(short.split(" | ")[-1]) < 210
    assert whole.count("bees") == 100


def test_models_can_be_filtered() -> None:
    rows = CliRunner().invoke(app, ["models", "multilingual"]).stdout.splitlines()[2:]

    assert rows
    assert all("multilingual" in row for row in rows)
    assert "no supported model has 'klingon'" in CliRunner().invoke(app, ["models", "klingon"]).stderr


def test_the_version_is_an_option_too() -> None:
    from onnx_rerank_integrations import __version__

    assert CliRunner().invoke(app, ["--version"]).stdout == f"onnx-rerank-integrations {__version__}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell's redirections")
@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        ("> /dev/full", "No space left on device"),
        ("--json > /dev/full", "No space left on device"),
        (">&-", "no standard output"),
    ],
)
def test_output_that_cannot_be_written_is_one_line_and_an_exit_code(redirection: str, message: str) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    command = f"printf 'a\\nb\\n' | {sys.executable} -m onnx_rerank_integrations rank q -m lexical {redirection}"

    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=os.environ)

    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1

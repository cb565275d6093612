"""The pages of promises, SECURITY.md and docs/reliability.md, say nothing that no test holds."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from onnx_rerank_integrations.core import checks, score_cache
from onnx_rerank_integrations.core.graphs import copies
from onnx_rerank_integrations.core.model import hub, identity, storage, transfer
from onnx_rerank_integrations.core.tokens import texts
from onnx_rerank_integrations.extras import text_files

ROOT = Path(__file__).parent.parent
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")

DEFENDED = {
    "any text of any plane of Unicode gets a finite score or a typed error that names it": (
        "test_properties.py::test_any_texts_through_the_core",
        "test_properties.py::test_what_is_no_text_is_named_by_its_place",
    ),
    "a document never moves another's score": (
        "test_properties.py::test_any_texts_through_the_core",
        "test_cross_encoder.py::test_batching_and_padding_never_change_a_score",
    ),
    "lengths are cut before the model": ("test_tokenization.py::test_longest_first_truncates_as_the_library_does",),
    "a panic of the tokenizer is a `ScoreError`": (
        "test_processes.py::test_a_panic_of_the_tokenizers_library_is_one_of_our_errors",
    ),
    "`timeout=` ends a call": (
        "test_timeouts.py::test_a_call_ends_with_its_timeout_and_the_encoder_is_as_good_as_before",
    ),
    'a score is a number: nothing in a document is executed. `special_tokens_in_text="text"` keeps a document from '
    "forging the model's structure (`[SEP]`, `<\\|im_end\\|>`)": (
        "test_promises.py::test_no_code_of_a_model_or_a_text_is_run",
        "test_tokenization.py::test_special_tokens_in_a_text_are_control_tokens_or_text_by_choice",
    ),
    "damaged and hostile files are typed errors where that can be had": (
        "test_soak.py::test_the_least_of_each_part_of_the_soak_holds",
        "test_files.py::test_random_bytes_never_do_more_than_be_refused",
    ),
    "external data outside the model's folder is refused": (
        "test_files.py::test_external_data_outside_the_folder_is_refused",
        "test_files.py::test_external_data_that_is_a_link_out_of_the_folder_is_refused",
    ),
    "`expected_sha256` pins a model": (
        "test_files.py::test_the_expected_sha256_is_checked_on_the_onnx_file",
        "test_identity.py::test_a_pin_of_a_model_with_external_data_covers_the_data",
    ),
    "names that a server gives are checked before they become paths": (
        "test_hostile_hub.py::test_an_etag_is_no_path",
        "test_hostile_hub.py::test_a_name_that_leads_elsewhere_is_none_of_the_repositorys",
        "test_hostile_hub.py::test_a_commit_that_is_none_is_no_answer",
    ),
    "files are verified by their checksums": (
        "test_hub_download.py::test_a_file_that_arrives_corrupted_is_refused_and_leaves_no_trace",
    ),
    "answers are limited in time and bytes": (
        "test_hostile_hub.py::test_an_endless_list_ends",
        "test_hostile_hub.py::test_a_server_that_drips_its_head_is_given_up",
        "test_hostile_hub.py::test_a_server_that_drips_its_body_is_given_up",
    ),
    "a token goes to no other host": ("test_hostile_hub.py::test_a_redirect_takes_no_token_along",),
    "remembered copies are used only where nobody else can write": (
        "test_identity.py::test_a_copy_that_others_may_write_to_is_not_used",
        "test_identity.py::test_a_link_planted_in_the_cache_is_not_followed",
    ),
    "a score cache is keyed by everything that decides a score": (
        "test_cache.py::test_an_option_that_changes_scores_is_another_key",
        "test_cache.py::test_a_file_of_the_model_that_changes_scores_is_another_key",
    ),
    "a cache that fails costs the answer nothing": (
        "test_cache.py::test_a_cache_that_breaks_costs_no_answer_and_one_warning_at_most",
    ),
}
"""Each thing that SECURITY.md says is defended, and the tests that hold it."""

LIMITS = {
    "a server that says nothing": f"{constants.DEFAULT_ETAG_TIMEOUT} seconds",
    "the head of an answer": f"{transfer.HEAD_SECONDS:.0f} seconds",
    "a body": f"{transfer.WINDOW_BYTES:,} bytes in every {transfer.WINDOW_SECONDS:.0f} seconds",
    "redirects": f"{transfer.MOST_REDIRECTS}",
    "a repository's list of files": f"{hub.MOST_LIST_BYTES >> 20} MiB",
    "a file of no stated size": f"{hub.MOST_UNLISTED_BYTES >> 30} GiB",
    "a JSON file of a model": f"{storage.MOST_JSON_BYTES >> 20} MiB",
    "optimized and converted copies": f"{copies.MOST_BYTES // 10**9} GB and {copies.MOST_COPIES} of them",
    "digests that are remembered": f"{identity.MOST_REMEMBERED:,}",
    "scores in an SQLite file": f"{score_cache.DISK_ENTRIES:,}",
    "a score cache that others write to": f"{score_cache.BUSY_SECONDS:.0f} seconds of waiting, "
    f"{score_cache.START_SECONDS:.0f} at the start; one that fails is left alone for {score_cache.PAUSE_SECONDS:.0f} ",
    "words in memory": f"{texts.MOST_WORDS:,}",
    "`threads=`": f"{checks.MOST_THREADS:,}",
    "a text file that a command reads whole, unpacked": f"{text_files.LARGEST_FILE >> 20} MiB",
}
"""The limits of docs/reliability.md, as the code has them."""


def table(page: str, first: str) -> list[list[str]]:
    """The rows of the table whose head begins with that cell."""
    lines = page[page.index(f"| {first} |") :].splitlines()[2:]
    cells = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in lines]
    return cells[: next((place for place, row in enumerate(cells) if not row), len(cells))]


def test_all_that_is_defended_is_held_by_a_test() -> None:
    said = [
        clause.strip() for _, defended, _ in table(SECURITY, "who might harm you") for clause in defended.split(";")
    ]

    assert said == list(DEFENDED)


@pytest.mark.parametrize("test", sorted({test for tests in DEFENDED.values() for test in tests}))
def test_what_holds_a_promise_is_a_test(test: str) -> None:
    file, name = test.split("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))

    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_promise_names_the_files_that_hold_it() -> None:
    rows = table(RELIABILITY, "you do")
    assert len(rows) >= 16
    before: list[str] = []
    for _, _, held in rows:
        named = re.findall(r"`(tests/[a-z_/]+\.py)`", held) or (before if held == "the same" else [])
        assert named, f"nothing holds the row that ends in {held}"
        assert all((ROOT / file).is_file() for file in named)
        before = named


def test_the_limits_are_the_codes() -> None:
    said = dict(table(RELIABILITY, "of"))

    assert list(said) == list(LIMITS)
    for of, limit in LIMITS.items():
        assert said[of].startswith(limit), f"{of}: {limit}"


def test_no_code_of_a_model_or_a_text_is_run() -> None:
    for path in (ROOT / "onnx_rerank_integrations").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec"), f"{path.name}:{node.lineno} calls {called}"
                assert not re.search(r"pickle|marshal|custom_ops|torch\.load", called), f"{path.name}: {called}"
                trusted = [word.value for word in node.keywords if word.arg == "trust_remote_code"]
                assert all(isinstance(one, ast.Constant) and one.value is False for one in trusted), path.name


def test_onnxruntimes_telemetry_is_off_unless_the_user_has_decided(tmp_path: Path) -> None:
    code = "import onnx_rerank_integrations as o, os; o.TextCrossEncoder('lexical').rerank('q', ['a'])"
    code += "; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for decided, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        home = {"HOME": str(tmp_path), "CI": ""}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment | home | decided, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
        if not decided:
            assert not list(tmp_path.rglob("*"))  # it writes a device id there


def test_the_commands_of_the_page_are_commands() -> None:
    pytest.importorskip("typer")
    from typer.main import get_command

    from onnx_rerank_integrations.extras.cli.app import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = re.findall(r"onnx-rerank (\w+)", SECURITY)
    assert named
    assert set(named) <= commands

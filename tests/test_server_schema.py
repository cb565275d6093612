"""The OpenAPI document holds: schemathesis sends what it allows and what it doesn't, and looks at every answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_rerank_integrations import TextCrossEncoder
from tests.live_server import running
from tests.toy import make_toy

WANTED = 'NOT RUN: needs pip install ".[server]" schemathesis'
pytest.importorskip("fastapi", reason=WANTED)
pytest.importorskip("schemathesis", reason=WANTED)

FEWEST_CASES = 2_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_failure_of_the_server_and_no_answer_against_the_schema(tmp_path: Path) -> None:
    encoders = {"toy": TextCrossEncoder(make_toy(tmp_path)), "lexical": TextCrossEncoder("lexical")}
    with running(encoders) as server:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("st")), "run", f"{server.url}/openapi.json"),
                *("--checks", "all", "--max-examples", "150", "--seed", "20", "--no-color", "--continue-on-failure"),
                *("--request-timeout", "120"),
            ],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip

    cases = re.search(r"(\d+) generated", done.stdout)
    assert done.returncode == 0, done.stdout[-10_000:]
    assert cases, done.stdout[-2000:]
    assert int(cases[1]) >= FEWEST_CASES
    print(f"{cases[1]} cases")

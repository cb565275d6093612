"""The road of one `compress_documents` call stays short enough to be read in one go."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_core", reason="needs the extra langchain")

from benchmarks.trace import compress_documents_road, files, road
from onnx_rerank_integrations.core.batching import chunks, deduplicate

MOST_FILES = 9
MOST_FUNCTIONS = 44
"""At most 9 and 45. Lower them when the road gets shorter, to what `python -m benchmarks.trace` prints."""


def test_the_road_of_a_call_is_no_longer_than_it_was() -> None:
    steps = compress_documents_road()

    assert steps[0].name == "OnnxRerank.compress_documents"
    assert {"langchain.py", "door.py", "core/base.py", "core/tokens/pairs.py"} <= set(files(steps))
    assert len(files(steps)) <= MOST_FILES, files(steps)
    assert len(steps) <= MOST_FUNCTIONS, [step.name for step in steps]


def test_a_road_is_each_function_once_in_the_order_of_its_first_entry() -> None:
    def call() -> None:
        list(chunks("abc", 2))
        deduplicate("aba")
        list(chunks("abc", 2))

    assert [(step.name, step.file, step.depth) for step in road(call)] == [
        ("chunks", "core/batching.py", 0),
        ("deduplicate", "core/batching.py", 0),
    ]

"""Any texts, of all planes of Unicode, through the core, both doors and the command: see properties.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_rerank_integrations import TextCrossEncoder
from tests import properties
from tests.parity import fixtures
from tests.properties import Example, check_core, check_wrong_type, examples, texts

few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def opened(name: str) -> TextCrossEncoder:
    if name == "lexical":
        return TextCrossEncoder(name)
    return TextCrossEncoder(fixtures.folder(name), max_length=128 if name.startswith("qwen") else None)


ENCODERS = {name: opened(name) for name in ("lexical", "bert", "xlm-roberta", "qwen3-reranker")}


@pytest.mark.parametrize("name", ENCODERS)
def test_any_texts_through_the_core(name: str) -> None:
    @few
    @given(examples())
    def check(example: Example) -> None:
        check_core(ENCODERS[name], example)

    check()


@pytest.mark.parametrize(
    ("way", "needs"),
    [
        (properties.langchain_door, "langchain_core"),
        (properties.llama_index_door, "llama_index.core"),
        (properties.command, "typer"),
    ],
)
def test_any_texts_through_the_doors_and_the_command(
    way: Callable[[TextCrossEncoder], Callable[[Example], int]], needs: str
) -> None:
    pytest.importorskip(needs)
    through = way(ENCODERS["lexical"])

    @few
    @given(examples(most=12))
    def check(example: Example) -> None:
        through(example)

    check()


@few
@given(documents=st.lists(texts, max_size=5), place=st.integers(0, 9), wrong=st.sampled_from(properties.WRONG))
def test_what_is_no_text_is_named_by_its_place(documents: list[str], place: int, wrong: Any) -> None:
    check_wrong_type(ENCODERS["lexical"], documents, place, wrong)

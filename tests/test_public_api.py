"""What docs/public-api.md lists is there, and what the doors and the package export is listed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import onnx_rerank_integrations

PAGE = (Path(__file__).parents[1] / "docs" / "public-api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("door", ["langchain", "llama_index", "haystack"])
def test_a_doors_names_are_those_on_the_page(door: str) -> None:
    name = f"onnx_rerank_integrations.{door}"
    pytest.importorskip({"langchain": "langchain_core", "llama_index": "llama_index.core"}.get(door, door))
    (row,) = re.findall(rf"^\| `{re.escape(name)}` \| (.*) \|$", PAGE, re.MULTILINE)

    assert sorted(re.findall(r"`(\w+)`", row)) == sorted(importlib.import_module(name).__all__)


def test_the_methods_of_an_opened_model_that_the_page_names_are_there() -> None:
    opened = onnx_rerank_integrations.TextCrossEncoder("lexical").load()
    (sentence,) = re.findall(r"Its methods (.*?) are public", PAGE, re.DOTALL)

    names = re.findall(r"`(\w+)`", sentence)
    assert len(names) > 5
    assert [name for name in names if not hasattr(opened, name)] == []


def test_every_name_of_the_package_but_its_errors_is_on_the_page() -> None:
    names = [name for name in onnx_rerank_integrations.__all__ if not name.endswith("Error")]

    assert [name for name in names if f"`{name}`" not in PAGE] == []

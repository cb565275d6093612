"""Texts are read by the tokenizer that transformers makes of a folder, whatever its JSON files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_rerank_integrations.core.model.config import read_kind
from onnx_rerank_integrations.core.model.files import locate
from onnx_rerank_integrations.core.tokens.auto import TokenizerSettings, class_name
from onnx_rerank_integrations.core.tokens.pairs import PairTokenizer
from tests.tokenizer_variants import PAIRS, VARIANTS, committed, make


@pytest.mark.parametrize("name", VARIANTS)
def test_the_ids_are_those_that_auto_tokenizer_reads(name: str, tmp_path: Path) -> None:
    files = locate(make(name, tmp_path))
    kind = read_kind(files)
    settings = TokenizerSettings(
        name=class_name(files.config, files.tokenizer_config), config=files.tokenizer_config, joins_plainly=kind.decoder
    )
    tokenizer = PairTokenizer(files.tokenizer, settings=settings, max_length=10_000)

    assert [pair.ids.tolist() for pair in tokenizer.encode(PAIRS)] == committed()[name]

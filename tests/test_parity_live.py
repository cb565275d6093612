"""PyTorch still gives the logits the parity fixtures were committed with, and transformers the ids of their variants.

Needs torch, transformers and sentence-transformers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.parity.fixtures import names, scores
from tests.tokenizer_variants import VARIANTS, committed, make, transformers_ids

TOLERANCE = 1e-4
REASON = "recomputing the parity scores needs torch and more: pip install --group parity onnx"
for library in ("torch", "transformers", "sentence_transformers", "onnx"):
    pytest.importorskip(library, reason=REASON, exc_type=ImportError)


@pytest.mark.parametrize("name", names())
def test_the_model_built_anew_in_pytorch_gives_the_committed_logits(name: str) -> None:
    from tests.parity.make import score

    committed = scores(name)
    pairs = [(query, document) for query, document in committed["pairs"]]

    np.testing.assert_allclose(score(name, pairs), committed["logits"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", names("prompt"))
def test_the_model_built_anew_gives_the_committed_logits_for_another_instruction(name: str) -> None:
    from tests.parity.make import score

    committed = scores(name)
    pairs = [(query, document) for query, document in committed["pairs"]]
    instruction = committed["instruction"]

    logits = score(name, pairs, instruction["text"])

    np.testing.assert_allclose(logits, instruction["logits"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", VARIANTS)
def test_transformers_still_reads_the_committed_ids(name: str, tmp_path: Path) -> None:
    assert transformers_ids(make(name, tmp_path)) == committed()[name]

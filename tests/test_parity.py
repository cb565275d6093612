"""Scores equal PyTorch's on tiny models of real architectures (tests/parity), alone and in any batch."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_rerank_integrations import TextCrossEncoder
from tests.parity import fixtures

ONE_LABEL = [name for name in fixtures.names() if len(fixtures.scores(name)["logits"][0]) == 1]


@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize("name", ONE_LABEL)
def test_scores_equal_pytorchs(name: str, batch_size: int | None) -> None:
    reference = fixtures.scores(name)
    encoder = TextCrossEncoder(fixtures.folder(name), max_length=reference["max_length"])

    scores = encoder.rerank_pairs(reference["pairs"], batch_size=batch_size)

    assert np.abs(np.array(scores) - np.array(reference["logits"])[:, 0]).max() < 1e-4

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


def test_two_labels_score_as_the_difference_of_pytorchs_logits() -> None:
    reference = fixtures.scores("bert-2-labels")
    logits = np.array(reference["logits"])

    encoder = TextCrossEncoder(fixtures.folder("bert-2-labels"), max_length=reference["max_length"])

    assert np.abs(encoder.rerank_pairs(reference["pairs"]) - (logits[:, 1] - logits[:, 0])).max() < 1e-4


@pytest.mark.parametrize("label", ["entailment", "neutral", "contradiction"])
def test_three_labels_give_the_softmax_of_the_chosen_one(label: str) -> None:
    reference = fixtures.scores("bert-3-labels")
    encoder = TextCrossEncoder(
        fixtures.folder("bert-3-labels"), max_length=reference["max_length"], label=label, activation="sigmoid"
    )
    exponentials = np.exp(reference["logits"])
    place = {name: int(key) for key, name in encoder.config["id2label"].items()}[label]

    scores = encoder.rerank_pairs(reference["pairs"])

    assert np.abs(scores - exponentials[:, place] / exponentials.sum(axis=1)).max() < 1e-4

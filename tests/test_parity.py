"""Scores equal PyTorch's on tiny models of real architectures (tests/parity), alone and in any batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from onnx_rerank_integrations import InputValueError, InvalidModelError, TextCrossEncoder, UnsupportedModelError
from onnx_rerank_integrations.core.model.head import ModularHead
from tests.parity import fixtures

NEXT_WORD = ["qwen3-reranker", "qwen3-reranker-plain", "mxbai-rerank-v2"]
PROMPTED = [*NEXT_WORD, "qwen3-seq-cls"]
ONE_LABEL = [name for name in fixtures.names() if len(fixtures.scores(name)["logits"][0]) == 1 and name not in PROMPTED]


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


@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize("name", PROMPTED)
def test_language_models_score_as_the_original_recipe_does(name: str, batch_size: int | None) -> None:
    reference = fixtures.scores(name)
    logits = np.array(reference["logits"])  # of the words for no and yes, or of the one label
    expected = logits[:, 1] - logits[:, 0] if name in NEXT_WORD else logits[:, 0]
    # Qwen3-Reranker's own code lets a query of 1,000 characters crowd out the document; here it may not.
    longest_query = 500 if name.startswith("qwen3") else 2000
    comparable = [place for place, (query, _) in enumerate(reference["pairs"]) if len(query) < longest_query]
    encoder = TextCrossEncoder(fixtures.folder(name), max_length=reference["max_length"])

    scores = np.array(encoder.rerank_pairs(reference["pairs"], batch_size=batch_size))

    assert any(encoder.truncated([reference["pairs"][place] for place in comparable]))
    assert np.abs(scores - expected)[comparable].max() < 1e-4


@pytest.mark.parametrize("name", PROMPTED)
def test_a_long_query_leaves_a_language_model_room_for_the_document(name: str) -> None:
    encoder = TextCrossEncoder(fixtures.folder(name), max_length=fixtures.scores(name)["max_length"])

    first, second = encoder.rerank("how long does bread need to rise? " * 100, ["two hours", "an altimeter"])

    assert abs(first - second) > 1e-3


def test_a_head_of_modules_beside_the_graph_is_applied_with_the_activation_its_config_names() -> None:
    reference = fixtures.scores("ettin")

    encoder = TextCrossEncoder(fixtures.folder("ettin"), max_length=reference["max_length"])

    assert encoder.config["sentence_transformers"]["activation_fn"].endswith("Identity")
    assert encoder.rerank_pairs(reference["pairs"][:2], activation="model") == encoder.rerank_pairs(
        reference["pairs"][:2]
    )


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("2_Dense/config.json", "GELU", "Mish", "the activation Mish"),
        ("1_Pooling/config.json", '"cls"', '"mean"', "pooling mean"),
        ("modules.json", "layer_norm.LayerNorm", "normalize.Normalize", "the kind Normalize"),
    ],
)
def test_a_head_we_lack_is_named(file: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    folder = shutil.copytree(fixtures.folder("ettin"), tmp_path / "model")
    text = (folder / file).read_text()
    (folder / file).write_text(text.replace(old, new))

    with pytest.raises(UnsupportedModelError, match=message):
        TextCrossEncoder(folder)


def test_damaged_weights_of_a_head_are_named(tmp_path: Path) -> None:
    folder = shutil.copytree(fixtures.folder("ettin"), tmp_path / "model")
    weights = folder / "2_Dense" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])

    with pytest.raises(InvalidModelError, match="2_Dense"):
        TextCrossEncoder(folder)


@pytest.mark.parametrize("name", PROMPTED)
def test_an_instruction_changes_the_score_and_an_ordinary_cross_encoder_refuses_it(name: str) -> None:
    length = fixtures.scores(name)["max_length"]
    plain = TextCrossEncoder(fixtures.folder(name), max_length=length)
    told = TextCrossEncoder(fixtures.folder(name), max_length=length, instruction="Find recipes")

    assert abs(plain.rerank("bread", ["two hours"])[0] - told.rerank("bread", ["two hours"])[0]) > 1e-3
    with pytest.raises(InputValueError, match="this model takes none"):
        TextCrossEncoder(fixtures.folder("bert"), instruction="Find recipes")


def test_a_head_beside_the_graph_reads_each_rows_first_token_whichever_side_is_padded() -> None:
    vectors = np.arange(12.0).reshape(2, 3, 2)
    attention_mask = np.array([[0, 1, 1], [1, 1, 0]])

    assert ModularHead([])(vectors, attention_mask).tolist() == [[2.0, 3.0], [6.0, 7.0]]

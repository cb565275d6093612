"""The lexical model's files: three inputs, one logit, and scores that can be checked by hand."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Encoding, Tokenizer

import onnx_rerank_integrations

FOLDER = Path(onnx_rerank_integrations.__file__).parent / "models" / "lexical"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
QUERY = "How does heat flow through a composite slab?"
DOCUMENTS = (
    "The flow of heat through composite slabs is computed from the conductivity of each layer.",
    "Slabs of concrete were poured. Later, the workers complained of the heat and left.",
    "The wolf knocked at the door of the house.",
)


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    return ort.InferenceSession(FOLDER / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@pytest.fixture(scope="module")
def constants(session: ort.InferenceSession) -> dict:
    return json.loads(session.get_modelmeta().custom_metadata_map["constants"])


def feeds(encodings: Sequence[Encoding], width: int = 0, side: str = "right") -> dict[str, np.ndarray]:
    """Arrays (B, T) of at least `width` columns, padded with zeros on one side."""
    width = max(width, *(len(encoding.ids) for encoding in encodings))
    arrays = np.zeros((3, len(encodings), width), np.int64)
    for row, encoding in enumerate(encodings):
        used = slice(0, len(encoding.ids)) if side == "right" else slice(width - len(encoding.ids), width)
        arrays[:, row, used] = encoding.ids, encoding.attention_mask, encoding.type_ids
    return dict(zip(INPUTS, arrays, strict=True))


def run(session: ort.InferenceSession, arrays: dict[str, np.ndarray]) -> np.ndarray:
    return session.run(["logits"], arrays)[0][:, 0]


@pytest.fixture(scope="module")
def score(session: ort.InferenceSession, tokenizer: Tokenizer):
    """Scores one pair on its own, without padding."""

    def score_pair(query: str, document: str) -> float:
        return float(run(session, feeds([tokenizer.encode(query, document)]))[0])

    return score_pair


def by_hand(
    query: Sequence[int], passage: Sequence[int], stem: dict[int, int], weight: dict[int, float], c: dict
) -> float:
    """The formula of MODEL_CARD.md in plain Python, for lists of token ids without special tokens."""
    plain = [weight[token] for token in query]
    effective_terms = sum(plain) ** 2 / sum(w * w for w in plain)
    breadth = max(0.0, math.log2(effective_terms / c["breadth_terms"]))
    w = [x ** (1 + c["breadth_power"] * breadth) for x in plain]
    k = c["saturation"] * (1 + c["breadth_saturation"] * breadth)
    norm = 1 - c["length_share"] + c["length_share"] * len(passage) / c["average_length"]

    total = 0.0
    for token, w_token in zip(query, w, strict=True):
        exact = passage.count(token)
        related = sum(stem[other] == stem[token] for other in passage)
        tf = c["exact_share"] * exact + (1 - c["exact_share"]) * related
        total += w_token * tf / (tf + k * norm)
    for distance, pair_weight in enumerate(c["pair_weights"], start=1):
        for i in range(len(query) - distance):
            first, second = stem[query[i]], stem[query[i + distance]]
            found = sum(
                stem[passage[j]] == first and stem[passage[j + distance]] == second
                for j in range(len(passage) - distance)
            )
            lesser = min(w[i], w[i + distance])
            total += pair_weight * lesser * found / (found + c["pair_saturation"] * norm)
    return c["scale"] * total / sum(w) + c["offset"] + c["breadth_offset"] * breadth


def initializer(name: str, length: int, dtype: type) -> np.ndarray:
    """A table of the graph, out of the file's bytes, since the tests do without the onnx package.

    In a serialized tensor the name is followed by the tag of raw_data (0x4a), its size as a varint, and the data.
    """
    size = length * np.dtype(dtype).itemsize
    varint = b""
    while True:
        size, low = size >> 7, size & 0x7F
        varint += bytes([low | (0x80 if size else 0)])
        if not size:
            break
    content = (FOLDER / "model.onnx").read_bytes()
    header = name.encode() + b"\x4a" + varint
    return np.frombuffer(content, dtype, length, content.index(header) + len(header))


def test_the_files_are_small() -> None:
    # given the folder inside the package
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    # then nothing of it weighs on the wheel
    assert sizes["model.onnx"] < 300_000
    assert sum(sizes.values()) < 1_000_000


def test_the_graph_declares_three_inputs_and_one_logit(session: ort.InferenceSession) -> None:
    assert [(x.name, x.type, x.shape) for x in session.get_inputs()] == [
        (name, "tensor(int64)", ["batch", "tokens"]) for name in INPUTS
    ]
    assert [(x.name, x.type, x.shape) for x in session.get_outputs()] == [("logits", "tensor(float)", ["batch", 1])]


def test_the_configs_agree_with_the_tokenizer(tokenizer: Tokenizer) -> None:
    # given both configs
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    tokenizer_config = json.loads((FOLDER / "tokenizer_config.json").read_text(encoding="utf-8"))
    # then they say how long an input may be, and what the label and the vocabulary are
    assert config["num_labels"] == 1
    assert config["max_position_embeddings"] == tokenizer_config["model_max_length"] == 1024
    assert config["vocab_size"] == tokenizer.get_vocab_size() == 24_000
    assert config["pad_token_id"] == tokenizer.token_to_id(tokenizer_config["pad_token"])


def test_the_tokenizer_stores_no_truncation_and_no_padding(tokenizer: Tokenizer) -> None:
    stored = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    assert stored["truncation"] is None
    assert stored["padding"] is None
    assert len(tokenizer.encode("heat " * 3000, "wolf " * 3000).ids) == 6003


def test_a_pair_is_encoded_as_bert_does(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode("Running Wolves", "the wolf")
    assert encoding.tokens == ["[CLS]", "running", "wolves", "[SEP]", "the", "wolf", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("query", "document"),
    [
        (QUERY, DOCUMENTS[0]),
        (QUERY, DOCUMENTS[1]),
        ("running wolves", "She runs from the wolf, and the wolves are running."),
        # A long query: more than 12 effective terms bend weights and saturation.
        (f"{DOCUMENTS[1]} {DOCUMENTS[2]} Rivers carry sediment from mountains towards shallow seas.", DOCUMENTS[1]),
    ],
    ids=["relevant", "related", "stems", "long query"],
)
def test_the_score_is_the_formula_of_the_card(score, tokenizer: Tokenizer, constants: dict, query, document) -> None:
    # given the tables inside the graph, and the ids without special tokens
    size = tokenizer.get_vocab_size()
    stem = dict(enumerate(initializer("stem_of_token", size, np.int32).tolist()))
    weight = dict(enumerate(initializer("weight_of_token", size, np.float32).tolist()))
    query_ids = tokenizer.encode(query, add_special_tokens=False).ids
    passage_ids = tokenizer.encode(document, add_special_tokens=False).ids
    # when the formula is worked out in plain Python
    expected = by_hand(query_ids, passage_ids, stem, weight, constants)
    # then the graph says the same
    assert score(query, document) == pytest.approx(expected, abs=1e-4)


def test_the_relevant_document_is_above_the_related_and_the_irrelevant(score) -> None:
    relevant, related, irrelevant = (score(QUERY, document) for document in DOCUMENTS)
    assert relevant > 0 > irrelevant
    assert relevant > related > irrelevant


def test_words_of_one_stem_match_and_the_same_word_matches_better(score) -> None:
    same, stem, other = (score("running shoes", f"She {verb} home.") for verb in ("running", "runs", "drives"))
    assert same > stem > other


def test_rare_words_count_more_than_common_ones(score) -> None:
    assert score("the glacier of year", "A glacier.") > score("the glacier of year", "A year.")


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_on_either_side_changes_no_score(session, tokenizer: Tokenizer, score, side: str) -> None:
    # given pairs of several lengths, scored alone
    pairs = [(QUERY, document) for document in DOCUMENTS] + [("wolf", DOCUMENTS[2]), (DOCUMENTS[0], "heat")]
    alone = [score(*pair) for pair in pairs]
    for width in (0, 64, 700):
        # when they share one batch, padded to the width
        together = run(session, feeds(tokenizer.encode_batch(pairs), width, side))
        # then nothing changes
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


def test_the_company_in_a_batch_changes_no_score(session, tokenizer: Tokenizer) -> None:
    # given a batch and the same in another order with a very long query among it
    encodings = tokenizer.encode_batch([(QUERY, document) for document in DOCUMENTS])
    longest = tokenizer.encode(" ".join(DOCUMENTS) * 6, "heat")
    # then each pair keeps its score
    expected = run(session, feeds(encodings))
    np.testing.assert_allclose(run(session, feeds([longest, *encodings[::-1]]))[:0:-1], expected, rtol=0, atol=1e-5)


def test_a_large_score_is_the_same_to_its_last_digit_in_any_company(session, tokenizer: Tokenizer) -> None:
    # given queries of hundreds of words that the documents are full of
    draw, words = random.Random(0), ["bee", "honey", "winter", "the", "wolf", "heat", "flow", "slab", "river", "ship"]
    texts = [" ".join(draw.choices(words, k=length)) for length in (5, 50, 200, 300, 400)]
    encodings = tokenizer.encode_batch([(query, document) for query in texts for document in texts])
    # when they are scored together and one by one
    together = run(session, feeds(encodings))
    alone = np.concatenate([run(session, feeds([encoding])) for encoding in encodings])
    # then they differ by a rounding to fp32 at most
    assert alone.max() > 7
    np.testing.assert_allclose(together, alone, rtol=0, atol=5e-7)


def test_attention_mask_token_types_and_order_all_matter(session, tokenizer: Tokenizer, score) -> None:
    # given a pair in which every word counts
    arrays = feeds([tokenizer.encode(QUERY, DOCUMENTS[0])])
    expected = float(run(session, arrays)[0])
    half = arrays["input_ids"].shape[1] // 2
    mask, types = arrays["attention_mask"].copy(), arrays["token_type_ids"].copy()
    mask[:, half:], types[:] = 0, 0
    # when part is masked, or the types are lost, or words trade places, or query and document do
    assert abs(run(session, {**arrays, "attention_mask": mask})[0] - expected) > 0.1
    assert abs(run(session, {**arrays, "token_type_ids": types})[0] - expected) > 0.1
    assert abs(score(QUERY, " ".join(reversed(DOCUMENTS[0].split()))) - expected) > 0.1
    assert abs(score(DOCUMENTS[0], QUERY) - expected) > 0.1


@pytest.mark.parametrize("query", ["", " ", "heat", "\u6f22\u5b57", "?"])
@pytest.mark.parametrize("document", ["", "\n", "heat", "\u6f22\u5b57 \u6f22", "\U0001f525"])
def test_nothing_to_match_gives_a_finite_score(score, query: str, document: str) -> None:
    # when query or document is empty, blank or of unknown characters only
    logit = score(query, document)
    # then the score is a low number, but for the one pair that does match
    assert math.isfinite(logit)
    assert (logit > 0) == (query == document == "heat")


def test_a_row_of_padding_alone_gives_a_finite_score(session) -> None:
    nothing = np.zeros((2, 5), np.int64)
    assert np.isfinite(run(session, dict.fromkeys(INPUTS, nothing))).all()


def test_the_card_states_the_constants_of_the_graph(constants: dict) -> None:
    # given the formula as the card writes it
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    # then its numbers are those in the graph
    c = constants
    fixed = round(1 - c["length_share"], 3)
    for line in (
        f"w_i ^ (1 + {c['breadth_power']:g} * breadth)",
        f"{c['saturation']:g} * (1 + {c['breadth_saturation']:g} * breadth)",
        f"norm    = {fixed:g} + {c['length_share']:g} * len / {c['average_length']:g}",
        f"+ {c['pair_weights'][0]:g} * sum_i min(W_i, W_i+1) * tf_i1 / (tf_i1 + {c['pair_saturation']:g} * norm)",
        f"+ {c['pair_weights'][1]:g} * sum_i min(W_i, W_i+2) * tf_i2 / (tf_i2 + {c['pair_saturation']:g} * norm)",
        f"{c['scale']:g} * score - {-c['offset']:g} + {c['breadth_offset']:g} * breadth",
    ):
        assert line in card

"""Writes the embedded model's graph: query and document are encoded apart, and meet in three scores and one logit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from encoder_graph import Activation, Encoder, Texts
from formula import Constants
from graph import GraphWriter, finish
from lexical_graph import TINY, add_score
from onnx import TensorProto, helper

CLS, SEP = 101, 102
PARTS = ("cosine", "max_similarity", "lexical")


@dataclass(frozen=True)
class Recipe:
    """What was chosen on training sources: logit = cosine * its weight + ... + offset.

    Attributes:
        weights: Of each of `PARTS`.
        offset: So that the sigmoid is 0.5 where relevant and hard irrelevant passages are as likely.
        activations: How each projection's input becomes uint8.
        piece_share: What a piece inside a word weighs in the lexical part, beside what it weighs in the lexical model.
    """

    weights: Mapping[str, float]
    offset: float
    activations: Mapping[str, Activation]
    piece_share: float

    @classmethod
    def read(cls, path: Path) -> Recipe:
        values = json.loads(path.read_text(encoding="utf-8"))
        activations = {
            name: Activation(row["scale"], row["zero"], {int(c): f for c, f in row["factors"].items()})
            for name, row in values["activations"].items()
        }
        return cls(values["weights"], values["offset"], activations, values["piece_share"])

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


@dataclass(frozen=True)
class Words:
    """What the lexical part knows, V tokens wide.

    Attributes:
        stems: (V,) int32, the stem class of each token, 0 for special tokens.
        weights: (V,) float32, the weight of each token in a query.
        constants: The formula's.
        piece_share: See `Recipe`.
    """

    stems: np.ndarray
    weights: np.ndarray
    constants: Constants
    piece_share: float


def build_graph(
    weights: Mapping[str, np.ndarray], words: Words, recipe: Recipe, metadata: dict[str, str], *, int8: bool
) -> onnx.ModelProto:
    """The whole model; `PARTS` and `query_states`, `document_states` are names of tensors in it.

    B pairs of T tokens hold U different queries of at most Q tokens, and documents of at most D.
    """
    g = GraphWriter()
    query, document, query_of_pair = _texts(g)
    states = Encoder(g, weights, recipe.activations if int8 else None).states(query, document)
    states = [
        g.add("Identity", state, output=name)
        for state, name in zip(states, ("query_states", "document_states"), strict=True)
    ]
    _cosine(g, states, (query, document), query_of_pair)
    _max_similarity(g, states, (query, document), query_of_pair)
    queries = g.add("Gather", query.ids, query_of_pair)
    score, _ = add_score(g, queries, document.ids, words.stems, words.weights, words.constants)
    g.add("Cast", score, to=TensorProto.FLOAT, output="lexical")
    parts = g.add("Concat", *PARTS, axis=1)
    share = g.constant([[recipe.weights[part]] for part in PARTS], np.float32, "weights_of_parts")
    g.add("Add", g.add("MatMul", parts, share), g.number(recipe.offset), output="logits")
    return finish(g, "pair_of_encoders", metadata)


def _texts(g: GraphWriter) -> tuple[Texts, Texts, str]:
    """The different queries (U, Q), the documents (B, D), and which query each pair has (B,).

    A call has one query and many documents: it is encoded once for each batch, not once for each pair.
    """
    add = g.add
    one = g.constant([1], np.int64)
    in_document = add("Mul", "attention_mask", "token_type_ids")
    in_query = add("Sub", "attention_mask", in_document)
    lengths = [g.sum(side, axis=1) for side in (in_query, in_document)]
    # At least one column, so that nothing is empty.
    longest = [add("Max", add("Reshape", add("ReduceMax", n, keepdims=0), one), one) for n in lengths]

    ids = g.slice(add("Mul", "input_ids", in_query), 0, longest[0], axis=1)
    names = ["queries", "first_row", "query_of_pair"]
    g.nodes.append(helper.make_node("Unique", [ids], names, name="queries", axis=0, sorted=0))
    mask = add("Gather", g.slice(in_query, 0, longest[0], axis=1), "first_row")
    query = Texts("queries", add("Cast", mask, to=TensorProto.FLOAT, output="query_mask"))

    # Documents begin where their queries end: column j of a document is column (query's length + j) of the row.
    places = add("Range", g.constant(0, np.int64), add("Squeeze", longest[1]), g.constant(1, np.int64))
    there = add("Less", places, lengths[1])
    last = add("Sub", g.slice(add("Shape", "input_ids"), 1, 2, axis=0), one)
    found = add("GatherElements", "input_ids", add("Min", add("Add", places, lengths[0]), last), axis=1)
    ids = add("Mul", found, add("Cast", there, to=TensorProto.INT64))
    return query, Texts(ids, add("Cast", there, to=TensorProto.FLOAT, output="document_mask")), "query_of_pair"


def _cosine(g: GraphWriter, states: list[str], sides: tuple[Texts, Texts], query_of_pair: str) -> str:
    """(B, 1) the cosine of the mean states, special tokens included, as all-MiniLM-L6-v2 was trained."""
    query, document = (
        _unit(g, g.add("MatMul", g.add("Unsqueeze", side.mask, g.constant([1], np.int64)), state))
        for state, side in zip(states, sides, strict=True)
    )
    products = g.add("Mul", g.add("Gather", query, query_of_pair), document)
    return g.add("ReduceSum", products, g.constant([2], np.int64), keepdims=0, output="cosine")


def _max_similarity(g: GraphWriter, states: list[str], sides: tuple[Texts, Texts], query_of_pair: str) -> str:
    """(B, 1) for each word of the query the nearest of the document, by the cosine of their states: the mean.

    0 for a word that nothing resembles, and where one side has no word.
    """
    add = g.add
    query, document = states
    in_query = _of_words(g, sides[0], 1, 0)
    share = add("Div", in_query, add("Max", g.sum(in_query, axis=1), g.number(1)))
    query, share = add("Gather", _unit(g, query), query_of_pair), add("Gather", share, query_of_pair)
    # The document's states aren't brought to length 1: the products are fewer.
    lengths = add("Max", add("ReduceL2", document, axes=[-1], keepdims=0), g.number(TINY))
    between = g.constant([1], np.int64)
    similarity = add("MatMul", query, add("Transpose", document, perm=(0, 2, 1)))
    similarity = add("Div", similarity, add("Unsqueeze", lengths, between))
    # A cosine is at most 1: what isn't a word falls below 0.
    similarity = add("Add", similarity, add("Unsqueeze", _of_words(g, sides[1], 0, -2), between))
    best = add("Max", add("ReduceMax", similarity, axes=[2], keepdims=0), g.number(0))
    return add("ReduceSum", add("Mul", best, share), between, keepdims=1, output="max_similarity")


def _of_words(g: GraphWriter, side: Texts, word: float, other: float) -> str:
    """(N, L) float32, one number for tokens, another for the special ones at both ends and where there is none."""
    table = np.full(SEP + 2, word)
    table[[0, CLS, SEP]] = other
    known = g.constant(table, np.float32, f"of_words_{word}_{other}")
    return g.add("Gather", known, g.add("Min", side.ids, g.constant(SEP + 1, np.int64)))


def _unit(g: GraphWriter, x: str) -> str:
    return g.add("Div", x, g.add("Max", g.add("ReduceL2", x, axes=[-1], keepdims=1), g.number(TINY)))

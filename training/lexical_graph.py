"""Writes the scoring formula as an ONNX graph: an ordinary cross-encoder of three inputs and one logit."""

from __future__ import annotations

import numpy as np
import onnx
from formula import Constants
from graph import GraphWriter, finish
from onnx import TensorProto, helper

TINY = 1e-6


def build_graph(
    stems: np.ndarray, weights: np.ndarray, constants: Constants, metadata: dict[str, str]
) -> onnx.ModelProto:
    """The whole model."""
    g = GraphWriter()
    score, breadth = add_score(g, stems, weights, constants)
    offset = g.add("Add", g.add("Mul", breadth, g.number(constants.breadth_offset)), g.number(constants.offset))
    g.add("Add", g.add("Mul", score, g.number(constants.scale)), offset, output="logits")
    return finish(g, "lexical_cross_encoder", metadata)


def add_score(g: GraphWriter, stems: np.ndarray, weights: np.ndarray, constants: Constants) -> tuple[str, str]:
    """The uncalibrated score and the breadth, each (B, 1).

    B pairs of T tokens, of which the first Q hold every query of the batch.

    Args:
        stems: (V,) int32, stem class of each token, 0 for special tokens.
        weights: (V,) float32, weight of each token in a query.
    """
    number, add = g.number, g.add
    breadth, w, k, matches = _query_side(g, stems, weights, constants)

    # (B, 1): how much the saturation constants grow with the passage.
    length = g.sum(add("Cast", "in_passage", to=TensorProto.FLOAT), axis=1)
    per_token = number(constants.length_share / constants.average_length)
    norm = add("Add", add("Mul", length, per_token), number(1 - constants.length_share), output="length_norm")

    stem_count, exact_count = (g.count(match) for match in matches)
    tf = add(
        "Add",
        add("Mul", stem_count, number(1 - constants.exact_share)),
        add("Mul", exact_count, number(constants.exact_share)),
        output="term_frequency",
    )
    total = g.sum(add("Mul", w, _saturate(g, tf, add("Mul", k, norm))), axis=1)

    pair_norm = add("Mul", norm, number(constants.pair_saturation))
    for distance, weight in enumerate(constants.pair_weights, start=1):
        found, weakest = _pairs_apart(g, matches[0], w, distance)
        gain = g.sum(add("Mul", weakest, _saturate(g, g.count(found), pair_norm)), axis=1)
        total = add("Add", total, add("Mul", gain, number(weight)))

    score = add("Div", total, add("Max", g.sum(w, axis=1), number(TINY)), output="score")
    return score, breadth


def _query_side(
    g: GraphWriter, stems: np.ndarray, weights: np.ndarray, constants: Constants
) -> tuple[str, str, str, list[str]]:
    """Breadth (B, 1), term weights (B, Q), k (B, 1), and the stem and exact matches (B, Q, T) of query in passage."""
    number, add = g.number, g.add
    stem = add("Gather", g.constant(stems, np.int32, "stem_of_token"), "input_ids")
    ids = add("Cast", "input_ids", to=TensorProto.INT32)
    known = add(
        "And", add("Cast", "attention_mask", to=TensorProto.BOOL), add("Greater", stem, g.constant(0, np.int32))
    )
    second = add("Cast", "token_type_ids", to=TensorProto.BOOL)
    in_query = add("And", known, add("Not", second))
    add("And", known, second, output="in_passage")

    # Q: queries stand first, so only this many columns can hold query tokens. At least 3: no slice of pairs is empty.
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    ones = add("ConstantOfShape", add("Shape", "input_ids"), value=one)
    positions = add("CumSum", ones, g.constant(1, np.int64))
    last = add("ReduceMax", add("Mul", positions, add("Cast", in_query, to=TensorProto.INT64)), keepdims=0)
    end = add("Max", add("Reshape", last, g.constant([1], np.int64)), g.constant([3], np.int64), output="query_end")

    def query_part(data: str) -> str:
        return g.slice(data, 0, end, axis=1)

    nothing, no_passage = g.constant(-1, np.int32), g.constant(-2, np.int32)
    matches = []
    for classes, name in ((stem, "stem_matches"), (ids, "exact_matches")):
        rows = add("Unsqueeze", query_part(add("Where", in_query, classes, nothing)), g.constant([2], np.int64))
        columns = add("Unsqueeze", add("Where", "in_passage", classes, no_passage), g.constant([1], np.int64))
        matches.append(add("Equal", rows, columns, output=name))

    w = add("Gather", g.constant(weights, np.float32, "weight_of_token"), query_part("input_ids"))
    w = add("Mul", w, add("Cast", query_part(in_query), to=TensorProto.FLOAT), output="plain_weights")
    squares = add("Max", g.sum(add("Mul", w, w), axis=1), number(TINY))
    total = g.sum(w, axis=1)
    effective_terms = add("Div", add("Mul", total, total), squares, output="effective_terms")
    doublings = add("Max", add("Div", effective_terms, number(constants.breadth_terms)), number(1))
    breadth = add("Mul", add("Log", doublings), number(1 / np.log(2)), output="breadth")

    exponent = add("Add", add("Mul", breadth, number(constants.breadth_power)), number(1))
    w = add("Pow", w, exponent, output="weights")
    growth = add("Add", add("Mul", breadth, number(constants.breadth_saturation)), number(1))
    k = add("Mul", growth, number(constants.saturation), output="k")
    return breadth, w, k, matches


def _saturate(g: GraphWriter, frequency: str, k: str) -> str:
    """frequency / (frequency + k), 0 where both are."""
    return g.add("Div", frequency, g.add("Max", g.add("Add", frequency, k), g.number(TINY)))


def _pairs_apart(g: GraphWriter, matches: str, weights: str, distance: int) -> tuple[str, str]:
    """Where two query tokens so far apart stand as far apart in the passage, and the lesser of their weights."""
    everything = np.iinfo(np.int64).max
    first = g.slice(g.slice(matches, 0, -distance, axis=1), 0, -distance, axis=2)
    second = g.slice(g.slice(matches, distance, everything, axis=1), distance, everything, axis=2)
    lesser = g.add("Min", g.slice(weights, 0, -distance, axis=1), g.slice(weights, distance, everything, axis=1))
    return g.add("And", first, second), lesser

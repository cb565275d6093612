"""Writes the scoring formula as an ONNX graph: an ordinary cross-encoder of three inputs and one logit."""

from __future__ import annotations

import numpy as np
import onnx
from formula import Constants
from graph import GraphWriter, finish
from onnx import TensorProto, helper

TINY = 1e-6
EVERYTHING = np.iinfo(np.int64).max


def build_graph(
    stems: np.ndarray, weights: np.ndarray, constants: Constants, metadata: dict[str, str]
) -> onnx.ModelProto:
    """The whole model."""
    g = GraphWriter()
    score, breadth = add_score(g, *texts_of_rows(g), stems, weights, constants)
    offset = _line(g, breadth, constants.breadth_offset, constants.offset)
    logits = g.add("Add", g.add("Mul", score, g.constant(constants.scale, np.float64)), offset)
    g.add("Cast", logits, to=TensorProto.FLOAT, output="logits")
    return finish(g, "lexical_cross_encoder", metadata)


def texts_of_rows(g: GraphWriter) -> tuple[str, str]:
    """The ids of the queries' tokens (B, Q), and of the documents' (B, T), each where it stands; 0 elsewhere.

    Queries stand first, so only so many columns can hold them.
    """
    add = g.add
    in_document = add("Mul", "attention_mask", "token_type_ids")
    in_query = add("Sub", "attention_mask", in_document)
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    ones = add("ConstantOfShape", add("Shape", "input_ids"), value=one)
    positions = add("CumSum", ones, g.constant(1, np.int64))
    last = add("Reshape", add("ReduceMax", add("Mul", positions, in_query), keepdims=0), g.constant([1], np.int64))
    # At least one column, so that nothing is empty.
    end = add("Max", last, g.constant([1], np.int64), output="query_end")
    return g.slice(add("Mul", "input_ids", in_query), 0, end, axis=1), add("Mul", "input_ids", in_document)


def add_score(
    g: GraphWriter, query: str, document: str, stems: np.ndarray, weights: np.ndarray, constants: Constants
) -> tuple[str, str]:
    """The uncalibrated score and the breadth, each (B, 1) float64.

    Powers and sums are of double precision: in single, their last bits depend on what else is in the batch.

    Args:
        query: The ids of Q tokens (B, Q), int64, 0 where there is none.
        document: The same of D tokens (B, D).
        stems: (V,) int32, stem class of each token, 0 for special tokens.
        weights: (V,) float32, weight of each token in a query.
    """
    add = g.add
    distances = len(constants.pair_weights)
    query, document = (
        add("Unsqueeze", add("Cast", ids, to=TensorProto.INT32), g.constant([axis], np.int64))
        for ids, axis in ((query, 2), (document, 1))
    )
    of_query, of_document = (_codes(g, ids, stems, distances, axis) for ids, axis in ((query, 1), (document, 2)))
    counts = [g.count(add("Equal", *codes)) for codes in zip(of_query, of_document, strict=True)]

    # (B, Q, 1); what isn't a word weighs nothing, so that it doesn't matter what it matches.
    table = g.constant(np.where(stems > 0, weights, 0), np.float32, "weight_of_token")
    w = add("Cast", add("Gather", table, query), to=TensorProto.DOUBLE)
    breadth = _breadth(g, w, constants)
    w = add("Pow", w, _line(g, breadth, constants.breadth_power, 1), output="weights")

    # (B, Q, 1 + distances): the frequency of each token and of the pairs that it begins, and what they weigh.
    counted = add("Cast", add("Concat", *counts, axis=2), to=TensorProto.DOUBLE)
    frequencies = add("MatMul", counted, _shares(g, constants), output="frequencies")
    weighted = add("Concat", w, *(add("Min", w, after) for after in _shifted(g, w, distances, axis=1)), axis=2)

    # (B, 1, 1 + distances): how fast they saturate, which grows with the document.
    alone = np.eye(1 + distances)[0]
    narrow = alone * constants.saturation + (1 - alone) * constants.pair_saturation
    k = _line(g, breadth, alone * constants.saturation * constants.breadth_saturation, narrow)
    length = add("Cast", g.sum(add("Sign", of_document[1]), axis=2), to=TensorProto.DOUBLE)
    norm = _line(g, length, constants.length_share / constants.average_length, 1 - constants.length_share)
    k = add("Max", add("Mul", k, norm), g.constant(TINY, np.float64))

    gains = add("Mul", weighted, add("Div", frequencies, add("Add", frequencies, k)))
    total = add(
        "MatMul",
        g.sum(gains, axis=1, keepdims=False),
        g.constant([[1], *([weight] for weight in constants.pair_weights)], np.float64, "gain_weights"),
    )
    whole = add("Max", g.sum(w, axis=1, keepdims=False), g.constant(TINY, np.float64))
    return add("Div", total, whole), add("Squeeze", breadth, g.constant([2], np.int64))


def _codes(g: GraphWriter, ids: str, stems: np.ndarray, distances: int, axis: int) -> list[str]:
    """What is counted, in numbers that are equal where it is the same: ids, stems, and pairs of stems so far apart."""
    stem = g.add("Gather", g.constant(stems, np.int32, "stem_of_token"), ids)
    base = int(stems.max()) + 1
    assert base**2 <= np.iinfo(np.int32).max, "a pair of stems must fit into an int32"
    first = g.add("Mul", stem, g.constant(base, np.int32))
    return [ids, stem, *(g.add("Add", first, after) for after in _shifted(g, stem, distances, axis))]


def _shifted(g: GraphWriter, data: str, distances: int, axis: int) -> list[str]:
    """At each place of an axis what stands 1, 2, ... further, 0 beyond the end; `data` has three axes."""
    ends = np.zeros(6, np.int64)
    ends[3 + axis] = distances
    padded = g.add("Pad", data, g.constant(ends, np.int64))
    return [
        g.slice(padded, distance, distance - distances or EVERYTHING, axis=axis) for distance in range(1, 1 + distances)
    ]


def _breadth(g: GraphWriter, w: str, constants: Constants) -> str:
    """(B, 1, 1) how often the effective number of terms must be halved for a query that isn't broad."""
    add, total = g.add, g.sum(w, axis=1)
    squares = add("Max", g.sum(add("Mul", w, w), axis=1), g.constant(TINY, np.float64))
    effective_terms = add("Div", add("Mul", total, total), squares, output="effective_terms")
    times = add("Mul", effective_terms, g.constant(1 / constants.breadth_terms, np.float64))
    halvings = add("Log", add("Max", times, g.constant(1, np.float64)))
    return add("Mul", halvings, g.constant(1 / np.log(2), np.float64), output="breadth")


def _shares(g: GraphWriter, constants: Constants) -> str:
    """(2 + distances, 1 + distances) from counts to frequencies: a token's is made of its own and of its stem's."""
    shares = np.eye(2 + len(constants.pair_weights))[:, 1:]
    shares[:2, 0] = constants.exact_share, 1 - constants.exact_share
    return g.constant(shares, np.float64, "shares")


def _line(g: GraphWriter, x: str, slope: object, start: object) -> str:
    return g.add("Add", g.add("Mul", x, g.constant(slope, np.float64)), g.constant(start, np.float64))

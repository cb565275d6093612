"""Whether a pair's score depends on its company: tried once, when a model is opened.

Padding that isn't hidden, a head that reads the last position of a row padded on the right, one scale for the numbers
of a whole batch (dynamic int8): each moves a score by what else is scored with it. What an operator is called doesn't
tell, a trial does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_rerank_integrations.core.scoring import Floats
from onnx_rerank_integrations.core.tokens.auto import Side
from onnx_rerank_integrations.core.tokens.pairs import EncodedPair

SHORT_ROWS: Sequence[tuple[int, int]] = ((2, 3), (4, 9))
LONG_ROW = (8, 40)
"""Tokens of query and document. Their ids are drawn from the vocabulary: words of a text might all be unknown to it."""

OTHER_ROWS: Sequence[tuple[int, int]] = ((3, 5), (2, 12), (6, 4), (1, 7))
"""More short rows, to see whether a row alone has a score of its own."""

TOLERANCE = 1e-4
"""How far a score may move, as a share of the largest, or of 1 where all are smaller. Batches of other shapes are added
up in another order, which moves 32-bit floats by about 1e-6."""

INT8_TOLERANCE = 2e-3
"""The same for static int8, where a change in the last bit may turn a rounding. Dynamic int8 moved scores by 1.4 of 4.3
(random weights, 6 layers of 384), and trained models' by some hundredths; static by nothing."""

HALF_TOLERANCE = 1e-2
"""The same for 16-bit floats, which have three digits. Whole graphs in fp16 on a CPU (onnxruntime 1.32, 25 batches of
eight texts of very unlike lengths) moved scores by at most 1.9e-3 over the thirteen classifiers of tests/parity,
whose weights are random, and all-MiniLM-L6-v2's by 1.3e-4 (five batches); fp16 itself is 1.6e-2 and 6.3e-4 from fp32.
The rest is for devices, which add up in other orders."""


@dataclass(frozen=True, slots=True)
class Company:
    """What a trial showed.

    Attributes:
        side: Where rows may be padded so that scores stay; None where they don't on either side.
        moved: How far the furthest score moved on the side that was asked for.
    """

    side: Side | None
    moved: float


def try_company(
    score: Callable[[Sequence[EncodedPair], Side], Floats],
    alone: Floats,
    rows: Sequence[EncodedPair],
    *,
    sides: Sequence[Side],
    tolerance: float,
) -> Company:
    """Compares the scores of short rows alone with theirs in one batch with a long one.

    Args:
        score: Logits (B,) of rows that are padded on a side.
        alone: Logits of the short rows, each scored alone.
        rows: The short rows, and a long one at the end.
        sides: Where rows may be padded, the wanted side first.
        tolerance: As `TOLERANCE`.
    """
    allowed = tolerance * max(1.0, float(np.abs(np.nan_to_num(alone)).max()))
    moves: list[float] = []
    for side in sides:
        together = score(rows, side)[: len(alone)]
        same = (together == alone) | (np.isnan(together) & np.isnan(alone))
        moves.append(float(np.max(np.where(same, 0.0, np.abs(together - alone)))))
        if moves[-1] <= allowed:  # NaN is no number of any size
            return Company(side, moves[0])
    return Company(None, moves[0])


def fault_alone(again: Floats, alone: Floats, others: Floats, *, tolerance: float) -> str | None:
    """What is wrong with scores of rows that are run one by one, so that these are no way out; None where nothing is.

    Args:
        again: Logits of some rows alone, a second time.
        alone: The same, the first time.
        others: Logits of other rows alone.
        tolerance: As `TOLERANCE`.
    """
    allowed = tolerance * max(1.0, float(np.abs(np.nan_to_num(alone)).max()))
    if not np.allclose(again, alone, rtol=0, atol=allowed, equal_nan=True):
        return "gives the same pair another score each time: it holds random numbers, such as dropout left switched on"
    if np.unique(np.concatenate((alone, others))).size == 1:
        same = f"the same score, {alone[0]:g}"
        return f"gives every pair that is run alone {same}: it compares a batch's pairs with each other"
    return None

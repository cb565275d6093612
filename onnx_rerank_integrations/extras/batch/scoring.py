"""A block's logits, in this process or in a worker. What goes to a worker is options, never a live session.

A block's logits are float64, one per row; two values are no logits and say why there is none: `NULL` for a row whose
query or text is null, and `FAILED` for one that the model gave NaN or infinity for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from onnx_rerank_integrations.core.checks import check_choice
from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.errors import ScoreError
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.core.model.files import anchored
from onnx_rerank_integrations.core.options import Options, changed, values
from onnx_rerank_integrations.core.scoring import Activation, Floats, activation_function

OnError = Literal["raise", "null"]
"""What becomes of a pair that the model gives NaN or infinity for: an error, or a null score."""

Spec = str | Path | Options | TextCrossEncoder
"""A model: its name or folder, its options, or an encoder, of which workers get the options."""

NULL, FAILED = np.nan, np.inf

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_opened: dict[str, TextCrossEncoder] = {}


class WorkerOptions(Options):
    """Options that bring along what their model's name means, where it was added to this process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return registry.make_with, (registry.custom_row(str(self.model_name)), partial(WorkerOptions, **changed(self)))


def worker_options(spec: Spec, *, threads: int) -> WorkerOptions:
    """What a worker opens: small, and picklable.

    Args:
        spec: The model.
        threads: Of each worker.
    """
    if isinstance(spec, TextCrossEncoder):
        # The default model is the driver's: a worker's environment may name another.
        options = replace(spec.options, model_name=spec.model_name)
    else:
        options = spec if isinstance(spec, Options) else Options(spec)
    return WorkerOptions(**{**anchored(values(options)), "threads": threads, "lazy_load": False})


def worker_encoder(options: Options) -> TextCrossEncoder:
    """The encoder with these options, opened once in each process."""
    key = repr(options)
    with _lock:
        if key not in _opened:
            _opened[key] = TextCrossEncoder(**values(options))
        return _opened[key]


def block_logits(
    encoder: TextCrossEncoder,
    queries: Sequence[str | None],
    texts: Sequence[str | None],
    *,
    on_error: OnError = "raise",
    first_row: int | None = None,
) -> Floats:
    """The logits of N rows, with `NULL` and `FAILED` among them.

    Args:
        encoder: The model.
        queries: (N,)
        texts: (N,)
        on_error: ``"raise"`` or ``"null"``.
        first_row: The block's place in the input, for messages; None where that isn't known.

    Raises:
        ScoreError: The model gave NaN or infinity, and `on_error` is ``"raise"``.
    """
    check_choice("on_error", on_error, OnError)
    logits = np.full(len(queries), NULL)
    pairs = {
        row: (query, text)
        for row, (query, text) in enumerate(zip(queries, texts, strict=True))
        if query is not None and text is not None
    }
    if not pairs:
        return logits
    given = np.fromiter(pairs, dtype=np.intp)
    found = encoder.logits(list(pairs.values()))
    broken = given[~np.isfinite(found)]
    if len(broken):
        place = f"row {first_row + broken[0]:,} (from 0)" if first_row is not None else f"row {broken[0]} of a block"
        if on_error == "raise":
            raise ScoreError(
                f"The model gave no finite score for {len(broken)} of {len(given)} pairs, the first in {place}.\n"
                'Look at that text, use another file of the model (fp32), or go on without (on_error="null").'
            )
        logger.warning("no finite score for %d of %d pairs, the first in %s: null", len(broken), len(given), place)
    logits[given] = np.where(np.isfinite(found), found, FAILED)
    return logits


def table_logits(
    encoder: TextCrossEncoder,
    table: pa.Table,
    query: str,
    text: str,
    *,
    on_error: OnError,
    first_row: int | None = None,
) -> Floats:
    """`block_logits` of two columns."""
    queries, texts = (table.column(name).to_pylist() for name in (query, text))
    return block_logits(encoder, queries, texts, on_error=on_error, first_row=first_row)


def score_column(logits: Floats, activate: Callable[[Floats], Floats]) -> pa.Array:
    """Scores of a block, null where there is no logit."""
    scored = np.isfinite(logits)
    scores = np.zeros(len(logits))
    scores[scored] = activate(logits[scored])
    return pa.array(scores, mask=~scored)


def activation_of(encoder: TextCrossEncoder, activation: Activation | None) -> Callable[[Floats], Floats]:
    """The function from logits to scores; None for the encoder's own."""
    chosen = encoder.activation if activation is None else activation
    check_choice("activation", chosen, Activation)
    return activation_function(chosen, encoder.config)

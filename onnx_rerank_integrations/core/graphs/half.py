"""Gives an fp16 copy of a user's graph, for devices that are fast in it: made once, its scores compared with fp32's.

onnxruntime's own converter makes it; inputs and outputs stay as they are, so that nothing else changes. What is beyond
fp16's range (65,504) would become infinite: such a graph is refused, and so is one whose scores move too far.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnx_rerank_integrations.core.engine.onnxruntime import onnxruntime, to_fp16
from onnx_rerank_integrations.core.errors import UnsupportedModelError
from onnx_rerank_integrations.core.graphs.copies import NoCopyError, copy_of, why_no_copy
from onnx_rerank_integrations.core.graphs.optimized import embed_external_data, load_graph, write_with_weights_beside
from onnx_rerank_integrations.core.model.identity import content, graph_files, own_cache
from onnx_rerank_integrations.core.onnx_format import FLOAT16, element_types

if TYPE_CHECKING:
    from onnx_rerank_integrations.core.graphs.trials import Feed

logger = logging.getLogger(__name__)

VERSION = 1
"""Of the conversion and its verification: raise it, and every cached graph is made again."""

KIND = "fp16"

LARGEST_MOVE = 0.05
"""As a share of the spread (highest minus lowest) of the scores on random inputs. fp16 moved scores of a standard
deviation of 2 by 7e-2 to 1e-1 on an H200."""


def half_path(onnx_path: Path, *, cache_dir: Path | None = None) -> Path:
    """An fp16 copy of the graph; the graph itself where its weights are fp16 already.

    Raises:
        MissingExtraError: onnx isn't installed.
        UnsupportedModelError: It can't be converted, overflows, or its scores move by more than `LARGEST_MOVE`.
    """
    if FLOAT16 in element_types(onnx_path):
        return onnx_path
    cache = cache_dir or own_cache()
    digest = content(graph_files(onnx_path), onnx_path.parent, cache)
    made_by = f"{KIND} {VERSION}, onnxruntime {onnxruntime().__version__}"
    load_graph(onnx_path)  # without onnx this says what to install
    try:
        copy = copy_of(onnx_path, digest, KIND, made_by=made_by, make=partial(_make, onnx_path), cache=cache)
    except OSError as error:
        raise _refused(onnx_path, f"the copy can't be kept in {cache}: {error}") from error
    if copy is None:
        raise _refused(onnx_path, why_no_copy(cache, KIND, digest))
    return copy


def _refused(path: Path, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f'precision="fp16" isn\'t to be had for {path}: {reason}.\nUse precision="fp32", or "tf32" on an NVIDIA GPU.'
    )


def _make(source: Path, folder: Path) -> list[str]:
    from onnx_rerank_integrations.core.graphs import trials

    model = load_graph(source)
    try:
        embed_external_data(model, source.parent)
        feeds = trials.canary(model)
        names = write_with_weights_beside(to_fp16(model), folder)
        _compare(source, folder / "model.onnx", feeds)
    except trials.NotApplicable as reason:
        raise NoCopyError(str(reason)) from reason
    return names


def _compare(original: Path, half: Path, feeds: Sequence[Feed]) -> None:
    """Raises NoCopyError unless the copy's scores are near the original's."""
    from onnx_rerank_integrations.core.graphs import trials

    kept, expected = trials.runnable(trials.open_session(original), feeds)
    found = trials.run(trials.open_session(half), kept)
    if not np.isfinite(found).all():
        raise NoCopyError("its numbers go beyond fp16's range")
    moved = float(np.abs(found - expected).max() / max(float(np.ptp(expected, axis=0).min()), 1e-6))
    logger.debug("fp16: the scores moved by %.2g of their spread", moved)
    if moved > LARGEST_MOVE:
        raise NoCopyError(f"its scores move by {moved:.2g} of their spread, more than {LARGEST_MOVE}")

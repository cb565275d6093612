"""Gives the weights of a graph's matrix products as onnxruntime packs them, to be kept in its file and mapped.

onnxruntime packs such weights for its kernels whenever it opens a graph, and keeps the result in memory: 43 MB of
MiniLM, for each process and each session in it. Where a graph names packed bytes in its file of weights, these are
mapped in place of its own, and all processes share them.

How weights are packed is a matter of the CPU and the version, and a cache may be shared. So packed bytes are named by
their operator and a hash of themselves: onnxruntime packs a weight, looks for what came out under its name, and only
where it finds that drops its own. On another CPU nothing is found, and all is as without. 1.24.4 and 1.32 do so, the
latter compares the bytes too; whether the onnxruntime at hand does is tried before anything is kept.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_rerank_integrations.core.engine.onnxruntime import PACKED_ENTRY, onnxruntime
from onnx_rerank_integrations.core.graphs import trials

logger = logging.getLogger(__name__)

Packed = Mapping[str, Mapping[str, Sequence[bytes]]]
"""Of each weight that is packed: the names of its packed forms, and the parts of each."""

_SAVE_PACKED = {
    "session.save_external_prepacked_constant_initializers": "1",
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}


def packed_weights(model: onnx.ModelProto, feeds: Sequence[trials.Feed], folder: Path) -> Packed:
    """What onnxruntime packs on this CPU; nothing where it can't be had, or can't be kept safely.

    Args:
        model: A graph with its weights loaded; left as it is.
        feeds: To try whether foreign bytes stay unused.
        folder: Where to write meanwhile; left as it was.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        saved = Path(scratch) / "model.onnx"
        try:
            trials.open_session(model, settings=_SAVE_PACKED, write_to=saved)
            found = _read_packed(saved)
            if found and _takes_foreign_bytes(saved, feeds):
                version = onnxruntime().__version__
                logger.warning("onnxruntime %s takes packed weights as they are: each process packs its own", version)
                return {}
            return found
        except (trials.NotApplicable, ValueError) as reason:
            logger.info("weights aren't kept as they are packed, each process packs its own: %s", reason)
            return {}


def _takes_foreign_bytes(graph: Path, feeds: Sequence[trials.Feed]) -> bool:
    """Whether scores change when packed bytes are another CPU's: when they are others, and are named otherwise."""
    foreign = graph.with_name("foreign.onnx")
    model = onnx.load(graph, load_external_data=False)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    for entry in (entry for entry in entries if entry.key.startswith(PACKED_ENTRY)):
        name, *parts = entry.value.split("|")
        entry.value = "|".join([_of_another_cpu(name), *(f"0;{part.split(';')[1]};0" for part in parts)])
    foreign.write_bytes(model.SerializeToString())
    kept, expected = trials.runnable(trials.open_session(graph, threads=1), feeds)
    try:
        found = trials.run(trials.open_session(foreign, threads=1), kept)
    except Exception as error:
        raise trials.NotApplicable(f"a graph with foreign ones can't be run: {error}") from error
    return not np.array_equal(found, expected, equal_nan=True)


def _of_another_cpu(name: str) -> str:
    return f"{name}0"


def _read_packed(graph: Path) -> Packed:
    found: dict[str, dict[str, list[bytes]]] = {}
    for tensor in onnx.load(graph, load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        for value in (value for key, value in place.items() if key.startswith(PACKED_ENTRY)):
            name, *parts = value.split("|")
            with (graph.parent / place["location"]).open("rb") as file:
                found.setdefault(tensor.name, {})[name] = [_part(file, part) for part in parts]
    return found


def _part(file: Any, place: str) -> bytes:
    offset, length, _ = map(int, place.split(";"))
    file.seek(offset)
    return bytes(file.read(length))

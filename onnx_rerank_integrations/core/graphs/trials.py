"""Runs graphs on random inputs: what shapes their tensors have, and whether two of them give the same scores."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_rerank_integrations.core.engine.onnxruntime import new_session, onnxruntime
from onnx_rerank_integrations.core.engine.stops import current

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Feed = dict[str, Array]

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""The inputs of a text classifier; a graph with any other is left alone, since nobody could feed it here."""

TOLERANCE = 1e-5
"""How far a score may move, as a share of the spread (highest minus lowest) of the scores."""


class NotApplicable(Exception):  # noqa: N818 - an answer, not an error
    """The graph isn't one that can be changed, or isn't understood; the message says what was found."""


class ScoresMovedError(Exception):
    """A changed graph doesn't give the original's scores."""


# --- what the tensors look like --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dim:
    """A dimension that is always ``size * B**batch * T**tokens``."""

    size: int
    batch: int = 0
    tokens: int = 0

    @property
    def is_constant(self) -> bool:
        return not self.batch and not self.tokens

    def at(self, rows: int, tokens: int) -> int:
        return int(self.size * rows**self.batch * tokens**self.tokens)

    def __mul__(self, other: Dim) -> Dim:
        return Dim(self.size * other.size, self.batch + other.batch, self.tokens + other.tokens)


ONE, TOKENS = Dim(1), Dim(1, 0, 1)
Dims = tuple[Dim | None, ...]
"""None: a dimension that is no such product."""


@dataclass
class Observation:
    """What three runs showed: every tensor's dimensions, and one run's values.

    Attributes:
        dims: By tensor name; weights and inputs included.
        values: Activations of one run with B=2 random rows and no padding.
    """

    dims: dict[str, Dims] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)

    def scalar(self, name: str) -> bool:
        dims = self.dims.get(name)
        return dims is not None and all(dim == ONE for dim in dims)


def observe(model: onnx.ModelProto) -> Observation:
    """Runs the graph at three sizes, with every tensor as an output.

    Raises:
        NotApplicable: The graph can't be fed or run here.
    """
    session = open_session(model, optimized=False, extra_outputs=every_tensor(model))
    outputs = [output.name for output in session.get_outputs()]

    sizes = [(2, 11), (3, 11), (2, 13)]
    runs: list[dict[str, Array]] = []
    for rows, tokens in sizes:
        feed = random_feed(model, np.full(rows, tokens), seed=0)
        try:
            results = _run(session, outputs, feed)
        except Exception as error:
            raise NotApplicable(f"a trial run failed: {error}") from error
        runs.append(feed | {n: r for n, r in zip(outputs, results, strict=True) if isinstance(r, np.ndarray)})

    seen = Observation(values=runs[0])
    for name in runs[0]:
        shapes = [run[name].shape for run in runs if name in run]
        if len(shapes) == 3 and len({len(shape) for shape in shapes}) == 1:
            seen.dims[name] = tuple(_dim(each, sizes) for each in zip(*shapes, strict=True))
    for tensor in model.graph.initializer:
        seen.dims[tensor.name] = tuple(Dim(size) for size in tensor.dims)
    return seen


def _dim(observed: Sequence[int], sizes: Sequence[tuple[int, int]]) -> Dim | None:
    rows, tokens = sizes[0]
    for batch, length in itertools.product(range(3), range(3)):
        dim = Dim(observed[0] // (rows**batch * tokens**length), batch, length)
        if all(dim.at(*size) == found for size, found in zip(sizes, observed, strict=True)):
            return dim
    return None


def open_session(
    model: onnx.ModelProto | Path,
    *,
    data_folder: Path | None = None,
    optimized: bool = True,
    extra_outputs: Sequence[str] = (),
    threads: int = 0,
    settings: Mapping[str, str] = MappingProxyType({}),
    write_to: Path | None = None,
) -> Any:
    """A CPU session over a graph in memory or a file.

    Args:
        model: The graph.
        data_folder: Where a graph in memory finds external data.
        optimized: Whether onnxruntime may fuse operators.
        extra_outputs: Tensors that become outputs too; for a graph in memory.
        threads: 0 is onnxruntime's own choice.
        settings: onnxruntime's configuration of a session.
        write_to: Where onnxruntime writes the graph as it runs it.

    Raises:
        NotApplicable: onnxruntime can't load it, or it is too large for one message.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    if write_to is not None:
        options.optimized_model_filepath = str(write_to)
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if data_folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(data_folder))
    try:
        source = str(model) if isinstance(model, Path) else _serialized(model, extra_outputs)
        return new_session(source, options, ["CPUExecutionProvider"])
    except Exception as error:
        raise NotApplicable(f"onnxruntime can't load it: {error}") from error


def every_tensor(model: onnx.ModelProto) -> list[str]:
    """The names of all that the graph's nodes make."""
    return [name for node in model.graph.node for name in node.output if name]


def _serialized(model: onnx.ModelProto, extra_outputs: Sequence[str]) -> bytes:
    declared = [output.name for output in model.graph.output]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra_outputs if name not in declared)
    try:
        return bytes(model.SerializeToString())
    finally:
        del model.graph.output[len(declared) :]


def random_feed(model: onnx.ModelProto, lengths: Array, *, seed: int) -> Feed:
    """Inputs of random ids, one row per length, padded to the longest.

    Raises:
        NotApplicable: The graph has an input that no text classifier has.
    """
    random = np.random.default_rng(seed)
    shape = (len(lengths), int(lengths.max()))
    real = np.arange(shape[1]) < lengths[:, None]
    rows = _embedding_rows(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    feed: Feed = {}
    for item in model.graph.input:
        if item.name in weights:
            continue
        kind = helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)
        if item.name not in INPUT_NAMES or len(item.type.tensor_type.shape.dim) != 2:
            raise NotApplicable(f"the input {item.name!r} isn't one of {', '.join(INPUT_NAMES)}, of rank 2")
        if item.name == "attention_mask":
            value = real.astype(np.int64)
        elif item.name == "position_ids":
            value = np.broadcast_to(np.arange(shape[1]), shape)
        elif item.name == "token_type_ids":
            second = np.arange(shape[1]) >= lengths[:, None] // 3
            value = np.where(real & second, min(rows.get(item.name, 1), 2) - 1, 0)
        else:
            value = np.where(real, random.integers(3, max(rows.get(item.name, 100), 4), shape), 0)
        feed[item.name] = np.ascontiguousarray(value.astype(kind))
    return feed


def _embedding_rows(model: onnx.ModelProto) -> dict[str, int]:
    """By input name: how many rows the embedding table has that the input looks up."""
    source = {item.name: item.name for item in model.graph.input}
    tables = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 2}
    rows: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ("Cast", "Identity", "Reshape") and node.input[0] in source:
            source[node.output[0]] = source[node.input[0]]
        elif node.op_type in ("DequantizeLinear", "Cast", "Identity") and node.input[0] in tables:
            tables[node.output[0]] = tables[node.input[0]]
        elif node.op_type == "Gather" and node.input[0] in tables and node.input[1] in source:
            name = source[node.input[1]]
            rows[name] = min(rows.get(name, tables[node.input[0]]), tables[node.input[0]])
    return rows


# --- verification -----------------------------------------------------------------------------------------------------


def canary(model: onnx.ModelProto) -> list[Feed]:
    """Batches of random ids: mixed lengths with padding, equal lengths, one row alone, and one of long rows.

    Raises:
        NotApplicable: The graph has an input that no text classifier has.
    """
    random = np.random.default_rng(0)
    lengths = [random.integers(4, 40, size=6) for _ in range(3)]
    lengths += [np.full(4, 21), np.full(1, 17), np.asarray([160, 35, 97])]
    return [random_feed(model, each, seed=seed) for seed, each in enumerate(lengths)]


def verify(original: Path, candidate: Path, feeds: Sequence[Feed]) -> None:
    """Checks that two graph files give the same scores.

    A score may move by ``TOLERANCE`` of the spread of the scores, and always by four units in the last place of the
    largest. fp16 graphs may move further, see ``_rounding_slack``.

    Raises:
        ScoresMovedError: They don't.
        NotApplicable: The original can't be run here.
    """
    feeds, expected = runnable(open_session(original), feeds)
    try:
        found = run(open_session(candidate), feeds)
    except Exception as error:
        raise ScoresMovedError(f"it can't be run: {error}") from error
    spread = float(np.ptp(expected, axis=0).min())
    allowed = max(TOLERANCE * spread, 4 * float(np.spacing(np.abs(expected).max())), _rounding_slack(original, feeds))
    moved = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    logger.debug("canary: the scores spread over %.3g, moved by %.2g, %.2g allowed", spread, moved, allowed)
    if not moved <= allowed:  # NaN is no number of any size
        raise ScoresMovedError(f"by {moved:.3g} on random inputs where {allowed:.3g} is allowed")


def _rounding_slack(original: Path, feeds: Sequence[Feed]) -> float:
    """How far onnxruntime's own choice of where to round moves an fp16 graph's scores; 0 for any other.

    On a CPU it computes most fp16 operators in fp32 and rounds where a neighbour has an fp16 kernel, or where a tensor
    is an output. So a graph cut elsewhere is rounded elsewhere; what rounding everywhere moves is taken as the bound
    (2e-4 to 8e-4 of the spread, measured on 2-layer BERT and XLM-R with onnxruntime 1.32).
    """
    model = onnx.load(original, load_external_data=False)
    if not any(tensor.data_type in (tensor.FLOAT16, tensor.BFLOAT16) for tensor in model.graph.initializer):
        return 0.0
    rounded = open_session(model, data_folder=original.parent, extra_outputs=every_tensor(model))
    return float(np.abs(run(rounded, feeds) - run(open_session(original), feeds)).max())


def runnable(session: Any, feeds: Sequence[Feed]) -> tuple[list[Feed], Array]:
    """The feeds that the graph takes (a long row may be longer than its positions), and its scores on them."""
    kept: list[Feed] = []
    scores: list[Array] = []
    for feed in feeds:
        try:
            scores.append(run(session, [feed]))
            kept.append(feed)
        except Exception as error:  # noqa: BLE001 - onnxruntime raises many classes
            logger.debug("canary: a batch is left out: %s", error)
    if not kept:
        raise NotApplicable("it runs on none of the canary's batches")
    return kept, np.concatenate(scores)


def run(session: Any, feeds: Sequence[Mapping[str, Array]]) -> Array:
    """(rows, labels) float32"""
    name = session.get_outputs()[0].name
    return np.concatenate([_run(session, [name], feed)[0].astype(np.float32) for feed in feeds])


def _run(session: Any, names: Sequence[str], feed: Mapping[str, Array]) -> list[Any]:
    """One run, ended where nobody waits for it any more: a graph may loop for ever."""
    options = onnxruntime().RunOptions()
    with current().calling(partial(setattr, options, "terminate", True)):
        results: list[Any] = session.run(list(names), dict(feed), options)
        return results

"""Rewrites a graph so that its last layer computes only the token that the score is read from.

A classifier reads one position of the last hidden state, usually the first. Nothing else of the last layer's output is
ever looked at, yet an exported graph computes all of it. This file alone knows how to leave that work out:

1. *Narrow.* From the ``Gather`` (or ``Slice``) of position 0 backwards, every operator that treats positions one by one
   (projections, LayerNorms, the feed-forward part, the query side of attention) is fed that one position only.
2. *Never build keys and values.* With one query vector q, scores are ``q (x W_k + b_k)^T = (q W_k^T) x^T + q b_k^T``
   and the context is ``p (x W_v + b_v) = (p x) W_v + sum(p) b_v``: two products with x, not two projections of it.

Nothing is found by name. What an operator does to positions is read from its type and from the shapes its tensors
really have, observed in three small runs; where a rule is missing the full tensor is computed as before and cut there.
So exporters, opsets and architectures differ only in how far the narrowing reaches. The result computes the same
numbers up to float rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_rerank_integrations.core.graphs.edits import MICROSOFT, STANDARD, Graph, Writer, attribute, captured
from onnx_rerank_integrations.core.graphs.trials import (
    ONE,
    TOKENS,
    Array,
    Dim,
    Dims,
    NotApplicable,
    Observation,
    observe,
)

logger = logging.getLogger(__name__)

OLDEST_OPSET = 11

POSITIONWISE = frozenset(
    """
    Abs Add And BitwiseAnd BitwiseNot BitwiseOr Cast CastLike Clip Cos Div Dropout Elu Equal Erf Exp Gelu Greater
    GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Min Mish Mod Mul Neg
    Not Or Pow Reciprocal Relu Round Sigmoid Sign Sin Softplus Sqrt Sub Sum Tanh Where Xor
    BiasGelu FastGelu QuickGelu SkipLayerNormalization SkipSimplifiedLayerNormalization
    """.split()  # noqa: SIM905 - sixty names are read more easily as words
)
"""Operators whose output at one position depends on their (broadcast) inputs at that position only."""

NORMALIZATIONS = frozenset(
    {"LayerNormalization", "LogSoftmax", "RMSNormalization", "SimplifiedLayerNormalization", "Softmax"}
)
REDUCTIONS = frozenset({"ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"})
MOVEMENTS = frozenset({"Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})


def first_token_graph(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The same scores from a graph that computes one position in its last layer.

    Args:
        model: A text classifier, its weights loaded; left untouched.

    Returns:
        A new model, or None where nothing can be left out (mean pooling, hidden states among the outputs, fused
        attention, ...); the reason is logged at debug.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        return rewrite(copy)
    except NotApplicable as reason:
        logger.debug("no first-token graph: %s", reason)
        return None


def rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    """``first_token_graph`` in place: a large model needn't be held twice.

    Raises:
        NotApplicable: Nothing can be left out.
    """
    graph = Graph(_inlined(model), prefix="first_token")
    if graph.opset < OLDEST_OPSET:
        raise NotApplicable(f"its opset is {graph.opset}; {OLDEST_OPSET} is the oldest that is rewritten")
    seen = observe(graph.model)
    plan = Plan(graph, seen, refused=set())
    # Keys and values are left unbuilt only where nobody else needs the projection they come from: a packed QKV
    # projection with rotary keys, say, is computed in full anyway. That shows once the plan is made.
    while wasted := plan.wasted_projections():
        plan = Plan(graph, seen, plan.refused | wasted)
    if not plan.saves_work():
        raise NotApplicable("no projection is computed for positions that the score never reads")
    return _emit(graph, seen, plan)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    if not model.functions:
        return model
    from onnx.inliner import inline_local_functions

    return inline_local_functions(model)


# --- what is needed of each tensor ------------------------------------------------------------------------------------

FULL = -1


@dataclass(frozen=True)
class Projection:
    """A tensor of keys or values, understood as ``scale * heads(x @ weight + bias)``.

    Attributes:
        x: The hidden state it is a projection of, (B, T, hidden).
        made_by: The tensor that the projection's MatMul writes.
        weight: (heads, hidden, head size)
        bias: (heads, 1, head size), or None.
        scales: The ``Mul`` and ``Div`` nodes by one number on the way, each with that number's name.
    """

    x: str
    made_by: str
    weight: Array
    bias: Array | None
    scales: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Step:
    """How one node is computed for the first position only.

    Attributes:
        axes: For each input, the axis along which only position 0 is needed, or None for all of it.
        shape: Replaces the node's second input (``Reshape``, ``Expand``).
        one_at: Where the second input gets a 1, if its other entries are only known at run time.
        attends: ``"scores"`` or ``"context"`` where keys or values are never built.
        projection: What is used in their place.
    """

    axes: tuple[int | None, ...]
    shape: tuple[int, ...] | None = None
    one_at: int | None = None
    attends: str | None = None
    projection: Projection | None = None


class Plan:
    """Which tensors are needed in full, which at position 0 of some axis only, which not at all.

    Attributes:
        needed: By tensor: ``FULL`` or that axis; absent where nobody reads it.
        steps: By first output: the nodes computed for position 0 only.
        refused: First outputs of attention products that get their keys or values as before.
    """

    def __init__(self, graph: Graph, seen: Observation, refused: set[str]) -> None:
        self._graph, self._seen, self.refused = graph, seen, refused
        self.needed: dict[str, int] = dict.fromkeys(graph.outputs, FULL)
        self.steps: dict[str, Step] = {}
        for node in reversed(graph.nodes):
            self._visit(node)

    def _visit(self, node: onnx.NodeProto) -> None:
        wanted = {self.needed[name] for name in node.output if name in self.needed}
        if not wanted:
            return
        if node.op_type == "Shape" and self._known(node.input[0]):
            return  # reads no value
        step = None
        if wanted == {FULL}:
            step = self._selection(node)
        elif len(wanted) == 1:
            step = self._narrowed(node, next(iter(wanted)))
            if step is not None:
                self.steps[node.output[0]] = step
        if step is None:
            self.needed.update({name: FULL for name in node.output if name in self.needed})
            step = Step((None,) * len(node.input))
        if step.projection is not None:
            self._need(step.projection.x, FULL)
        for position, (name, axis) in enumerate(zip(node.input, step.axes, strict=True)):
            replaced = position == 1 and (step.shape is not None or step.projection is not None)
            if name and not replaced:
                self._need(name, FULL if axis is None else axis)
        for name in captured(node):
            self._need(name, FULL)

    def _need(self, name: str, axis: int) -> None:
        self.needed[name] = axis if self.needed.get(name, axis) == axis else FULL

    def _known(self, name: str) -> bool:
        return all(dim is not None and dim.batch + dim.tokens < 2 for dim in self._seen.dims.get(name, (None,)))

    def _selection(self, node: onnx.NodeProto) -> Step | None:
        """The node that takes position 0 of the tokens, whose own output stays as it is."""
        dims = self._seen.dims.get(node.input[0]) if node.input else None
        if dims is None or TOKENS not in dims:
            return None
        axis: int | None = None
        if node.op_type == "Gather" and self._graph.integers(node.input[1]) == [0]:
            axis = attribute(node, "axis", 0) % len(dims)
        elif node.op_type == "Slice":
            starts, ends, axes, steps = ([*map(self._graph.integers, node.input[1:]), None, None])[:4]
            if starts == [0] and ends == [1] and steps in (None, [1]) and (axes or len(dims) == 1):
                axis = (axes or [0])[0] % len(dims)
        if axis is None or dims[axis] != TOKENS:
            return None
        return Step((axis, *[None] * (len(node.input) - 1)))

    def _narrowed(self, node: onnx.NodeProto, axis: int) -> Step | None:
        """How the node gives position 0 along its output's ``axis``, or None where it has to give all of it."""
        rule = _rule(node)
        dims = self._seen.dims.get(node.output[0])
        if rule is None or dims is None or dims[axis] != TOKENS:
            return None
        step = rule(self._graph, self._seen, node, axis)
        if step is None or node.op_type != "MatMul" or axis != len(dims) - 2 or len(dims) != 4:
            return step
        return self._unbuilt(node, step) or step

    def _unbuilt(self, node: onnx.NodeProto, step: Step) -> Step | None:
        """The step for an attention product of one query, without ever building its keys or values."""
        other = self._seen.dims.get(node.input[1], ())
        if node.output[0] in self.refused or len(other) != 4 or self._seen.dims[node.input[0]][:2] != other[:2]:
            return None
        by_axis = {2: "context", 3: "scores"}
        along = [axis for axis, dim in enumerate(other) if dim == TOKENS]
        if len(along) != 1 or (attends := by_axis.get(along[0])) is None:
            return None
        projection = find_projection(self._graph, self._seen, node.input[1], transposed=attends == "scores")
        return None if projection is None else Step(step.axes, attends=attends, projection=projection)

    def wasted_projections(self) -> set[str]:
        """Attention products whose keys or values somebody else needs in full: leaving them unbuilt saves nothing."""
        return {
            name
            for name, step in self.steps.items()
            if step.projection is not None and self.needed.get(step.projection.made_by) == FULL
        }

    def reads_shape_only(self, node: onnx.NodeProto) -> bool:
        """Whether a ``Shape`` node's input is no longer computed in full."""
        return self._known(node.input[0]) and self.needed.get(node.input[0]) != FULL

    def saves_work(self) -> bool:
        """Whether a product with a weight matrix is computed for fewer positions."""
        return any(
            node.op_type in ("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "MatMulNBits")
            and node.output[0] in self.steps
            and not self._depends_on_tokens(node)
            for node in self._graph.nodes
        )

    def _depends_on_tokens(self, node: onnx.NodeProto) -> bool:
        other = node.input[3] if node.op_type == "QLinearMatMul" else node.input[1]
        return any(dim is None or not dim.is_constant for dim in self._seen.dims.get(other, (None,)))


# --- what each operator does to positions -----------------------------------------------------------------------------

Rule = Callable[[Graph, Observation, onnx.NodeProto, int], Step | None]


def _rule(node: onnx.NodeProto) -> Rule | None:
    if node.domain not in (*STANDARD, MICROSOFT):
        return None
    if node.op_type in POSITIONWISE:
        return _broadcast
    if node.op_type in NORMALIZATIONS:
        return _normalize
    if node.op_type in REDUCTIONS:
        return _reduce
    return _RULES.get(node.op_type)


def _only_first(node: onnx.NodeProto, axis: int | None) -> Step:
    return Step((axis, *[None] * (len(node.input) - 1)))


def _broadcast(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    rank = len(seen.dims[node.output[0]])
    axes: list[int | None] = []
    for name in node.input:
        dims = seen.dims.get(name, None if name else ())
        if dims is None:
            return None
        aligned = axis - (rank - len(dims))
        if aligned < 0 or dims[aligned] == ONE:
            axes.append(None)
        elif dims[aligned] == TOKENS:
            axes.append(aligned)
        else:
            return None
    return Step(tuple(axes))


def _normalize(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    rank = len(seen.dims[node.output[0]])
    default = 1 if node.op_type in ("Softmax", "LogSoftmax") else -1  # before opset 13; from then on -1
    first = attribute(node, "axis", default) % rank
    return _only_first(node, axis) if axis < first == rank - 1 else None


def _reduce(graph: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    axes = attribute(node, "axes") or (graph.integers(node.input[1]) if len(node.input) > 1 else None)
    rank = len(seen.dims[node.output[0]])
    if not axes or not attribute(node, "keepdims", 1) or axis in {each % rank for each in axes}:
        return None
    return _only_first(node, axis)


def _matmul(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    left = seen.dims.get(node.input[0], ())
    rank = len(seen.dims[node.output[0]])
    if axis != rank - 2 or len(left) < 2 or left[-2] != TOKENS:
        return None
    if any(attribute(node, flag, 0) for flag in ("transA", "transBatchA", "transBatchB")):
        return None
    return _only_first(node, len(left) - 2)


def _transpose(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    rank = len(seen.dims[node.output[0]])
    return _only_first(node, list(attribute(node, "perm", range(rank)[::-1]))[axis])


def _reshape(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    before, after = seen.dims.get(node.input[0]), seen.dims[node.output[0]]
    source = None if before is None else _same_axis(after, before, axis)
    if before is None or source is None:
        return None
    if node.op_type in ("Squeeze", "Unsqueeze", "Flatten"):
        explicit = len(node.input) > 1 or attribute(node, "axes") is not None
        return _only_first(node, source) if explicit and node.op_type != "Flatten" else None
    shape: list[int] = []
    for position, dim in enumerate(after):
        if position == axis:
            shape.append(1)
        elif dim is not None and dim.is_constant:
            shape.append(dim.size)
        elif position < len(before) and before[position] == dim and dim is not None and position != source:
            shape.append(0)
        else:
            shape.append(-1)
    if shape.count(-1) > 1:
        return Step((source, None), one_at=axis)
    return Step((source, None), shape=tuple(shape))


def _same_axis(dims: Dims, others: Dims, axis: int) -> int | None:
    """The axis of ``others``, the same elements in another shape, that walks in step with ``axis`` of ``dims``."""
    ahead = _product(dims[:axis])
    matches = [i for i, dim in enumerate(others) if dim == dims[axis] and ahead and _product(others[:i]) == ahead]
    return matches[0] if matches else None


def _product(dims: Dims) -> Dim | None:
    result = ONE
    for dim in dims:
        if dim is None:
            return None
        result = result * dim
    return result


def _expand(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    before, after = seen.dims.get(node.input[0]), seen.dims[node.output[0]]
    if before is None or len(before) > len(after):
        return None
    padded = (ONE,) * (len(after) - len(before)) + before
    source = axis - (len(after) - len(before)) if padded[axis] == TOKENS else None
    shape: list[int] = []
    for position, (old, new) in enumerate(zip(padded, after, strict=True)):
        if position == axis or old == new:
            shape.append(1)
        elif new is not None and new.is_constant:
            shape.append(new.size)
        else:
            return Step((source, None), one_at=axis)
    return Step((source, None), shape=tuple(shape))


def _join(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    rank = len(seen.dims[node.output[0]])
    return None if attribute(node, "axis") % rank == axis else Step((axis,) * len(node.input))


def _split(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    rank = len(seen.dims[node.output[0]])
    return None if attribute(node, "axis", 0) % rank == axis else _only_first(node, axis)


def _slice(graph: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    rank = len(seen.dims[node.output[0]])
    axes = graph.integers(node.input[3]) if len(node.input) > 3 else None
    return None if axes is None or axis in {each % rank for each in axes} else _only_first(node, axis)


def _gather(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    data, indices = seen.dims.get(node.input[0]), seen.dims.get(node.input[1])
    if data is None or indices is None:
        return None
    rank = len(indices)
    at = attribute(node, "axis", 0) % len(data)
    if at <= axis < at + rank:
        return Step((None, axis - at))
    return Step((axis if axis < at else axis - rank + 1, None))


def _gather_elements(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    dims = [seen.dims.get(name) for name in node.input]
    rank = len(seen.dims[node.output[0]])
    if attribute(node, "axis", 0) % rank == axis or any(each is None or each[axis] != TOKENS for each in dims):
        return None
    return Step((axis, axis))


def _linear_quantization(_: Graph, seen: Observation, node: onnx.NodeProto, axis: int) -> Step | None:
    return _only_first(node, axis) if seen.scalar(node.input[1]) else None


_RULES: Mapping[str, Rule] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "FusedMatMul": _matmul,
    "MatMulNBits": _matmul,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Expand": _expand,
    "Concat": _join,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "QuantizeLinear": _linear_quantization,
    "DequantizeLinear": _linear_quantization,
}


# --- keys and values --------------------------------------------------------------------------------------------------


def find_projection(graph: Graph, seen: Observation, name: str, *, transposed: bool) -> Projection | None:
    """Reads a tensor of keys (``transposed``: (B, heads, size, T)) or values ((B, heads, T, size)) as a projection.

    The way up to the MatMul may only move elements or scale them by one number. Which element went where isn't
    worked out node by node: moves don't depend on values, so one run on random values shows it.
    """
    moved, scales = name, []
    while True:
        node = graph.producer.get(moved)
        if node is None:
            return None
        if node.op_type in MOVEMENTS:
            moved = node.input[0]
        elif node.op_type in ("Mul", "Div") and seen.scalar(node.input[1]):
            scales.append((node.op_type, node.input[1]))
            moved = node.input[0]
        elif node.op_type == "Mul" and seen.scalar(node.input[0]):
            scales.append((node.op_type, node.input[0]))
            moved = node.input[1]
        else:
            break

    bias: Array | None = None
    if node.op_type == "Add":
        bias_at = 0 if (bias := graph.constant(node.input[0])) is not None else 1
        bias = bias if bias is not None else graph.constant(node.input[1])
        if bias is None or bias.ndim != 1:
            return None
        node = graph.producer.get(node.input[1 - bias_at])
    if node is None or node.op_type != "MatMul" or node.domain not in STANDARD:
        return None
    weight = graph.constant(node.input[1])
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
        return None
    factors = [(kind, seen.values.get(number, graph.constant(number))) for kind, number in scales]
    columns = _columns(seen.values[name], seen.values[moved], factors, transposed=transposed)
    if columns is None:
        return None
    heads, size, first = columns
    width = heads * size
    by_head = weight[:, first : first + width].reshape(-1, heads, size).transpose(1, 0, 2)
    bias_by_head = None if bias is None else bias[first : first + width].reshape(heads, 1, size)
    return Projection(node.input[0], node.output[0], np.ascontiguousarray(by_head), bias_by_head, tuple(scales))


def _columns(
    target: Array, source: Array, factors: Sequence[tuple[str, Array | None]], *, transposed: bool
) -> tuple[int, int, int] | None:
    """(heads, size, first column): which columns of the source (B, T, columns) the target's elements are."""
    if transposed:
        target = target.transpose(0, 1, 3, 2)
    _, heads, tokens, size = target.shape
    for kind, factor in factors:
        if factor is None:
            return None
        source = source * factor.item() if kind == "Mul" else source / factor.item()
    width = heads * size
    if source.ndim != 3 or source.shape[1] != tokens or source.shape[2] % width:
        return None
    for first in range(0, source.shape[2], width):
        part = source[:, :, first : first + width].reshape(-1, tokens, heads, size).transpose(0, 2, 1, 3)
        if np.allclose(part, target, rtol=1e-4, atol=1e-7):
            return heads, size, first
    return None


# --- writing the graph ------------------------------------------------------------------------------------------------


def _emit(graph: Graph, seen: Observation, plan: Plan) -> onnx.ModelProto:
    """Writes the plan into the graph's model."""
    writer = Writer(graph)
    for node in graph.nodes:
        step = plan.steps.get(node.output[0])
        if node.op_type == "Shape" and plan.reads_shape_only(node):
            _write_shape(graph, seen, writer, node)
        elif step is None:
            writer.nodes.append(node)
        else:
            _write_step(writer, plan, node, step)

    return writer.finish()


def _write_step(writer: Writer, plan: Plan, node: onnx.NodeProto, step: Step) -> None:
    inputs = [
        writer.cut(name, axis) if axis is not None and plan.needed.get(name) == FULL else name
        for name, axis in zip(node.input, step.axes, strict=True)
    ]
    if step.projection is not None:
        write = _write_scores if step.attends == "scores" else _write_context
        write(writer, inputs[0], step.projection, node.output[0])
        return
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    if step.one_at is not None:
        inputs[1] = writer.one_at(step.one_at, inputs[1])
    elif step.shape is not None:
        inputs[1] = writer.integers(*step.shape)
        kept = [item for item in node.attribute if item.name != "allowzero"]
        changed.ClearField("attribute")
        changed.attribute.extend(kept)
    changed.ClearField("input")
    changed.input.extend(inputs)
    writer.nodes.append(changed)


def _write_scores(writer: Writer, query: str, keys: Projection, out: str) -> None:
    """(B, heads, 1, size) queries against ``keys.x`` -> (B, heads, 1, T)."""
    heads, hidden, _ = keys.weight.shape
    for kind, number in keys.scales:
        query = writer.node(kind, query, number)
    turned = writer.node("MatMul", query, writer.weight(keys.weight.transpose(0, 2, 1)))
    turned = writer.node("Reshape", turned, writer.integers(0, heads, hidden))
    scores = writer.node("MatMul", turned, writer.node("Transpose", keys.x, perm=[0, 2, 1]))
    shape = writer.integers(0, heads, 1, -1)
    if keys.bias is None:
        writer.node("Reshape", scores, shape, out=out)
        return
    # The same number for every key, so the softmax drops it; it costs nothing to stay exact without looking for one.
    constant = writer.node("MatMul", query, writer.weight(keys.bias.transpose(0, 2, 1)))
    writer.node("Add", writer.node("Reshape", scores, shape), constant, out=out)


def _write_context(writer: Writer, attention: str, values: Projection, out: str) -> None:
    """(B, heads, 1, T) attention over ``values.x`` -> (B, heads, 1, size)."""
    heads, hidden, _ = values.weight.shape
    flat = writer.node("Reshape", attention, writer.integers(0, heads, -1))
    mixed = writer.node("Reshape", writer.node("MatMul", flat, values.x), writer.integers(0, heads, 1, hidden))
    context = writer.node("MatMul", mixed, writer.weight(values.weight))
    if values.bias is not None:
        # The weights of a softmax sum to 1, but not those of a row that is masked throughout.
        total = writer.sum_last_axis(attention)
        context = writer.node("Add", context, writer.node("Mul", total, writer.weight(values.bias)))
    for kind, number in values.scales:
        context = writer.node(kind, context, number)
    writer.node("Identity", context, out=out)


def _write_shape(graph: Graph, seen: Observation, writer: Writer, node: onnx.NodeProto) -> None:
    """The shape a tensor had before it was narrowed, from the graph's own input."""
    source = writer.node("Shape", next(iter(graph.model.graph.input)).name)
    parts: list[str] = []
    for dim in seen.dims[node.input[0]][attribute(node, "start", 0) : attribute(node, "end")]:
        assert dim is not None  # Plan.reads_shape_only
        size = writer.integers(dim.size)
        if not dim.is_constant:
            rows_or_tokens = writer.node("Gather", source, writer.integers(dim.tokens), axis=0)
            size = writer.node("Mul", rows_or_tokens, size)
        parts.append(size)
    writer.node("Concat", *parts, out=node.output[0], axis=0)

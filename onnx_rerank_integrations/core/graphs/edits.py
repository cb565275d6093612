"""Look-ups and edits on an ONNX graph that its rewrites share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_rerank_integrations.core.graphs.trials import Array

STANDARD = ("", "ai.onnx")
MICROSOFT = "com.microsoft"
"""Domains of operators: ONNX's own by both its names, and onnxruntime's additions."""


class Graph:
    """Look-ups over one model: who makes a tensor, and the values of constants.

    Args:
        model: The model.
        prefix: Begins the name of everything that is added.
    """

    def __init__(self, model: onnx.ModelProto, *, prefix: str) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.outputs = [output.name for output in model.graph.output]
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.opset = max((item.version for item in model.opset_import if item.domain in STANDARD), default=1)
        self._prefix = prefix
        self._counter = itertools.count()
        self._names = {*self.producer, *self.initializers, *(i.name for i in model.graph.input)}
        self._names |= {node.name for node in self.nodes}

    def constant(self, name: str) -> Array | None:
        """The tensor's value where it doesn't depend on the inputs: a weight, a ``Constant``, a weight transposed."""
        if name in self.initializers:
            return np.asarray(numpy_helper.to_array(self.initializers[name]))
        node = self.producer.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            return _constant_value(node)
        if node.op_type in ("Identity", "Transpose") and (value := self.constant(node.input[0])) is not None:
            return np.transpose(value, attribute(node, "perm")) if node.op_type == "Transpose" else value
        return None

    def integers(self, name: str) -> list[int] | None:
        """A constant tensor of integers, flat."""
        value = self.constant(name) if name else None
        return None if value is None else [int(v) for v in value.ravel()]

    def fresh(self, hint: str) -> str:
        """A name that no tensor or node of the graph has."""
        while True:
            name = f"{self._prefix}/{hint}_{next(self._counter)}"
            if name not in self._names:
                self._names.add(name)
                return name


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _constant_value(node: onnx.NodeProto) -> Array | None:
    for kind in node.attribute:
        value = helper.get_attribute_value(kind)
        if kind.name == "value":
            return np.asarray(numpy_helper.to_array(value))
        if kind.name in ("value_float", "value_floats"):
            return np.asarray(value, dtype=np.float32)
        if kind.name in ("value_int", "value_ints"):
            return np.asarray(value, dtype=np.int64)
    return None


def captured(node: onnx.NodeProto) -> Iterable[str]:
    """Names that the branches and bodies inside a node may read from outside."""
    for item in node.attribute:
        for body in [item.g, *item.graphs] if item.type in (item.GRAPH, item.GRAPHS) else []:
            for inner in body.node:
                yield from inner.input
                yield from captured(inner)
            yield from (output.name for output in body.output)


class Writer:
    """Collects the nodes and weights of the new graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._cuts: dict[tuple[str, int], str] = {}
        self._lists: dict[tuple[int, ...], str] = {}

    def node(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        out = out or self._graph.fresh(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=self._graph.fresh(kind), **attributes))
        return out

    def weight(self, value: Array) -> str:
        name = self._graph.fresh("weight")
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, *values: int) -> str:
        if values not in self._lists:
            self._lists[values] = self.weight(np.asarray(values, dtype=np.int64))
        return self._lists[values]

    def one_at(self, position: int, shape: str) -> str:
        before = self.node("Slice", shape, self.integers(0), self.integers(position), self.integers(0))
        end = self.integers(np.iinfo(np.int64).max)
        after = self.node("Slice", shape, self.integers(position + 1), end, self.integers(0))
        return self.node("Concat", before, self.integers(1), after, axis=0)

    def finish(self) -> onnx.ModelProto:
        """Puts the nodes into the graph's model, and takes out what nobody reads any more."""
        target = self._graph.model.graph
        nodes = _alive(self.nodes, self._graph.outputs)
        target.ClearField("value_info")
        target.ClearField("node")
        target.node.extend(nodes)
        used = {name for node in nodes for name in (*node.input, *captured(node))} | set(self._graph.outputs)
        for position in reversed(range(len(target.initializer))):
            if target.initializer[position].name not in used:
                del target.initializer[position]
        target.initializer.extend(tensor for tensor in self.weights if tensor.name in used)
        return self._graph.model

    def sum_last_axis(self, name: str) -> str:
        if self._graph.opset >= 13:
            return self.node("ReduceSum", name, self.integers(-1), keepdims=1)
        return self.node("ReduceSum", name, axes=[-1], keepdims=1)

    def cut(self, name: str, axis: int) -> str:
        """Position 0 of ``axis``, the axis kept."""
        if (name, axis) not in self._cuts:
            bounds = self.integers(0), self.integers(1), self.integers(axis)
            self._cuts[name, axis] = self.node("Slice", name, *bounds)
        return self._cuts[name, axis]


def _alive(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            needed.update(captured(node))
            kept.append(node)
    return kept[::-1]

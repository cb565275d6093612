"""Writes ONNX graphs node by node: what the lexical and the embedded model's graphs share."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# What onnxruntime 1.24 and OpenVINO both run; ReduceMax and Slice keep their opset-13 forms.
OPSET = 17
IR_VERSION = 8
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MICROSOFT = "com.microsoft"


class GraphWriter:
    """Collects nodes and initializers; each method adds one node and gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, value: object, dtype: type, name: str | None = None) -> str:
        array = np.array(value, dtype)
        name = name or f"{np.dtype(dtype).name}_{'_'.join(map(str, array.ravel().tolist()))}"
        self.initializers[name] = numpy_helper.from_array(array, name)
        return name

    def number(self, value: float) -> str:
        return self.constant(value, np.float32)

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def slice(self, data: str, start: int | str, end: int | str, axis: int) -> str:
        bounds = [bound if isinstance(bound, str) else self.constant([bound], np.int64) for bound in (start, end)]
        return self.add("Slice", data, *bounds, self.constant([axis], np.int64))

    def sum(self, data: str, axis: int, keepdims: bool = True) -> str:
        return self.add("ReduceSum", data, self.constant([axis], np.int64), keepdims=int(keepdims))

    def count(self, matches: str) -> str:
        """Booleans (B, Q, D) to how many are true for each query token (B, Q, 1)."""
        return self.sum(self.add("Cast", matches, to=TensorProto.FLOAT), axis=2)


def finish(g: GraphWriter, name: str, metadata: dict[str, str]) -> onnx.ModelProto:
    """The checked model: three inputs, one logit."""

    def info(name: str, kind: int, *shape: object) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, list(shape))

    graph = helper.make_graph(
        g.nodes,
        name,
        [info(name, TensorProto.INT64, "batch", "tokens") for name in INPUTS],
        [info("logits", TensorProto.FLOAT, "batch", 1)],
        list(g.initializers.values()),
    )
    domains = sorted({node.domain for node in g.nodes})
    opsets = [helper.make_opsetid(domain, 1 if domain else OPSET) for domain in domains]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="onnx-rerank-integrations"
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model

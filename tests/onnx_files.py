"""Tiny real ONNX models for tests about files; loaded through onnxruntime they prove that nothing is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=np.float32)
"""The model computes x @ WEIGHTS."""


def graph(*data_names: str, tag: str = "") -> dict[str, bytes]:
    """``model.onnx`` and its external data: none, one file, or one per row of the weights. Equal tags, equal bytes."""
    rows = [numpy_helper.from_array(WEIGHTS[:1], "first"), numpy_helper.from_array(WEIGHTS[1:], "second")]
    nodes = [
        helper.make_node("Concat", ["first", "second"], ["weights"], axis=0),
        helper.make_node("MatMul", ["x", "weights"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, rows),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        doc_string=tag,
    )
    data: dict[str, bytes] = {}
    if data_names:
        for tensor, name in zip(model.graph.initializer, (data_names[0], data_names[-1]), strict=True):
            before = data.get(name, b"")
            data[name] = before + tensor.raw_data
            onnx.external_data_helper.set_external_data(tensor, name, len(before), len(tensor.raw_data))
            tensor.ClearField("raw_data")
    return {"model.onnx": model.SerializeToString(), **data}


def model_files(*data_names: str, folder: str = "onnx/", tag: str = "") -> dict[str, bytes]:
    """A whole model: graph and data in `folder`, tokenizer and configuration in the root."""
    return {
        **{f"{folder}{name}": content for name, content in graph(*data_names, tag=tag).items()},
        "tokenizer.json": b'{"version": "1.0"}',
        "config.json": b'{"num_labels": 1}',
        "tokenizer_config.json": b'{"model_max_length": 512}',
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes files by their relative paths; gives `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def run(path: Path) -> list[float]:
    """What onnxruntime computes for x = [1, 1]: [5, 7, 9] where graph and data are whole."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ones((1, 2), dtype=np.float32)})[0][0].tolist()

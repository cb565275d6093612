"""What the bytes of a model file say without loading it: which external data a graph names, and what a broken file is.

Reads just enough of the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) and of ONNX's schema
(onnx/onnx.proto, field numbers below) to do without the ``onnx`` package. Tensors are stepped over, never read: a graph
of 1 GB takes milliseconds.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from pathlib import Path

_Field = tuple[int, int | tuple[int, int]]
"""A field's number, and its value: an integer, or the start and end of its bytes."""

_CHILDREN = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
"""Which fields of an ONNX message hold messages on the way to a tensor."""

_GRAPH, _OPSET_IMPORT, _EXTERNAL_DATA, _KEY, _VALUE = 7, 8, 13, 1, 2
_NODE, _NODE_INPUT, _NODE_OUTPUT, _OPERATOR = 1, 1, 2, 4
_DATA_TYPE = 2
_MOVING = frozenset(
    (
        "Identity",
        "Cast",
        "Squeeze",
        "Unsqueeze",
        "Reshape",
        "Flatten",
        "Slice",
        "Gather",
        "Transpose",
        "Clip",
        "QuantizeLinear",
        "DequantizeLinear",
        "Dropout",
    )
)
"""Operators that give the values of their first input, in another shape or type."""

_MODEL_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_ADVICE = "fetch the real file with `git lfs pull`, or download it again"


def external_data(graph: Path) -> dict[str, int]:
    """The external data files a graph names, each with the bytes it must have at least.

    Names are as the graph spells them, relative to its own folder, and not to be trusted: ``..`` and absolute paths
    occur.

    Raises:
        ValueError: The file isn't a sound ONNX protobuf.
    """
    needed: dict[str, int] = {}
    with graph.open("rb") as file:
        if graph.stat().st_size == 0:
            raise ValueError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for start, end in _tensors(data):
                entries = _external_entries(data, start, end)
                if location := entries.get("location"):
                    size = int(entries.get("offset") or 0) + int(entries.get("length") or 0)
                    needed[location] = max(size, needed.get(location, 0))
    return needed


FLOAT16 = 10
"""The number of fp16 in ``onnx.TensorProto.DataType``."""

INTEGER_TYPES = frozenset((2, 3, 21, 22))
"""Element types of 8 and 4 bits, as int8 weights have them."""

HALF_TYPES = frozenset((FLOAT16, 16))
"""Floats of 16 bits."""


def last_operator(graph: Path, output: str) -> str:
    """The operator that computes an output's values, such as ``Sigmoid``: the last that doesn't just move them around.

    A sigmoid that is spelled out, one by a sum with an exponential in it, is one too. Empty where the output is no
    node's.

    Raises:
        ValueError: The file isn't a sound ONNX protobuf.
    """
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        nodes = _Nodes(data)
        operator, sources = nodes.that_makes(output)
        while operator in _MOVING and sources:
            operator, sources = nodes.that_makes(sources[0])
        if operator in ("Div", "Reciprocal"):
            divisor, parts = nodes.that_makes(sources[-1])
            if divisor == "Add" and "Exp" in (nodes.that_makes(part)[0] for part in parts):
                return "Sigmoid"
        return operator


class _Nodes:
    """A graph's nodes, found by what they make."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._spans = [
            node
            for number, span in _fields(data, 0, len(data))
            for part, node in (_fields(data, *span) if number == _GRAPH and isinstance(span, tuple) else ())
            if part == _NODE and isinstance(node, tuple)
        ]

    def that_makes(self, output: str) -> tuple[str, list[str]]:
        """The operator and the inputs of the node that makes an output; nothing where none does."""
        for span in reversed(self._spans):  # they are in order of computation, and a head is at the end
            fields = [
                (field, self._data[slice(*value)])
                for field, value in _fields(self._data, *span)
                if isinstance(value, tuple)
            ]
            if (_NODE_OUTPUT, output.encode()) in fields:
                operator = next((value.decode() for field, value in fields if field == _OPERATOR), "")
                return operator, [value.decode() for field, value in fields if field == _NODE_INPUT]
        return "", []


def element_types(graph: Path) -> frozenset[int]:
    """The element types of a model's tensors, by their numbers in ``onnx.TensorProto.DataType``.

    Raises:
        ValueError: The file isn't a sound ONNX protobuf.
    """
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        fields = (field for start, end in _tensors(data) for field in _fields(data, start, end))
        return frozenset(value for number, value in fields if number == _DATA_TYPE and isinstance(value, int))


def describe_broken(path: Path, *, parse_json: bool = True) -> str | None:
    """Says what is wrong with a model file by its size and its first bytes, None where nothing is.

    Covers ``.onnx`` files (empty, truncated, HTML or XML page, git-lfs pointer, another format) and ``.json`` files
    (the same, and where the syntax breaks). The sentence has no full stop and no file name: ``"is a web page ..."``.

    Args:
        path: The file.
        parse_json: Read a ``.json`` file to its end; False looks at the first bytes only.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        return "doesn't exist"
    except OSError as error:
        return f"can't be read: {error.strerror or error}"
    if size == 0:
        return "is empty (0 bytes): an interrupted download or copy"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(_LFS_POINTER):
        return f"is a git-lfs pointer of {size} bytes, not the file it stands for: {_LFS_ADVICE}"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!-- ")):
        return "is a web page (HTML), not a model file: a proxy or a login page answered the download"
    if start.startswith(b"<?xml"):
        return "is an XML message, not a model file: a storage server's error was saved in its place"
    if path.suffix == ".json":
        return _describe_broken_json(path) if parse_json else None
    return _describe_broken_graph(path, size, head)


def _describe_broken_json(path: Path) -> str | None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        return f"isn't valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        return f"isn't UTF-8 text: byte {error.start}"
    except RecursionError:
        return "isn't usable JSON: nested too deeply"
    return None


def _describe_broken_graph(path: Path, size: int, head: bytes) -> str | None:
    for signature, kind in (
        (b"PK\x03\x04", "a zip archive (or a PyTorch checkpoint)"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"\x80\x02", "a Python pickle"),
        (b"GGUF", "a GGUF file"),
        (b"\x89HDF", "an HDF5 file"),
    ):
        if head.startswith(signature):
            return f"is {kind}, not an ONNX model"
    if head[4:8] == b"ORTM":
        return "is an onnxruntime .ort file, not an ONNX model"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return "is a safetensors file, not an ONNX model: export it to ONNX first"
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            numbers = {number for number, _ in _fields(data, 0, size)}
    except _TruncatedError as error:
        if int.from_bytes(head[:1], "little") >> 3 not in _MODEL_FIELDS:
            return "isn't an ONNX model: its bytes aren't the protobuf that ONNX is"
        return f"is truncated: {error}"
    except ValueError:
        return "isn't an ONNX model: its bytes aren't the protobuf that ONNX is"
    if not numbers <= _MODEL_FIELDS or not numbers & {_GRAPH, _OPSET_IMPORT}:
        return "isn't an ONNX model: its protobuf holds no graph and no opset"
    if not numbers >= {_GRAPH, _OPSET_IMPORT}:
        return "is truncated: its graph or its opset is missing"
    return None


class _TruncatedError(ValueError):
    """A field that ends after the file does."""


def _tensors(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Start and end of every tensor of a model: initializers, and those in attributes of nodes."""
    pending = [("model", 0, len(data))]
    while pending:
        kind, start, end = pending.pop()
        if kind == "tensor":
            yield start, end
            continue
        children = _CHILDREN[kind]
        for number, value in _fields(data, start, end):
            if number in children and isinstance(value, tuple):
                pending.append((children[number], *value))


def _external_entries(data: mmap.mmap, start: int, end: int) -> dict[str, str]:
    """A tensor's ``external_data``: location, offset, length, ..."""
    entries = {}
    for number, value in _fields(data, start, end):
        if number == _EXTERNAL_DATA and isinstance(value, tuple):
            texts = {field: data[slice(*span)].decode() for field, span in _fields(data, *value) if type(span) is tuple}
            entries[texts.get(_KEY, "")] = texts.get(_VALUE, "")
    return entries


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """The fields of one protobuf message that lies in ``data[start:end]``."""
    position = start
    while position < end:
        tag, position = _varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise ValueError(f"field number 0 at byte {position}")
        if wire_type == 0:
            value, position = _varint(data, position, end)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _varint(data, position, end)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if position + length > end:
            raise _TruncatedError(
                f"a part that starts at byte {position} has {length} bytes, {end - position} are there"
            )
        yield number, (position, position + length)
        position += length


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """An integer of seven bits per byte, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _TruncatedError(f"a number at byte {position} has no end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number at byte {position} is too long")

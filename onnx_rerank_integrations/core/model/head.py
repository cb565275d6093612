"""Heads that lie beside the graph as sentence-transformers modules: pooling, dense layers and layer norms.

cross-encoder/ettin-reranker-* keep their head so: the ONNX graph is a bare backbone that gives a vector per token.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.errors import InvalidModelError, UnsupportedModelError
from onnx_rerank_integrations.core.model.storage import read_json
from onnx_rerank_integrations.core.types import Answers

Array = NDArray[np.float32]
Layer = Callable[[Array], Array]

ELEMENT_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "F64": np.dtype("<f8")}
LAYER_NORM_EPSILON = 1e-5
"""torch.nn.LayerNorm's default, which the saved config doesn't hold."""


@dataclass(frozen=True, slots=True)
class ModularHead:
    """From a vector per token to logits.

    Attributes:
        layers: Applied in order to the first token's vector.
    """

    layers: Sequence[Layer]

    def __call__(self, token_vectors: NDArray[Any], attention_mask: NDArray[Any]) -> Array:
        """(B, T, H) and (B, T) -> (B, L): the vector of each row's first token, through the layers."""
        first = attention_mask.argmax(axis=1)
        vectors: Array = token_vectors[np.arange(len(first)), first].astype(np.float32)
        for layer in self.layers:
            vectors = layer(vectors)
        return vectors


def read_modular_head(folder: Path) -> ModularHead | None:
    """The head of the modules that modules.json lists after the transformer; None where there is none.

    Raises:
        UnsupportedModelError: A module, a pooling or an activation that isn't known here.
        InvalidModelError: A module's files are missing or damaged.
    """
    modules = _modules(folder)
    kinds = [module.kind for module in modules]
    if len(kinds) < 2 or kinds[0] != "Transformer" or kinds[1] == "LogitScore":
        return None
    if kinds[1] != "Pooling":
        raise _unsupported(folder, f"a {kinds[1]} right after the transformer")
    _check_pooling(folder, _read_object(modules[1].folder / "config.json"))
    readers = {"Dense": _dense, "LayerNorm": _layer_norm, "Dropout": None}
    layers: list[Layer] = []
    for module in modules[2:]:
        if module.kind not in readers:
            raise _unsupported(folder, f"a module of the kind {module.kind}")
        reader = readers[module.kind]
        if reader is not None:
            layers.append(reader(module.folder))
    return ModularHead(layers)


def read_answers(folder: Path) -> Answers | None:
    """The tokens that a LogitScore module reads a language model's score from; None where modules.json has none.

    Raises:
        UnsupportedModelError: Further modules change the score.
        InvalidModelError: The module's file is missing or damaged.
    """
    modules = _modules(folder)
    found = [module for module in modules if module.kind == "LogitScore"]
    if not found:
        return None
    if [module.kind for module in modules] != ["Transformer", "LogitScore"]:
        raise _unsupported(folder, "modules beside Transformer and LogitScore")
    path = found[0].folder / "config.json"
    config = _read_object(path)
    positive, negative = config.get("true_token_id"), config.get("false_token_id")
    if not _is_id(positive) or not (negative is None or _is_id(negative)):
        raise InvalidModelError(
            f"{path} has true_token_id={positive!r} and false_token_id={negative!r}, which aren't ids of tokens.\n"
            "Correct the file, or fetch the model again."
        )
    return Answers(positive=positive, negative=negative)


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass(frozen=True, slots=True)
class _Module:
    kind: str
    folder: Path


def _modules(folder: Path) -> list[_Module]:
    """What modules.json lists, in order; nothing where there is no such file."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    listed = _read_json(path)
    if not isinstance(listed, list) or not all(
        isinstance(one, dict) and isinstance(one.get("type"), str) for one in listed
    ):
        raise InvalidModelError(f"{path} isn't a list of modules with their types.\nFetch the model again.")
    return [_Module(one["type"].rsplit(".", 1)[-1], folder / str(one.get("path", ""))) for one in listed]


def _check_pooling(folder: Path, config: Mapping[str, Any]) -> None:
    mode = config.get("pooling_mode")
    reads_first = mode == "cls" or bool(config.get("pooling_mode_cls_token"))
    others = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    if not reads_first or others not in ([], ["pooling_mode_cls_token"]):
        raise _unsupported(folder, f"pooling {mode or others}; only the first token's vector is")


def _dense(folder: Path) -> Layer:
    config = _read_object(folder / "config.json")
    if config.get("use_residual"):
        raise _unsupported(folder, "a dense layer with a residual")
    tensors = read_safetensors(folder / "model.safetensors")
    weight = tensors["linear.weight"].T
    bias = tensors.get("linear.bias", np.zeros(weight.shape[1], dtype=np.float32))
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    activations: dict[str, Layer] = {
        "Identity": lambda x: x,
        "Tanh": np.tanh,
        "ReLU": lambda x: np.maximum(x, 0),
        "GELU": gelu,
        "SiLU": lambda x: x / (1 + np.exp(-x)),
    }
    if name not in activations:
        raise _unsupported(folder, f"the activation {name}")
    activation = activations[name]
    return lambda x: activation(x @ weight + bias)


def _layer_norm(folder: Path) -> Layer:
    tensors = read_safetensors(folder / "model.safetensors")
    weight, bias = tensors["norm.weight"], tensors.get("norm.bias", np.float32(0))

    def normalize(x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + LAYER_NORM_EPSILON) * weight + bias)

    return normalize


def gelu(x: Array) -> Array:
    """Exact, by the error function, as torch.nn.GELU."""
    error = np.frompyfunc(math.erf, 1, 1)(x / math.sqrt(2)).astype(np.float32)
    return np.asarray(0.5 * x * (1 + error))


def read_safetensors(path: Path) -> dict[str, Array]:
    """All tensors of a safetensors file, as float32: its length, its JSON index, then the raw numbers.

    Raises:
        InvalidModelError: The file is missing, damaged, or holds another element type than F16, F32 and F64.
    """
    try:
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        index = json.loads(data[8 : 8 + length])
        tensors = {}
        for name, entry in index.items():
            if name != "__metadata__":
                start, end = (8 + length + offset for offset in entry["data_offsets"])
                values = np.frombuffer(data[start:end], dtype=ELEMENT_TYPES[entry["dtype"]])
                tensors[name] = values.astype(np.float32).reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise InvalidModelError(
            f"The head's weights can't be read from {path}: {type(error).__name__}: {error}\nFetch the model again."
        ) from error
    return tensors


def _read_object(path: Path) -> Mapping[str, Any]:
    content = _read_json(path)
    if not isinstance(content, dict):
        raise InvalidModelError(f"{path} holds a JSON {type(content).__name__}, not an object.\nFetch the model again.")
    return content


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InvalidModelError(f"{path} can't be read: {error}\nFetch the model again.") from error


def _unsupported(folder: Path, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The model's head, as modules.json describes it, has {what}, which isn't supported here ({folder}).\n"
        "Export the whole model with its head to one ONNX file, or use another model."
    )

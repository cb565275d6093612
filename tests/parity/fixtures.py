"""Where the parity fixtures lie and what PyTorch said of them. Needs no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_HERE = Path(__file__).parent


def names(kind: str | None = None) -> list[str]:
    """Gives the fixtures that are committed, sorted.

    Args:
        kind: Only those whose scores.json says so: "pair" (query and document through the tokenizer's template, logits
            out), "prompt" (asked as a language model), "modules" (a head beside the graph). None gives all.
    """
    found = sorted(path.parent.name for path in _HERE.glob("*/scores.json"))
    return [name for name in found if kind in (None, scores(name)["kind"])]


def folder(name: str) -> Path:
    """Gives the fixture's folder: what a user would download, and scores.json beside it."""
    return _HERE / name


def scores(name: str) -> dict[str, Any]:
    """Reads scores.json: the pairs, ``logits`` with a row of labels for each, ``max_length``, how they were made."""
    return json.loads((folder(name) / "scores.json").read_text(encoding="utf-8"))


def session(name: str) -> InferenceSession:
    """Opens the fixture's graph in onnxruntime, with nothing of this package."""
    # onnxruntime's telemetry hangs forked children, and other tests fork; it reads this when it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Threads would cost these graphs more than they bring.
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(folder(name) / "model.onnx", options, providers=["CPUExecutionProvider"])

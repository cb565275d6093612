"""The road of one `compress_documents` call: which files and functions of this package it crosses, in order.

    python -m benchmarks.trace

Prints each function where it is first entered, indented by its depth, and the counts. A road that grows is read by
everybody who looks for a mistake: `tests/test_trace.py` holds its length. Comprehensions count as the function around.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import onnx_rerank_integrations

PACKAGE = Path(onnx_rerank_integrations.__file__).parent

WITHIN = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
"""Frames that newer Pythons don't make."""


@dataclass(frozen=True)
class Step:
    """A function of ours that a call entered.

    Attributes:
        file: Its path inside the package.
        name: Its qualified name.
        depth: How many functions of ours were open around it when it was first entered.
    """

    file: str
    name: str
    depth: int


def road(call: Callable[[], Any]) -> list[Step]:
    """The functions of this package that a call enters in this thread, in the order of their first entry."""
    steps: dict[CodeType, Step] = {}
    open_frames: list[FrameType] = []

    def listen(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(f"{PACKAGE}/") or code.co_name in WITHIN:
            return
        if event == "call":
            file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
            steps.setdefault(code, Step(file, code.co_qualname, len(open_frames)))
            open_frames.append(frame)
        elif event == "return" and frame in open_frames:
            open_frames.remove(frame)

    sys.setprofile(listen)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(steps.values())


def compress_documents_road() -> list[Step]:
    """The road of a warm call on the lexical model, on one thread: no lane of it is out of sight."""
    from langchain_core.documents import Document

    from onnx_rerank_integrations.langchain import OnnxRerank

    rerank = OnnxRerank(model="lexical", threads=1)
    documents = [Document(f"{place} bees live on honey in winter") for place in range(20)]
    rerank.compress_documents(documents, "bees in winter")
    return road(lambda: rerank.compress_documents(documents, "bees in winter"))


def files(steps: list[Step]) -> list[str]:
    """The files of a road, in the order of their first entry."""
    return list(dict.fromkeys(step.file for step in steps))


if __name__ == "__main__":
    found = compress_documents_road()
    for step in found:
        print(f"{'  ' * step.depth}{step.name}  {step.file}")
    print(f"{len(files(found))} files, {len(found)} functions: {', '.join(files(found))}")

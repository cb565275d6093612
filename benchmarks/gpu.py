"""Documents a second on a GPU, beside sentence-transformers, and how far each is from PyTorch in fp32: one command.

    python -m benchmarks.gpu

Needs onnxruntime-gpu, torch with CUDA, sentence-transformers and `[optimize]`. All load the same random weights at real
sizes (benchmarks/models.py) and score the same passages of 60 to 200 words; each call gets passages of its own, the
contenders' calls are interleaved, and the median of the calls counts. `--device cpu` tries the script where there is no
GPU; its figures mean nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import SIZES, ModelSize, build
from benchmarks.texts import WORKLOADS, make_groups
from onnx_rerank_integrations.extras.markdown import markdown_table

Score = Callable[[str, list[str]], Sequence[float]]

BERT_BASE = ModelSize("bert-base", "BERT", 12, 768, 12, 3072, 30_522, ())
CALLS = ((SIZES["minilm"], (2_000, 100)), (BERT_BASE, (1_000, 100)))
BARS = {"minilm": {"fp32": 2.0, "fp16": 5.0}, "bert-base": {"fp32": 2.0, "fp16": 2.2}}
"""Times sentence-transformers' best: of fp32 for fp32, of all for fp16."""


@dataclass(frozen=True)
class Contender:
    """One way to score on the device."""

    label: str
    load: Callable[[Path], Score]
    peer: bool = False
    precision: str = "fp32"


def _sentence_transformers(folder: Path, *, device: str, half: bool, tf32: bool, batch_size: int) -> Score:
    import torch
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(folder), device=device, max_length=512, local_files_only=True)
    if half:
        encoder.model.half()

    def score(query: str, documents: list[str]) -> Sequence[float]:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        pairs = [(query, document) for document in documents]
        scores = encoder.predict(
            pairs, batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return np.asarray(scores, dtype=np.float64).ravel().tolist()

    return score


def _ours(folder: Path, *, device: str, precision: Any, optimize: Any) -> Score:
    from onnx_rerank_integrations import TextCrossEncoder

    providers = None if device == "cpu" else ["CUDAExecutionProvider"]
    return TextCrossEncoder(folder, providers=providers, precision=precision, optimize=optimize).rerank


def contenders(device: str) -> list[Contender]:
    """Those that the device can run."""
    peers = [
        (f"{'fp16' if half else 'TF32' if tf32 else 'fp32'}, batch {size}", half, tf32, size)
        for half, tf32, size in ((False, False, 32), (False, False, 256), (False, True, 256), (True, False, 256))
        if device != "cpu" or not (half or tf32)
    ]
    precisions = ("fp32", "fp16") if device == "cpu" else ("fp32", "tf32", "fp16")
    return [
        *(
            Contender(
                f"sentence-transformers {label}",
                partial(_sentence_transformers, device=device, half=half, tf32=tf32, batch_size=size),
                peer=True,
                precision="fp16" if half else "tf32" if tf32 else "fp32",
            )
            for label, half, tf32, size in peers
        ),
        *(
            Contender(
                f"this package, {precision}, {'first token' if optimize == 'auto' else 'plain graph'}",
                partial(_ours, device=device, precision=precision, optimize=optimize),
                precision=precision,
            )
            for precision in precisions
            for optimize in ("off", "auto")
        ),
    ]


def measure(size: ModelSize, documents: int, device: str, rounds: int) -> list[list[str]]:
    """A row per contender: documents a second, and the largest difference from PyTorch in fp32."""
    import onnxruntime
    import torch  # noqa: F401 - brings CUDA's libraries for onnxruntime

    if device != "cpu" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    folder = build(size)
    workload = replace(WORKLOADS["W1"], documents=documents)
    groups = [make_groups(workload, seed=seed)[0] for seed in range(rounds + 1)]
    loaded = [(one, one.load(folder)) for one in contenders(device)]
    seconds: dict[str, list[float]] = {one.label: [] for one, _ in loaded}
    scores: dict[str, np.ndarray[Any, Any]] = {}
    for place, (query, texts) in enumerate(groups):
        for one, score in loaded:
            start = time.perf_counter()
            found = score(query, texts)
            if place:  # the first call warms up
                seconds[one.label].append(time.perf_counter() - start)
            else:
                scores[one.label] = np.asarray(found)
    exact = scores[loaded[0][0].label]
    speed = {label: documents / statistics.median(times) for label, times in seconds.items()}
    peers = {one.label: one.precision for one, _ in loaded if one.peer}
    best = {
        "fp32": max(speed[label] for label, precision in peers.items() if precision == "fp32"),
        "fp16": max(speed[label] for label in peers),
    }
    rows = []
    for one, _ in loaded:
        ratio = speed[one.label] / best["fp32" if one.precision == "fp32" else "fp16"]
        bar = BARS[size.name].get(one.precision) if not one.peer and documents == max(dict(CALLS)[size]) else None
        rows.append(
            [
                one.label,
                f"{speed[one.label]:,.0f}",
                f"{ratio:.2f}" + (f" (bar {bar})" if bar else ""),
                f"{np.abs(scores[one.label] - exact).max():.0e}",
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most-documents", type=int, default=10**6, help="cut the calls, to try the script")
    arguments = parser.parse_args()
    for size, calls in CALLS:
        for documents in calls:
            documents = min(documents, arguments.most_documents)
            print(f"\n### {size.name} ({size}), {documents:,} documents a call, on {arguments.device}\n")
            rows = measure(size, documents, arguments.device, arguments.rounds)
            headers = [
                "",
                "documents/s",
                "times the best of sentence-transformers",
                "largest difference from torch fp32",
            ]
            print(markdown_table(headers, rows, numbers=headers[1:]))


if __name__ == "__main__":
    main()

"""What the engine's own choices gain: `python -m benchmarks.engine [--model MODEL]`.

Four tables of this package against itself: padded tokens of a batch, batches side by side, remembered words, mapped
weights. Each is the median of interleaved rounds in one process, the last of fresh processes.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx

from benchmarks import models
from benchmarks.sample import environment
from benchmarks.texts import WORKLOADS, make_calls, make_groups
from onnx_rerank_integrations.core.cross_encoder import OnnxCrossEncoder, TextCrossEncoder
from onnx_rerank_integrations.core.graphs.optimized import write_with_weights_beside
from onnx_rerank_integrations.core.options import Engine
from onnx_rerank_integrations.core.tokens.texts import WordMemo, encode_whole, load_tokenizer
from onnx_rerank_integrations.extras.markdown import markdown_table

BUDGETS = (128, 256, 512, 1024, 2048, 4096)
SEARCHED = {"lexical": ("W1", "W2"), "tiny": ("W1", "W2"), "minilm": ("W1",), "xlmr": ("W1-20",)}
SHARED = {"tiny": ("W1", "W2", "W4"), "minilm": ("W1", "W4"), "xlmr": ("W1-20", "W4")}
ROUNDS = 5

OPEN = """
import sys, time
from pathlib import Path
import numpy, onnxruntime
from onnx_rerank_integrations.core.engine.onnxruntime import InferenceSession
start = time.perf_counter()
session = InferenceSession(Path(sys.argv[1]), threads=1)
seconds = time.perf_counter() - start
names = ("input_ids", "attention_mask", "token_type_ids")
ids = numpy.random.default_rng(0).integers(5, 8000, (8, 64))
session.run(dict(zip(names, (ids, numpy.ones_like(ids), numpy.zeros_like(ids)))))
status = Path("/proc/self/status").read_text()
[peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
print(seconds, int(peak) * 1024)
"""


def medians(ways: Mapping[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of each way, the ways taking turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, run in ways.items():
            start = clock()
            run()
            if turn > 0:
                found[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def budgets(model: str, workload: str) -> list[str]:
    """CPU milliseconds at one thread, by padded tokens of a batch."""
    files = TextCrossEncoder(models.SIZES[model].folder, threads=1).load().files
    encoders = {
        str(budget): OnnxCrossEncoder(files, engine=Engine(threads=1), token_budget=budget) for budget in BUDGETS
    }
    [(query, documents)] = make_groups(WORKLOADS[workload])
    ways = {name: lambda encoder=encoder: encoder.rerank(query, documents) for name, encoder in encoders.items()}
    found = medians(ways, time.process_time)
    return [f"{model} {workload}", *(f"{1000 * found[name]:,.1f}" for name in encoders)]


def side_by_side(model: str, workload: str) -> list[str]:
    """Wall milliseconds with two threads: on one batch after the other, and on batches of their own."""
    encoder = TextCrossEncoder(models.SIZES[model].folder, threads=2)
    [(query, documents)] = make_groups(WORKLOADS[workload])
    ways = {
        "serial": lambda: encoder.rerank(query, documents, parallel=1),
        "side by side": lambda: encoder.rerank(query, documents),
    }
    found = medians(ways, time.perf_counter)
    times = [f"{1000 * seconds:,.1f}" for seconds in found.values()]
    return [f"{model} {workload}", *times, f"{found['serial'] / found['side by side']:.2f}"]


def remembered_words() -> list[list[str]]:
    """CPU milliseconds to tokenize 100 new passages, by how many were read before."""
    tokenizer = load_tokenizer(models.LEXICAL / "tokenizer.json")
    calls = [documents for [(_, documents)] in make_calls(WORKLOADS["W1"], 51)]
    memo = WordMemo(lambda texts: encode_whole(tokenizer, texts))
    found: list[list[str]] = []
    for number, documents in enumerate(calls):
        start = time.process_time()
        memo(documents)
        remembered = time.process_time() - start
        if number in (0, 1, 5, 10, 20, 50):
            library = medians({"": lambda documents=documents: encode_whole(tokenizer, documents)}, time.process_time)
            found.append([f"{100 * number:,}", f"{1000 * library['']:.1f}", f"{1000 * remembered:.1f}"])
    return found


def mapped_weights(model: str) -> list[str]:
    """Seconds to open a graph and peak memory of its process: weights inside the file, and in a file beside it."""
    inside = models.SIZES[model].folder / "onnx" / "model.onnx"
    with tempfile.TemporaryDirectory(dir=models.MODELS) as folder:
        write_with_weights_beside(onnx.load(inside), Path(folder))
        ways = {"inside": inside, "beside": Path(folder) / "model.onnx"}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, path in ways.items():
                command = [sys.executable, "-c", OPEN, str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(1))
                seconds, peak = map(float, done.stdout.split())
                found[name].append((seconds, peak))
    seconds = [f"{statistics.median(one for one, _ in samples):.2f}" for samples in found.values()]
    memory = [f"{statistics.median(one for _, one in samples) / 1e6:,.0f}" for samples in found.values()]
    return [model, *seconds, *memory]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--model", action="append", choices=list(models.SIZES), metavar="NAME")
    chosen = parser.parse_args().model or list(models.SIZES)
    for model in chosen:
        models.build(models.SIZES[model])

    def show(title: str, head: list[str], rows: list[list[str]]) -> None:
        print(f"{title}\n\n{markdown_table(head, rows, numbers=head[1:])}", flush=True)

    rows = [budgets(model, workload) for model in chosen for workload in SEARCHED.get(model, ())]
    show("CPU ms at 1 thread, by padded tokens of a batch", ["", *map(str, BUDGETS)], rows)
    rows = [side_by_side(model, workload) for model in chosen for workload in SHARED.get(model, ())]
    show("Wall ms at 2 threads", ["", "one batch after the other", "side by side", "times faster"], rows)
    head = ["passages read before", "tokenizers library", "with words remembered"]
    show("CPU ms to tokenize 100 passages of 60-200 words", head, remembered_words())
    head = ["weights", "inside: s to open", "beside: s to open", "inside: peak MB", "beside: peak MB"]
    rows = [mapped_weights(model) for model in chosen if isinstance(models.SIZES[model], models.ModelSize)]
    show("Weights inside the graph's file and in a mapped file beside it", head, rows)


if __name__ == "__main__":
    main()

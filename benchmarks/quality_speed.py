"""What is the fastest, at what cost in quality: `python -m benchmarks.quality_speed MODEL COLLECTION [COLLECTION ...]`.

One table of a model's ways to run, of `embedded` and `lexical`, and of cascades: documents a second, and nDCG@10 on
collections in BEIR layout. MODEL is a folder with trained fp32 weights; where no trained cross-encoder is at hand,
`benchmarks.pair_embeddings` makes a stand-in. The int8 graphs are made here and calibrated on other texts than the
collections'. Quality is of all queries asked for, and kept in a file as it comes, so that a broken run goes on where
it was. Speed is of a few: all ways rank each in turn, at one thread, after they have read all texts; seconds are the
CPU's.
Needs the extras [evaluate], [optimize] and [openvino].
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.texts import WORKLOADS, make_groups
from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.errors import RerankError
from onnx_rerank_integrations.core.graphs.optimized import optimized_path
from onnx_rerank_integrations.core.types import Pair
from onnx_rerank_integrations.extras.evaluate import evaluate
from onnx_rerank_integrations.extras.markdown import markdown_table
from onnx_rerank_integrations.extras.quantize import batches, quantized_graph

KEEP = 0.3
CALIBRATION_SEED = 2
FP32 = "fp32"
FIRST_STAGE = "first stage alone"


class Noted(TextCrossEncoderBase):
    """An encoder that notes the pairs of its calls."""

    def __init__(self, inner: TextCrossEncoderBase) -> None:
        self.inner = inner
        self.calls: list[Sequence[Pair]] = []

    def logits(self, pairs: Sequence[Pair], **options: Any) -> Any:
        self.calls.append(pairs)
        return self.inner.logits(pairs, **options)


def int8_graphs(model: Path, out: Path) -> None:
    """The model's folder again, with both int8 graphs in it; calibrated on the benchmark's own prose."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    graph = out / "onnx" / "model.onnx"
    quantize_dynamic(graph, graph.with_name("model_dynamic.onnx"), per_channel=True, weight_type=QuantType.QInt8)
    groups = make_groups(WORKLOADS["check"], seed=CALIBRATION_SEED)
    pairs = [(query, document) for query, documents in groups for document in documents]
    encoder = TextCrossEncoder(out, optimize="off", warn_truncated=False)
    onnx.save(quantized_graph(graph, batches(encoder, pairs), mode="static"), graph.with_name("model_static.onnx"))


def ways(model: Path, top_k: int) -> dict[str, Callable[[], TextCrossEncoderBase]]:
    """How each is opened, by its name in the table.

    Args:
        model: A folder with `int8_graphs` in it.
        top_k: Candidates of a query; a cascade keeps a third of them.
    """
    keep = [max(round(KEEP * top_k), 1)]

    def opened(model: str | Path, **options: Any) -> TextCrossEncoder:
        return TextCrossEncoder(model, threads=1, warn_truncated=False, **options)

    static = {"model_file": "onnx/model_static.onnx"}
    return {
        "`lexical`": lambda: opened("lexical"),
        "`embedded`": lambda: opened("embedded"),
        f"`lexical`, then `embedded` on {keep[0]}": lambda: TextCrossEncoder.cascade(
            [opened("lexical"), opened("embedded")], keep
        ),
        FP32: lambda: opened(model, optimize="off"),
        "fp32, first-token graph": lambda: _first_token(model, opened),
        "int8 static, `onnx-rerank quantize`": lambda: opened(model, **static),
        "int8 dynamic, onnxruntime's": lambda: opened(model, model_file="onnx/model_dynamic.onnx"),
        "bf16, OpenVINO": lambda: opened(model, backend="openvino", precision="bf16"),
        "fp16, onnxruntime": lambda: opened(model, precision="fp16"),
        f"`lexical`, then fp32 on {keep[0]}": lambda: TextCrossEncoder.cascade(
            [opened("lexical"), opened(model)], keep
        ),
        f"`lexical`, then int8 static on {keep[0]}": lambda: TextCrossEncoder.cascade(
            [opened("lexical"), opened(model, **static)], keep
        ),
    }


def _first_token(model: Path, opened: Callable[..., TextCrossEncoder]) -> TextCrossEncoder:
    """The package runs the plain graph where there is no such copy; a row of this name must not."""
    if optimized_path(model / "onnx" / "model.onnx") is None:
        raise LookupError("its score isn't read from the first token")
    return opened(model, optimize="auto")


def some_queries(collection: Path, queries: int | None, out: Path) -> Path:
    """The collection with every n-th of its judged queries; itself where all are wanted."""
    if queries is None:
        return collection
    lines = (collection / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = lines[:: max(len(lines) // queries, 1)][:queries]
    ids = {json.loads(line)["_id"] for line in chosen}
    folder = out / collection.name
    folder.mkdir()
    for path in collection.iterdir():
        if path.name not in ("queries.jsonl", "qrels.tsv"):
            (folder / path.name).symlink_to(path.resolve())
    (folder / "queries.jsonl").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    head, *judgments = (collection / "qrels.tsv").read_text(encoding="utf-8").splitlines()
    kept = [head, *(line for line in judgments if line.split("\t")[0] in ids)]
    (folder / "qrels.tsv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return folder


def open_all(
    model: Path, top_k: int, only: Sequence[str] = ()
) -> tuple[dict[str, TextCrossEncoderBase], dict[str, str]]:
    """The ways that work on this model and machine, and why the others don't; `only` those of a name, where given."""
    able: dict[str, TextCrossEncoderBase] = {}
    unable: dict[str, str] = {}
    chosen = {name: make for name, make in ways(model, top_k).items() if not only or name in only}
    for name, make in chosen.items():
        try:
            encoder = make()
            encoder.rerank("what is tried", ["Whether it runs."])
        except (LookupError, RerankError) as error:
            unable[name] = str(error).splitlines()[0]
        else:
            able[name] = encoder
    return able, unable


Quality = dict[str, dict[str, float]]
"""nDCG@10 by collection and way."""


def measure_quality(
    encoders: Mapping[str, TextCrossEncoderBase], collections: Sequence[Path], top_k: int, kept: Path
) -> Quality:
    """What is in the file already, and what isn't, which is written there."""
    quality: Quality = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for collection in collections:
        found = quality.setdefault(collection.name, {})
        for name, encoder in encoders.items():
            if name not in found:
                evaluation = evaluate(collection, {name: encoder}, top_k=top_k)
                found |= {FIRST_STAGE: evaluation.first_stage.mean(), name: evaluation.models[0].mean()}
                kept.write_text(json.dumps(quality, indent=1), encoding="utf-8")
    return quality


def some_calls(collections: Sequence[Path], top_k: int, count: int) -> list[Sequence[Pair]]:
    """The pairs of so many queries, in equal shares of the collections."""
    calls: list[Sequence[Pair]] = []
    for collection in collections:
        noted = Noted(TextCrossEncoder("lexical", threads=1))
        evaluate(collection, {"noted": noted}, top_k=top_k)
        calls += noted.calls[:: max(len(noted.calls) * len(collections) // count, 1)]
    return calls


def measure_speed(encoders: Mapping[str, TextCrossEncoderBase], calls: Sequence[Sequence[Pair]]) -> dict[str, float]:
    """Documents a CPU second: the median of the calls, which all take in turn, once they have tokenized them all."""
    rates: dict[str, list[float]] = {name: [] for name in encoders}
    for encoder in encoders.values():
        encoder.token_count(pair for call in calls for pair in call)
    for turn, call in enumerate(calls):
        names = list(encoders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.process_time()
            encoders[name].logits(call)
            rates[name].append(len(call) / (time.process_time() - start))
    return {name: statistics.median(found) for name, found in rates.items()}


def table(quality: Quality, rates: Mapping[str, float], unable: Mapping[str, str]) -> str:
    """A row for each way: documents a second, against fp32; nDCG@10 of each collection, and the mean against fp32's."""
    head = ["", "documents / CPU s", "times fp32", *(f"nDCG@10, {name}" for name in quality), "against fp32"]
    rows = [[FIRST_STAGE, "", "", *(f"{found[FIRST_STAGE]:.3f}" for found in quality.values()), ""]]
    fp32 = np.mean([found[FP32] for found in quality.values()])
    for name, rate in rates.items():
        values = [found[name] for found in quality.values()]
        loss = "" if name == FP32 else f"{np.mean(values) - fp32:+.3f}"
        speed = [f"{rate:,.1f}", f"{rate / rates[FP32]:.1f}"]
        rows.append([name, *speed, *(f"{value:.3f}" for value in values), loss])
    rows += [[name, reason, "", *([""] * len(quality)), ""] for name, reason in unable.items()]
    return markdown_table(head, rows, numbers=head[1:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality_speed", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("collections", nargs="+", type=Path, metavar="COLLECTION")
    parser.add_argument("--queries", type=int, help="of each collection; all by default")
    parser.add_argument("--top-k", type=int, default=100, help="candidates of a query (default 100)")
    parser.add_argument("--calls", type=int, default=24, help="queries that speed is measured on (default 24)")
    parser.add_argument("--kept", type=Path, help="the file of what is measured already; none by default")
    parser.add_argument("--only", action="append", default=[], help="measure the quality of this way, and no speed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        int8_graphs(options.model, model)
        encoders, unable = open_all(model, options.top_k, options.only)
        chosen = [some_queries(one, options.queries, Path(folder)) for one in options.collections]
        quality = measure_quality(encoders, chosen, options.top_k, options.kept or Path(folder) / "quality.json")
        if options.only:
            return
        rates = measure_speed(encoders, some_calls(chosen, options.top_k, options.calls))
        queries = f"{options.queries} queries of each" if options.queries else "all queries"
        print(f"{machine.one_line(machine.describe())}, 1 thread; {options.top_k} candidates a query; {queries}\n")
        print(table(quality, rates, unable))


if __name__ == "__main__":
    main()

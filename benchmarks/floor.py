"""How near a call comes to what the machine can do: `python -m benchmarks.floor [--model minilm] [--workload W1]`.

Two tables, each of fresh processes.

Time, at one thread: what the matrix products of a call's graph take by themselves, in onnxruntime, with the same
shapes, batch by batch, and nothing between them. A call in fp32 can't take less: this is its floor. Beside it the whole
call, texts to scores, the two taking turns, and where its time goes by onnxruntime's own profile.

Memory, at two threads: the process with the libraries imported, with the model open, and at its largest in a call.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import limit, machine, models
from benchmarks.sample import _peak_bytes, _reset_peak, environment
from benchmarks.texts import WORKLOADS, make_calls

ROUNDS = 7
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm")
ASKED_SHARE = 0.92
SMALLEST_SHARE = 0.005
ASKED_AT_REST = 60e6
ASKED_CALL = 64e6

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """A matrix product that a graph computes: (..., rows, inner) by (inner, columns) or (..., inner, columns).

    Attributes:
        constant: Whether the second factor is a weight, which onnxruntime packs when the graph is opened.
    """

    name: str
    left: Shape
    right: Shape
    constant: bool

    @property
    def operations(self) -> float:
        """Multiplications and additions."""
        *outer, rows, inner = self.left
        size = 2.0 * rows * inner * self.right[-1]
        for axis in outer:
            size *= axis
        return size


def product_of(event: dict[str, Any], weights: Mapping[str, Shape]) -> Product | None:
    """What a node's event in onnxruntime's profile says of its product; None where the node is none.

    Args:
        event: Of a node's kernel.
        weights: The shapes (inner, columns) of second factors that are constants, by the node's name: packed ones are
            no inputs any more, and the profile doesn't tell their shapes.
    """
    settings = event["args"]
    if settings.get("op_name") not in PRODUCTS:
        return None
    name = event["name"].removesuffix("_kernel_time")
    left, *others = (tuple(next(iter(one.values()))) for one in settings["input_type_shape"])
    output = tuple(next(iter(settings["output_type_shape"][0].values())))
    rows, columns = output[-2:]
    inner = left[-1] if left[-2] == rows else left[-2]  # a fused product may take its first factor transposed
    outer = () if name in weights else others[0][:-2]
    return Product(name, (*output[:-2], rows, inner), (*outer, inner, columns), name in weights)


def profile(graph: Path, feeds: Sequence[dict[str, Any]]) -> tuple[dict[str, float], list[list[Product]]]:
    """Seconds of each operator over all feeds, and the products of each feed, by onnxruntime's profile."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(optimized)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        session.run(None, feeds[0])
        for feed in feeds:
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        weights = constant_factors(optimized)
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    each = len(nodes) // (len(feeds) + 1)
    nodes = nodes[each:]  # the first run was to warm up
    seconds: dict[str, float] = defaultdict(float)
    for event in nodes:
        seconds[event["args"]["op_name"]] += event["dur"] / 1e6
    runs = [nodes[start : start + each] for start in range(0, len(nodes), each)]
    products = [[found for event in run if (found := product_of(event, weights))] for run in runs]
    return dict(sorted(seconds.items(), key=lambda one: -one[1])), products


def constant_factors(graph: Path) -> dict[str, Shape]:
    """The shapes of the second factors that are constants, by the name of the product's node."""
    import onnx

    model = onnx.load(graph, load_external_data=False)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return {
        node.name: shapes[node.input[1]]
        for node in model.graph.node
        if node.op_type in PRODUCTS and node.input[1] in shapes
    }


class ProductsAlone:
    """The products of a graph, one after the other and nothing between them.

    Each weight is a session of its own, packed as the model's are. First factors and results share one place in memory
    for each shape, so that no product waits for memory longer than it would in the model.
    """

    def __init__(self, products: Sequence[Product]) -> None:
        import numpy as np

        self._chance = np.random.default_rng(0)
        self._buffers: dict[tuple[str, Shape], Any] = {}
        self._sessions = [self._session(one) for one in products]

    def _session(self, product: Product) -> Any:
        import numpy as np
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        names = ["left", "right"]
        axes = [[None] * len(product.left), [None] * len(product.right)]
        given = [helper.make_tensor_value_info(*one) for one in zip(names, [TensorProto.FLOAT] * 2, axes, strict=True)]
        weights = []
        if product.constant:
            weights = [numpy_helper.from_array(self._chance.standard_normal(product.right, np.float32), "right")]
        graph = helper.make_graph(
            [helper.make_node("MatMul", names, ["out"])],
            "product",
            given[: 1 if product.constant else 2],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, axes[0])],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def prepare(self, products: Sequence[Product]) -> list[Any]:
        """One batch's products with random factors of its shapes, ready to run."""
        bindings = []
        for session, one in zip(self._sessions, products, strict=True):
            binding = session.io_binding()
            binding.bind_ortvalue_input("left", self._buffer("left", one.left))
            if not one.constant:
                binding.bind_ortvalue_input("right", self._buffer("right", one.right))
            binding.bind_ortvalue_output("out", self._buffer("out", (*one.left[:-1], one.right[-1])))
            bindings.append(binding)
        return bindings

    def _buffer(self, role: str, shape: Shape) -> Any:
        import numpy as np
        import onnxruntime

        if (role, shape) not in self._buffers:
            values = self._chance.standard_normal(shape, np.float32)
            self._buffers[role, shape] = onnxruntime.OrtValue.ortvalue_from_numpy(values)
        return self._buffers[role, shape]

    def run(self, bindings: Sequence[Any]) -> None:
        for session, binding in zip(self._sessions, bindings, strict=True):
            session.run_with_iobinding(binding)


def batches_of(encoder: Any, query: str, documents: Sequence[str]) -> list[dict[str, Any]]:
    """What a call feeds the graph, batch by batch."""
    return [dict(feed) for feed in encoder.load().feeds([(query, document) for document in documents])]


def measure_time(model: str, workload: str) -> dict[str, Any]:
    """In this process: the floor and the call, in turns."""
    from onnx_rerank_integrations import TextCrossEncoder
    from onnx_rerank_integrations.core.graphs.optimized import optimized_path

    folder = models.SIZES[model].folder
    graph = optimized_path(folder / "onnx" / "model.onnx") or folder / "onnx" / "model.onnx"
    encoder = TextCrossEncoder(folder, threads=1)
    calls = make_calls(WORKLOADS[workload], ROUNDS + 1)
    [(query, documents)] = calls[0]
    feeds = batches_of(encoder, query, documents)
    operators, products = profile(graph, feeds)
    alone = ProductsAlone(products[0])
    bindings = [alone.prepare(batch) for batch in products]
    encoder.rerank(query, documents)
    floors, whole = [], []
    for turn in range(ROUNDS + 1):
        start = time.process_time()
        for binding in bindings:
            alone.run(binding)
        middle = time.process_time()
        # The same texts as the floor's, as different ones would have other shapes; the words are known from the
        # first call on, which is worth 0.01 s of it.
        encoder.rerank(query, documents)
        end = time.process_time()
        if turn:
            floors.append(middle - start)
            whole.append(end - middle)
    operations = sum(one.operations for batch in products for one in batch)
    shares = [floor / call for floor, call in zip(floors, whole, strict=True)]
    return {
        "batches": len(feeds),
        "operations": operations,
        "with weights": sum(one.operations for batch in products for one in batch if one.constant),
        "best rate": limit.best_rate(1),
        "floor": statistics.median(floors),
        "call": statistics.median(whole),
        "share": statistics.median(shares),
        "shares": [min(shares), max(shares)],
        "operators": operators,
    }


def memory() -> dict[str, int]:
    """Bytes of this process: resident, its share of what it shares, and what no file holds; largest since the reset."""
    found = {"largest": _peak_bytes()}
    names = {"Rss:": "resident", "Pss:": "proportional", "Anonymous:": "anonymous"}
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines():
        key, *rest = line.split()
        if key in names:
            found[names[key]] = int(rest[0]) * 1024
    return found


def measure_memory(model: str, workload: str, threads: int) -> Iterator[tuple[str, dict[str, int]]]:
    """In this process: before and after opening the model, and after a call, whose peak counts from its beginning."""
    [[(query, documents)]] = make_calls(WORKLOADS[workload], 1)
    _reset_peak()
    from onnx_rerank_integrations import TextCrossEncoder
    from onnx_rerank_integrations.core.engine.onnxruntime import onnxruntime

    onnxruntime()
    import tokenizers  # noqa: F401  # what a process has before it opens a model

    yield "libraries imported", memory()
    # onnxruntime's code is read from its file when something runs; the lexical model has 0.2 MB of its own.
    TextCrossEncoder("lexical", threads=threads).rerank("history of Angola", ["Angola won its independence in 1975."])
    yield "libraries in use", memory()
    encoder = TextCrossEncoder(models.SIZES[model].folder, threads=threads)
    encoder.rerank("history of Angola", ["Angola won its independence in 1975."])
    _reset_peak()
    yield "model open", memory()
    encoder.rerank(query, documents)
    yield "after a call", memory()


def in_a_process(what: str, model: str, workload: str, threads: int) -> dict[str, Any]:
    """What `measure_time` or `measure_memory` finds in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.floor", "--in-process", what]
    command += ["--model", model, "--workload", workload, "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment(threads))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report_time(found: dict[str, Any]) -> str:
    """The first table."""
    from onnx_rerank_integrations.extras.markdown import markdown_table

    rate = found["operations"] / found["floor"]
    rows = [
        ["operations of the products", f"{found['operations'] / 1e9:,.1f} billion"],
        ["of these with weights, the others are attention's", f"{found['with weights'] / 1e9:,.1f} billion"],
        ["the products alone, same shapes, one thread: the floor", f"{found['floor']:.3f} s"],
        ["the rate they reach", f"{rate / 1e9:.0f} GFLOP/s"],
        ["the best rate of any product on this machine", f"{found['best rate'] / 1e9:.0f} GFLOP/s"],
        ["the whole call, texts to scores", f"{found['call']:.3f} s"],
        [
            f"share of the floor (asked: {ASKED_SHARE:.0%})",
            f"{found['share']:.1%} ({found['shares'][0]:.1%} to {found['shares'][1]:.1%})",
        ],
    ]
    total = sum(found["operators"].values())
    profiled = [
        [name, f"{seconds / total:.1%}"] for name, seconds in found["operators"].items() if seconds > total / 200
    ]
    head = markdown_table(["CPU time", ""], rows, numbers=[""])
    body = markdown_table(["operator", "share"], profiled, numbers=["share"])
    return f"{head}\n{found['batches']} batches; by operator (onnxruntime's profile, one run):\n\n{body}"


def report_memory(found: dict[str, dict[str, int]]) -> str:
    """The second table."""
    from onnx_rerank_integrations.extras.markdown import markdown_table

    columns = ["resident", "proportional", "anonymous", "largest"]
    rows = [[name, *(f"{found[name][column] / 1e6:,.0f}" for column in columns)] for name in found]
    imported, bare, rest, call = (found[name] for name in found)
    for name, before in (("imported", imported), ("in use", bare)):
        gains = [f"{(rest[column] - before[column]) / 1e6:,.0f}" for column in columns[:3]]
        rows.append([f"at rest over the libraries {name} (asked: {ASKED_AT_REST / 1e6:.0f})", *gains, ""])
    added = (call["largest"] - rest["resident"]) / 1e6
    rows.append([f"a call over the model at rest (asked: {ASKED_CALL / 1e6:.0f})", "", "", "", f"{added:,.0f}"])
    return markdown_table(["MB", *columns], rows, numbers=columns)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    parser.add_argument("--model", choices=list(models.SIZES), default="minilm")
    parser.add_argument("--workload", choices=["W1", "W1-20", "W4"], default="W1")
    parser.add_argument("--threads", type=int, default=2, help="of the memory table; times are of one")
    parser.add_argument("--in-process", choices=["time", "memory"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process == "time":
        print(json.dumps(measure_time(options.model, options.workload)))
    elif options.in_process == "memory":
        print(json.dumps(dict(measure_memory(options.model, options.workload, options.threads))))
    else:
        models.build(models.SIZES[options.model])
        print(f"{options.model} {options.workload}, {machine.one_line(machine.describe())}\n")
        print(report_time(in_a_process("time", options.model, options.workload, 1)))
        print(f"{options.threads} threads:\n")
        print(report_memory(in_a_process("memory", options.model, options.workload, options.threads)))


if __name__ == "__main__":
    main()

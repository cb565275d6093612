"""The machine's limit: how many fp32 operations a second onnxruntime gets out of it where it multiplies matrices only.

Run by the harness as `python -m benchmarks.limit THREADS` in a fresh process.
"""

import json
import subprocess
import sys
import time

from benchmarks.sample import environment

# Rows, inner and columns of the matrices: large enough that starting an operator costs nothing, small enough for the
# cache. The best of several is the limit.
SHAPES = ((512, 384, 1536), (512, 768, 3072), (1024, 1024, 1024))
SECONDS_PER_SHAPE = 0.5
# Matrices multiplied in one run, so that the call from Python doesn't count.
CHAIN = 8


def measure(threads: int) -> float:
    """Operations per second at a number of threads, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.limit", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(threads))
    return float(json.loads(done.stdout.splitlines()[-1]))


def best_rate(threads: int) -> float:
    """The highest rate over `SHAPES`, in this process."""
    return max(_rate(shape, threads) for shape in SHAPES)


def _rate(shape: tuple[int, int, int], threads: int) -> float:
    import numpy as np
    import onnxruntime

    rows, inner, columns = shape
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(_graph(inner, columns), options, providers=["CPUExecutionProvider"])
    chance = np.random.default_rng(0)
    feeds = {f"x{place}": chance.random((rows, inner), dtype=np.float32) for place in range(CHAIN)}
    session.run(None, feeds)
    fastest = float("inf")
    end = time.perf_counter() + SECONDS_PER_SHAPE
    while time.perf_counter() < end:
        # CPU time, which other processes don't lengthen: all threads work until the last product is done.
        start = time.process_time()
        session.run(None, feeds)
        fastest = min(fastest, (time.process_time() - start) / threads)
    return 2.0 * rows * inner * columns * CHAIN / fastest


def _graph(inner: int, columns: int) -> bytes:
    """Independent products with constant weights, which onnxruntime packs beforehand as it does a model's."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    float32 = TensorProto.FLOAT
    chance = np.random.default_rng(1)
    weights = chance.random((CHAIN, inner, columns), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", [f"x{place}", f"w{place}"], [f"y{place}"]) for place in range(CHAIN)],
        "products",
        [helper.make_tensor_value_info(f"x{place}", float32, [None, inner]) for place in range(CHAIN)],
        [helper.make_tensor_value_info(f"y{place}", float32, [None, columns]) for place in range(CHAIN)],
        [numpy_helper.from_array(weights[place], f"w{place}") for place in range(CHAIN)],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


if __name__ == "__main__":
    print(json.dumps(best_rate(int(sys.argv[1]))))

"""What int8 graphs score on other CPUs: `python -m benchmarks.int8_cpus GRAPH... [--on "COMMAND"]`.

The same inputs on this CPU and on others, which qemu-user emulates with onnxruntime's own kernels for them (Debian's
package is qemu-user). Without `--on` that is a Haswell: AVX2 and no VNNI. Each `--on` is a Python with numpy and
onnxruntime for the emulated CPU, such as, with a folder that holds an ARM system and one of packages for it,
"env PYTHONPATH=PACKAGES qemu-aarch64 -L FOLDER -cpu neoverse-n1 FOLDER/usr/bin/python3.11".
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Runs in the emulated Python too, which has none of this project.
SCORE = """
import json, sys
import numpy as np, onnxruntime
chance = np.random.default_rng(0)
ids = chance.integers(1000, 8000, (8, 48))
ids[:, 0] = 101
types = np.zeros_like(ids)
types[:, 8:] = 1
feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
found = []
for path in sys.argv[1:]:
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    found.append(session.run(None, {name: feeds[name] for name in names})[0].ravel().astype(float).tolist())
print(json.dumps(["onnxruntime " + onnxruntime.__version__, found]))
"""
HERE = "this CPU"


def score(python: Sequence[str], graphs: Sequence[Path]) -> tuple[str, list[list[float]]]:
    """The version of onnxruntime there, and the scores of each graph.

    Raises:
        SystemExit: It doesn't run there; the message is its last line.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    command = [*python, "-c", SCORE, *map(str, graphs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{shlex.join(python)} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    version, found = json.loads(done.stdout.splitlines()[-1])
    return version, found


def rows(graphs: Sequence[Path], emulated: Sequence[str]) -> list[list[str]]:
    """For each graph and CPU: how far the scores are from this CPU's, on average and at most."""
    version, expected = score([sys.executable], graphs)
    table = [[graph.name, HERE, version, "", ""] for graph in graphs]
    for command in emulated:
        version, found = score(shlex.split(command), graphs)
        for graph, before, after in zip(graphs, expected, found, strict=True):
            moved = [abs(one - other) for one, other in zip(before, after, strict=True)]
            cpu = shlex.split(command)[shlex.split(command).index("-cpu") + 1] if "-cpu" in command else command
            table.append([graph.name, cpu, version, f"{sum(moved) / len(moved):.1e}", f"{max(moved):.1e}"])
    return sorted(table, key=lambda row: [graph.name for graph in graphs].index(row[0]))


def main() -> None:
    from onnx_rerank_integrations.extras.markdown import markdown_table

    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8_cpus", description=__doc__)
    parser.add_argument("graphs", nargs="+", type=Path, metavar="GRAPH")
    parser.add_argument("--on", action="append", metavar="COMMAND")
    options = parser.parse_args()
    emulated = options.on or [f"qemu-x86_64 -cpu Haswell {Path(sys.executable).resolve()}"]
    head = ["graph", "CPU", "with", "scores move by", "at most"]
    print(markdown_table(head, rows(options.graphs, emulated), numbers=head[3:]))


if __name__ == "__main__":
    main()

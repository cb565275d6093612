"""Breaks the pure parts of the core, one small change at a time, and runs their tests on each broken copy.

A change that no test notices is a survivor: it is printed, and fails the run unless `survivors.json` names it with the
reason why it changes no behaviour. Takes some minutes: each change costs a test run of its modules.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = "onnx_rerank_integrations/core"

TARGETS = {
    f"{CORE}/scoring.py": ("tests/test_scoring.py", "tests/test_cross_encoder.py"),
    f"{CORE}/batching.py": ("tests/test_batching.py", "tests/test_cross_encoder.py"),
    f"{CORE}/checks.py": ("tests/test_cross_encoder.py", "tests/test_cascade.py", "tests/test_timeouts.py"),
    f"{CORE}/base.py": ("tests/test_cross_encoder.py", "tests/test_timeouts.py"),
    f"{CORE}/cascade.py": ("tests/test_cascade.py",),
    f"{CORE}/score_cache.py": ("tests/test_cache.py", "tests/test_identity.py"),
    f"{CORE}/model/identity.py": ("tests/test_identity.py", "tests/test_cache.py"),
    f"{CORE}/tokens/pairs.py": ("tests/test_tokenization.py", "tests/test_parity.py"),
}
"""What is broken, and the tests that must notice."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Each changed source, and what was changed: its line, before and after."""
    tree = ast.parse(source)
    for index, node in enumerate(ast.walk(tree)):
        for change in changes(node):
            broken = copy.deepcopy(tree)
            target = list(ast.walk(broken))[index]
            before = ast.unparse(target)
            apply(target, change)
            yield ast.unparse(ast.fix_missing_locations(broken)), f"{before}  ->  {ast.unparse(target)}"


def changes(node: ast.AST) -> Iterator[str]:
    """The ways in which this node can be broken."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield "comparison"
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS and not is_type(node):
        yield "operator"
    elif isinstance(node, ast.BoolOp):
        yield "and or"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield "unary"
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        yield "constant"
    elif isinstance(node, ast.IfExp):
        yield "branches"
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "return"


def is_type(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.BitOr)


def apply(node: ast.AST, change: str) -> None:
    if isinstance(node, ast.Compare):
        node.ops[0] = COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp):
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        if isinstance(node.op, ast.Not):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant):
        node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.IfExp):
        node.body, node.orelse = node.orelse, node.body
    elif isinstance(node, ast.Return):
        node.value = ast.Constant(None)


def survives(path: str, broken: str, work: Path) -> bool:
    """Whether the tests pass on a copy of the package that has this file broken."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        copied = Path(folder)
        shutil.copytree(ROOT / "onnx_rerank_integrations", copied / "onnx_rerank_integrations")
        for name in ("tests", "pyproject.toml", "docs", "notebooks", "README.md", "benchmarks"):
            (copied / name).symlink_to(ROOT / name)
        (copied / path).write_text(broken, encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow"]
        command += ["--rootdir", folder, "-o", "timeout=60", "--import-mode=importlib", *TARGETS[path]]
        try:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=180)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.systematic", description=__doc__)
    parser.add_argument("files", nargs="*", default=list(TARGETS), help="of those in TARGETS; all by default")
    parser.add_argument("--share", type=float, default=1.0, help="the part of the changes that is tried, 0..1")
    parser.add_argument("--seconds", type=float, default=1800.0, help="begin no more changes after that time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    known = json.loads(Path(__file__).with_name("survivors.json").read_text(encoding="utf-8"))
    rng = random.Random(arguments.seed)
    jobs = [
        (path, broken, what)
        for path in arguments.files
        for broken, what in mutants((ROOT / path).read_text(encoding="utf-8"))
        if rng.random() < arguments.share
    ]
    rng.shuffle(jobs)
    end = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(arguments.jobs) as pool:

        def tried(job: tuple[str, str, str]) -> bool | None:
            return None if time.monotonic() > end else survives(job[0], job[1], Path(work))

        results = list(pool.map(tried, jobs))
    survivors = [f"{path}: {what}" for (path, _, what), alive in zip(jobs, results, strict=True) if alive]
    unexplained = sorted(set(survivors) - set(known))
    for one in unexplained:
        print("SURVIVED", one)
    done = sum(result is not None for result in results)
    print(
        f"mutation: {done:,} of {len(jobs):,} changes tried, {done - len(survivors):,} noticed, "
        f"{len(survivors) - len(unexplained)} known to change nothing, {len(unexplained)} survived"
    )
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())

"""Breaks the pure parts of the core, one small change at a time, and runs their tests on each broken copy.

A change that no test notices is a survivor: it is printed with its place, and fails the run unless `survivors.json`
names it with the reason why it changes no behaviour. An explanation hangs on the text of the line, not on its number.

Each change costs some forks of a process that has the libraries loaded: one for each file of tests, up to the first
test that fails. Those that noticed an earlier change come first.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = "onnx_rerank_integrations/core"
SURVIVORS = Path(__file__).with_name("survivors.json")

TARGETS = {
    f"{CORE}/scoring.py": ("tests/test_scoring.py", "tests/test_cross_encoder.py", "tests/test_parity.py"),
    f"{CORE}/batching.py": ("tests/test_batching.py", "tests/test_cross_encoder.py"),
    f"{CORE}/checks.py": ("tests/test_checks.py", "tests/test_cross_encoder.py"),
    f"{CORE}/base.py": ("tests/test_base.py", "tests/test_cross_encoder.py", "tests/test_timeouts.py"),
    f"{CORE}/cascade.py": ("tests/test_cascade.py",),
    f"{CORE}/score_cache.py": ("tests/test_cache.py", "tests/test_identity.py"),
    f"{CORE}/model/identity.py": ("tests/test_identity.py", "tests/test_cache.py"),
    f"{CORE}/tokens/pairs.py": ("tests/test_pairs.py", "tests/test_parity.py", "tests/test_tokenization.py"),
}
"""What is broken, and the tests that must notice: one file after the other, the quickest first."""

LIBRARIES = (
    *("numpy", "onnx", "onnxruntime", "tokenizers", "huggingface_hub", "hypothesis", "pydantic", "httpx", "typer"),
    *("rich", "langchain_core.retrievers", "langchain_core.vectorstores", "llama_index.core"),
)
"""Loaded once, before the forks; those that aren't installed are left out."""

PATIENCE = 300.0
"""Seconds for one broken copy: a change that makes a test wait for ever is noticed too."""

PROMOTED = 12
"""Most tests of a file that are run first because they noticed earlier changes."""

GREEN = 0
NOTICED = (1, 2)
"""pytest's exit codes for a test that failed, and for a file that couldn't be imported any more."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One file with one thing changed."""

    path: str
    number: int
    """The line's."""
    line: str
    """The line as it is."""
    what: str
    """The node before and after, numbered where a line, or an equal one, has several of them."""
    source: str
    """The whole file, changed."""

    @property
    def key(self) -> str:
        """What `survivors.json` knows it by."""
        return f"{self.path}: {self.line}  :  {self.what}"

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.line}\n         {self.what}"


def changes_of(path: str) -> Iterator[Change]:
    """Each way in which a file is broken."""
    source = (ROOT / path).read_text(encoding="utf-8")
    lines = source.splitlines()
    tree = ast.parse(source)
    met: Counter[tuple[str, str]] = Counter()
    left = {id(part) for node in ast.walk(tree) for decorator in decorators(node) for part in ast.walk(decorator)}
    for index, node in enumerate(ast.walk(tree)):
        for kind in kinds(node) if id(node) not in left else ():
            broken = copy.deepcopy(tree)
            target = list(ast.walk(broken))[index]
            before = ast.unparse(target)
            apply(target, kind)
            number = getattr(node, "lineno", 0)
            line, what = lines[number - 1].strip(), f"{before}  ->  {ast.unparse(target)}"
            met[line, what] += 1
            if met[line, what] > 1:
                what += f"  ({met[line, what]})"
            yield Change(path, number, line, what, ast.unparse(ast.fix_missing_locations(broken)))


def kinds(node: ast.AST) -> Iterator[str]:
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
    elif isinstance(node, ast.Return) and node.value is not None and not is_none(node.value):
        yield "return"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not is_note(node.value):
        yield "call"


def is_type(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.BitOr)


def is_note(call: ast.Call) -> bool:
    """Whether it's a line in the debug log, which nobody is promised."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "debug"


def decorators(node: ast.AST) -> list[ast.expr]:
    """Those of a class or function, whose flags (frozen, slots) forbid what the code doesn't do anyway."""
    return getattr(node, "decorator_list", [])


def is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def apply(node: ast.AST, kind: str) -> None:
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
        node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1  # type: ignore[operator]
    elif isinstance(node, ast.IfExp):
        node.body, node.orelse = node.orelse, node.body
    elif isinstance(node, ast.Return | ast.Expr):
        node.value = ast.Constant(None)


class Copy:
    """A copy of the package, in which one file is broken at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changes = 0
        ignore = shutil.ignore_patterns("__pycache__", "models")
        shutil.copytree(ROOT / "onnx_rerank_integrations", folder / "onnx_rerank_integrations", ignore=ignore)
        (folder / "onnx_rerank_integrations" / "models").symlink_to(ROOT / "onnx_rerank_integrations" / "models")
        for name in ("tests", "pyproject.toml", "docs", "notebooks", "README.md", "benchmarks", "packages"):
            (folder / name).symlink_to(ROOT / name)

    def begin(self, tests: Sequence[str], change: Change | None) -> int:
        """Forks a child that runs the tests; gives its number."""
        for path in TARGETS:
            sound = (ROOT / path).read_text(encoding="utf-8")
            text = change.source if change and change.path == path else sound
            if (self.folder / path).read_text(encoding="utf-8") != text:
                (self.folder / path).write_text(text, encoding="utf-8")
                self.changes += 1  # a time of its own: bytecode is known by the time, in seconds, and the size
                os.utime(self.folder / path, (self.changes, self.changes))
        child = os.fork()
        if child == 0:
            try:
                os._exit(self._run(tests))
            finally:
                os._exit(70)
        return child

    @property
    def printed(self) -> str:
        return (self.folder / "printed").read_text(encoding="utf-8", errors="replace")

    def _run(self, tests: Sequence[str]) -> int:
        os.setpgid(0, 0)
        file = os.open(self.folder / "printed", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(self.folder)
        os.environ |= {"PYTHONPATH": str(self.folder), "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode")}
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "onnx_rerank_integrations")]:
            del sys.modules[name]
        sys.path[:] = [str(self.folder), *(one for one in sys.path if one not in ("", str(ROOT)))]
        options = ["-q", "-x", "--no-header", "--tb=no", "--assert=plain", "-p", "no:cacheprovider"]
        options += ["-m", "not slow", "-o", "timeout=60"]
        return int(pytest.main([*options, "--rootdir", str(self.folder), *tests]))


@dataclass
class Trial:
    """A change, and the files of tests that haven't been asked yet."""

    change: Change
    tests: list[str]


class Runner:
    """Runs the tests on many broken copies, some at once."""

    def __init__(self, work: Path, jobs: int) -> None:
        self.copies = [Copy(work / str(number)) for number in range(jobs)]
        self.first: dict[tuple[str, str], list[str]] = {}
        """By file and its tests: those that noticed a change of it."""

    def survivors(self, changes: Sequence[Change], until: float) -> tuple[list[Change], int]:
        """Those that no test noticed, and how many were tried before the time was over."""
        waiting = [Trial(change, list(TARGETS[change.path])) for change in reversed(changes)]
        alive: list[Change] = []
        tried = 0
        running: dict[int, tuple[Copy, Trial, float]] = {}
        free = list(self.copies)
        while running or (waiting and time.monotonic() < until):
            while free and waiting and time.monotonic() < until:
                copied, trial = free.pop(), waiting.pop()
                child = copied.begin(self.tests(trial.change.path, trial.tests[0]), trial.change)
                running[child] = copied, trial, time.monotonic()
            for child, (copied, trial, begun) in list(running.items()):
                code = self.ended(child, begun)
                if code is None:
                    continue
                del running[child]
                free.append(copied)
                if code == GREEN and len(trial.tests) > 1:
                    waiting.append(Trial(trial.change, trial.tests[1:]))
                    continue
                tried += 1
                if code == GREEN:
                    alive.append(trial.change)
                    print("alive   ", trial.change, flush=True)
                elif code in NOTICED or code < 0:
                    self.promote(trial, copied.printed)
                else:
                    raise SystemExit(f"{trial.tests[0]} didn't run ({code}):\n{copied.printed[-2000:]}")
            time.sleep(0.02)
        return alive, tried

    def tests(self, path: str, file: str) -> list[str]:
        return [*self.first.get((path, file), []), file]

    def promote(self, trial: Trial, printed: str) -> None:
        first = self.first.setdefault((trial.change.path, trial.tests[0]), [])
        for line in printed.splitlines():
            test = line.split()[1] if line.startswith("FAILED ") else ""
            if test.startswith(trial.tests[0]) and ("[" not in test or test.endswith("]")):
                first[:] = [test, *(one for one in first if one != test)][:PROMOTED]

    def ended(self, child: int, begun: float) -> int | None:
        """pytest's exit code; negative where it was killed, None while it runs."""
        done, status = os.waitpid(child, os.WNOHANG)
        if not done and time.monotonic() - begun < PATIENCE:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what its tests started, too
        if not done:
            os.waitpid(child, 0)
            return -signal.SIGKILL
        return os.waitstatus_to_exitcode(status)

    def check_sound(self, paths: Sequence[str]) -> None:
        """Ends the run where the tests, in the order in which they are run, don't pass on the sound package."""
        for path in paths:
            for file in TARGETS[path]:
                copied, begun = self.copies[0], time.monotonic()
                child = copied.begin(self.tests(path, file), None)
                while (code := self.ended(child, begun)) is None:
                    time.sleep(0.05)
                if code != GREEN:
                    raise SystemExit(f"{file} doesn't pass as it is:\n{copied.printed[-3000:]}")


def load_libraries() -> None:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.systematic", description=__doc__)
    parser.add_argument("files", nargs="*", default=list(TARGETS), help="of those in TARGETS; all by default")
    parser.add_argument("--share", type=float, default=1.0, help="the part of the changes that is tried, 0..1")
    parser.add_argument("--seconds", type=float, default=36_000.0, help="begin no more changes after that time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="changes whose line or change holds this text")
    arguments = parser.parse_args()
    known = json.loads(SURVIVORS.read_text(encoding="utf-8"))
    rng = random.Random(arguments.seed)
    changes = [
        change
        for path in arguments.files
        for change in changes_of(path)
        if rng.random() < arguments.share and arguments.only in change.key
    ]
    stale = sorted({key for key in known if key.partition(":")[0] in arguments.files} - {one.key for one in changes})
    load_libraries()
    with tempfile.TemporaryDirectory(prefix="mutation-") as work:
        runner = Runner(Path(work), arguments.jobs)
        alive, tried = runner.survivors(changes, time.monotonic() + arguments.seconds)
        runner.check_sound(arguments.files)  # in the order that it has become, too
    unexplained = [change for change in alive if change.key not in known]
    for change in unexplained:
        print("SURVIVED", change)
    if stale and arguments.share == 1 and not arguments.only:
        print("no longer in the code, though survivors.json explains it:", *stale, sep="\n    ")
    print(
        f"mutation: {tried:,} of {len(changes):,} changes tried, {tried - len(alive):,} noticed, "
        f"{len(alive) - len(unexplained)} known to change nothing, {len(unexplained)} survived"
    )
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())

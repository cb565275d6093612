"""A copy of the repository that may be broken, and what its tests say then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
COPIED = (
    "onnx_rerank_integrations",
    "tests",
    "benchmarks",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "docs",
    "packages",
)
NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*", "results", "*.partial")

GREEN, RED = 0, 1
"""pytest's exit codes for tests that passed and tests that failed; any other means that they didn't run."""

Outcome = Literal["killed", "survived", "not run"]


@dataclass(frozen=True)
class Tree:
    """A copy of the repository in a temporary folder."""

    root: Path

    @contextmanager
    def changed(self, file: str, text: str) -> Iterator[None]:
        """Inside the block, a file of the copy holds another text."""
        path = self.root / file
        before = path.read_text(encoding="utf-8")
        path.write_text(text, encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(before, encoding="utf-8")

    def outcome(self, tests: Sequence[str], *, timeout: float = 300) -> tuple[Outcome, str]:
        """Whether the tests, pytest's node ids, notice; with the end of what pytest printed.

        Tests that don't end are killed mutants too: the change made them wait for ever.
        """
        command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *tests]
        # No bytecode: a file that is changed twice within a second, to the same size, would be taken for the old one.
        environment = os.environ | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            return "killed", f"no end within {timeout:.0f} s"
        outcomes: dict[int, Outcome] = {GREEN: "survived", RED: "killed"}
        return outcomes.get(done.returncode, "not run"), done.stdout[-1500:] + done.stderr[-500:]


@contextmanager
def copied_tree() -> Iterator[Tree]:
    """The repository as it is on the disk, uncommitted changes included, in a folder that is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, Path(folder) / name, ignore=NOT_COPIED)
            elif source.is_file():
                shutil.copy2(source, Path(folder) / name)
        yield Tree(Path(folder))

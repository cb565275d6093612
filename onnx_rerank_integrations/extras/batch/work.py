"""What a job keeps until it is done: the logits of each block, in a folder beside the output.

A block is a file that appears whole, by renaming it, so whatever is there after a kill can be used. The same command
goes on with it; another job doesn't mix with it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.core.model.storage import replacing, write_atomically
from onnx_rerank_integrations.core.scoring import Floats

UNFINISHED = ".unfinished"


class Work:
    """A job's folder, which one process at a time may use.

    Args:
        out: The job's output, which it lies beside.
        job: What the logits depend on, as JSON has it.
        overwrite: Drop the logits of another job.

    Raises:
        InputValueError: Another process uses it, or the logits there are another job's.
    """

    def __init__(self, out: Path, job: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self._job = json.loads(json.dumps(job))
        self._overwrite = overwrite
        self.folder = out.with_name(out.name + UNFINISHED)
        self._logits = self.folder / "logits"
        self._lock = FileLock(str(out.with_name(f"{out.name}{UNFINISHED}.lock")))

    def __enter__(self) -> Self:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputValueError(
                f"another process is writing {self.folder.name.removesuffix(UNFINISHED)}: wait for it, or name another"
            ) from error
        try:
            self._claim()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _claim(self) -> None:
        note = self.folder / "job.json"
        if note.exists():
            before = json.loads(note.read_text(encoding="utf-8"))
            if before == self._job:
                return
            if not self._overwrite:
                raise InputValueError(
                    f"{self.folder} holds the scores of another job: {differences(before, self._job)}.\nFinish that "
                    "with its own command, name another output, or drop it (overwrite=True, --overwrite)."
                )
        shutil.rmtree(self.folder, ignore_errors=True)
        self._logits.mkdir(parents=True)
        write_atomically(note, json.dumps(self._job, indent=1))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            shutil.rmtree(self.folder)
        self._lock.release()
        if kind is None:
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def scored(self) -> set[int]:
        """The first rows of the blocks that have logits."""
        return {int(path.stem) for path in self._logits.glob("*.npy")}

    def put(self, first_row: int, logits: Floats) -> None:
        with replacing(self._path(first_row)) as temporary, temporary.open("wb") as file:
            np.save(file, logits)
            file.flush()
            os.fsync(file.fileno())

    def logits(self, first_row: int) -> Floats:
        found: Floats = np.load(self._path(first_row), allow_pickle=False)
        return found

    def _path(self, first_row: int) -> Path:
        return self._logits / f"{first_row:012}.npy"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What isn't the same in two descriptions of a job, for messages."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} was {before.get(name)!r:.120}, now {now.get(name)!r:.120}" for name in names)

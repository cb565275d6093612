"""One score cache for many processes, spoiled in every way while they score: each answer is the model's own."""

from __future__ import annotations

import json
import logging
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.core import score_cache
from tests.soak import WHOLE

PROCESSES, FEW = 20, 5
STARTS, SPOILT = 10, 500
"""Of the long form: times that many processes start at once, and faults."""
FAULTS = (
    "removed",
    "folder removed",
    "overwritten",
    "emptied",
    "cut",
    "bits",
    "writable by others",
    "a folder",
    "locked",
)

WORKER = """
import sys, time
from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.core import score_cache
import onnxruntime, tokenizers, huggingface_hub
score_cache.BUSY_SECONDS = score_cache.START_SECONDS = 300.0  # who waits gets in, however slow the machine
while time.time() < float(sys.argv[2]): pass
encoder = TextCrossEncoder("lexical", score_cache=sys.argv[1])
print(encoder.rerank("what is a bee?", ["bees live on honey", "warm soup", sys.argv[3]]))
"""


def run(seconds: float, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    long, until = seconds >= WHOLE, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as work:
        for start in range(STARTS if long else 1):
            start_together(Path(work) / f"start-{start}.sqlite", PROCESSES if seconds else FEW, counts)
        plain = TextCrossEncoder("lexical")
        logger = logging.getLogger("onnx_rerank_integrations.core.score_cache")
        logger.disabled = True  # each fault is warned of, as it should be
        score_cache.BUSY_SECONDS, usual = 0.05, score_cache.BUSY_SECONDS
        try:
            while counts["faults survived"] < (SPOILT if long else 30) or time.monotonic() < until:
                spoil_once(rng, Path(work) / "spoiled", plain, counts)
        finally:
            score_cache.BUSY_SECONDS = usual
            logger.disabled = False
    return dict(counts)


def start_together(where: Path, processes: int, counts: Counter[str]) -> None:
    """Many processes open one new cache in the same moment."""
    begin = str(time.time() + 0.3 * processes)
    commands = [[sys.executable, "-c", WORKER, str(where), begin, f"document {n % 3}"] for n in range(processes)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands
    ]
    for number, process in enumerate(started):
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert err == "", f"a warning at a start: {err}"
        documents = ["bees live on honey", "warm soup", f"document {number % 3}"]
        assert json.loads(out) == TextCrossEncoder("lexical").rerank("what is a bee?", documents)
        counts["processes"] += 1


def spoil_once(rng: random.Random, folder: Path, plain: TextCrossEncoder, counts: Counter[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    where = folder / "scores.sqlite"
    encoder = TextCrossEncoder("lexical", score_cache=where)
    fault = rng.choice(FAULTS)
    lock = None
    for call in range(6):
        query = f"query {rng.randrange(4)}"
        documents = [f"a document of number {rng.randrange(50)}" for _ in range(rng.randrange(1, 40))]
        assert encoder.rerank(query, documents) == plain.rerank(query, documents), f"other scores after {fault}"
        counts["calls"] += 1
        encoder._store._resting_until = 0.0  # type: ignore[union-attr]
        if call == 2:
            lock = spoil(rng, where, fault)
    if lock is not None:
        lock.close()
    counts["faults survived"] += 1


def spoil(rng: random.Random, where: Path, fault: str) -> sqlite3.Connection | None:
    content = bytearray(where.read_bytes())
    if fault == "removed":
        where.unlink()
    elif fault == "folder removed":
        shutil.rmtree(where.parent)
    elif fault == "overwritten":
        where.write_bytes(rng.randbytes(5000))
    elif fault == "emptied":
        where.write_bytes(b"")
    elif fault == "cut":
        where.write_bytes(content[: rng.randrange(len(content))])
    elif fault == "bits":
        for _ in range(40):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        where.write_bytes(content)
    elif fault == "writable by others":
        where.chmod(0o666)
    elif fault == "a folder":
        where.unlink()
        where.mkdir()
    elif fault == "locked":
        connection = sqlite3.connect(where, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        return connection
    return None

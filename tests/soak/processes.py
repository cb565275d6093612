"""Forks beside busy threads, threads and awaits beside each other, interrupts, and processes that end in mid-call."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from onnx_rerank_integrations import TextCrossEncoder
from tests.parity import fixtures
from tests.soak import WHOLE
from tests.test_processes import ENDS_IN_MID_CALL, INTERRUPTED, OPENVINO_FORKS

THREADS, FORKS, AWAITS, SCRIPTS = 8, 200, 64, 5
LEAST_FORKS = 6
"""Of each kind in the short form; `FORKS` in the long one, however long they take."""

DOCUMENTS = [f"bees live on their honey, number {i}" for i in range(40)]


def run(seconds: float, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    counts: dict[str, int] = {}
    long = seconds >= WHOLE
    least = FORKS if long else LEAST_FORKS
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, Callable[[], TextCrossEncoder]] = {
            "open": lambda: TextCrossEncoder(fixtures.folder("bert")),
            "lexical": lambda: TextCrossEncoder("lexical"),
            "memory cache": lambda: TextCrossEncoder("lexical", score_cache=100),
            "SQLite cache": lambda: TextCrossEncoder("lexical", score_cache=Path(folder) / "scores.sqlite"),
        }
        for kind, make in kinds.items():
            counts[f"forks, {kind}"] = _forks(make(), seconds / 8, least)
    counts["forks while loading"] = _forks_while_loading(seconds / 8, least, rng)
    counts["calls of 8 threads"] = _threads(1000 if long else 25)
    counts["awaits at once"] = _awaits(rng)
    counts["multiprocessing children"] = _children()
    for name, code, arguments in (
        ("interrupts", INTERRUPTED, ()),
        ("ends in mid-call", ENDS_IN_MID_CALL, ("onnxruntime",)),
        *([("OpenVINO forks refused", OPENVINO_FORKS, ())] if _has_openvino() else []),
    ):
        counts[name] = _scripts(code, arguments, SCRIPTS if long else 1) * (6 if name == "interrupts" else 1)
    return counts


def _forks(encoder: TextCrossEncoder, seconds: float, least: int) -> int:
    """Children of a process whose eight threads score, until the time is over or there were enough."""
    expected = encoder.rerank("what is a bee?", DOCUMENTS)
    over = threading.Event()

    def work(number: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            encoder.rerank(f"query {turn % 50} of {number}", DOCUMENTS)

    def score() -> None:
        found = encoder.rerank("what is a bee?", DOCUMENTS)
        assert np.abs(np.array(found) - expected).max() < 1e-6
        encoder.rerank("another", DOCUMENTS)

    end, forks = time.monotonic() + seconds, 0
    with ThreadPoolExecutor(THREADS) as pool:
        busy = [pool.submit(work, number) for number in range(THREADS)]
        try:
            while forks < FORKS and (forks < least or time.monotonic() < end):
                _await_child(score)
                forks += 1
        finally:
            over.set()
    for one in busy:
        one.result()
    return forks


def _forks_while_loading(seconds: float, least: int, rng: random.Random) -> int:
    end, forks = time.monotonic() + seconds, 0
    while forks < FORKS and (forks < least or time.monotonic() < end):
        encoder = TextCrossEncoder(fixtures.folder("bert"), lazy_load=True)
        thread = threading.Thread(target=encoder.rerank, args=("q", ["a", "b"]))
        thread.start()
        time.sleep(rng.uniform(0, 0.05))
        _await_child(lambda encoder=encoder: encoder.rerank("q", ["a", "b"]))  # type: ignore[misc]
        thread.join()
        forks += 1
    return forks


def _await_child(work: Callable[[], object], patience: float = 250.0) -> None:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the child must end here
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, "a forked child failed"
            return
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("a forked child hangs")


def _threads(calls: int) -> int:
    """Each of 8 threads makes so many calls; each gives what a serial one gives."""
    encoder = TextCrossEncoder("lexical", threads=2)
    asked = [(f"query {i}", [f"{text} {i}" for text in DOCUMENTS[: 1 + i % 40]]) for i in range(calls)]
    expected = [encoder.rerank(*one) for one in asked]

    def work(first: int) -> float:
        return max(
            float(np.abs(np.array(encoder.rerank(*asked[(i + first) % calls])) - expected[(i + first) % calls]).max())
            for i in range(calls)
        )

    with ThreadPoolExecutor(THREADS) as pool:
        assert max(pool.map(work, range(0, THREADS * 7, 7))) < 1e-6
    return calls * THREADS


def _awaits(rng: random.Random) -> int:
    from langchain_core.documents import Document

    from onnx_rerank_integrations.langchain import OnnxRerank

    door = OnnxRerank(model=TextCrossEncoder(fixtures.folder("bert")), top_n=None, max_concurrency=4)
    asked = [([Document(text) for text in rng.sample(DOCUMENTS, 10)], f"query {i}") for i in range(AWAITS)]
    expected = [door.compress_documents(*one) for one in asked]

    async def together() -> list[list[Document]]:
        return await asyncio.gather(*(door.acompress_documents(*one) for one in asked))

    for found, wanted in zip(asyncio.run(together()), expected, strict=True):
        difference = [a.metadata["relevance_score"] - b.metadata["relevance_score"] for a, b in zip(found, wanted)]  # noqa: B905
        assert max(map(abs, difference)) < 1e-6
    return AWAITS


CHILDREN = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from onnx_rerank_integrations import TextCrossEncoder

def main():
    encoder = TextCrossEncoder("lexical")
    expected = encoder.rerank("a bee", ["a hive", "soup"])
    for method in ("fork", "spawn", "forkserver"):
        with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context(method)) as pool:
            found = pool.map(partial(encoder.rerank, "a bee"), [["a hive", "soup"]] * 8)
            assert all(max(abs(a - b) for a, b in zip(one, expected)) < 1e-6 for one in found)

if __name__ == "__main__":
    main()
"""


def _children() -> int:
    """Processes of each start method, through a pool as gunicorn or Celery would have: 4 workers, 8 calls."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "children.py"
        path.write_text(CHILDREN)
        subprocess.run([sys.executable, str(path)], check=True, timeout=900, env=_environment())
    return 3 * 4


def _scripts(code: str, arguments: tuple[str, ...], runs: int) -> int:
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", code, str(fixtures.folder("bert")), *arguments],
            capture_output=True,
            text=True,
            timeout=600,
            env=_environment(),
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return runs


def _environment() -> dict[str, str]:
    """As a user has it: with CI set, onnxruntime's telemetry would be off anyway."""
    root = str(Path(__file__).parents[2])
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    return {**kept, "PYTHONPATH": root}


def _has_openvino() -> bool:
    try:
        import openvino  # noqa: F401
    except ImportError:
        return False
    return True

"""Time and memory: thousands of varied calls, models opened and closed, timeouts, and what is kept at the end."""

from __future__ import annotations

import gc
import os
import random
import tempfile
import threading
import time
from pathlib import Path

import psutil

from onnx_rerank_integrations import RerankTimeoutError, TextCrossEncoder
from onnx_rerank_integrations.core.engine.threads import available_cpus
from onnx_rerank_integrations.core.tokens.texts import MOST_WORDS, WordMemo
from tests.parity import fixtures
from tests.soak import WHOLE
from tests.test_timeouts import FOR_EVER, LONG, endless

CALLS, CYCLES, LEAST = 3000, 50, 40

CALLS_GROW, CYCLES_GROW = 24, 24
"""Megabytes that the memory may grow between the first tenth and the end."""

LATEST = 0.1
"""Seconds that a timeout may come late, on a machine that does nothing else."""

QUIET = 0.1
"""Of the processors' time, what others may use while a timeout counts as one on a machine that does nothing else."""

WORDS = ["bees", "live", "on", "honey", "in", "winter", "soup", "is", "warm", "paris", "capital", "of", "france"]


def run(seconds: float, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    long = seconds >= WHOLE
    counts = _calls(rng, CALLS if long else LEAST * 4)
    counts |= _cycles(CYCLES if long else 8)
    counts |= _timeouts(200 if long else 10)
    return counts


def memory() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _calls(rng: random.Random, calls: int) -> dict[str, int]:
    """Calls of any length and number, words never seen before among them."""
    others = set(threading.enumerate())
    encoders = [TextCrossEncoder("lexical"), TextCrossEncoder(fixtures.folder("bert"), score_cache=1000)]
    serial, before = 0, 0
    for call in range(calls):
        encoder = rng.choice(encoders)
        documents = []
        for _ in range(rng.choice([1, 3, 20, 100])):
            serial += 1
            words = rng.choices(WORDS, k=rng.choice([0, 5, 60, 400]))
            documents.append(" ".join(words))
        assert len(
            encoder.rerank(f"what is number {serial}?", documents, parallel=rng.choice([None, 1, 2, 60]))
        ) == len(documents)
        if call == calls // 10:
            before = memory()
    grown = (memory() - before) / 1e6
    assert grown < CALLS_GROW, f"{calls} calls left {grown:.1f} MB"
    token_ids = encoders[0].load()._tokenizer._token_ids
    assert isinstance(token_ids, WordMemo)
    assert len(token_ids._known) <= MOST_WORDS
    pooled = [one for one in set(threading.enumerate()) - others if one.name.startswith("onnx-rerank_")]
    assert len(pooled) <= 2 * available_cpus(), "threads are kept beyond the CPUs, of two models"
    return {"calls": calls, "kB grown in calls": round(max(grown, 0) * 1000)}


def _cycles(cycles: int) -> dict[str, int]:
    """The same model opened, used and closed."""
    before = 0
    for cycle in range(cycles):
        TextCrossEncoder(fixtures.folder("bert")).rerank("a bee", ["a hive", *LONG])
        if cycle == cycles // 10:
            before = memory()
    grown = (memory() - before) / 1e6
    assert grown < CYCLES_GROW, f"{cycles} models opened and closed left {grown:.1f} MB"
    return {"models opened and closed": cycles, "kB grown in openings": round(max(grown, 0) * 1000)}


def _timeouts(calls: int) -> dict[str, int]:
    """Calls that would never end: each ends in its time, and the encoder is as good as before.

    How late one comes is ours only where nobody else wanted the processors: those beside other processes' work count
    apart. One that is late there is tried again, twice: a machine that stood still for a moment goes on then.
    """
    late: dict[bool, list[float]] = {True: [], False: []}
    stalled = 0
    with tempfile.TemporaryDirectory() as folder:
        encoder = TextCrossEncoder(endless(fixtures.folder("bert"), Path(folder) / "model"), optimize="off")
        expected = encoder.rerank("a bee", ["a hive"])
        for call in range(calls):
            for tries_left in (2, 1, 0):
                seconds, is_quiet = _lateness(encoder, LONG * (1 + call % 3), timeout=0.02 + 0.01 * (call % 5))
                if not is_quiet or seconds < LATEST or not tries_left:
                    break
                stalled += 1
            late[is_quiet].append(seconds)
            assert abs(encoder.rerank("a bee", ["a hive"])[0] - expected[0]) < 1e-6
    quiet, beside = (sorted(late[of_a_quiet_machine]) for of_a_quiet_machine in (True, False))
    assert len(quiet) + len(beside) == calls
    assert not quiet or quiet[-1] < LATEST, (
        f"a timeout comes {quiet[-1]:.3f} s late on a machine that does nothing else"
    )
    counts = {"timeouts": calls, "timeouts on a quiet machine": len(quiet)}
    if stalled:
        counts["timeouts late on a quiet machine, and in time when tried again"] = stalled
    if quiet:
        counts["ms late at most, quiet"] = round(quiet[-1] * 1000)
    if beside:
        counts["ms late at most, beside others' work"] = round(beside[-1] * 1000)
    return counts


def _lateness(encoder: TextCrossEncoder, texts: list[str], *, timeout: float) -> tuple[float, bool]:
    """How many seconds late a call ends that would never end, and whether the machine did nothing else."""
    others, start = _used_by_others(), time.monotonic()
    try:
        encoder.rerank(FOR_EVER, texts, timeout=timeout)
    except RerankTimeoutError:
        took = time.monotonic() - start
        return took - timeout, _used_by_others() - others <= QUIET * took * (os.cpu_count() or 1) + TICKS
    raise AssertionError("a call without an end ended")


TICKS = 0.03
"""Seconds: the system counts what processes use in steps of 10 ms, on each processor."""


def _used_by_others() -> float:
    """Seconds of the processors' time that other processes have used, those that nobody counts as theirs included."""
    times, own = psutil.cpu_times(), psutil.Process().cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - own.user - own.system)

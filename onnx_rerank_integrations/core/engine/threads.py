"""How many threads there are, and how a call's batches share them: side by side, or one after the other."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from onnx_rerank_integrations.core.engine.forks import Lock, renew_in_child
from onnx_rerank_integrations.core.engine.session import Session
from onnx_rerank_integrations.core.engine.stops import Stop

Batch = TypeVar("Batch")
Result = TypeVar("Result")

FEW_TOKENS = 64
"""For a call of no more it wouldn't be worth it to open the model for all threads, a second time."""


def available_cpus() -> int:
    """CPUs this process may use: its affinity mask and its container's quota, at least 1."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cpus = os.cpu_count() or 1
    return max(1, min(cpus, _container_quota() or cpus))


def _container_quota() -> int | None:
    """Whole CPUs of the cgroup's quota, rounded up; None where there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return math.ceil(int(quota) / int(period))


class Workers:
    """So many threads, each started when first needed; a forked child, which has none of them, gets its own."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        renew_in_child(self)

    def renew(self) -> None:
        self._pool = None

    @property
    def pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="onnx-rerank")
            return self._pool

    def __deepcopy__(self, memo: dict[int, object]) -> Workers:
        return self

    def __reduce__(self) -> tuple[type[Workers], tuple[int]]:
        return Workers, (self.threads,)


@dataclass(frozen=True, slots=True)
class Way:
    """How one call's batches are run.

    Attributes:
        lanes: Batches at once.
        all_threads: Whether all threads compute each of them, not one.
        token_budget: Padded tokens of a batch.
    """

    lanes: int
    all_threads: bool
    token_budget: int


class Lanes:
    """A session's threads, shared by all who call it.

    Batches run side by side where there are enough, each on one thread, so that none waits for another at the end of
    each operator: with two threads 1.0 to 1.4 times as fast as all threads on one batch after the other
    (benchmarks/README.md). Where pairs are fewer than half of the threads, all threads share each batch.

    Args:
        session: What the batches run on.
        token_budget: Padded tokens of a batch; None for what suits the session.
        few_tokens: A call of no more runs on one thread.
    """

    def __init__(self, session: Session, token_budget: int | None = None, few_tokens: int = FEW_TOKENS) -> None:
        self._session = session
        self._token_budget = token_budget
        self._few_tokens = few_tokens
        self.workers = Workers(max(session.lanes, available_cpus()))

    def way(self, pairs: int, tokens: int, parallel: int | None) -> Way:
        """For so many pairs, of so many tokens together; `parallel` as callers give it."""
        lanes = self._session.lanes if parallel is None else min(parallel or available_cpus(), self.workers.threads)
        few = tokens <= self._few_tokens
        if few or lanes >= 2 * pairs:
            lanes = 1
        all_threads = lanes == 1 and not few
        budget = self._token_budget or self._session.token_budget(all_threads=all_threads)
        share = -(-tokens // min(lanes, pairs))
        return Way(lanes, all_threads, min(budget, share) if lanes > 1 else budget)

    def prepared(self, prepare: Callable[[Batch], Result], items: Iterable[Batch]) -> Iterator[tuple[Batch, Result]]:
        """Each item with what `prepare` makes of it; for a device, one ahead, in a thread beside the runs."""
        if not self._session.on_device:
            for item in items:
                yield item, prepare(item)
            return
        ahead: deque[tuple[Batch, Future[Result]]] = deque()
        for item in items:
            context = copy_context()  # carries the stop of the call
            ahead.append((item, self.workers.pool.submit(context.run, prepare, item)))
            if len(ahead) > 1:
                ready, future = ahead.popleft()
                yield ready, future.result()
        for ready, future in ahead:
            yield ready, future.result()

    def run(
        self, score: Callable[[Batch], Result], batches: Sequence[Batch], lanes: int, stop: Stop
    ) -> Iterator[tuple[Batch, Result]]:
        """Each batch with what `score` makes of it, so many at once, in the order in which they are done.

        Whoever leaves before the end sets the stop, or the rest is scored for nobody.
        """
        if lanes == 1:
            for batch in batches:
                stop.check()
                yield batch, score(batch)
            return
        waiting = iter(batches)
        done: SimpleQueue[tuple[Batch, Result] | BaseException] = SimpleQueue()

        def lane() -> None:
            try:
                for batch in waiting:
                    stop.check()
                    done.put((batch, score(batch)))
            except BaseException as error:  # noqa: BLE001 - it is raised where the results are waited for
                done.put(error)

        with stop.calling(lambda: done.put(CancelledError())):
            for _ in range(lanes):
                self.workers.pool.submit(lane)
            for _ in batches:
                outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome

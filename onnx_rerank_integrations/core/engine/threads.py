"""How many threads there are, and what runs in several of them: batches side by side, texts ahead of a device."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from onnx_rerank_integrations.core.engine.forks import Lock, renew_in_child
from onnx_rerank_integrations.core.engine.stops import Stop

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def ahead(workers: Workers, prepare: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What `prepare` makes of each item, one item ahead of whoever takes them, in a thread beside."""
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(workers.pool.submit(copy_context().run, prepare, item))  # the context carries the call's stop
        if len(begun) > 1:
            yield begun.popleft().result()
    for future in begun:
        yield future.result()


def side_by_side(
    workers: Workers, lanes: int, score: Callable[[Item], Result], batches: Sequence[Item], stop: Stop
) -> Iterator[tuple[int, Result]]:
    """The place of each batch with what `score` makes of it, so many at once, in the order in which they are done.

    Takes the stop around: whoever leaves before the end sets it, or the rest is scored for nobody.
    """
    waiting = iter(enumerate(batches))
    done: SimpleQueue[tuple[int, Result] | BaseException] = SimpleQueue()

    def lane() -> None:
        try:
            for place, batch in waiting:
                stop.check()
                done.put((place, score(batch)))
        except BaseException as error:  # noqa: BLE001 - it is raised where the results are waited for
            done.put(error)

    with stop.calling(lambda: done.put(CancelledError())):
        for _ in range(lanes):
            workers.pool.submit(copy_context().run, lane)
        for _ in batches:
            outcome = done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome

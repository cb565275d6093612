"""A pool of threads that outlives a call, and that copies, pickles and forks leave behind."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor


class Workers:
    """So many threads, started when first needed; a forked child, which has none of them, gets its own."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def pool(self) -> ThreadPoolExecutor:
        if self._process != os.getpid():
            self._process, self._lock, self._pool = os.getpid(), threading.Lock(), None
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="onnx-rerank")
            return self._pool

    def __deepcopy__(self, memo: dict[int, object]) -> Workers:
        return self

    def __reduce__(self) -> tuple[type[Workers], tuple[int]]:
        return Workers, (self.threads,)

"""One sample: a fresh process loads one contender, scores one workload and prints what it cost as a line of JSON.

Run by the harness as `python -m benchmarks.sample REQUEST`, in the contender's own environment; imports nothing but the
standard library and the contender.
"""

import contextlib
import gc
import json
import os
import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from benchmarks import pressure
from benchmarks.contenders import Scorer, by_name
from benchmarks.environments import VERSIONED
from benchmarks.texts import WORKLOADS, Group, make_calls, make_groups

# The line that holds the result, among whatever a library prints.
MARKER = "SAMPLE "

WARM_UP_PAIRS = 100
WARM_UP_SEED = 1
# Short calls are repeated until this much CPU time is spent (on a busy machine as often as on a quiet one, for words
# become known with each call), and their median is the sample. Each has texts of its own, as
# far as they are this many passages: what a library remembers of texts must not count twice.
REPEAT_SECONDS = 1.0
MOST_CALLS = 200
PASSAGES = 2000


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        started: Wall clock (seconds since the epoch) when the harness started this process.
        memory_limit: Bytes of private memory above which an allocation fails instead of taking the machine down.
        keep_scores: Whether the scores are wanted: a check, not a timing.
    """

    contender: str
    folder: str
    workload: str
    threads: int
    started: float
    memory_limit: int
    keep_scores: bool = False


@dataclass(frozen=True)
class Sample:
    """What one call cost in a warm process.

    Attributes:
        cpu_seconds: Time of all threads of the process, per call (median of `calls`).
        wall_seconds: Wall clock per call (median of `calls`).
        first_score_seconds: From the process' start to the score of a first short pair: imports, model load, one run;
            less what making the texts took.
        peak_bytes: Largest resident size from before the contender's import to the end, texts included.
        texts_bytes: What the texts themselves take in the process.
        pressure: Share of the timed span in which others kept it from a CPU; None where the kernel doesn't say.
        scores: What the contender gave, where asked for.
        versions: Libraries of the environment.
    """

    cpu_seconds: float
    wall_seconds: float
    calls: int
    first_score_seconds: float
    peak_bytes: int
    texts_bytes: int
    pressure: float | None
    scores: list[float] | None
    versions: dict[str, str]


def take(request: Request) -> Sample:
    """Measure in this process; call it once per process."""
    _limit_memory(request.memory_limit)
    since_start = time.time() - request.started
    workload = WORKLOADS[request.workload]
    calls = make_calls(workload, 1 if request.keep_scores else max(PASSAGES // workload.pairs, 1))
    warm_up = make_groups(workload.first(WARM_UP_PAIRS), WARM_UP_SEED)
    texts_bytes = sum(sys.getsizeof(text) for groups in calls for query, texts in groups for text in (query, *texts))
    _reset_peak()
    loading = time.perf_counter()
    score = by_name(request.contender).load(Path(request.folder), request.threads)
    score([("history of Angola", ["Angola won its independence in 1975."])])
    first_score_seconds = since_start + time.perf_counter() - loading
    if not request.keep_scores:
        score(warm_up)
    before = pressure.mark()
    cpu, wall, scores = _time_calls(score, calls, once=request.keep_scores)
    after = pressure.mark()
    return Sample(
        cpu_seconds=statistics.median(cpu),
        wall_seconds=statistics.median(wall),
        calls=len(cpu),
        first_score_seconds=first_score_seconds,
        peak_bytes=_peak_bytes(),
        texts_bytes=texts_bytes,
        pressure=pressure.share(before, after),
        scores=scores if request.keep_scores else None,
        versions=_versions(),
    )


def _time_calls(score: Scorer, calls: list[list[Group]], *, once: bool) -> tuple[list[float], list[float], list[float]]:
    """CPU and wall seconds of each call, and the last one's scores; the garbage collector stays on, as for users."""
    gc.collect()
    cpu: list[float] = []
    wall: list[float] = []
    scores: list[float] = []
    while not cpu or (not once and sum(cpu) < REPEAT_SECONDS and len(cpu) < MOST_CALLS):
        groups = calls[len(wall) % len(calls)]
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        scores = score(groups)
        wall.append(time.perf_counter() - wall_start)
        cpu.append(time.process_time() - cpu_start)
    return cpu, wall, scores


def _limit_memory(limit: int) -> None:
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _reset_peak() -> None:
    """Forget how large the process was so far."""
    # Where there is no such file the peak includes what came before.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """Largest resident size. Linux's VmHWM and not ru_maxrss, which a process inherits from the one that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment(threads: int) -> dict[str, str]:
    """The variables a sample's process runs with: so many threads everywhere, and no network."""
    return {
        **os.environ,
        "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "ONNX_RERANK_CACHE": str(Path(__file__).parent / "models" / "cache"),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }


if __name__ == "__main__":
    print(MARKER + json.dumps(asdict(take(Request(**json.loads(sys.argv[1]))))))

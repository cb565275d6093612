"""Taking the samples: who, how often, in which order, and which samples are thrown away."""

import json
import math
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import environments
from benchmarks.contenders import REFERENCE, Contender, fastembed
from benchmarks.sample import MARKER, Request, Sample, environment
from benchmarks.texts import WORKLOADS

# Above this share of its time in which others kept it from a CPU a sample is taken again. Chosen, not measured.
MOST_PRESSURE = 0.10
# CPU seconds are read at 1 thread, wall clock at 2.
THREADS = (1, 2)
# The round of the samples that look for FastEmbed's best batch size.
SEARCH = -1
# Seconds to wait before a second, third ... try.
PAUSES = (2.0, 10.0, 30.0)
# How far a contender's scores may lie from the reference's; the scores' standard deviation is 2 (see models.py).
SCORE_TOLERANCE = 1e-3
# int8 and bf16 only have to keep the order roughly: random weights are far more sensitive to rounding than trained ones
# (dynamic int8 reaches 0.88 on `tiny`, bf16 0.97); scores in the wrong order came to -0.45.
LEAST_CORRELATION = 0.7
# Share of the memory that is free at the start which one sample may take.
MEMORY_SHARE = 0.6


class FailedSampleError(RuntimeError):
    """A contender's process died; the message is its last line."""


class WrongScoresError(AssertionError):
    """A contender doesn't score as the reference does: its timings would mean nothing."""


@dataclass(frozen=True)
class Measurement:
    """A kept sample and what it is a sample of.

    Attributes:
        round: 0, 1, 2 ...; `SEARCH` for those that look for FastEmbed's best batch size.
        tries: How often it was taken; above 1 the earlier ones were under pressure.
        noisy: Whether the machine was under pressure in this one too.
    """

    model: str
    workload: str
    contender: str
    threads: int
    round: int
    tries: int
    noisy: bool
    sample: Sample

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        return (self.model, self.workload, self.contender, self.threads, self.round)

    @property
    def cost(self) -> float:
        """The seconds that count: of the CPU at 1 thread, of the wall clock at more."""
        return self.sample.cpu_seconds if self.threads == 1 else self.sample.wall_seconds

    def __str__(self) -> str:
        turn = "search " if self.round == SEARCH else f"round {self.round + 1}"
        threads = "1 thread " if self.threads == 1 else f"{self.threads} threads"
        sample = self.sample
        pressure = "?" if sample.pressure is None else f"{sample.pressure:.2f}"
        return (
            f"{turn} {threads} {self.contender:28} cpu {sample.cpu_seconds:9.4f} s  wall {sample.wall_seconds:9.4f} s"
            f"  peak {sample.peak_bytes / 1e6:6.0f} MB  pressure {pressure}{'  NOISY' if self.noisy else ''}"
        )


@dataclass
class Log:
    """All that was found so far, written to a file after each sample so that a broken run can go on."""

    path: Path
    about: dict[str, Any]
    measurements: list[Measurement] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Log":
        content = json.loads(path.read_text(encoding="utf-8"))
        measurements = [Measurement(**{**one, "sample": Sample(**one["sample"])}) for one in content["measurements"]]
        return cls(path, content["about"], measurements, content["checks"], content["skipped"])

    def write(self) -> None:
        content = {
            "about": self.about,
            "skipped": self.skipped,
            "checks": self.checks,
            "measurements": [asdict(measurement) for measurement in self.measurements],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def add(self, measurement: Measurement) -> None:
        self.measurements.append(measurement)
        self.write()

    def find(self, key: tuple[str, str, str, int, int]) -> Measurement | None:
        return next((measurement for measurement in self.measurements if measurement.key == key), None)

    def add_check(self, model: str, contender: str, error: float, correlation: float, passed: bool) -> None:
        entry = {"model": model, "contender": contender, "error": error, "correlation": correlation, "passed": passed}
        self.checks = [one for one in self.checks if (one["model"], one["contender"]) != (model, contender)] + [entry]
        self.write()

    def forget_skipped(self, plan: Sequence[tuple[str, str]]) -> None:
        """What failed in an earlier run on these models and workloads gets another chance."""
        again = {*plan, *((model, "*") for model, _ in plan)}
        self.skipped = [one for one in self.skipped if (one["model"], one["workload"]) not in again]

    def is_skipped(self, model: str, workload: str, contender: str) -> bool:
        return any(
            (one["model"], one["workload"], one["contender"]) == (model, workload, contender) for one in self.skipped
        )

    def skip(self, model: str, workload: str, contender: str, reason: str) -> None:
        print(f"  SKIPPED {contender} on {model} {workload}: {reason}", flush=True)
        entry = {"model": model, "workload": workload, "contender": contender, "reason": reason}
        if entry not in self.skipped:
            self.skipped.append(entry)
            self.write()


def run_sample(
    contender: Contender, folder: Path, workload: str, threads: int, *, keep_scores: bool = False, timeout: float
) -> Sample:
    """One sample in a fresh process.

    Raises:
        FailedSampleError: The process died or took longer than `timeout` seconds.
        UnavailableEnvironmentError: The contender's environment can't be made.
    """
    interpreter = environments.python(contender.environment)
    limit = int(MEMORY_SHARE * free_memory())
    request = Request(contender.name, str(folder), workload, threads, time.time(), limit, keep_scores)
    try:
        done = subprocess.run(
            [interpreter, "-m", "benchmarks.sample", json.dumps(asdict(request))],
            capture_output=True,
            text=True,
            check=False,
            env=environment(threads),
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise FailedSampleError(f"took longer than {timeout:.0f} s") from None
    for line in done.stdout.splitlines():
        if line.startswith(MARKER):
            return Sample(**json.loads(line.removeprefix(MARKER)))
    raise FailedSampleError(f"{last_words(done.stderr, done.returncode)} (memory limit {limit / 1e9:.1f} GB)")


def last_words(errors: str, status: int) -> str:
    """What a dead process said of its death: the line that names its exception, else its last one."""
    lines = errors.strip().splitlines() or [f"no message, exit status {status}"]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit|Fail)\b", line)]
    return (named or lines)[-1][:300]


def take_clean(take: Callable[[], Sample], retries: int, pause: Callable[[float], None]) -> tuple[Sample, int, bool]:
    """Take a sample until the machine is quiet, at most 1 + `retries` times.

    Returns:
        The first sample under `MOST_PRESSURE`, else the least pressed; how many were taken; whether it is a noisy one.
    """
    taken: list[Sample] = []
    while True:
        sample = take()
        taken.append(sample)
        if sample.pressure is None or sample.pressure <= MOST_PRESSURE:
            return sample, len(taken), False
        if len(taken) > retries:
            return min(taken, key=lambda one: one.pressure or 0.0), len(taken), True
        pause(PAUSES[min(len(taken), len(PAUSES)) - 1])


def check(log: Log, model: str, folder: Path, contenders: Sequence[Contender], timeout: float) -> list[Contender]:
    """Those contenders that can score this model, each found to score as the reference does.

    The reference is sentence-transformers with torch; where it can't run, the first contender that can.

    Raises:
        WrongScoresError: One doesn't: nothing is worth timing then.
    """
    able: list[Contender] = []
    reference: list[float] | None = None
    for contender in sorted(dict.fromkeys(contenders), key=lambda one: one.name != REFERENCE):
        if not (folder / contender.weights).exists():
            log.skip(model, "*", contender.name, f"the model has no {contender.weights}")
            continue
        try:
            sample = run_sample(contender, folder, "check", 1, keep_scores=True, timeout=timeout)
        except (FailedSampleError, environments.UnavailableEnvironmentError) as failure:
            log.skip(model, "*", contender.name, str(failure))
            continue
        assert sample.scores is not None
        reference = reference or sample.scores
        log.about["versions"][contender.environment or "main"] = sample.versions
        error, correlation = compare_scores(sample.scores, reference, sigmoid=contender.sigmoid)
        passed = error <= SCORE_TOLERANCE if contender.exact else correlation >= LEAST_CORRELATION
        log.add_check(model, contender.name, error, correlation, passed)
        print(f"  scores of {contender.label:32} error {error:.1e}  rank correlation {correlation:.4f}", flush=True)
        if not passed:
            raise WrongScoresError(
                f"{contender.label} on {model}: error {error:.1e}, rank correlation {correlation:.4f}"
            )
        able.append(contender)
    return [contender for contender in contenders if contender in able]


def compare_scores(scores: Sequence[float], reference: Sequence[float], *, sigmoid: bool) -> tuple[float, float]:
    """The largest absolute error (of sigmoids, if the scores are), and Spearman's rank correlation."""
    if sigmoid:
        reference = [1 / (1 + math.exp(-logit)) for logit in reference]
    if not all(map(math.isfinite, scores)):
        return math.inf, 0.0
    error = max(abs(one - other) for one, other in zip(scores, reference, strict=True))
    return error, statistics.correlation(ranks(scores), ranks(reference))


def ranks(values: Sequence[float]) -> list[int]:
    """The place of each value in ascending order."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    places = [0] * len(values)
    for place, index in enumerate(order):
        places[index] = place
    return places


@dataclass
class Bench:
    """One model and one workload, to be measured for all contenders.

    Attributes:
        threads: Numbers of threads to measure with.
        batches: Batch sizes among which FastEmbed's best is looked for.
        retries: How often a sample under pressure is taken again.
        timeout: Most seconds of one sample.
    """

    log: Log
    model: str
    folder: Path
    workload: str
    rounds: int
    threads: Sequence[int]
    batches: Sequence[int]
    retries: int
    timeout: float

    def measure(self, contenders: Sequence[Contender]) -> None:
        """Find FastEmbed's best batch sizes, then take the rounds, contenders interleaved."""
        print(f"\n{self.model} {self.workload}: {WORKLOADS[self.workload]}", flush=True)
        best = dict.fromkeys(self.threads, 64)
        if any(one.name == fastembed(64).name for one in contenders):
            best = {threads: self._best_batch(threads) for threads in self.threads}
        for turn in range(self.rounds):
            for threads in self.threads:
                runners = list(contenders)
                if best[threads] != 64:
                    runners.insert(1, fastembed(best[threads]))
                for contender in rotate(runners, turn):
                    self._sample(contender, threads, turn)

    def _best_batch(self, threads: int) -> int:
        """FastEmbed's fastest batch size here, by one sample of each."""
        if len(self.batches) == 1:
            return self.batches[0]
        costs: dict[int, float] = {}
        for batch_size in self.batches:
            measurement = self._sample(fastembed(batch_size), threads, SEARCH)
            if measurement is not None:
                costs[batch_size] = measurement.cost
        return min(costs, key=lambda batch_size: costs[batch_size], default=64)

    def _sample(self, contender: Contender, threads: int, turn: int) -> Measurement | None:
        """Take a sample, unless the log holds it already or the contender failed here before."""
        key = (self.model, self.workload, contender.name, threads, turn)
        known = self.log.find(key)
        if known is not None or self.log.is_skipped(self.model, self.workload, contender.name):
            return known

        def take() -> Sample:
            return run_sample(contender, self.folder, self.workload, threads, timeout=self.timeout)

        try:
            sample, tries, noisy = take_clean(take, self.retries, time.sleep)
        except FailedSampleError as error:
            self.log.skip(self.model, self.workload, contender.name, str(error))
            return None
        # The log holds the versions of each environment once.
        measurement = Measurement(*key, tries, noisy, replace(sample, versions={}))
        self.log.add(measurement)
        print(f"  {measurement}", flush=True)
        return measurement


def import_seconds(tries: int = 5) -> float:
    """The fastest of a few imports of the core in fresh processes: the others met a busy machine or a cold disk."""
    code = "import time; t = time.perf_counter(); import onnx_rerank_integrations.core.cross_encoder as core"
    code += "; import onnxruntime, tokenizers; print(time.perf_counter() - t)"

    def once() -> float:
        command = [environments.python(None), "-c", code]
        return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment(1)).stdout)

    return min(once() for _ in range(tries))


def rotate(contenders: Sequence[Contender], turn: int) -> list[Contender]:
    """The same contenders, each round another one first: none always follows the same neighbour's heat."""
    first = turn % len(contenders) if contenders else 0
    return [*contenders[first:], *contenders[:first]]


def free_memory() -> int:
    """Bytes that can be taken without swapping."""
    return int(psutil.virtual_memory().available)

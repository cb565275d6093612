"""What the project asks of its speed, and whether a run meets it."""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.contenders import PEERS
from benchmarks.measure import THREADS, Log
from benchmarks.report import BEST, DEFAULT, Row, rows_of
from benchmarks.texts import WORKLOADS

PLAIN = "ours"
FAST = "ours-first-token"
INT8 = "ours-int8-static"

# model, workload, contender, baseline, least times faster (CPU time, 1 thread)
RATIOS = (
    ("minilm", "W1", FAST, BEST, 1.15),
    ("minilm", "W1", FAST, DEFAULT, 3.1),
    ("tiny", "W1", FAST, BEST, 1.9),
    ("minilm", "W4", FAST, DEFAULT, 1.15),
    ("tiny", "W4", FAST, DEFAULT, 1.4),
    ("minilm", "W1", INT8, BEST, 2.3),
    ("minilm", "W1", FAST, PLAIN, 1.15),
    ("tiny", "W1", FAST, PLAIN, 1.6),
)


@dataclass(frozen=True)
class Bar:
    """One thing asked, and what was found; `met` is None where the run doesn't hold the samples for it."""

    asked: str
    found: str
    met: bool | None


def bars(log: Log) -> list[Bar]:
    """Every bar, in the order in which it is asked."""
    return [*_ratios(log), _never_slower(log), *_memory(log), *_starts(log)]


def _ratios(log: Log) -> Iterator[Bar]:
    for model, workload, contender, baseline, least in RATIOS:
        rows = {row.name: row for row in rows_of(log.measurements, model, workload)}
        ratio = rows[contender].times_faster_than(rows.get(baseline), 1) if contender in rows else None
        asked = f"{model} {workload}: {contender} at least {least:g} times faster than {baseline}"
        yield _bar(asked, ratio, partial(operator.le, least), "{:.2f}")


def _never_slower(log: Log) -> Bar:
    """The lowest ratio over everything measured, to every peer in fp32; plain where no other runs."""
    lowest: tuple[float, str] | None = None
    for model in log.about["models"]:
        for workload in (one for one in WORKLOADS.values() if not one.is_memory):
            rows = {row.name: row for row in rows_of(log.measurements, model, workload.name)}
            ours = rows.get(FAST) or rows.get(PLAIN)
            for baseline in (BEST, *(peer.name for peer in PEERS)):
                for threads in THREADS:
                    ratio = ours.times_faster_than(rows.get(baseline), threads) if ours else None
                    if ratio is not None and (lowest is None or ratio < lowest[0]):
                        lowest = ratio, f"{model} {workload.name} against {baseline}, {threads} threads"
    asked = "fp32 nowhere slower than a peer"
    if lowest is None:
        return Bar(asked, "not measured", None)
    return Bar(asked, f"{lowest[0]:.2f} ({lowest[1]})", lowest[0] >= 1.0)


def _memory(log: Log) -> Iterator[Bar]:
    rows: dict[str, Row] = {row.name: row for row in rows_of(log.measurements, "minilm", "W1")}
    share = None
    if FAST in rows and DEFAULT in rows:
        ours, theirs = (list(rows[name].figures.values())[-1].peak_bytes for name in (FAST, DEFAULT))
        share = ours / theirs
    asked = "minilm W1: peak memory at most 1/10 of FastEmbed's default"
    yield _bar(asked, share, lambda value: value <= 0.1, "{:.3f}")
    sizes = [workload for workload in WORKLOADS.values() if workload.is_memory]
    taken = {one.workload: one.sample for one in log.measurements if (one.model, one.contender) == ("tiny", FAST)}
    whole = all(size.name in taken for size in sizes)
    besides = [taken[size.name].peak_bytes - taken[size.name].texts_bytes for size in sizes] if whole else []
    costs = [taken[size.name].cpu_seconds / size.documents for size in sizes] if whole else []
    for asked, values in (("memory besides the texts", besides), ("cost per document", costs)):
        ratio = values[-1] / values[0] if values else None
        asked = f"tiny: {asked}, 100,000 documents against 1,000"
        yield _bar(asked, ratio, lambda value: 0.8 <= value <= 1.2, "{:.2f}")


def _starts(log: Log) -> Iterator[Bar]:
    imported = log.about.get("import_seconds")
    yield _bar("import of the core under 0.25 s", imported, lambda value: value < 0.25, "{:.2f} s")
    rows = {row.name: row for row in rows_of(log.measurements, "lexical", "W4")}
    figures = rows[PLAIN].figures if PLAIN in rows else {}
    first = figures[1].first_score_seconds if 1 in figures else None
    yield _bar("lexical model: first score under 0.6 s", first, lambda value: value < 0.6, "{:.2f} s")


def _bar(asked: str, value: float | None, test: Callable[[float], bool], form: str) -> Bar:
    if value is None:
        return Bar(asked, "not measured", None)
    return Bar(asked, form.format(value), test(value))


def table(found: list[Bar]) -> str:
    """The bars in Markdown."""
    words = {True: "yes", False: "**no**", None: "-"}
    lines = ["| asked | found | met |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {bar.asked} | {bar.found} | {words[bar.met]} |" for bar in found)])

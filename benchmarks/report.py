"""From samples to medians, ratios, tables and a plot."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.contenders import CONTENDERS, by_name
from benchmarks.measure import SEARCH, THREADS, Log, Measurement
from benchmarks.models import SIZES
from benchmarks.texts import WORKLOADS

DEFAULT = "fastembed@64"
BEST = "fastembed-best"


@dataclass(frozen=True)
class Figure:
    """The median of the rounds of one contender at one number of threads.

    Attributes:
        seconds: CPU seconds at 1 thread, wall seconds at more.
        lowest: Fastest round.
        highest: Slowest round.
        peak_bytes: Median peak memory.
        first_score_seconds: Median time from the process' start to a first score.
        rounds: How many the median is of.
        noisy: Whether there was no round without pressure, so that pressed ones had to do.
    """

    seconds: float
    lowest: float
    highest: float
    peak_bytes: float
    first_score_seconds: float
    rounds: int
    noisy: bool


def figure_of(measurements: Sequence[Measurement]) -> Figure:
    """The clean rounds' medians; the noisy ones' where none is clean."""
    clean = [one for one in measurements if not one.noisy]
    kept = clean or list(measurements)
    costs = [one.cost for one in kept]
    return Figure(
        seconds=statistics.median(costs),
        lowest=min(costs),
        highest=max(costs),
        peak_bytes=statistics.median(one.sample.peak_bytes for one in kept),
        first_score_seconds=statistics.median(one.sample.first_score_seconds for one in kept),
        rounds=len(kept),
        noisy=not clean,
    )


@dataclass(frozen=True)
class Row:
    """One contender on one workload of one model; `figures` by number of threads."""

    name: str
    label: str
    figures: dict[int, Figure]

    def times_faster_than(self, other: "Row | None", threads: int) -> float | None:
        """How many times less this one costs; None where either wasn't measured."""
        if other is None or threads not in self.figures or threads not in other.figures:
            return None
        return other.figures[threads].seconds / self.figures[threads].seconds


def rows_of(measurements: Iterable[Measurement], model: str, workload: str) -> list[Row]:
    """A row per contender, in the contenders' own order, FastEmbed's best batch size second."""
    here = [one for one in measurements if (one.model, one.workload) == (model, workload) and one.round != SEARCH]
    rows = []
    for name in [DEFAULT, BEST, *(name for name in CONTENDERS if name != DEFAULT)]:
        chosen = best_batches(here) if name == BEST else dict.fromkeys(THREADS, name)
        figures = {}
        for threads, contender in chosen.items():
            taken = [one for one in here if (one.contender, one.threads) == (contender, threads)]
            if taken:
                figures[threads] = figure_of(taken)
        if figures:
            rows.append(Row(name, _best_label(chosen) if name == BEST else by_name(name).label, figures))
    return rows


def best_batches(measurements: Iterable[Measurement]) -> dict[int, str]:
    """FastEmbed at the batch size that its search chose, by number of threads: the one that took part in the rounds."""
    chosen: dict[int, str] = {}
    for one in measurements:
        if one.contender.startswith("fastembed@") and (one.contender != DEFAULT or one.threads not in chosen):
            chosen[one.threads] = one.contender
    return dict(sorted(chosen.items()))


def _best_label(chosen: dict[int, str]) -> str:
    sizes = [name.removeprefix("fastembed@") for name in chosen.values()]
    return f"FastEmbed, best batch ({' / '.join(sizes if len(set(sizes)) > 1 else sizes[:1])})"


def speed_table(rows: Sequence[Row], useful_flops: float | None, limit: float) -> str:
    """Markdown: costs, times faster than FastEmbed's default and best, share of the machine's limit, memory.

    Args:
        rows: The contenders.
        useful_flops: Operations that the whole model needs for this workload's tokens, padding left out; None
            where they aren't counted.
        limit: fp32 operations per second of one thread.
    """
    by_row = {row.name: row for row in rows}
    default, best = by_row.get(DEFAULT), by_row.get(BEST)
    lines = [
        "| | CPU s, 1 thread | x default | x best | % of limit"
        " | wall s, 2 threads | x default | x best | peak MB | first score s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [row.label]
        for threads in THREADS:
            figure = row.figures.get(threads)
            cells.append("-" if figure is None else f"{_seconds(figure.seconds)}{' ~' if figure.noisy else ''}")
            cells += [_times(row.times_faster_than(other, threads)) for other in (default, best)]
            if threads == 1:
                cells.append(_percent_of_limit(useful_flops, figure, limit))
        last = row.figures[max(row.figures)]
        cells += [f"{last.peak_bytes / 1e6:,.0f}", f"{last.first_score_seconds:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def memory_table(measurements: Iterable[Measurement], model: str) -> str:
    """Markdown: memory besides the texts, and CPU time per document, from 1,000 to 100,000 documents."""
    sizes = [workload for workload in WORKLOADS.values() if workload.is_memory]
    taken = {(one.contender, one.workload): one.sample for one in measurements if one.model == model}
    lines = [
        "| | " + " | ".join(f"MB, {size.documents:,}" for size in sizes)
        + " | " + " | ".join(f"us/document, {size.documents:,}" for size in sizes) + " |",
        "|---|" + "---:|" * (2 * len(sizes)),
    ]  # fmt: skip
    for name, contender in CONTENDERS.items():
        samples = [taken.get((name, size.name)) for size in sizes]
        if not any(samples):
            continue
        memory = ["-" if one is None else f"{(one.peak_bytes - one.texts_bytes) / 1e6:,.0f}" for one in samples]
        costs = [
            "-" if one is None else f"{one.cpu_seconds / size.documents * 1e6:,.0f}"
            for one, size in zip(samples, sizes, strict=True)
        ]
        lines.append(f"| {' | '.join([contender.label, *memory, *costs])} |")
    return "\n".join(lines)


def rounds_of(measurements: Sequence[Measurement], model: str, workload: str) -> int:
    """How many rounds were begun."""
    return 1 + max(one.round for one in measurements if (one.model, one.workload) == (model, workload))


def document(log: Log) -> str:
    """The whole report in Markdown."""
    about = log.about
    parts = [
        "# Benchmark",
        f"Machine: {machine.one_line(about['machine'])}. {about['date']}.",
        *(f"Versions ({name}): {_listed(versions)}." for name, versions in about["versions"].items()),
        "CPU seconds of the whole process at 1 thread, wall clock at 2; medians. `x default` and `x best`: times faster"
        " than FastEmbed at its default batch size and at its best one. `~`: no round without pressure from other"
        " processes. Peak memory and first score (from process start) are those at 2 threads.",
        f"Limit: {about['limit']['1'] / 1e9:.0f} GFLOP/s at 1 thread, {about['limit']['2'] / 1e9:.0f} at 2 (fp32 MatMul"
        " in onnxruntime). `% of limit`: operations the whole model needs for the tokens without padding, per CPU"
        " second, against that; leaving work out, int8 and bf16 can take it above 100.",
    ]
    measured = {(one.model, one.workload) for one in log.measurements}
    for model, size in about["models"].items():
        for workload in (one for one in WORKLOADS.values() if (model, one.name) in measured and not one.is_memory):
            tokens = about["tokens"][f"{model} {workload.name}"]
            parts.append(f"## {model} ({size}), {workload.name}")
            rounds = rounds_of(log.measurements, model, workload.name)
            lengths = f"tokens per pair {tokens['mean']:.0f} on average, {tokens['p95']} at p95"
            parts.append(f"{workload}; {lengths}; rounds: {rounds}.")
            rows = rows_of(log.measurements, model, workload.name)
            flops = SIZES[model].useful_flops(tokens["total"], tokens["squares"])
            parts.append(speed_table(rows, flops, about["limit"]["1"]))
        if any((model, one.name) in measured for one in WORKLOADS.values() if one.is_memory):
            parts.append(f"## {model} ({size}), memory and linearity")
            parts.append("Peak memory besides the texts, and CPU time per document, 1 thread, one sample each.")
            parts.append(memory_table(log.measurements, model))
    parts += ["## Scores", _checks(log), *_skipped(log)]
    return "\n\n".join(parts) + "\n"


def _checks(log: Log) -> str:
    lines = ["| model | | largest error | rank correlation |", "|---|---|---:|---:|"]
    for one in log.checks:
        label = by_name(one["contender"]).label
        lines.append(f"| {one['model']} | {label} | {one['error']:.1e} | {one['correlation']:.4f} |")
    return "\n".join(lines)


def _skipped(log: Log) -> list[str]:
    if not log.skipped:
        return []
    lines = [f"* {one['contender']} on {one['model']} {one['workload']}: {one['reason']}" for one in log.skipped]
    return ["## Left out", "\n".join(lines)]


def plot(log: Log, path: Path) -> None:
    """Bars: times faster than FastEmbed's default at 1 thread, a group per model and workload."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups: dict[str, dict[str, float]] = {}
    for model in log.about["models"]:
        for workload in (one for one in WORKLOADS.values() if not one.is_memory):
            rows = rows_of(log.measurements, model, workload.name)
            default = next((row for row in rows if row.name == DEFAULT), None)
            ratios = {row.name: row.times_faster_than(default, 1) for row in rows}
            kept = {name: ratio for name, ratio in ratios.items() if ratio is not None}
            if kept:
                groups[f"{model}\n{workload.name}"] = kept
    if not groups:
        return
    names = list(dict.fromkeys(name for ratios in groups.values() for name in ratios))
    width = 0.85 / len(names)
    figure, axes = pyplot.subplots(figsize=(max(8.0, 1.6 * len(groups) + 3), 5.0), layout="constrained")
    colours = pyplot.colormaps["viridis"]
    for place, name in enumerate(names):
        label = "FastEmbed, best batch" if name == BEST else by_name(name).label
        spots = [group + (place - (len(names) - 1) / 2) * width for group in range(len(groups))]
        heights = [ratios.get(name, 0.0) for ratios in groups.values()]
        axes.bar(spots, heights, width, label=label, color=colours(place / max(1, len(names) - 1)))
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylabel("times faster than FastEmbed's default\n(CPU time, 1 thread)")
    axes.set_title(machine.one_line(log.about["machine"]), fontsize=8)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _seconds(value: float) -> str:
    """Three significant digits."""
    return f"{value:.{max(0, 3 - len(str(int(value))) if value >= 1 else 4)}f}"


def _percent_of_limit(useful_flops: float | None, figure: Figure | None, limit: float) -> str:
    if useful_flops is None or figure is None:
        return "-"
    return f"{100 * useful_flops / figure.seconds / limit:.0f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _listed(versions: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())

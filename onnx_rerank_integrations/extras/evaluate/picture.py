"""plot.png: quality against latency, and how each query changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_rerank_integrations.extras.evaluate.measures import MAIN
from onnx_rerank_integrations.extras.evaluate.results import Findings, duration
from onnx_rerank_integrations.extras.needs_extra import needs_extra
from onnx_rerank_integrations.extras.plot import GREY, MARKERS, SERIES, Picture, shortened

with needs_extra("plot", "A picture"):
    from matplotlib.ticker import LogLocator, NullLocator


def plot_evaluation(evaluation: Findings) -> Any:
    """Two panels: each model's nDCG@10 at its median latency, and its change of every query, sorted."""
    figure = Picture(figsize=(11, 4.6), layout="constrained", dpi=120)
    quality, changes = figure.subplots(1, 2)
    _quality_against_latency(quality, evaluation)
    _changes(changes, evaluation)
    for axes in (quality, changes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E5E5E5")
        axes.set_axisbelow(True)
    handles, labels = quality.get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 60 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    title = f"{evaluation.collection}: the first {evaluation.top_k} of {evaluation.first_stage.name}, reranked"
    figure.suptitle(shortened(title, 90), parse_math=False, fontsize=12)
    return figure


def _quality_against_latency(axes: Any, evaluation: Findings) -> None:
    first = evaluation.first_stage.mean()
    axes.axhline(first, color=GREY, linestyle="--", label=f"{evaluation.first_stage.name}: {first:.3f}")
    for place, model in enumerate(evaluation.models):
        change = evaluation.comparison(model.name, evaluation.first_stage.name)
        latency = model.latency(50) or 0.0
        axes.errorbar(
            [latency],
            [model.mean()],
            yerr=[[change.difference - change.low], [change.high - change.difference]],
            label=f"{shortened(model.name, 50)}: {model.mean():.3f}, {duration(latency)} ms",
            color=SERIES[place % len(SERIES)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=9,
            capsize=4,
            linestyle="none",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_locator(NullLocator())
    latencies = [model.latency(50) or 1.0 for model in evaluation.models]
    axes.set_xlim(min(latencies) / 3, max(latencies) * 3)
    axes.set_xlabel("median milliseconds per query (log scale)")
    axes.set_ylabel("nDCG@10, bars: 95 % interval of the change")
    axes.set_title("Quality against latency", fontsize=10)


def _changes(axes: Any, evaluation: Findings) -> None:
    before = evaluation.first_stage.measures[MAIN]
    axes.axhline(0, color=GREY, linestyle="--")
    for place, model in enumerate(evaluation.models):
        differences = np.sort([value - before[query_id] for query_id, value in model.measures[MAIN].items()])
        change = evaluation.comparison(model.name, evaluation.first_stage.name)
        axes.step(
            np.arange(1, len(differences) + 1),
            differences,
            where="mid",
            color=SERIES[place % len(SERIES)],
            marker=MARKERS[place % len(MARKERS)],
            markevery=max(len(differences) // 8, 1),
            label=f"{change.better:,} better, {change.worse:,} worse",
        )
    axes.set_xlabel("queries, sorted by their change")
    axes.set_ylabel("change of nDCG@10")
    axes.set_title("Each query's change", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="upper left")

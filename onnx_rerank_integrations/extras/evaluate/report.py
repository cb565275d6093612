"""What an evaluation writes: report.md for people, results.json for programs, per_query.tsv for who wants to look."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.extras.evaluate.measures import MAIN
from onnx_rerank_integrations.extras.evaluate.results import Findings, System, duration, p_text
from onnx_rerank_integrations.extras.evaluate.significance import SAMPLES
from onnx_rerank_integrations.extras.markdown import markdown_table, one_line

MOST_CHANGED = 5
"""Queries shown in the report for each direction."""


def save(evaluation: Findings, output: Path) -> list[Path]:
    """Writes the three files into a folder, over those of an earlier evaluation; gives their paths."""
    make_folder(output)
    files = {
        "report.md": report(evaluation),
        "results.json": json.dumps(results(evaluation), indent=2, ensure_ascii=False) + "\n",
        "per_query.tsv": per_query(evaluation),
    }
    for name, content in files.items():
        (output / name).write_text(content, encoding="utf-8", newline="\n", errors="backslashreplace")
    return [output / name for name in files]


def make_folder(output: Path) -> None:
    """Raises InputValueError where a folder can't be made."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputValueError(f"{output} can't be made a folder: {error.strerror}") from error


def table(evaluation: Findings) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row of cells for each system: the first stage, the models, the best possible order."""
    measures = list(evaluation.first_stage.measures)
    headers = ["system", *measures, "change", "p", "docs/s", "p50 ms", "p99 ms"]
    systems = [evaluation.first_stage, *evaluation.models, evaluation.best_possible]
    return headers, [_row(evaluation, system, measures) for system in systems]


def report(evaluation: Findings) -> str:
    """The evaluation in Markdown, the answer first."""
    headers, rows = table(evaluation)
    sections = [
        f"# Does reranking help on {evaluation.collection}?",
        evaluation.answer,
        markdown_table(headers, rows, numbers=headers[1:]).rstrip(),
        "`change` is that of nDCG@10 against the first stage and `p` how likely chance alone makes as large a one. "
        f"`best possible order` puts the relevant ones of the same {evaluation.top_k} candidates first: what it lacks, "
        "no reranker can find. Times are those of a query's candidates, one query after the other.",
        "![Quality against latency, and each query's change](plot.png)",
        *_model_comparisons(evaluation),
        *_changed_queries(evaluation),
        _how(evaluation),
    ]
    return "\n\n".join(sections) + "\n"


def results(evaluation: Findings) -> dict[str, Any]:
    """The evaluation as JSON; per-query values are in per_query.tsv."""
    return {
        "answer": evaluation.answer,
        "collection": evaluation.collection,
        "documents": evaluation.corpus_size,
        "queries": len(evaluation.queries),
        "top_k": evaluation.top_k,
        "first_stage": _system(evaluation.first_stage),
        "models": [_system(model) for model in evaluation.models],
        "best_possible": _system(evaluation.best_possible),
        "comparisons": [vars(comparison) for comparison in evaluation.comparisons],
        "settings": dict(evaluation.settings),
        "notes": evaluation.notes,
    }


def per_query(evaluation: Findings) -> str:
    """A line for each query and system, tab-separated, below a header."""
    first = evaluation.first_stage
    lines = [["query-id", "system", *first.measures, "change", "milliseconds", "query"]]
    for query_id, query in evaluation.queries.items():
        for system in (first, *evaluation.models, evaluation.best_possible):
            change = system.measures[MAIN][query_id] - first.measures[MAIN][query_id]
            time = system.milliseconds[query_id] if system.milliseconds else None
            values = [f"{values[query_id]:.4f}" for values in system.measures.values()]
            last = ["" if time is None else f"{time:.3f}", one_line(query)]
            lines.append([query_id, system.name, *values, f"{change:+.4f}", *last])
    return "".join("\t".join(line) + "\n" for line in lines)


def _row(evaluation: Findings, system: System, measures: Sequence[str]) -> list[str]:
    change = p_value = ""
    if system in evaluation.models:
        comparison = evaluation.comparison(system.name, evaluation.first_stage.name)
        change, p_value = f"{comparison.difference:+.3f}", p_text(comparison.p_value).removeprefix("p ").lstrip("= ")
    speed = system.documents_per_second
    times = [system.latency(percent) for percent in (50, 99)]
    return [
        system.name,
        *(f"{system.mean(measure):.3f}" for measure in measures),
        change,
        p_value,
        "" if speed is None else f"{speed:,.0f}",
        *map(duration, times),
    ]


def _model_comparisons(evaluation: Findings) -> list[str]:
    between = [one for one in evaluation.comparisons if one.baseline != evaluation.first_stage.name]
    if not between:
        return []
    rows = [
        [one.system, one.baseline, f"{one.difference:+.3f}", f"{one.low:+.3f} to {one.high:+.3f}", p_text(one.p_value)]
        for one in between
    ]
    headers = ["model", "against", "change of nDCG@10", "95 % interval", "p"]
    return ["## The models against each other", markdown_table(headers, rows, numbers=headers[2:4]).rstrip()]


def _changed_queries(evaluation: Findings) -> list[str]:
    before, best = evaluation.first_stage.measures[MAIN], evaluation.best
    after = best.measures[MAIN]
    order = sorted(evaluation.queries, key=lambda query_id: before[query_id] - after[query_id])
    gained = [query_id for query_id in order[:MOST_CHANGED] if after[query_id] > before[query_id]]
    lost = [query_id for query_id in order[: -MOST_CHANGED - 1 : -1] if after[query_id] < before[query_id]]
    if not gained and not lost:
        return []
    rows = [
        [query_id, f"{before[query_id]:.3f}", f"{after[query_id]:.3f}", evaluation.queries[query_id]]
        for query_id in (*gained, *reversed(lost))
    ]
    headers = ["query", "before", "after", "text"]
    text = markdown_table(headers, rows, numbers=headers[1:3]).rstrip()
    return [f"## The queries that {best.name} changed most (nDCG@10)", text, "All of them are in per_query.tsv."]


def _how(evaluation: Findings) -> str:
    settings = evaluation.settings
    versions = ", ".join(f"{name} {version}" for name, version in settings.get("versions", {}).items())
    lines = [
        f"{evaluation.corpus_size:,} documents, {len(evaluation.queries):,} queries, of each the first "
        f"{evaluation.top_k} candidates of {evaluation.first_stage.name}.",
        *evaluation.notes,
        "Significance: paired two-sided randomization test on the queries' nDCG@10 and percentile bootstrap, "
        f"{SAMPLES:,} samples each, seed {settings.get('seed')}. The p-values are adjusted by Holm's method for the "
        "number of models compared with the first stage, and of pairs compared with each other; the intervals aren't.",
        f"Machine: {settings.get('machine')}. Versions: {versions}.",
    ]
    return "## How it was measured\n\n" + "\n".join(f"* {line}" for line in lines)


def _system(system: System) -> dict[str, Any]:
    return {
        "name": system.name,
        "measures": {measure: system.mean(measure) for measure in system.measures},
        "documents_per_second": system.documents_per_second,
        "p50_milliseconds": system.latency(50),
        "p99_milliseconds": system.latency(99),
    }

"""The recipe of an evaluation: read, rerank, measure, compare."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from onnx_rerank_integrations import __version__
from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.checks import check_top_n
from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.engine.threads import available_cpus
from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.extras.evaluate.collection import Corpus, read_corpus, read_grades, read_queries
from onnx_rerank_integrations.extras.evaluate.first_stage import FirstStage, bm25, check_run, find_run, read_run
from onnx_rerank_integrations.extras.evaluate.measures import MAIN, best_possible, measure
from onnx_rerank_integrations.extras.evaluate.report import save
from onnx_rerank_integrations.extras.evaluate.results import Comparison, Findings, System
from onnx_rerank_integrations.extras.evaluate.significance import holm, paired_difference
from onnx_rerank_integrations.extras.evaluate.table import read_table
from onnx_rerank_integrations.extras.needs_extra import needs_extra

Model = str | Path | TextCrossEncoderBase


@dataclass(frozen=True, kw_only=True)
class Evaluation(Findings):
    """What `evaluate` gives: its findings, which can be drawn and saved."""

    def figure(self) -> Any:
        """Quality against latency, and the change of each query, as a matplotlib Figure."""
        from onnx_rerank_integrations.extras.evaluate.picture import plot_evaluation

        return plot_evaluation(self)

    def save(self, output: str | Path) -> list[Path]:
        """Writes report.md, results.json, per_query.tsv and plot.png, and gives their paths."""
        written = save(self, Path(output))
        plot = Path(output) / "plot.png"
        self.figure().savefig(plot)
        return [*written, plot]


def evaluate(
    folder: str | Path,
    models: Model | Sequence[Model] | Mapping[str, Model],
    *,
    first_stage: str | Path | None = None,
    top_k: int = 100,
    split: str = "test",
    seed: int = 0,
    show_progress: bool = False,
) -> Evaluation:
    """Measures whether models put the relevant documents of a collection higher than the first stage does.

    Each model reorders the same candidates, one query after the other, after one query that isn't counted.

    Args:
        folder: A collection in BEIR layout: corpus.jsonl, queries.jsonl (each plain or .gz), and qrels/SPLIT.tsv or
            qrels.tsv. Or one CSV file of judged pairs, with the columns query, document and relevance, whose rows are
            the candidates in their order.
        models: Names, folders or ready encoders; a mapping gives them names of your own, for instance one model with
            different options.
        first_stage: A TREC run; None for the one ``*.trec`` in the folder, else BM25 is made on the spot.
        top_k: Candidates of each query that are kept and reordered.
        split: Which qrels/SPLIT.tsv.
        seed: Of the significance tests.
        show_progress: Show a tqdm bar per model on stderr.

    Raises:
        InputValueError: A file is missing or wrong (the message names the line), or two models have one name.
        MissingExtraError: The extra [evaluate] isn't installed.
    """
    check_top_n(top_k)
    with needs_extra("evaluate", "Evaluation"):
        import ir_measures  # noqa: F401 - before hours of reranking, not after
    folder = Path(folder)
    encoders = _named(models)
    if folder.is_file():
        if first_stage is not None:
            raise InputValueError(
                f"first_stage goes with a folder; the candidates of {folder} are its rows, in their order"
            )
        all_queries, grades, stage, corpus = read_table(folder, top_k)
        queries = {query_id: text for query_id, text in all_queries.items() if query_id in grades}
    else:
        all_queries = read_queries(folder)
        grades = read_grades(folder, split, all_queries)
        queries = {query_id: text for query_id, text in all_queries.items() if query_id in grades}
        stage, corpus = _candidates(folder, first_stage, queries, top_k)

    first = System(name=stage.name, measures=measure(grades, stage.candidates, top_k), milliseconds=stage.milliseconds)
    systems = []
    for name, model in encoders.items():
        encoder = model if isinstance(model, TextCrossEncoderBase) else TextCrossEncoder(model)
        rankings, milliseconds = _rerank(encoder, queries, stage, corpus, name if show_progress else None)
        documents = sum(map(len, stage.candidates.values()))
        values = measure(grades, rankings, top_k)
        systems.append(System(name=name, measures=values, milliseconds=milliseconds, documents=documents))
    ideal = measure(grades, best_possible(grades, stage.candidates), top_k)
    return Evaluation(
        collection=folder.resolve().name,
        top_k=top_k,
        corpus_size=corpus.size,
        queries=queries,
        first_stage=first,
        models=systems,
        best_possible=System(name="best possible order", measures=ideal),
        comparisons=_compare(first, systems, seed),
        settings={"split": split, "seed": seed, "machine": machine(), "versions": _versions()},
        notes=_notes(all_queries, grades, stage, corpus),
    )


def check_extra(purpose: str) -> None:
    """Raises MissingExtraError where the extra [evaluate] isn't installed: before hours of reranking, not after."""
    with needs_extra("evaluate", purpose):
        import ir_measures  # noqa: F401
        import matplotlib  # noqa: F401


def machine() -> str:
    """The processor's name and how many of its CPUs this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass  # not Linux
    return f"{name}, {available_cpus()} CPUs"


def _named(models: Model | Sequence[Model] | Mapping[str, Model]) -> dict[str, Model]:
    if isinstance(models, Mapping):
        named = dict(models)
    else:
        listed = [models] if isinstance(models, str | os.PathLike | TextCrossEncoderBase) else list(models)
        named = {}
        for model in listed:
            name = str(getattr(model, "model_name", type(model).__name__)) if _is_encoder(model) else str(model)
            if name in named:
                raise InputValueError(f"two models are named {name!r}: give them in a dict, with names of your own")
            named[name] = model
    if not named:
        raise InputValueError("there are no models to evaluate")
    return named


def _is_encoder(model: Model) -> bool:
    return isinstance(model, TextCrossEncoderBase)


def _candidates(
    folder: Path, first_stage: str | Path | None, queries: Mapping[str, str], top_k: int
) -> tuple[FirstStage, Corpus]:
    path = find_run(folder) if first_stage is None else Path(first_stage)
    if path is None:
        corpus = read_corpus(folder)
        return bm25(corpus, queries, top_k), corpus
    stage = read_run(path, queries, top_k)
    corpus = read_corpus(folder, wanted={one for found in stage.candidates.values() for one in found})
    check_run(path, stage, corpus)
    return stage, corpus


def _rerank(
    encoder: TextCrossEncoderBase, queries: Mapping[str, str], stage: FirstStage, corpus: Corpus, progress: str | None
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Query id -> ranking, and query id -> milliseconds."""
    rankings: dict[str, list[str]] = {}
    milliseconds: dict[str, float] = {}
    some_query, some_ids = max(stage.candidates.items(), key=lambda item: len(item[1]))
    encoder.rank(queries[some_query], [corpus.texts[one] for one in some_ids])
    for query_id, query in tqdm(queries.items(), desc=progress, unit="query", disable=progress is None):
        ids = stage.candidates[query_id]
        texts = [corpus.texts[one] for one in ids]
        start = time.perf_counter()
        ranked = encoder.rank(query, texts)
        milliseconds[query_id] = (time.perf_counter() - start) * 1000
        rankings[query_id] = [ids[one.index] for one in ranked]
    return rankings, milliseconds


def _compare(first: System, systems: Sequence[System], seed: int) -> list[Comparison]:
    """Each model with the first stage, then each model with those before it: two questions, each adjusted alone."""
    with_first = [(system, first) for system in systems]
    with_each_other = [(later, earlier) for place, later in enumerate(systems) for earlier in systems[:place]]
    return [*_comparisons(with_first, seed), *_comparisons(with_each_other, seed)]


def _comparisons(pairs: Sequence[tuple[System, System]], seed: int) -> list[Comparison]:
    by_query = [
        [value - baseline.measures[MAIN][query_id] for query_id, value in system.measures[MAIN].items()]
        for system, baseline in pairs
    ]
    found = [paired_difference(differences, seed) for differences in by_query]
    adjusted = holm([difference.p_value for difference in found])
    return [
        Comparison(
            system=system.name,
            baseline=baseline.name,
            difference=difference.mean,
            low=difference.low,
            high=difference.high,
            p_value=p_value,
            better=sum(one > 0 for one in differences),
            worse=sum(one < 0 for one in differences),
        )
        for (system, baseline), differences, difference, p_value in zip(pairs, by_query, found, adjusted, strict=True)
    ]


def _notes(
    all_queries: Mapping[str, str], grades: Mapping[str, Mapping[str, int]], stage: FirstStage, corpus: Corpus
) -> list[str]:
    notes = []
    if unjudged := len(all_queries) - len(grades):
        notes.append(f"Left out, without a document judged relevant: {unjudged:,} of {len(all_queries):,} queries.")
    if empty := sum(not found for found in stage.candidates.values()):
        notes.append(f"Counted as 0, without a candidate from the first stage: {empty:,} of {len(grades):,} queries.")
    gone = {one for judged in grades.values() for one in judged if one not in corpus.ids}
    if gone:
        notes.append(f"Not in the corpus: {len(gone):,} of the judged documents, such as {min(gone)!r}.")
    return notes


def _versions() -> dict[str, str]:
    names = ("onnxruntime", "tokenizers", "ir-measures")
    return (
        {"onnx-rerank-integrations": __version__}
        | {name: version(name) for name in names}
        | {"python": platform.python_version()}
    )

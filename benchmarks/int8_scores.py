"""How far int8 moves a trained model's scores: `python -m benchmarks.int8_scores MODEL COLLECTION`.

The fp32 graph of MODEL and its two int8 copies, made as `onnx-rerank quantize` makes them, score BM25's candidates of a
collection in BEIR layout: each pair alone, and in batches of eight as they come, as a program would run them that
doesn't care. Every other query calibrates the static copy; the others are scored. Needs the extras [evaluate] and
[optimize].
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.core.graphs.trials import open_session
from onnx_rerank_integrations.extras.evaluate.collection import read_corpus, read_grades, read_queries
from onnx_rerank_integrations.extras.evaluate.first_stage import bm25
from onnx_rerank_integrations.extras.markdown import markdown_table
from onnx_rerank_integrations.extras.quantize import batches, quantized_graph
from onnx_rerank_integrations.extras.quantize.agreement import compare

Feed = Mapping[str, np.ndarray]
BATCH = 8
HEAD = ["", "moved from fp32, mean", "largest", "Spearman with fp32", "nDCG@10", "moved by company, mean", "largest"]


def measure(model: Path, collection: Path, queries: int, candidates: int) -> list[list[str]]:
    """A row for each graph; what moves is in standard deviations of the fp32 scores."""
    texts, corpus = read_queries(collection), read_corpus(collection)
    grades = read_grades(collection, "test", texts)
    chosen = {query: texts[query] for query in list(grades)[: 2 * queries]}
    run = bm25(corpus, chosen, candidates).candidates
    pairs, groups, relevances = [], [], []
    calibration = []
    for place, (query, found) in enumerate(run.items()):
        own = [(chosen[query], corpus.texts[document]) for document in found]
        if place % 2 == 0:
            calibration += own[:: max(len(own) // 8, 1)]
            continue
        pairs += own
        groups += [query] * len(own)
        relevances += [grades[query].get(document, 0) for document in found]
    encoder = TextCrossEncoder(model, optimize="off", warn_truncated=False)
    feeds = [feed for pair in pairs for feed in encoder.load().feeds([pair])]
    path = encoder.load().files.onnx
    graphs: dict[str, Any] = {"fp32": open_session(path)}
    for mode in ("static", "dynamic"):
        graphs[f"{mode} int8"] = open_session(quantized_graph(path, batches(encoder, calibration), mode=mode))
    rows, fp32 = [], np.empty(0)
    for name, session in graphs.items():
        alone, company = scores(session, feeds, 1), scores(session, feeds, BATCH)
        fp32 = alone if name == "fp32" else fp32
        found, moved = compare(fp32, alone, groups, relevances), np.abs(company - alone)
        figures = [found.mean_error / found.spread, found.largest_error / found.spread, found.spearman]
        figures += [found.ndcg_after or 0.0, moved.mean() / found.spread, moved.max() / found.spread]
        rows.append([name, *(f"{value:.3f}" for value in figures)])
    return rows


def scores(session: Any, feeds: Sequence[Feed], batch: int) -> np.ndarray:
    """(N,) the last logit of each pair, padded to the longest of its batch."""
    found = []
    for start in range(0, len(feeds), batch):
        part = feeds[start : start + batch]
        width = max(feed["input_ids"].shape[1] for feed in part)
        joined = {
            name: np.concatenate([np.pad(feed[name], ((0, 0), (0, width - feed[name].shape[1]))) for feed in part])
            for name in part[0]
        }
        found.append(session.run(None, joined)[0][:, -1])
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8_scores", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--queries", type=int, default=35)
    parser.add_argument("--candidates", type=int, default=30)
    options = parser.parse_args()
    rows = measure(options.model, options.collection, options.queries, options.candidates)
    print(markdown_table(HEAD, rows, numbers=HEAD[1:]))


if __name__ == "__main__":
    main()

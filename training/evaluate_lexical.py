"""Measures the lexical model as it ships, and prints the tables of MODEL_CARD.md.

Three tables, each of nDCG@10 (ir-measures) after reranking BM25's top 100, through the ONNX file in onnxruntime:
public test collections; question sources left out of everything the model was made from; and the cost in time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import ir_measures
import numpy as np
import onnxruntime as ort
from build_lexical import MAX_LENGTH, OUTPUT, write_model
from ir_measures import nDCG
from pools import QUESTION_SOURCES, Pool, question_pool, training_pools
from sources import read_pairs, read_sections
from tokenizers import Tokenizer
from tune_lexical import choose_constants
from vocabulary import learn_lexicon

COLLECTIONS = ("cranfield", "cisi", "med")
LENGTHS = (128, 256, 512, MAX_LENGTH)
PADDED_TOKENS = 8192
HELD_OUT_QUERIES = 1000
BOOTSTRAP_SAMPLES = 10_000

Run = dict[str, dict[str, float]]


class PlainModel:
    """The files of a built model, run the plain way."""

    def __init__(self, folder: Path, max_length: int = MAX_LENGTH, threads: int = 1) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_length, strategy="longest_first")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    def score(self, query: str, documents: Sequence[str]) -> np.ndarray:
        """(N,) logits in input order; batches of similar length hold at most `PADDED_TOKENS`."""
        encodings = self.tokenizer.encode_batch_fast([(query, document) for document in documents])
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids), reverse=True)
        logits = np.zeros(len(documents), np.float32)
        while order:
            width = len(encodings[order[0]].ids)
            size = max(1, PADDED_TOKENS // width)
            batch, order = order[:size], order[size:]
            arrays = np.zeros((3, len(batch), width), np.int64)
            for row, i in enumerate(batch):
                encoding = encodings[i]
                arrays[:, row, : len(encoding.ids)] = encoding.ids, encoding.attention_mask, encoding.type_ids
            names = ("input_ids", "attention_mask", "token_type_ids")
            logits[batch] = self.session.run(["logits"], dict(zip(names, arrays, strict=True)))[0][:, 0]
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and eval/")
    parser.add_argument("--model", type=Path, default=OUTPUT, help="folder of the built model")
    parser.add_argument("--only", choices=("collections", "sources", "lengths", "cost"), help="print one table")
    parser.add_argument("--sources", nargs="*", default=QUESTION_SOURCES, help="question sources to hold out, in turn")
    arguments = parser.parse_args()
    if arguments.only in (None, "cost"):
        cost_table(arguments.data, arguments.model)
    if arguments.only in (None, "collections"):
        collections_table(arguments.data, arguments.model)
    if arguments.only in (None, "lengths"):
        lengths_table(arguments.data, arguments.model)
    if arguments.only in (None, "sources"):
        sources_table(arguments.data, arguments.sources)


def collections_table(data: Path, folder: Path) -> None:
    """Public test collections, at several limits of tokens."""
    print(f"| collection | BM25 | {' | '.join(f'{length} tokens' for length in LENGTHS)} | difference (95 %) |")
    print("|---|---" + "|---" * len(LENGTHS) + "|---|")
    for name in COLLECTIONS:
        queries, documents, relevant, bm25 = read_collection(data / "eval" / name)
        runs = [rerank(PlainModel(folder, length), queries, documents, bm25) for length in LENGTHS]
        base, *values = [ndcg_by_query(relevant, run) for run in (bm25, *runs)]
        cells = " | ".join(f"{np.mean(value):.4f}" for value in values)
        print(f"| {name} | {np.mean(base):.4f} | {cells} | {difference(values[-1], base)} |", flush=True)


def sources_table(data: Path, sources: Sequence[str]) -> None:
    """Question sources, each with a model whose tokenizer, rarity, constants and calibration never saw it."""
    print("| source held out | queries | BM25 | model | difference (95 %) | relevant > 0.5 | irrelevant > 0.5 |")
    print("|---|---|---|---|---|---|---|")
    everything = read_pairs(data)
    gains: list[np.ndarray] = []
    for source in sources:
        pairs, sections = read_pairs(data, (source,)), read_sections(data, (source,))
        lexicon = learn_lexicon(pairs, sections)
        with tempfile.TemporaryDirectory() as folder:
            write_model(lexicon, choose_constants(lexicon, training_pools(pairs, sections)), Path(folder))
            model = PlainModel(Path(folder))
            pool = question_pool(source, everything, HELD_OUT_QUERIES)
            queries, documents, relevant, bm25 = pool_as_collection(pool)
            run = rerank(model, queries, documents, bm25)
        base, ours = ndcg_by_query(relevant, bm25), ndcg_by_query(relevant, run)
        gains.append(ours - base)
        print(
            f"| {source} | {len(queries)} | {base.mean():.4f} | {ours.mean():.4f} | {difference(ours, base)} "
            f"| {share_above_half(run, relevant, True):.2f} | {share_above_half(run, relevant, False):.2f} |",
            flush=True,
        )
    means = np.array([gain.mean() for gain in gains])
    # Two levels: sources are few, so the interval resamples the queries within each and averages over sources.
    samples = np.mean([bootstrap_means(gain) for gain in gains], axis=0)
    low, high = np.percentile(samples, [2.5, 97.5])
    print(f"| mean of sources | | | | {means.mean():+.4f} ({low:+.4f} to {high:+.4f}) | | |")


def lengths_table(data: Path, folder: Path) -> None:
    """The training pools of long queries at several limits of tokens: where the shipped limit comes from."""
    pools = [pool for pool in training_pools(read_pairs(data), read_sections(data)) if pool.kind == "long"]
    print(f"| training pool | BM25 | {' | '.join(f'{length} tokens' for length in LENGTHS)} |")
    print("|---|---" + "|---" * len(LENGTHS) + "|")
    for pool in pools:
        queries, documents, relevant, bm25 = pool_as_collection(pool)
        runs = [rerank(PlainModel(folder, length, threads=2), queries, documents, bm25) for length in LENGTHS]
        cells = " | ".join(f"{ndcg_by_query(relevant, run).mean():.4f}" for run in (bm25, *runs))
        print(f"| {pool.name} | {cells} |", flush=True)


def cost_table(data: Path, folder: Path) -> None:
    """Memory of a full batch of the longest inputs; CPU time, over all threads, of 100 candidates with tokenizing."""
    session = PlainModel(folder).session
    print(f"| batch of {PADDED_TOKENS:,} tokens | peak memory above the loaded model |\n|---|---|")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for query_tokens in (32, MAX_LENGTH // 2, MAX_LENGTH - 16):
        ids = np.random.default_rng(0).integers(100, 20_000, (PADDED_TOKENS // MAX_LENGTH, MAX_LENGTH))
        types = np.broadcast_to(np.arange(MAX_LENGTH) >= query_tokens, ids.shape).astype(np.int64)
        session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"| {query_tokens} query tokens of {MAX_LENGTH} | {(peak - before) / 1024:.0f} MiB |")
    print()
    print("| 100 candidates of | query words (median) | passage words (median) | CPU ms per query (median) |")
    print("|---|---|---|---|")
    for name in COLLECTIONS:
        queries, documents, _, bm25 = read_collection(data / "eval" / name)
        model, seconds = PlainModel(folder), []
        for query, found in bm25.items():
            texts = [documents[document] for document in found]
            start = time.process_time()
            model.score(queries[query], texts)
            seconds.append(time.process_time() - start)
        words = [np.median([len(text.split()) for text in texts]) for texts in (queries.values(), documents.values())]
        print(f"| {name} | {words[0]:.0f} | {words[1]:.0f} | {1000 * np.median(seconds):.1f} |", flush=True)


def read_collection(folder: Path) -> tuple[dict[str, str], dict[str, str], Run, Run]:
    """Queries, documents, relevance and the BM25 run of a collection in BEIR's layout."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in map(json.loads, lines)}
    lines = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    relevant: Run = defaultdict(dict)
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        relevant[query][document] = int(grade)
    bm25: Run = defaultdict(dict)
    for line in (folder / "bm25.trec").read_text(encoding="utf-8").splitlines():
        query, _, document, rank, _, _ = line.split()
        bm25[query][document] = -float(rank)
    return queries, documents, relevant, bm25


def pool_as_collection(pool: Pool) -> tuple[dict[str, str], dict[str, str], Run, Run]:
    """A pool in the form of `read_collection`."""
    queries = {str(q): text for q, text in enumerate(pool.queries)}
    documents = {str(p): text for p, text in enumerate(pool.passages)}
    relevant = {str(q): {str(p): 1 for p in passages} for q, passages in enumerate(pool.relevant)}
    bm25 = {str(q): {str(p): -float(r) for r, p in enumerate(row)} for q, row in enumerate(pool.candidates)}
    return queries, documents, relevant, bm25


def rerank(model: PlainModel, queries: dict[str, str], documents: dict[str, str], first: Run) -> Run:
    """The candidates of the first run, scored by the model."""
    return {
        query: dict(zip(found, model.score(queries[query], [documents[d] for d in found]).tolist(), strict=True))
        for query, found in first.items()
    }


def ndcg_by_query(relevant: Run, run: Run) -> np.ndarray:
    """(Q,) nDCG@10, in the order of the relevance judgements; 0 where the run has nothing for a query."""
    values = {metric.query_id: metric.value for metric in ir_measures.iter_calc([nDCG @ 10], relevant, run)}
    return np.array([values.get(query, 0.0) for query in relevant])


def difference(ours: np.ndarray, base: np.ndarray) -> str:
    low, high = np.percentile(bootstrap_means(ours - base), [2.5, 97.5])
    return f"{np.mean(ours - base):+.4f} ({low:+.4f} to {high:+.4f})"


def bootstrap_means(values: np.ndarray) -> np.ndarray:
    """Means of resampled queries: the paired bootstrap of a difference."""
    generator = np.random.default_rng(0)
    return np.array([values[generator.integers(0, len(values), len(values))].mean() for _ in range(BOOTSTRAP_SAMPLES)])


def share_above_half(run: Run, relevant: Run, wanted: bool) -> float:
    """Share of logits above 0 among the relevant candidates, or among the irrelevant ones."""
    logits = [z for query, found in run.items() for d, z in found.items() if (d in relevant[query]) == wanted]
    return float(np.mean(np.array(logits) > 0))


if __name__ == "__main__":
    main()

"""Measures the embedded model as it ships, through `TextCrossEncoder`, and prints the tables of MODEL_CARD.md.

Of nDCG@10 (ir-measures) after reranking BM25's top 100: public test collections, with the int8 file beside the fp32
graph; question sources left out of everything that was chosen; and the cost in time and memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from build_embedded import OUTPUT, write_model
from evaluate_lexical import (
    COLLECTIONS,
    Run,
    bootstrap_means,
    difference,
    ndcg_by_query,
    read_collection,
)
from formula import match, score, token_weights
from minilm import pair_tokenizer
from pair_graph import PARTS, Recipe, Words
from pools import QUESTION_SOURCES, ndcg_at_10, question_pool, training_pools
from sources import read_pairs, read_sections
from tune_embedded import RECIPE, PairScorer, Scored, choose_weights, choose_words, score_pool, smaller
from tune_embedded import lexicon as lexicon_of
from tune_lexical import choose_constants
from vocabulary import learn_lexicon

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.extras.quantize.agreement import compare

HELD_OUT_QUERIES, HELD_OUT_CANDIDATES = 100, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and eval/")
    parser.add_argument("--model", type=Path, default=OUTPUT, help="folder of the built model")
    parser.add_argument("--only", choices=("collections", "sources", "cost"), help="print one table")
    parser.add_argument("--collections", nargs="*", default=COLLECTIONS, help="public collections to measure on")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.only in (None, "cost"):
        cost_table(arguments.data, arguments.model, arguments.threads)
    if arguments.only in (None, "collections"):
        collections_table(arguments.data, arguments.model, arguments.collections, arguments.threads)
    if arguments.only in (None, "sources"):
        sources_table(arguments.data, arguments.threads)


def collections_table(data: Path, folder: Path, names: Sequence[str], threads: int) -> None:
    """Public test collections: the first stage, words alone, the file that ships, and its graph in fp32."""
    print("| collection | BM25 | lexical | embedded | above BM25 (95 %) | above lexical (95 %) | fp32 | int8 : fp32 |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        write_model(Recipe.read(RECIPE), Path(temporary), int8=False)
        encoders = [TextCrossEncoder(model, threads=threads) for model in ("lexical", folder, temporary)]
        for name in names:
            queries, documents, relevant, bm25 = read_collection(data / "eval" / name)
            runs = [rerank(encoder, queries, documents, bm25) for encoder in encoders]
            base, words, int8, fp32 = (ndcg_by_query(relevant, run) for run in (bm25, *runs))
            logits = [[value for found in run.values() for value in found.values()] for run in runs]
            groups = [index for index, found in enumerate(bm25.values()) for _ in found]
            agreement = compare(logits[2], logits[1], groups, [None] * len(groups))
            print(
                f"| {name} | {base.mean():.4f} | {words.mean():.4f} | {int8.mean():.4f} | {difference(int8, base)} | "
                f"{difference(int8, words)} | {fp32.mean():.4f} | {agreement.spearman:.4f} |",
                flush=True,
            )


def sources_table(data: Path, threads: int) -> None:
    """Question sources, each left out of the words, the formula's constants, the weights and the calibration.

    The encoder's weights are as published, and the steps of its activations as shipped.
    """
    columns = "source held out | queries | BM25 | lexical | embedded | above lexical (95 %)"
    print(f"| {columns} | relevant > 0.5 | irrelevant > 0.5 |")
    print("|---|---|---|---|---|---|---|---|")
    recipe, tokenizer = Recipe.read(RECIPE), pair_tokenizer()
    with tempfile.TemporaryDirectory() as temporary:
        write_model(recipe, Path(temporary), int8=True)
        scorer = PairScorer(onnx.load(Path(temporary) / "model.onnx"), tokenizer, PARTS, threads)
    everything = read_pairs(data)
    training = [score_pool(scorer, pool) for pool in smaller(training_pools(everything, read_sections(data)))]
    gains: list[np.ndarray] = []
    for source in QUESTION_SOURCES:
        pairs, sections = read_pairs(data, (source,)), read_sections(data, (source,))
        lexicon = learn_lexicon(pairs, sections)
        constants = choose_constants(lexicon, training_pools(pairs, sections))
        weights = token_weights(lexicon, constants)
        others = [each for each in training if not each.pool.name.startswith(source)]
        words = choose_words([each.pool for each in others], tokenizer, lexicon.tokenizer, weights, constants)

        def with_words(scored: Scored, words: Words = words) -> Scored:
            pool = scored.pool
            parts = scored.parts.copy()
            counted = match(lexicon_of(tokenizer, words), pool.queries, pool.passages, pool.candidates)
            parts[..., PARTS.index("lexical")], _ = score(counted, words.weights, words.constants)
            return replace(scored, parts=parts)

        chosen = choose_weights([with_words(each) for each in others], recipe, log=lambda line: None)
        pool = question_pool(source, everything, HELD_OUT_QUERIES)
        pool = replace(pool, candidates=pool.candidates[:, :HELD_OUT_CANDIDATES])
        ours = with_words(score_pool(scorer, pool)).parts @ [chosen.weights[part] for part in PARTS] + chosen.offset
        lexical, _ = score(match(lexicon, pool.queries, pool.passages, pool.candidates), weights, constants)
        rank = np.broadcast_to(np.arange(pool.candidates.shape[1]), pool.candidates.shape)
        base, by_words, by_both = (ndcg_at_10(scores, pool) for scores in (-rank, lexical, ours))
        gains.append(by_both - by_words)
        found = pool.found() > 0
        print(
            f"| {source} | {len(pool.queries)} | {base.mean():.4f} | {by_words.mean():.4f} | {by_both.mean():.4f} "
            f"| {difference(by_both, by_words)} | {np.mean(ours[found] > 0):.2f} | {np.mean(ours[~found] > 0):.2f} |",
            flush=True,
        )
    # Two levels: sources are few, so the interval resamples the queries within each and averages over sources.
    low, high = np.percentile(np.mean([bootstrap_means(gain) for gain in gains], axis=0), [2.5, 97.5])
    print(f"| mean of sources | | | | | {np.mean([g.mean() for g in gains]):+.4f} ({low:+.4f} to {high:+.4f}) | | |")


def cost_table(data: Path, folder: Path, threads: int) -> None:
    """Time from process start to the first score; time and memory of calls of one query."""
    code = "from onnx_rerank_integrations import TextCrossEncoder as Encoder; "
    code += f"Encoder({str(folder)!r}).rerank('a query', ['a text'])"
    starts = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        starts.append(time.perf_counter() - begin)
    print(f"first score from process start: {np.median(starts):.2f} s (median of {len(starts)})\n")
    encoder = TextCrossEncoder(folder, threads=threads).load()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("| 100 candidates of | tokens | seconds (median) | tokens a second |")
    print("|---|---|---|---|")
    for name in COLLECTIONS:
        queries, documents, _, bm25 = read_collection(data / "eval" / name)
        seconds, tokens = [], []
        for query in list(bm25)[:10]:
            texts = [documents[document] for document in bm25[query]]
            tokens.append(encoder.token_count([(queries[query], text) for text in texts]))
            begin = time.perf_counter()
            encoder.rerank(queries[query], texts)
            seconds.append(time.perf_counter() - begin)
        speed = np.sum(tokens) / np.sum(seconds)
        print(f"| {name} | {np.median(tokens):,.0f} | {np.median(seconds):.2f} | {speed:,.0f} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\npeak memory: {peak / 1024:.0f} MiB, {(peak - before) / 1024:.0f} of them above the loaded model")


def rerank(encoder: TextCrossEncoder, queries: dict[str, str], documents: dict[str, str], first: Run) -> Run:
    """The candidates of the first run, scored by the model."""
    return {
        query: dict(zip(found, encoder.rerank(queries[query], [documents[d] for d in found]), strict=True))
        for query, found in first.items()
    }


if __name__ == "__main__":
    main()

"""Measures the embedded model as it ships, through `TextCrossEncoder`, and prints the tables of MODEL_CARD.md.

Of nDCG@10 (ir-measures) after reranking BM25's top 100: public test collections, with the int8 file beside the fp32
graph; question sources left out of everything that was chosen; and the cost in time and memory.

An hour and a half on two cores; each table can be had alone.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from build_embedded import OUTPUT, graph, known_words
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
from sources import SHARE_ALIKE, read_judges, read_pairs, read_sections
from tune_embedded import RECIPE, PartScorer, Scored, choose_weights, choose_words, score_pool, smaller
from tune_embedded import lexicon as lexicon_of
from tune_lexical import choose_constants
from vocabulary import learn_lexicon

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.extras.quantize.agreement import compare

HELD_OUT_QUERIES, HELD_OUT_CANDIDATES = 60, 40
UNSEEN_QUERIES = 200
CHECKED_PAIRS = 200
STARTS, CALLS, ROUNDS = 5, 5, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and eval/")
    parser.add_argument("--model", type=Path, default=OUTPUT, help="folder of the built model")
    parser.add_argument("--only", choices=("collections", "unseen", "sources", "cost"), help="print one table")
    parser.add_argument("--collections", nargs="*", default=COLLECTIONS, help="public collections to measure on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--beside", nargs=2, metavar=("FOLDER", "MODEL_FILE"), help="another model, to compare the speed per token with"
    )
    arguments = parser.parse_args()
    if arguments.only in (None, "cost"):
        cost_table(arguments.data, arguments.model, arguments.threads, arguments.beside)
    if arguments.only in (None, "collections"):
        collections_table(arguments.data, arguments.model, arguments.collections, arguments.threads)
    if arguments.only in (None, "unseen"):
        unseen_table(arguments.data, arguments.model, arguments.threads)
    if arguments.only in (None, "sources"):
        sources_table(arguments.data, arguments.threads)


def collections_table(data: Path, folder: Path, names: Sequence[str], threads: int) -> None:
    """Public test collections: the first stage, words alone, the file that ships, and its graph in fp32.

    Each text is encoded once; how near that is to `TextCrossEncoder` on the same file is the last column.
    """
    columns = "collection | BM25 | lexical | embedded | above BM25 (95 %) | above lexical (95 %)"
    print(f"| {columns} | fp32 | int8 : fp32 | off |")
    print("|---|---|---|---|---|---|---|---|---|")
    recipe, tokenizer = Recipe.read(RECIPE), pair_tokenizer()
    by_words, ours = (TextCrossEncoder(model, threads=threads, warn_truncated=False) for model in ("lexical", folder))
    graphs = (onnx.load(folder / "model.onnx"), graph(recipe, int8=False))
    scorers = [PartScorer(each, known_words(recipe), tokenizer, threads) for each in graphs]
    for name in names:
        queries, documents, relevant, bm25 = read_collection(data / "eval" / name)
        pairs = [(queries[query], documents[document]) for query, found in bm25.items() for document in found]
        logits = [scorer(pairs) @ [recipe.weights[part] for part in PARTS] + recipe.offset for scorer in scorers]
        runs = [rerank(by_words, queries, documents, bm25), *(as_run(values, bm25) for values in logits)]
        base, words, int8, fp32 = (ndcg_by_query(relevant, run) for run in (bm25, *runs))
        groups = [index for index, found in enumerate(bm25.values()) for _ in found]
        agreement = compare(logits[1].tolist(), logits[0].tolist(), groups, [None] * len(groups))
        checked = range(0, len(pairs), len(pairs) // CHECKED_PAIRS)
        plainly = ours.rerank_pairs([pairs[index] for index in checked])
        print(
            f"| {name} | {base.mean():.4f} | {words.mean():.4f} | {int8.mean():.4f} | {difference(int8, base)} | "
            f"{difference(int8, words)} | {fp32.mean():.4f} | {agreement.spearman:.4f} | "
            f"{np.abs(logits[0][checked] - plainly).max():.0e} |",
            flush=True,
        )


def as_run(logits: np.ndarray, first: Run) -> Run:
    """Logits in the order of the first run's candidates."""
    values = iter(logits.tolist())
    return {query: {document: next(values) for document in found} for query, found in first.items()}


def sources_table(data: Path, threads: int) -> None:
    """Question sources, each left out of the words, the formula's constants, the weights and the calibration.

    The encoder's weights are as published, and the steps of its activations as shipped.
    """
    columns = "source held out | queries | BM25 | lexical | embedded | above lexical (95 %)"
    print(f"| {columns} | relevant > 0.5 | irrelevant > 0.5 |")
    print("|---|---|---|---|---|---|---|---|")
    recipe, tokenizer = Recipe.read(RECIPE), pair_tokenizer()
    # Weights are chosen by fp32 scores, as tune_embedded.py does it, and judged in int8.
    plain, scorer = (
        PartScorer(graph(recipe, int8=int8), known_words(recipe), tokenizer, threads) for int8 in (False, True)
    )
    everything = read_pairs(data)
    pools = training_pools(everything, read_sections(data))
    training = [score_pool(plain, pool) for pool in smaller(pools)]
    gains: list[np.ndarray] = []
    for source in QUESTION_SOURCES:
        lexicon = learn_lexicon(read_pairs(data, (source,)), read_sections(data, (source,)))
        constants = choose_constants(lexicon, [pool for pool in pools if not pool.name.startswith(source)])
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


def unseen_table(data: Path, folder: Path, threads: int) -> None:
    """Question sources that nothing was learned or chosen from, since their licence keeps them out of what ships.

    Unseen by this project: all-MiniLM-L6-v2 itself was trained on SQuAD and Natural Questions.
    """
    print("| source | queries | passages | BM25 | lexical | embedded | above BM25 (95 %) | above lexical (95 %) |")
    print("|---|---|---|---|---|---|---|---|")
    recipe = Recipe.read(RECIPE)
    scorer = PartScorer(onnx.load(folder / "model.onnx"), known_words(recipe), pair_tokenizer(), threads)
    by_words, everything = TextCrossEncoder("lexical", threads=threads, warn_truncated=False), read_judges(data)
    for source in SHARE_ALIKE:
        pool = question_pool(source, everything, UNSEEN_QUERIES)
        pairs = [(pool.queries[q], pool.passages[c]) for q, row in enumerate(pool.candidates) for c in row]
        ours = scorer(pairs) @ [recipe.weights[part] for part in PARTS]
        lexical = np.array(by_words.rerank_pairs(pairs))
        rank = np.broadcast_to(np.arange(pool.candidates.shape[1]), pool.candidates.shape)
        base, words, both = (ndcg_at_10(x.reshape(pool.candidates.shape), pool) for x in (-rank, lexical, ours))
        print(
            f"| {source} | {len(pool.queries)} | {len(pool.passages):,} | {base.mean():.4f} | {words.mean():.4f} "
            f"| {both.mean():.4f} | {difference(both, base)} | {difference(both, words)} |",
            flush=True,
        )


def cost_table(data: Path, folder: Path, threads: int, beside: tuple[str, str] | None) -> None:
    """Time from process start to the first score; time and memory of calls of one query."""
    code = "from onnx_rerank_integrations import TextCrossEncoder as Encoder; "
    code += f"Encoder({str(folder)!r}).rerank('a query', ['a text'])"
    starts = []
    for _ in range(STARTS):
        begin, spent = time.perf_counter(), children_seconds()
        subprocess.run([sys.executable, "-c", code], check=True)
        starts.append((time.perf_counter() - begin, children_seconds() - spent))
    wall, cpu = np.median(starts, axis=0)
    print(f"first score from process start: {wall:.2f} s, of them {cpu:.2f} s of CPU (median of {STARTS})\n")
    encoder = TextCrossEncoder(folder, threads=threads, warn_truncated=False).load()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"| {threads} threads | tokens | seconds (median) | CPU seconds | tokens a CPU second |")
    print("|---|---|---|---|---|")
    for name in COLLECTIONS:
        queries, documents, _, bm25 = read_collection(data / "eval" / name)
        calls = [(queries[query], [documents[document] for document in bm25[query]]) for query in list(bm25)[:CALLS]]
        print(cost_row(f"100 candidates of {name}", encoder, calls), flush=True)
    queries, documents, _, _ = read_collection(data / "eval" / "cranfield")
    usual = [text for text in documents.values() if 60 <= len(text.split()) <= 200]
    calls = [(query, usual[20 * i : 20 * i + 20]) for i, query in enumerate(list(queries.values())[:CALLS])]
    print(cost_row("20 passages of 60 to 200 words", encoder, calls), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\npeak memory: {peak / 1024:.0f} MiB, {(peak - before) / 1024:.0f} of them above the loaded model")
    if beside is not None:
        beside_table(encoder, TextCrossEncoder(beside[0], model_file=beside[1], threads=threads), usual)


def cost_row(name: str, encoder: TextCrossEncoder, calls: Sequence[tuple[str, list[str]]]) -> str:
    tokens = [encoder.token_count([(query, text) for text in texts]) for query, texts in calls]
    seconds = []
    for query, texts in calls:
        begin, spent = time.perf_counter(), time.process_time()
        encoder.rerank(query, texts)
        seconds.append((time.perf_counter() - begin, time.process_time() - spent))
    wall, cpu = np.median(seconds, axis=0)
    speed = np.sum(tokens) / np.sum(seconds, axis=0)[1]
    return f"| {name} | {np.median(tokens):,.0f} | {wall:.2f} | {cpu:.2f} | {speed:,.0f} |"


def beside_table(ours: TextCrossEncoder, theirs: TextCrossEncoder, texts: Sequence[str]) -> None:
    """Tokens a CPU second of both, in turn on the same texts, all in a call or one; each counts its own."""
    query = "what is known of the flow over a plate at high speed"
    print("\n| words of a passage | tokens a CPU second | the other model | ratio | one pair a call | other | ratio |")
    print("|---|---|---|---|---|---|---|")
    for words in (20, 60, 100, 150, 200):
        passages = [" ".join((text * 4).split()[:words]) for text in texts[:40]]
        together, alone = [passages], [[passage] for passage in passages]
        speeds = [
            [speed(encoder, query, calls) for calls in (together, alone) for encoder in (ours, theirs)]
            for _ in range(ROUNDS)
        ]
        found = np.median(speeds, axis=0).reshape(2, 2)
        cells = [f"{a:,.0f} | {b:,.0f} | {a / b:.2f}" for a, b in found]
        print(f"| {words} | {' | '.join(cells)} |", flush=True)


def speed(encoder: TextCrossEncoder, query: str, calls: Sequence[Sequence[str]]) -> float:
    """Tokens a CPU second."""
    begin = time.process_time()
    for passages in calls:
        encoder.rerank(query, passages)
    spent = time.process_time() - begin
    return encoder.token_count([(query, text) for passages in calls for text in passages]) / spent


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def rerank(encoder: TextCrossEncoder, queries: dict[str, str], documents: dict[str, str], first: Run) -> Run:
    """The candidates of the first run, scored by the model."""
    return {
        query: dict(zip(found, encoder.rerank(queries[query], [documents[d] for d in found]), strict=True))
        for query, found in first.items()
    }


if __name__ == "__main__":
    main()

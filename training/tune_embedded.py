"""Chooses the embedded model's constants on training sources, and writes embedded.json.

First how each projection's input becomes uint8, then the weights of the three scores, then the calibration. The
encoder's own weights are as published. Nothing here reads an evaluation set. Ten minutes on two cores.

The weights are chosen by the scores of the fp32 graph. Which mixtures count as equally good hangs on single queries,
and would hang on how int8 rounds them: other int8 steps alone moved the share of the words from 15 to 24 hundredths.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import formula
import numpy as np
import onnx
import onnxruntime as ort
from encoder_graph import PROJECTED, Activation
from formula import Constants, match
from graph import GraphWriter, finish
from lexical_graph import add_score, texts_of_rows
from minilm import fit_words, lexical_words, pair_tokenizer, read_weights
from pair_graph import PARTS, Recipe, Words, build_graph
from pools import Pool, ndcg_at_10, training_pools
from sources import read_pairs, read_sections
from tokenizers import Tokenizer
from tune_lexical import CONSTANTS as LEXICAL_CONSTANTS
from tune_lexical import HARD_NEGATIVES, LONG_SHARE, TRAINING
from vocabulary import Lexicon

from onnx_rerank_integrations.extras.quantize.int8_graph import (
    ACTIVATION_LEVELS,
    ORDINARY_CHANNELS,
    WORTH_SMOOTHING,
    Channels,
)

LEXICAL = TRAINING.parent / "onnx_rerank_integrations" / "models" / "lexical"
RECIPE = TRAINING / "embedded.json"
MAX_LENGTH = 512
BATCH = 8
CALIBRATION_PAIRS = 16
"""Of each pool."""

QUESTIONS, LONG_QUERIES, CANDIDATES = 30, 10, 40
"""Of each pool; a part of what the lexical model's constants are chosen on, since this model is slower."""

PIECE_SHARES = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)

STEPS = 10
"""The shares of the three scores are multiples of a tenth."""


@dataclass(frozen=True)
class Scored:
    """A pool and what the graph gives for it: (Q, C, 3), `PARTS` last."""

    pool: Pool
    parts: np.ndarray


class PairScorer:
    """A graph in memory, and all-MiniLM-L6-v2's tokenizer, run the plain way."""

    def __init__(self, graph: onnx.ModelProto, tokenizer: Tokenizer, outputs: Sequence[str], threads: int) -> None:
        self.outputs = list(outputs)
        self._tokenizer = tokenizer
        self._tokenizer.enable_truncation(MAX_LENGTH, strategy="longest_first")
        declared = {output.name for output in graph.graph.output}
        graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.outputs if name not in declared)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Batches of similar length: the pairs' indices, and the outputs."""
        return self.run_rows([(one.ids, one.type_ids) for one in self._tokenizer.encode_batch_fast(list(pairs))])

    def run_rows(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """The same for token ids and types."""
        order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            width = len(rows[batch[-1]][0])
            arrays = np.zeros((3, len(batch), width), np.int64)
            for row, index in enumerate(batch):
                ids, types = rows[index]
                arrays[:, row, : len(ids)] = ids, np.ones(len(ids)), types
            names = ("input_ids", "attention_mask", "token_type_ids")
            yield batch, self._session.run(self.outputs, dict(zip(names, arrays, strict=True)))


class PartScorer:
    """The three scores of pairs, `PARTS`, each text encoded once.

    Texts meet late, and the documents of one query are those of others too: the same as the graph gives for each pair,
    to 1e-5, in a fraction of the time.
    """

    def __init__(self, graph: onnx.ModelProto, words: Words, tokenizer: Tokenizer, threads: int) -> None:
        self._tokenizer = tokenizer
        g = GraphWriter()
        score, _ = add_score(g, *texts_of_rows(g), words.stems, words.weights, words.constants)
        g.add("Cast", score, to=onnx.TensorProto.FLOAT, output="logits")
        self._encoder = PairScorer(graph, tokenizer, ["document_states"], threads)
        self._lexical = PairScorer(finish(g, "lexical_part", {}), tokenizer, ["logits"], threads)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """(N, 3)"""
        parts = np.empty((len(pairs), len(PARTS)))
        for batch, (lexical,) in self._lexical.run(pairs):
            parts[batch, PARTS.index("lexical")] = lexical[:, 0]
        sides = [self._sides(pair) for pair in pairs]
        texts = self._encoded({ids for pair in sides for ids in pair})
        for row, (query, document) in zip(parts, sides, strict=True):
            (query_mean, query_words), (document_mean, document_words) = texts[query], texts[document]
            similarity = query_words @ document_words.T
            row[PARTS.index("cosine")] = query_mean @ document_mean
            row[PARTS.index("max_similarity")] = similarity.max(axis=1, initial=0).mean() if len(similarity) else 0
        return parts

    def _sides(self, pair: tuple[str, str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The token ids of query and document, as the pair's truncation leaves them."""
        encoding = self._tokenizer.encode(*pair)
        length = encoding.type_ids.count(0)
        return tuple(encoding.ids[:length]), tuple(encoding.ids[length:])

    def _encoded(self, texts: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
        """Of each text the mean state, and the states of its words, all of length 1."""
        ordered, encoded = sorted(texts), {}
        for batch, (states,) in self._encoder.run_rows([(ids, [1] * len(ids)) for ids in ordered]):
            for index, state in zip(batch, states, strict=True):
                own = state[: len(ordered[index])]
                encoded[ordered[index]] = _unit(own.mean(axis=0)), _unit(own[1:-1])
        return encoded


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/")
    parser.add_argument("--output", type=Path, default=RECIPE)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    pools = smaller(training_pools(read_pairs(arguments.data), read_sections(arguments.data)))
    recipe = choose_recipe(pools, arguments.threads, log=print)
    arguments.output.write_text(recipe.to_json() + "\n", encoding="utf-8")


def choose_recipe(pools: Sequence[Pool], threads: int, log: Callable[[str], None] = lambda line: None) -> Recipe:
    """Activations, weights and offset from these pools."""
    weights, tokenizer = read_weights(), pair_tokenizer()
    constants = Constants.read(LEXICAL_CONSTANTS)
    words = choose_words(pools, tokenizer, *lexical_words(LEXICAL), constants, log)
    recipe = Recipe(dict.fromkeys(PARTS, 1.0), 0.0, {}, words.piece_share)
    plain = build_graph(weights, words, recipe, {}, int8=False)
    recipe = replace(recipe, activations=choose_activations(plain, tokenizer, pools, threads))
    scorer = PartScorer(plain, words, tokenizer, threads)
    return choose_weights([score_pool(scorer, pool) for pool in pools], recipe, log)


def choose_words(
    pools: Sequence[Pool],
    tokenizer: Tokenizer,
    lexical_tokenizer: Tokenizer,
    known: np.ndarray,
    constants: Constants,
    log: Callable[[str], None] = lambda line: None,
) -> Words:
    """The word weights whose pieces' share ranks best by the lexical score alone."""
    tried = [fit_words(tokenizer, lexical_tokenizer, known, constants, share) for share in PIECE_SHARES]
    tasks = [
        (pool, match(lexicon(tokenizer, tried[0]), pool.queries, pool.passages, pool.candidates)) for pool in pools
    ]
    means = [
        importance(pools)
        @ [ndcg_at_10(formula.score(found, words.weights, constants)[0], pool).mean() for pool, found in tasks]
        for words in tried
    ]
    for words, mean in zip(tried, means, strict=True):
        log(f"lexical score alone, pieces weigh {words.piece_share}: {mean:.4f}")
    return tried[int(np.argmax(means))]


def lexicon(tokenizer: Tokenizer, words: Words) -> Lexicon:
    """Words in the form that the formula in numpy reads: of it, only token ids and stems take part."""
    return Lexicon(tokenizer, words.stems, words.weights, np.array([]))


def importance(pools: Sequence[Pool]) -> np.ndarray:
    shares = np.array([1.0 if pool.kind == "question" else LONG_SHARE for pool in pools])
    return shares / shares.sum()


def smaller(pools: Sequence[Pool]) -> list[Pool]:
    """Fewer queries, evenly taken, and fewer candidates."""

    def cut(pool: Pool) -> Pool:
        count = QUESTIONS if pool.kind == "question" else LONG_QUERIES
        chosen = np.linspace(0, len(pool.queries) - 1, min(count, len(pool.queries))).astype(int)
        return replace(
            pool,
            queries=[pool.queries[q] for q in chosen],
            candidates=pool.candidates[chosen, :CANDIDATES],
            relevant=[pool.relevant[q] for q in chosen],
        )

    return [cut(pool) for pool in pools]


def choose_activations(
    graph: onnx.ModelProto, tokenizer: Tokenizer, pools: Sequence[Pool], threads: int
) -> dict[str, Activation]:
    """From the range of each channel over some pairs of each pool.

    As `onnx-rerank quantize` does it: the few channels that stand far out are divided down to the others' range.
    Rounded to what matters, so that two machines' last bits give the same file.
    """
    pairs = []
    for pool in pools:
        places = np.linspace(0, pool.candidates.size - 1, CALIBRATION_PAIRS).astype(int)
        for q, c in zip(*np.unravel_index(places, pool.candidates.shape), strict=True):
            pairs.append((pool.queries[q], pool.passages[pool.candidates[q, c]]))
    scorer = PairScorer(graph, tokenizer, (*PROJECTED, "query_mask", "document_mask"), threads)
    seen: dict[str, Channels] = {}
    for _, (*values, query_mask, document_mask) in scorer.run(pairs):
        real = np.concatenate([query_mask.ravel(), document_mask.ravel()]) > 0
        for name, value in zip(PROJECTED, values, strict=True):
            found = Channels(value[real].min(axis=0), value[real].max(axis=0))
            seen[name] = seen[name].merged(found) if name in seen else found
    return {name: activation(channels) for name, channels in seen.items()}


def activation(channels: Channels) -> Activation:
    largest = np.maximum(np.abs(channels.low), np.abs(channels.high))
    ordinary = np.quantile(largest, ORDINARY_CHANNELS)
    factors = np.ones_like(largest)
    if largest.max() >= WORTH_SMOOTHING * ordinary:
        factors = np.round(np.maximum(largest / ordinary, 1), 3)
    low, high = min((channels.low / factors).min(), 0.0), max((channels.high / factors).max(), 0.0)
    scale = float(f"{(high - low) / ACTIVATION_LEVELS:.5g}")
    outstanding = {int(channel): float(f"{factors[channel]:.4g}") for channel in np.flatnonzero(factors > 1)}
    return Activation(scale, round(float(-low) / scale), outstanding)


def score_pool(scorer: PartScorer, pool: Pool) -> Scored:
    pairs = [(query, pool.passages[c]) for query, row in zip(pool.queries, pool.candidates, strict=True) for c in row]
    return Scored(pool, scorer(pairs).reshape(*pool.candidates.shape, len(PARTS)))


def choose_weights(scored: Sequence[Scored], recipe: Recipe, log: Callable[[str], None]) -> Recipe:
    """The middle of the mixtures that rank best on average over pools, then scale and offset by logistic regression.

    Many mixtures rank alike, within a standard error of the difference over queries: which of them is best by a
    thousandth is chance, their middle isn't.
    """
    of_pool = importance([each.pool for each in scored])
    spread = of_pool @ [each.parts.std(axis=1).mean(axis=0) for each in scored]
    log(f"standard deviation within a list: {dict(zip(PARTS, spread.round(4).tolist(), strict=True))}")

    def ndcg(share: np.ndarray) -> list[np.ndarray]:
        """Of each query, pool by pool."""
        return [ndcg_at_10(each.parts @ (share / spread), each.pool) for each in scored]

    def mean(of_queries: Sequence[np.ndarray]) -> float:
        return float(of_pool @ [values.mean() for values in of_queries])

    def as_good(found: Sequence[np.ndarray]) -> bool:
        differences = [a - b for a, b in zip(best, found, strict=True)]
        error = np.sqrt(of_pool**2 @ [values.var() / len(values) for values in differences])
        return mean(differences) <= error

    shares = [np.array([a, b, STEPS - a - b]) / STEPS for a in range(STEPS + 1) for b in range(STEPS + 1 - a)]
    tried = [ndcg(share) for share in shares]
    best = max(tried, key=mean)
    for found, share in sorted(zip(map(mean, tried), map(tuple, shares), strict=True), reverse=True):
        log(f"  {found:.4f} with shares {[round(float(part), 1) for part in share]}")
    plateau = [share for share, found in zip(shares, tried, strict=True) if as_good(found)]
    share = np.mean(plateau, axis=0).round(2)
    log(f"{len(plateau)} mixtures are as good; their middle, {share}: {mean(ndcg(share)):.4f}")
    for each, value in zip(scored, ndcg(share), strict=True):
        rank = np.broadcast_to(np.arange(each.pool.candidates.shape[1]), each.pool.candidates.shape)
        log(f"  {each.pool.name:32} BM25 {ndcg_at_10(-rank, each.pool).mean():.4f}  model {value.mean():.4f}")
    scale, offset = calibrate(scored, share / spread, log)
    weights = {part: float(f"{scale * w:.4g}") for part, w in zip(PARTS, share / spread, strict=True)}
    return replace(recipe, weights=weights, offset=round(offset, 3))


def calibrate(scored: Sequence[Scored], weights: np.ndarray, log: Callable[[str], None]) -> tuple[float, float]:
    """Scale and offset of the logit: at 0 a passage is as likely relevant as one of BM25's best irrelevant ones.

    Logistic regression of relevance on (score, 1). In each pool the relevant and the irrelevant passages weigh the
    same, and each pool weighs the same.
    """
    rows = []
    for each in scored:
        relevant = each.pool.found() > 0
        hard = ~relevant & (np.cumsum(~relevant, axis=1) <= HARD_NEGATIVES)
        used = relevant | hard
        y = relevant[used]
        rows.append((each.parts[used] @ weights, y, np.where(y, 1 / max(y.sum(), 1), 1 / (~y).sum())))
    s, y, weight = (np.concatenate(column) for column in zip(*rows, strict=True))
    x = np.stack([s, np.ones(len(s))], axis=1)
    solution = np.zeros(2)
    for _ in range(50):  # Newton's method: it converges in less than ten steps
        p = 1 / (1 + np.exp(-x @ solution))
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x
        solution += np.linalg.solve(hessian, x.T @ (weight * (y - p)))
    for each, (part, truth, part_weight) in zip(scored, rows, strict=True):
        right = ((part * solution[0] + solution[1] > 0) == truth) @ part_weight / part_weight.sum()
        log(f"  {each.pool.name:32} right at 0.5: {right:.3f} of {len(truth)}")
    return float(solution[0]), float(solution[1])


if __name__ == "__main__":
    main()

"""Batches across requests: scores as alone, nobody starves, what nobody waits for is taken out."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from onnx_rerank_integrations import OnnxCrossEncoder, ScoreError, TextCrossEncoder
from onnx_rerank_integrations.core.batching import Way
from onnx_rerank_integrations.core.scoring import Floats
from onnx_rerank_integrations.core.tokens.pairs import EncodedPair
from onnx_rerank_integrations.core.types import Pair
from onnx_rerank_integrations.extras.server.pair_queue import Batch, PairQueue, QueueFullError, TruncatedError
from tests.toy import make_toy, toy_score

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> OnnxCrossEncoder:
    return TextCrossEncoder(make_toy(tmp_path_factory.mktemp("toy")), threads=2).load()


class Held:
    """The encoder's steps, of which each batch waits to be let through; notes who came with how many pairs."""

    def __init__(self, encoder: OnnxCrossEncoder, *, lanes: int = 1, token_budget: int = 64) -> None:
        self._encoder = encoder
        self.lanes = lanes
        self.max_length = encoder.max_length
        self.batch_limit = encoder.batch_limit
        self._way = Way(lanes=lanes, all_threads=False, token_budget=token_budget)
        self.passes = threading.Semaphore(0)
        self.begun = 0
        self.batches: list[Batch] = []

    def encode(self, pairs: Sequence[Pair], *, document_tokens: int | None = None) -> list[EncodedPair]:
        return self._encoder.encode(pairs, document_tokens=document_tokens)

    def way(self, encodings: int, tokens: int, parallel: int | None = None) -> Way:
        return self._way

    def score(self, batch: Sequence[EncodedPair], *, all_threads: bool = False) -> Floats:
        self.begun += 1
        assert self.passes.acquire(timeout=120)
        return self._encoder.score(batch, all_threads=all_threads)

    def join(self, logits: Floats, owners: Sequence[int], count: int) -> Floats:
        return self._encoder.join(logits, owners, count)

    def queue(self, max_tokens: int = 1_000_000) -> PairQueue:
        return PairQueue(self, max_tokens=max_tokens, on_batch=lambda batch, seconds: self.batches.append(batch))

    def let_through(self, batches: int = 1_000_000) -> None:
        self.passes.release(batches)


async def until(condition: object) -> None:
    """Waits until a function is true."""
    assert callable(condition)
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.001)


def random_pairs(random_: random.Random, count: int) -> list[Pair]:
    def text(longest: int) -> str:
        return " ".join(random_.choices(LETTERS, k=random_.randint(0, longest)))

    query = text(5)
    return [(query, text(50)) for _ in range(count)]


async def test_scores_are_those_of_a_call_of_its_own_whatever_comes_at_once(toy: OnnxCrossEncoder) -> None:
    random_ = random.Random(20)
    requests = [random_pairs(random_, random_.choice([1, 2, 10, 40, 300])) for _ in range(60)]
    shared: list[int] = []
    queue = PairQueue(toy, max_tokens=10**9, on_batch=lambda batch, seconds: shared.append(len(batch.parts)))

    found = await asyncio.gather(*(queue.score(pairs) for pairs in requests))

    for pairs, scored in zip(requests, found, strict=True):
        assert scored.logits.tolist() == toy.logits(pairs).tolist()  # whole numbers and quarters: no rounding
        assert sum(scored.tokens) == toy.token_count(pairs)
        assert scored.truncated == toy.truncated(pairs)
    assert max(shared) > 1, "no batch was shared"
    assert queue.tokens == 0


@pytest.mark.parametrize("long_documents", ["max", "mean", "first"])
async def test_documents_in_windows_are_joined_again(long_documents: str, tmp_path: Path) -> None:
    encoder = TextCrossEncoder(make_toy(tmp_path), long_documents=long_documents, max_length=16).load()
    queue = PairQueue(encoder, max_tokens=10**9)
    requests = [random_pairs(random.Random(seed), 30) for seed in range(5)]

    found = await asyncio.gather(*(queue.score(pairs) for pairs in requests))

    for pairs, scored in zip(requests, found, strict=True):
        assert scored.logits.tolist() == encoder.logits(pairs).tolist()


async def test_a_graph_that_takes_one_pair_at_a_time_gets_one(tmp_path: Path) -> None:
    encoder = TextCrossEncoder(make_toy(tmp_path, batch=1, length=16)).load()
    queue = PairQueue(encoder, max_tokens=10**9)

    found = await asyncio.gather(*(queue.score([("a", "b"), ("a", "c d")]) for _ in range(5)))

    assert all(one.logits.tolist() == [toy_score("a", "b"), toy_score("a", "c d")] for one in found)


async def test_small_requests_share_a_batch(toy: OnnxCrossEncoder) -> None:
    steps = Held(toy)
    queue = steps.queue()
    first = asyncio.create_task(queue.score([("a", "b")]))
    await until(lambda: queue._running)
    others = [asyncio.create_task(queue.score([("a", letter)])) for letter in "cdefgh"]
    await until(lambda: sum(len(job.waiting) for job in queue._jobs) == 6)

    steps.let_through()
    await asyncio.gather(first, *others)

    assert [len(batch.parts) for batch in steps.batches] == [1, 6]


async def test_small_batches_of_texts_of_unlike_lengths_are_one_turn_of_a_lane(toy: OnnxCrossEncoder) -> None:
    steps = Held(toy, token_budget=64)
    queue = steps.queue()
    lengths = (1, 12, 40)
    scored = asyncio.create_task(queue.score([("a", " ".join("b" * length)) for length in lengths]))
    await until(lambda: queue._running)

    [[first, second]] = queue._running
    assert [len(first.encodings), len(second.encodings)] == [1, 1]
    assert first.padded_tokens > second.padded_tokens
    assert first.padded_tokens + second.padded_tokens <= 64
    steps.let_through()
    assert (await scored).logits.tolist() == [toy_score("a", " ".join("b" * length)) for length in lengths]


async def test_a_small_request_is_not_starved_by_a_large_one(toy: OnnxCrossEncoder) -> None:
    steps = Held(toy)
    queue = steps.queue()
    large = asyncio.create_task(queue.score(random_pairs(random.Random(1), 900)))
    await until(lambda: queue._jobs and queue._jobs[0].is_whole)
    steps.let_through(5)
    await until(lambda: steps.begun == 6)
    small = asyncio.create_task(queue.score([("q", "a b"), ("q", "a"), ("q", "a b c d e f g h i j k l m n")]))
    await until(lambda: len(queue._jobs) == 2 and queue._jobs[1].is_whole)

    steps.let_through(10)
    await until(small.done)

    assert not large.done()
    steps.let_through()
    await asyncio.gather(small, large)


async def test_two_large_requests_have_equal_shares(toy: OnnxCrossEncoder) -> None:
    steps = Held(toy)
    queue = steps.queue()
    requests = [asyncio.create_task(queue.score(random_pairs(random.Random(seed), 250))) for seed in (1, 2)]
    await until(lambda: len(queue._jobs) == 2 and all(job.is_whole for job in queue._jobs))

    steps.let_through(60)
    await until(lambda: steps.begun == 61)

    done = [sum(not np.isnan(logit) for logit in job.logits) for job in queue._jobs]
    assert min(done) > 0.4 * sum(done)
    steps.let_through()
    await asyncio.gather(*requests)


async def test_a_full_queue_refuses_and_a_lone_request_is_always_taken(toy: OnnxCrossEncoder) -> None:
    steps = Held(toy)
    queue = steps.queue(max_tokens=200)
    large = asyncio.create_task(queue.score(random_pairs(random.Random(1), 100)))
    await until(lambda: queue._running)

    with pytest.raises(QueueFullError, match=r"wait, of at most 200\. Try again in 1 s"):
        await queue.score([("a", "b")])

    steps.let_through()
    await large
    assert (await queue.score([("a", "b")])).logits.tolist() == [toy_score("a", "b")]


async def test_the_pairs_of_a_client_that_left_are_taken_out(toy: OnnxCrossEncoder) -> None:
    steps = Held(toy)
    queue = steps.queue()
    large = asyncio.create_task(queue.score(random_pairs(random.Random(1), 500)))
    await until(lambda: queue._jobs and queue._jobs[0].is_whole)

    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    assert queue.tokens == 0
    steps.let_through()
    assert (await queue.score([("a", "b")])).logits.tolist() == [toy_score("a", "b")]
    assert len(steps.batches) == 2, "only the batch that was running went on"


async def test_one_that_leaves_while_it_is_tokenized_leaves_nothing(toy: OnnxCrossEncoder) -> None:
    queue = PairQueue(toy, max_tokens=10**9)
    for turns in range(8):
        task = asyncio.create_task(queue.score(random_pairs(random.Random(turns), 1000)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert queue.tokens == 0
    assert not queue._jobs


async def test_a_pair_without_a_score_fails_its_own_request_only(toy: OnnxCrossEncoder) -> None:
    queue = PairQueue(toy, max_tokens=10**9)

    found = await asyncio.gather(
        *(queue.score([("a", "b"), ("a", "nan" if seed == 3 else "c")]) for seed in range(6)), return_exceptions=True
    )

    assert isinstance(found[3], ScoreError)
    assert "index 1" in str(found[3])
    assert all(one.logits.tolist() == [toy_score("a", "b"), toy_score("a", "c")] for one in found[:3] + found[4:])


async def test_a_batch_that_fails_is_run_again_request_by_request(toy: OnnxCrossEncoder) -> None:
    class Picky(Held):
        def score(self, batch: Sequence[EncodedPair], *, all_threads: bool = False) -> Floats:
            logits = super().score(batch)
            if any(one.length == 9 for one in batch):
                raise RuntimeError("out of memory")
            return logits

    steps = Picky(toy)
    queue = steps.queue()
    first = asyncio.create_task(queue.score([("a", "b c d")]))
    await until(lambda: queue._running)
    others = [asyncio.create_task(queue.score([("a", text)])) for text in ("b c d e f", "b c d e")]
    await until(lambda: sum(len(job.waiting) for job in queue._jobs) == 2)
    steps.let_through()

    found = await asyncio.gather(first, *others, return_exceptions=True)

    assert [len(batch.parts) for batch in steps.batches] == [1, 2]
    assert isinstance(found[1], RuntimeError)
    assert [found[0].logits[0], found[2].logits[0]] == [toy_score("a", "b c d"), toy_score("a", "b c d e")]
    assert queue.tokens == 0


async def test_equal_pairs_are_scored_once_and_tie(toy: OnnxCrossEncoder) -> None:
    steps = Held(toy)
    steps.let_through()
    queue = steps.queue()

    scored = await queue.score([("a", "b c"), ("a", "d"), ("a", "b c"), ("a", "b  c")])

    assert scored.logits.tolist() == [toy_score("a", text) for text in ("b c", "d", "b c", "b c")]
    assert sum(len(batch.encodings) for batch in steps.batches) == 2
    assert scored.tokens == [6, 5, 6, 6]


async def test_a_cap_of_tokens_and_the_wish_that_nothing_is_cut(toy: OnnxCrossEncoder) -> None:
    queue = PairQueue(toy, max_tokens=10**9)

    capped = await queue.score([("a", "b c d")], document_tokens=2)

    assert capped.logits.tolist() == [toy_score("a", "b c")]
    assert capped.truncated == [True]
    with pytest.raises(TruncatedError, match="document 2 is longer"):
        await queue.score([("a", "b"), ("a", "b"), ("a", "b " * 100)], may_truncate=False)
    assert queue.tokens == 0

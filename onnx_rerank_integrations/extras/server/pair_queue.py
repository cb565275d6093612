"""Pairs of all requests, in shared batches: who is next, and what may share a batch. Runs on one event loop."""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.batching import Way, chunks, deduplicate, shortest_mate
from onnx_rerank_integrations.core.errors import InputValueError, RerankError
from onnx_rerank_integrations.core.scoring import Floats, check_finite
from onnx_rerank_integrations.core.tokens.pairs import EncodedPair
from onnx_rerank_integrations.core.types import Pair

ENCODED_AT_ONCE = 256
"""Pairs that are tokenized in one go: between two of a large request, those of others have their turn."""

BYTES_PER_TOKEN = 4
"""What a text is taken to be worth before it is tokenized; from then on its tokens count."""

LONGEST_RETRY = 60
"""Seconds that a client is told to wait at most."""


class Steps(Protocol):
    """The steps of a call that the queue takes: `OnnxCrossEncoder` has them."""

    @property
    def max_length(self) -> int: ...

    @property
    def lanes(self) -> int: ...

    @property
    def batch_limit(self) -> int | None: ...

    def encode(self, pairs: Sequence[Pair], *, document_tokens: int | None = None) -> list[EncodedPair]: ...

    def way(self, encodings: int, tokens: int, parallel: int | None = None) -> Way: ...

    def score(self, batch: Sequence[EncodedPair], *, all_threads: bool = False) -> Floats: ...

    def join(self, logits: Floats, owners: Sequence[int], count: int) -> Floats: ...


class QueueFullError(RerankError):
    """More tokens wait than the queue is to hold."""

    def __init__(self, waiting: int, most: int, retry_after: int) -> None:
        super().__init__(f"overloaded: {waiting:,} tokens wait, of at most {most:,}. Try again in {retry_after} s.")
        self.retry_after = retry_after


class TruncatedError(InputValueError):
    """A text is longer than the model reads, and the request says that none is to be cut."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of a request's N pairs.

    Attributes:
        logits: (N,)
        tokens: (N,) tokens that the model read of each, special tokens included.
        truncated: (N,) whether tokens were left out.
    """

    logits: Floats
    tokens: list[int]
    truncated: list[bool]


@dataclass(frozen=True, slots=True)
class Batch:
    """Encodings of one or more requests that are run together.

    Attributes:
        parts: Each request with the places of its encodings.
        encodings: All of them, in the order of the parts.
        all_threads: Whether all threads compute it.
    """

    parts: list[tuple[Job, list[int]]]
    encodings: list[EncodedPair]
    all_threads: bool

    @property
    def tokens(self) -> int:
        return sum(one.length for one in self.encodings)

    @property
    def padded_tokens(self) -> int:
        return len(self.encodings) * max(one.length for one in self.encodings)


@dataclass(eq=False)
class Job:
    """One request's pairs on their way.

    Attributes:
        pending: Tokens not scored yet; of pairs that aren't tokenized, an estimate.
        turn: Tokens computed for it, counted on from where the others were when it came: the lowest is next.
        done: The logits of its distinct encodings.
        encodings: Those that the model can tell apart.
        waiting: Places of encodings that wait, the shortest first.
        waiting_tokens: Of those.
        logits: Of all encodings, NaN where they are missing.
        missing: How many of them are.
        is_whole: Whether all pairs are tokenized.
    """

    pending: int
    turn: float
    done: asyncio.Future[Floats]
    encodings: list[EncodedPair] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    waiting_tokens: int = 0
    logits: list[float] = field(default_factory=list)
    missing: int = 0
    is_whole: bool = False
    _places: dict[tuple[bytes, bytes], int] = field(default_factory=dict)

    def add(self, encoded: Sequence[EncodedPair]) -> list[int]:
        """Lets the encodings wait; those that the model can't tell apart are one. Gives the place of each."""
        places = []
        before = len(self.encodings)
        for one in encoded:
            place = self._places.setdefault((one.ids.tobytes(), one.type_ids.tobytes()), len(self.encodings))
            if place == len(self.encodings):
                self.encodings.append(one)
            places.append(place)
        new = range(before, len(self.encodings))
        tokens = sum(map(self.length, new))
        self.pending += tokens
        self.waiting_tokens += tokens
        self.logits += [math.nan] * len(new)
        self.missing += len(new)
        self.waiting += new
        self.waiting.sort(key=self.length)
        return places

    def length(self, place: int) -> int:
        return self.encodings[place].length

    def take(self, longest: int, most: int) -> list[int]:
        """Up to so many places that fit a batch whose longest row has `longest` tokens; they wait no more."""
        end = bisect_right(self.waiting, longest, key=self.length)
        start = max(bisect_left(self.waiting, shortest_mate(longest), key=self.length), end - most)
        taken = self.waiting[start:end]
        del self.waiting[start:end]
        self.waiting_tokens -= sum(map(self.length, taken))
        return taken

    def finish(self, places: Sequence[int], logits: Sequence[float]) -> None:
        for place, logit in zip(places, logits, strict=True):
            self.logits[place] = logit
            self.pending -= self.length(place)
        self.missing -= len(places)
        self.settle()

    def settle(self) -> None:
        if self.is_whole and not self.missing and not self.done.done():
            self.done.set_result(np.array(self.logits))

    def fail(self, error: BaseException) -> None:
        self.waiting.clear()
        if not self.done.done():
            self.done.set_exception(error)


class PairQueue:
    """Scores pairs of many requests at once, each as it would be scored alone.

    Who had the fewest tokens computed since it came is next: it gives a batch its longest waiting pair, and others of
    similar length fill it up, its own first. So a large request doesn't hold up a small one, and small ones share runs.

    Args:
        steps: The opened model.
        max_tokens: Tokens that wait or are computed at most, of all requests.
        on_batch: Called with each batch that was run and its seconds.
    """

    def __init__(
        self, steps: Steps, *, max_tokens: int, on_batch: Callable[[Batch, float], None] = lambda batch, seconds: None
    ) -> None:
        self._steps = steps
        self._max_tokens = max_tokens
        self._on_batch = on_batch
        self._jobs: list[Job] = []
        self._clock = 0.0
        self._running: list[list[Batch]] = []
        self._tokens_per_second = 0.0
        self._encoders = ThreadPoolExecutor(1, thread_name_prefix="onnx-rerank-encode")
        self._lanes = ThreadPoolExecutor(steps.lanes, thread_name_prefix="onnx-rerank-lane")

    @property
    def tokens(self) -> int:
        """Tokens that wait or are computed; an estimate of those that aren't tokenized yet."""
        return sum(job.pending for job in self._jobs)

    async def score(
        self, pairs: Sequence[Pair], *, document_tokens: int | None = None, may_truncate: bool = True
    ) -> Scored:
        """Scores N checked pairs. Cancelled, it takes those that wait out of the queue.

        Raises:
            QueueFullError: Too many tokens wait.
            TruncatedError: A pair is too long and `may_truncate` is false.
            ScoreError: The model gave NaN or infinity for a pair.
        """
        firsts, inverse = deduplicate(pairs)
        unique = [pairs[first] for first in firsts]
        job = self._enter(unique)
        try:
            places: list[int] = []
            owners: list[int] = []
            for start in range(0, len(unique), ENCODED_AT_ONCE):
                chunk = unique[start : start + ENCODED_AT_ONCE]
                encoded = await self._encode(chunk, document_tokens)
                check_untruncated(encoded, firsts[start:], may_truncate)
                job.pending -= self._estimate(chunk)
                places += job.add(encoded)
                owners += [start + one.pair for one in encoded]
                self._fill_lanes()
            job.is_whole = True
            job.settle()
            distinct = await job.done
        finally:
            self._jobs.remove(job)
            job.done.cancel()
        logits = self._steps.join(distinct[places], owners, len(unique))[inverse]
        check_finite(logits)
        tokens, truncated = tally(owners, [job.encodings[place] for place in places], len(unique))
        return Scored(logits, [tokens[i] for i in inverse], [truncated[i] for i in inverse])

    async def count(self, pairs: Sequence[Pair], document_tokens: int | None = None) -> tuple[list[int], list[bool]]:
        """Tokens (N,) that the model would read of each pair, and whether some are left out."""
        tokens: list[int] = []
        truncated: list[bool] = []
        for chunk in chunks(pairs, ENCODED_AT_ONCE):
            encoded = await self._encode(chunk, document_tokens)
            counts, cut = tally([one.pair for one in encoded], encoded, len(chunk))
            tokens += counts
            truncated += cut
        return tokens, truncated

    async def _encode(self, pairs: Sequence[Pair], document_tokens: int | None) -> list[EncodedPair]:
        encode = partial(self._steps.encode, pairs, document_tokens=document_tokens)
        return await asyncio.get_running_loop().run_in_executor(self._encoders, encode)

    def close(self) -> None:
        self._encoders.shutdown(wait=False, cancel_futures=True)
        self._lanes.shutdown(wait=False, cancel_futures=True)

    def _enter(self, pairs: Sequence[Pair]) -> Job:
        waiting = self.tokens
        asked = self._estimate(pairs)
        if self._jobs and waiting + asked > self._max_tokens:
            raise QueueFullError(waiting, self._max_tokens, self._retry_after(waiting))
        job = Job(asked, self._clock, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        return job

    def _estimate(self, pairs: Sequence[Pair]) -> int:
        """Tokens of pairs that aren't tokenized yet."""
        most = self._steps.max_length
        return sum(
            min(most, (len(query.encode("utf-8", "replace")) + len(text.encode("utf-8", "replace"))) // BYTES_PER_TOKEN)
            for query, text in pairs
        )

    def _retry_after(self, waiting: int) -> int:
        """Whole seconds until about half of what waits is done, as fast as it went lately."""
        if not self._tokens_per_second:
            return 1
        return min(max(math.ceil(waiting / 2 / self._tokens_per_second), 1), LONGEST_RETRY)

    def _fill_lanes(self) -> None:
        """Gives each free lane a turn while pairs wait."""
        while len(self._running) < self._steps.lanes and (turn := self._next_turn()):
            self._running.append(turn)
            run = asyncio.get_running_loop().run_in_executor(self._lanes, score_turn, self._steps, turn)
            run.add_done_callback(partial(self._finish, turn))

    def _next_turn(self) -> list[Batch]:
        """Batches that a lane runs one after the other, with the tokens of a full one together.

        Texts of unlike lengths make small batches, and to be handed over costs the lane as much as a small one's run.
        """
        waiting = [job for job in self._jobs if job.waiting]
        turn: list[Batch] = []
        if waiting:
            way = self._way(waiting)
            room = way.token_budget
            while batch := self._next_batch(room, all_threads=way.all_threads, may_exceed=not turn):
                turn.append(batch)
                room -= batch.padded_tokens
        return turn

    def _next_batch(self, token_budget: int, *, all_threads: bool, may_exceed: bool) -> Batch | None:
        """None where nothing waits, or nothing that fits; a pair alone `may_exceed` the budget."""
        jobs = sorted((job for job in self._jobs if job.waiting), key=lambda job: job.turn)
        if not jobs:
            return None
        longest = jobs[0].length(jobs[0].waiting[-1])
        if longest > token_budget and not may_exceed:
            return None
        self._clock = jobs[0].turn
        room = min(max(token_budget // longest, 1), self._steps.batch_limit or self._max_tokens)
        parts: list[tuple[Job, list[int]]] = []
        for job in jobs:
            if taken := job.take(longest, room):
                job.turn += len(taken) * longest
                parts.append((job, taken))
                room -= len(taken)
            if not room:
                break
        encodings = [job.encodings[place] for job, taken in parts for place in taken]
        return Batch(parts, encodings, all_threads and not self._running)

    def _way(self, jobs: Sequence[Job]) -> Way:
        """As for one call of all that waits and runs, so that a lone request is split as a call of its own would be."""
        running = [batch for turn in self._running for batch in turn]
        encodings = sum(len(job.waiting) for job in jobs) + sum(len(batch.encodings) for batch in running)
        tokens = sum(job.waiting_tokens for job in jobs) + sum(batch.tokens for batch in running)
        return self._steps.way(encodings, tokens)

    def _finish(self, turn: list[Batch], run: asyncio.Future[list[tuple[list[Floats | Exception], float]]]) -> None:
        self._running.remove(turn)
        if not run.cancelled():
            for batch, (outcomes, seconds) in zip(turn, run.result(), strict=True):
                for (job, places), found in zip(batch.parts, outcomes, strict=True):
                    if isinstance(found, Exception):
                        job.fail(found)
                    else:
                        job.finish(places, found.tolist())
                speed = batch.tokens * self._steps.lanes / max(seconds, 1e-6)
                self._tokens_per_second += (speed - self._tokens_per_second) * (0.1 if self._tokens_per_second else 1.0)
                self._on_batch(batch, seconds)
        self._fill_lanes()


def score_turn(steps: Steps, turn: Sequence[Batch]) -> list[tuple[list[Floats | Exception], float]]:
    """What `score_apart` gives for each batch, and its seconds."""
    outcomes = []
    for batch in turn:
        started = time.perf_counter()
        found = score_apart(steps, batch)
        outcomes.append((found, time.perf_counter() - started))
    return outcomes


def score_apart(steps: Steps, batch: Batch) -> list[Floats | Exception]:
    """The logits of each part of a batch. Where the run fails, each part is run alone: others don't fail with it."""
    sizes = [len(places) for _, places in batch.parts]
    bounds = np.cumsum(sizes)[:-1]
    try:
        return list(np.split(steps.score(batch.encodings, all_threads=batch.all_threads), bounds))
    except Exception as error:  # noqa: BLE001 - it is the answer of those whose pairs these are
        if len(sizes) == 1:
            return [error]
    found: list[Floats | Exception] = []
    for start, size in zip([0, *bounds], sizes, strict=True):
        try:
            found.append(steps.score(batch.encodings[start : start + size]))
        except Exception as error:  # noqa: BLE001 - as above
            found.append(error)
    return found


def check_untruncated(encoded: Sequence[EncodedPair], indices: NDArray[np.intp], may_truncate: bool) -> None:
    """Raises TruncatedError for the first pair that is cut, unless it may be; `indices` are the caller's."""
    cut = next((one.pair for one in encoded if one.truncated), None)
    if cut is not None and not may_truncate:
        raise TruncatedError(
            f"document {indices[cut]} is longer than the model reads beside this query, and the request says that "
            "nothing is to be truncated: shorten it, or leave truncate out"
        )


def tally(owners: Sequence[int], encodings: Sequence[EncodedPair], count: int) -> tuple[list[int], list[bool]]:
    """Tokens of each of `count` pairs, and whether some were left out; `owners` is the pair of each encoding."""
    tokens, truncated = [0] * count, [False] * count
    for owner, one in zip(owners, encodings, strict=True):
        tokens[owner] += one.length
        truncated[owner] |= one.truncated
    return tokens, truncated

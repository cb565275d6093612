"""How fast a model is on this machine: documents and tokens per second, latency, memory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice, repeat, takewhile
from pathlib import Path

import numpy as np

from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.errors import InputValueError

QUERY = "which words come again in these passages"

WORDS = 8500
"""Different ones, as in the benchmark's prose."""

ZIPF_OFFSET, ZIPF_EXPONENT = 2.7, 1.1
"""Mandelbrot's form of Zipf's law; with these, further passages bring about as many new words as the benchmark's."""

AHEAD = 20
"""Calls whose texts are made at once, before they are timed: what else is done between two calls takes the CPU's caches
from the second, which costs the lexical model a tenth of its speed."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured.

    Attributes:
        documents: Documents per call.
        tokens: Tokens per call, as the model reads them, without padding.
        calls: Measured calls, after one to warm up.
        documents_per_second: By the median call.
        tokens_per_second: By the median call.
        p50: Median seconds of a call.
        p99: Seconds that 99 of 100 calls stay below.
        cpu: Median seconds that all threads computed in a call; on a busy machine it says more than `p50`.
        peak_memory: Most bytes this process has held since it began, the model included; None where the system doesn't
            say.
        texts: Whether each call had texts of its own.
    """

    documents: int
    tokens: int
    calls: int
    documents_per_second: float
    tokens_per_second: float
    p50: float
    p99: float
    cpu: float
    peak_memory: int | None
    texts: str


def bench(
    encoder: TextCrossEncoderBase,
    documents: Sequence[str] | Iterator[Sequence[str]],
    *,
    query: str = QUERY,
    seconds: float = 10.0,
    calls: int = 5,
    batch_size: int | None = None,
    parallel: int | None = None,
) -> Speed:
    """Ranks documents, call after call, the first of which isn't counted.

    Args:
        encoder: The model.
        documents: What each call ranks, such as `new_passages()`; it ends where they do. Or one call's documents, for
            every call: then their words are known to the tokenizer from the second call on, which for a small model is
            much of the work.
        query: One query for all calls.
        seconds: Go on for at least so long.
        calls: Make at least so many calls.
        batch_size: As for `TextCrossEncoder.rerank`.
        parallel: As for `TextCrossEncoder.rerank`.

    Raises:
        InputValueError: There are no documents, or not enough for a second call.
    """
    new = isinstance(documents, Iterator)
    texts = documents if isinstance(documents, Iterator) else repeat(documents)
    times: list[float] = []
    computed: list[float] = []
    counts: list[int] = []
    tokens: list[int] = []

    def enough() -> bool:
        return len(times) > calls and sum(times[1:]) >= seconds

    while not enough() and (some := list(takewhile(bool, islice(texts, AHEAD)))):
        for passages in some:
            cpu, start = time.process_time(), time.perf_counter()
            encoder.rerank(query, passages, batch_size=batch_size, parallel=parallel)
            times.append(time.perf_counter() - start)
            computed.append(time.process_time() - cpu)
            if enough():
                break
        measured = some[: len(times) - len(counts)]
        counts += map(len, measured)
        tokens += [encoder.token_count((query, passage) for passage in passages) for passages in measured]
    del times[:1], computed[:1], counts[:1], tokens[:1]
    if not times:
        raise InputValueError("there are no documents to measure with, or too few for a call after the first")
    p50, p99 = (float(value) for value in np.percentile(times, [50, 99]))
    return Speed(
        documents=int(np.median(counts)),
        tokens=int(np.median(tokens)),
        calls=len(times),
        documents_per_second=float(np.median(np.array(counts) / times)),
        tokens_per_second=float(np.median(np.array(tokens) / times)),
        p50=p50,
        p99=p99,
        cpu=float(np.median(computed)),
        peak_memory=peak_memory(),
        texts="new in each call" if new else "the same in each call",
    )


def peak_memory() -> int | None:
    """Most bytes this process has held; None where the system doesn't say (Windows)."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` begins with what the parent process held
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def new_passages(count: int = 100, seed: int | None = None) -> Iterator[list[str]]:
    """So many passages of 60 to 200 words for each call, none of which comes twice.

    Their words are drawn from the lexical model's vocabulary, frequent ones more often, as Zipf's law has it; two of
    seven have an ending, always the same, so that a tokenizer makes more than one token of them. So there are as many
    tokens in a word as in the benchmark's prose, and words come again as often: a tokenizer that remembers them gains
    what it gains there.

    Args:
        count: Passages of a call.
        seed: Of the draws; None for others in each process.
    """
    path = files("onnx_rerank_integrations").joinpath("models", "lexical", "tokenizer.json")
    vocabulary = list(json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"])
    words = [word for word in vocabulary if word.isalpha() and len(word) > 1][:WORDS]
    endings = [word[2:] for word in vocabulary if word.startswith("##") and word[2:].isalpha()]
    likelihood = np.cumsum((np.arange(len(words)) + ZIPF_OFFSET) ** -ZIPF_EXPONENT)
    random = np.random.default_rng(seed)
    ended = random.choice(endings, len(words))
    forms = [
        word + ending if rank % 7 in (3, 6) else word
        for rank, (word, ending) in enumerate(zip(words, ended, strict=True))
    ]
    lengths = np.linspace(60, 200, count).round().astype(int)
    while True:
        drawn = np.searchsorted(likelihood, random.random(lengths.sum()) * likelihood[-1])
        passages = np.split(drawn, np.cumsum(random.permutation(lengths))[:-1])
        yield [" ".join(forms[place] for place in passage) for passage in passages]

"""How fast a model is on this machine: documents and tokens per second, latency, memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.errors import InputValueError

QUERY = "what is measured, and how are the figures made?"


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
        peak_memory: Most bytes this process has held since it began, the model included; None where the system doesn't
            say.
    """

    documents: int
    tokens: int
    calls: int
    documents_per_second: float
    tokens_per_second: float
    p50: float
    p99: float
    peak_memory: int | None


def bench(
    encoder: TextCrossEncoderBase,
    documents: Sequence[str],
    *,
    query: str = QUERY,
    seconds: float = 10.0,
    calls: int = 5,
    batch_size: int | None = None,
    parallel: int | None = None,
) -> Speed:
    """Ranks the documents again and again.

    The texts are the same in each call, so their words are known to the tokenizer, as those of a language are to a
    service that has run for a while.

    Args:
        encoder: The model.
        documents: One call's documents.
        query: One query for all calls.
        seconds: Go on for at least so long.
        calls: Make at least so many calls.
        batch_size: As for `TextCrossEncoder.rerank`.
        parallel: As for `TextCrossEncoder.rerank`.

    Raises:
        InputValueError: There are no documents.
    """
    if not documents:
        raise InputValueError("there are no documents to measure with")
    encoder.rerank(query, documents, batch_size=batch_size, parallel=parallel)
    times: list[float] = []
    while len(times) < calls or sum(times) < seconds:
        start = time.perf_counter()
        encoder.rerank(query, documents, batch_size=batch_size, parallel=parallel)
        times.append(time.perf_counter() - start)
    p50, p99 = (float(value) for value in np.percentile(times, [50, 99]))
    tokens = encoder.token_count((query, document) for document in documents)
    return Speed(
        documents=len(documents),
        tokens=tokens,
        calls=len(times),
        documents_per_second=len(documents) / p50,
        tokens_per_second=tokens / p50,
        p50=p50,
        p99=p99,
        peak_memory=peak_memory(),
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


def sample_passages(count: int = 100, seed: int = 0) -> list[str]:
    """Passages of 60 to 200 words, cut from the prose of the lexical model's card."""
    card = files("onnx_rerank_integrations").joinpath("models", "lexical", "MODEL_CARD.md").read_text(encoding="utf-8")
    words = [word for line in card.splitlines() if not line.startswith(("|", "#", "```")) for word in line.split()]
    random = np.random.default_rng(seed)
    passages = []
    for length in random.integers(60, 201, count):
        start = int(random.integers(0, len(words)))
        passages.append(" ".join((words[start:] + words)[:length]))
    return passages

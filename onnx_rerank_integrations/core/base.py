"""What every encoder offers, over one method that gives logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np

from onnx_rerank_integrations.core.checks import (
    check_batch_size,
    check_choice,
    check_parallel,
    check_score_threshold,
    check_top_n,
    checked_pairs,
    pairs_of,
)
from onnx_rerank_integrations.core.engine.stops import deadline, finish_by
from onnx_rerank_integrations.core.errors import ScoreError, UnsupportedModelError
from onnx_rerank_integrations.core.scoring import Activation, Floats, activation_function, best_first, check_finite
from onnx_rerank_integrations.core.types import Pair, RankedDocument


@dataclass(slots=True)
class Truncations:
    """How many documents were cut because they are longer than the model reads.

    Attributes:
        truncated: Equal documents count once, and those whose score was remembered not at all.
    """

    truncated: int = 0


truncations: ContextVar[Truncations | None] = ContextVar("truncations", default=None)
"""Where encoders count the documents that they cut, if somebody asks: in this thread, and in copies of its context."""


@contextmanager
def counted_truncations() -> Iterator[Truncations]:
    """Counts the documents that are cut inside of the block."""
    counts = Truncations()
    token = truncations.set(counts)
    try:
        yield counts
    finally:
        truncations.reset(token)


class TextCrossEncoderBase(ABC):
    """Scores (query, document) pairs with one model. Higher scores mean more relevant documents.

    An encoder of your own needs one method, `logits`; it then ranks, and goes into both doors and into a cascade.
    """

    activation: Activation = "identity"
    """The scale of the scores where a call doesn't choose one."""

    longest_ranking: int | None = None
    """Most documents that `rank` gives, whatever `top_n`; None for no such limit."""

    @abstractmethod
    def logits(
        self,
        pairs: Sequence[Pair],
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Floats:
        """Raw relevance logits (N,) of N checked pairs, in input order."""

    def token_count(self, pairs: Iterable[Pair]) -> int:
        """Tokens the model reads for these pairs: special tokens included, after truncation, without padding.

        Raises:
            UnsupportedModelError: This encoder doesn't count tokens.
        """
        raise UnsupportedModelError(f"{type(self).__name__} doesn't count tokens; a token_count() of its own would.")

    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        """For each pair, whether tokens are left out because it is longer than ``max_length``.

        Raises:
            UnsupportedModelError: This encoder doesn't tell.
        """
        raise UnsupportedModelError(f"{type(self).__name__} doesn't tell what it cuts; a truncated() of its own would.")

    @property
    def config(self) -> Mapping[str, Any]:
        """The model's config.json, empty where there is none."""
        return {}

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
        activation: Activation | None = None,
        timeout: float | None = None,
    ) -> list[float]:
        """Scores each document for the query.

        Args:
            query: The question. An empty one is scored like any other text.
            documents: N texts.
            batch_size: Most pairs of a batch, beside the budget of padded tokens; None for that budget alone.
            parallel: Batches that run at once, each on one thread; 0 for one per available CPU, 1 to give all threads
                to one batch after the other. None for as many as there are threads, which is quickest for all but
                very few documents. Scores are equal either way, up to rounding.
            show_progress: Show a tqdm bar on stderr.
            activation: ``"identity"`` for raw logits, ``"sigmoid"`` for 0..1, ``"model"`` for what the model's config
                asks for; None for the constructor's.
            timeout: Seconds that the call may take, from its beginning; None for as long as it takes. What it was
                computing is stopped; only a model that is being opened for the first time is opened to the end, and a
                text's tokens are read to the end.

        Returns:
            N scores in input order.

        Raises:
            InputTypeError: The query or a document is no str; the message names the document's index.
            ScoreError: The model gave NaN or infinity for a document.
            RerankTimeoutError: The timeout is over. The encoder is as good as before.
        """
        end = None if timeout is None else deadline(timeout)
        pairs = pair_up(query, documents)
        logits = self._checked_logits(pairs, batch_size, parallel, show_progress, end)
        return [float(score) for score in self._scores(logits, activation)]

    def rerank_pairs(
        self,
        pairs: Iterable[Pair],
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
        activation: Activation | None = None,
        timeout: float | None = None,
    ) -> list[float]:
        """Scores each (query, document) pair; otherwise as `rerank`.

        Returns:
            N scores in input order.
        """
        end = None if timeout is None else deadline(timeout)
        logits = self._checked_logits(checked_pairs(pairs), batch_size, parallel, show_progress, end)
        return [float(score) for score in self._scores(logits, activation)]

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        activation: Activation | None = None,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
        timeout: float | None = None,
    ) -> list[RankedDocument]:
        """Orders the documents, best first. The order is decided on logits; equal ones keep their input order.

        Args:
            query: The question.
            documents: N texts.
            top_n: Most documents returned; None for all.
            score_threshold: The lowest score returned (>=), in the scale of `activation`; applied before `top_n`.
            activation: As for `rerank`.
            batch_size: As for `rerank`.
            parallel: As for `rerank`.
            show_progress: As for `rerank`.
            timeout: As for `rerank`.

        Returns:
            At most ``min(top_n, N)`` documents.

        Raises:
            InputValueError: `top_n` is below 1, or `score_threshold` is NaN.
            InputTypeError, ScoreError, RerankTimeoutError: As for `rerank`.
        """
        # What is plain is seen to be right here; a check is called for what may have to be refused.
        end = None if timeout is None else deadline(timeout)
        if type(top_n) is not int or top_n < 1:
            check_top_n(top_n)
        if score_threshold is not None:
            check_score_threshold(score_threshold)
        most = min((number for number in (top_n, self.longest_ranking) if number is not None), default=None)
        pairs = pair_up(query, documents)
        logits = self._checked_logits(pairs, batch_size, parallel, show_progress, end)
        scores = self._scores(logits, activation)
        kept = best_first(logits, scores, top_n=most, score_threshold=score_threshold)
        return [RankedDocument(index=index, score=float(scores[index]), text=pairs[index][1]) for index in kept]

    def _checked_logits(
        self,
        pairs: Sequence[Pair],
        batch_size: int | None,
        parallel: int | None,
        show_progress: bool,
        end: float | None,
    ) -> Floats:
        if batch_size is not None:
            check_batch_size(batch_size)
        if parallel is not None:
            check_parallel(parallel)
        if not pairs:
            return np.empty(0)
        compute = partial(self.logits, pairs, batch_size=batch_size, parallel=parallel, show_progress=show_progress)
        logits = compute() if end is None else finish_by(end, compute)
        if len(logits) != len(pairs):
            raise ScoreError(
                f"{type(self).__name__} gave {len(logits)} scores for {len(pairs)} documents. No ranking was made: its "
                "logits() must give one per pair."
            )
        check_finite(logits)
        return logits

    def _scores(self, logits: Floats, activation: Activation | None) -> Floats:
        chosen = self.activation if activation is None else activation
        if chosen not in get_args(Activation):
            check_choice("activation", chosen, Activation)
        if len(logits) == 0:
            return logits
        return activation_function(chosen, self.config if chosen == "model" else {})(logits)


def pair_up(query: str, documents: Iterable[str]) -> list[Pair]:
    """N checked pairs of one query."""
    if type(documents) is list and {str}.issuperset(map(type, (query, *documents))):
        return [(query, document) for document in documents]  # nearly always: nothing to refuse, nothing to convert
    return pairs_of(query, documents)

"""The recipe: pairs -> tokens -> batches -> logits, with one model's files on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.batching import chunks, deduplicate, plan
from onnx_rerank_integrations.core.checks import checked_pairs
from onnx_rerank_integrations.core.engine import open_session
from onnx_rerank_integrations.core.engine.forks import Once
from onnx_rerank_integrations.core.engine.stops import Stop, stoppable
from onnx_rerank_integrations.core.engine.threads import FEW_TOKENS, Lanes, Way
from onnx_rerank_integrations.core.errors import MissingExtraError, UnsupportedModelError
from onnx_rerank_integrations.core.graphs.optimized import optimized_path
from onnx_rerank_integrations.core.model.config import chosen_max_length, is_lexical, token_text
from onnx_rerank_integrations.core.model.head import read_modular_head
from onnx_rerank_integrations.core.model.identity import content, own_cache, stamp
from onnx_rerank_integrations.core.onnx_format import operators
from onnx_rerank_integrations.core.options import Engine, Reading, values
from onnx_rerank_integrations.core.score_cache import model_key
from onnx_rerank_integrations.core.scoring import (
    Activation,
    Floats,
    aggregate_windows,
    next_word_logits,
    relevance_logits,
    relevant_label,
)
from onnx_rerank_integrations.core.tokens.pairs import (
    EncodedPair,
    PairTokenizer,
    collate,
)
from onnx_rerank_integrations.core.tokens.prompts import is_causal, prompt_for
from onnx_rerank_integrations.core.types import ModelFiles, Pair

logger = logging.getLogger(__name__)


LEXICAL_TOKEN_BUDGET = 4096
"""The embedded model computes next to nothing per token, so what counts is the cost of a run: one thread and large
batches are quickest (benchmarks/README.md)."""


class OnnxCrossEncoder(TextCrossEncoderBase):
    """A sequence classifier in ONNX form, opened from files on this machine.

    Args:
        files: Graph, tokenizer and configs.
        reading: How texts become tokens, and logits one score.
        engine: What computes.
        activation: The default of the methods' `activation`.
        token_budget: Padded tokens of a batch; None for what suits the session.
    """

    def __init__(
        self,
        files: ModelFiles,
        *,
        reading: Reading | None = None,
        engine: Engine | None = None,
        activation: Activation = "identity",
        token_budget: int | None = None,
    ) -> None:
        reading = reading or Reading()
        engine = engine or Engine()
        self.files = files
        self._stamps = list(map(stamp, files.files))
        self.activation = activation
        self._reading = reading
        self._engine = engine
        self._identity: Once[bytes] = Once()
        lexical = is_lexical(files.config)
        causal = is_causal(files.config)
        prompt = prompt_for(files.config, reading.instruction)
        head = read_modular_head(files.folder)
        self._session = open_session(
            graph_to_run(files, engine),
            engine,
            threads=engine.threads or (1 if lexical else None),
            output_ranks=(3,) if causal else (2, 3) if head else (2,),
        )
        if lexical:
            token_budget = token_budget or LEXICAL_TOKEN_BUDGET
        self._lanes = Lanes(self._session, token_budget, few_tokens=LEXICAL_TOKEN_BUDGET if lexical else FEW_TOKENS)
        self._one_by_one = engine.batching == "auto" and "DynamicQuantizeLinear" in operators(files.onnx)
        self._head = head if self._session.signature.output_rank == 3 else None
        self._tokenizer = PairTokenizer(
            files.tokenizer,
            **values(reading, Reading, leave_out={"max_length", "label"}),
            max_length=chosen_max_length(reading.max_length, files, self._session.signature.fixed_length),
            truncation_side=files.tokenizer_config.get("truncation_side") or "right",
            padding_side="left" if causal else files.tokenizer_config.get("padding_side") or "right",
            pad_token=token_text(files.tokenizer_config.get("pad_token")),
            prompt=prompt,
        )
        output = self._try_out()
        self._read: Callable[[NDArray[Any]], Floats]
        if causal and prompt:
            positive, negative = map(self._tokenizer.token_id, (prompt.positive, prompt.negative))
            self._read = partial(next_word_logits, positive=positive, negative=negative)
        else:
            self._read = partial(relevance_logits, label=relevant_label(output.shape[1], reading.label, files.config))

    @property
    def identity(self) -> bytes:
        """What the logits depend on beside the texts: changes with every file and option that decides them.

        Nobody else's where a file isn't the one any more that was opened: what was is no longer to be known.
        """
        return self._identity(self._make_identity)

    def _make_identity(self) -> bytes:
        files = self.files
        digest = content(files.files, files.folder, own_cache(files.cache_dir))
        if not files.files or list(map(stamp, files.files)) != self._stamps:
            digest = uuid4().hex
        return model_key(
            digest,
            {**values(self._reading, Reading), **values(self._engine, Engine, leave_out={"threads", "idle_threads"})},
        )

    @property
    def config(self) -> Mapping[str, Any]:
        return self.files.config

    @property
    def max_length(self) -> int:
        """Tokens of the longest pair, special tokens included."""
        return self._tokenizer.max_length

    def logits(
        self,
        pairs: Sequence[Pair],
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Floats:
        firsts, inverse = deduplicate(pairs)
        logits = self._compute([pairs[first] for first in firsts], batch_size, parallel, show_progress)
        return logits[inverse]

    def _compute(
        self, pairs: Sequence[Pair], batch_size: int | None, parallel: int | None, show_progress: bool
    ) -> Floats:
        with progress_bar(len(pairs), shown=show_progress) as advance, stoppable() as stop:
            score_chunk = partial(self._chunk_logits, batch_size=batch_size, parallel=parallel, stop=stop)
            return np.concatenate([score_chunk(chunk, advance) for chunk in chunks(pairs)])

    def _chunk_logits(
        self,
        pairs: Sequence[Pair],
        advance: Callable[[int], Any],
        *,
        batch_size: int | None,
        parallel: int | None,
        stop: Stop,
    ) -> Floats:
        encoded = self.encode(pairs, stop=stop)
        # Texts that differ only in what the tokenizer drops, such as case, are the same to the model: one run for all,
        # so that they tie in any batch.
        firsts, inverse = deduplicate((one.ids.tobytes(), one.type_ids.tobytes()) for one in encoded)
        distinct = [encoded[first] for first in firsts]
        lengths = [one.length for one in distinct]
        way = self.way(len(distinct), sum(lengths), parallel)
        batches = list(plan(lengths, way.token_budget, self.batch_limit or batch_size))

        def score(batch: NDArray[np.intp]) -> Floats:
            return self.score([distinct[i] for i in batch], all_threads=way.all_threads, stop=stop)

        logits = np.empty(len(distinct))
        for batch, found in self._lanes.run(score, batches, way.lanes, stop):
            logits[batch] = found
            advance(round(len(batch) * len(pairs) / len(distinct)))
        return self.join(logits[inverse], [one.pair for one in encoded], len(pairs))

    def encode(
        self, pairs: Sequence[Pair], *, document_tokens: int | None = None, stop: Stop | None = None
    ) -> list[EncodedPair]:
        """The tokens of N checked pairs, in order; a document in windows gives several with the same ``pair``.

        Args:
            pairs: N texts with their queries.
            document_tokens: Most tokens of a document that are read; None for as many as fit.
            stop: Ends it, before it has begun.
        """
        with (stop or Stop()).calling():
            return self._tokenizer.encode(pairs, document_tokens=document_tokens)

    def way(self, encodings: int, tokens: int, parallel: int | None = None) -> Way:
        """How so many encodings, of so many tokens together, are best run; `parallel` as callers give it."""
        return self._lanes.way(encodings, tokens, parallel)

    @property
    def lanes(self) -> int:
        """Batches that the model runs at once."""
        return self._session.lanes

    @property
    def batch_limit(self) -> int | None:
        """Most encodings of a batch that the graph, or sound scores, allow; None for any number."""
        return self._session.signature.batch_limit or (1 if self._one_by_one else None)

    def join(self, logits: Floats, owners: Sequence[int], count: int) -> Floats:
        """Logits (N,) of `count` pairs from those of their encodings, (M,), and the pair that each belongs to."""
        return aggregate_windows(logits, np.asarray(owners, dtype=np.intp), count, self._reading.long_documents)

    def score(self, batch: Sequence[EncodedPair], *, all_threads: bool = False, stop: Stop | None = None) -> Floats:
        """Logits (B,) of one batch; `all_threads` where no other runs beside it, `stop` to end it early."""
        return self._read(self._run(self._collate(batch), all_threads=all_threads, stop=stop))

    def _run(
        self, inputs: Mapping[str, NDArray[Any]], *, all_threads: bool = False, stop: Stop | None = None
    ) -> NDArray[Any]:
        """The graph's output for one batch, through the head where that lies beside the graph."""
        output = self._session.run(inputs, all_threads=all_threads, stop=stop)
        return self._head(output, inputs["attention_mask"]) if self._head else output

    def _collate(self, batch: Sequence[EncodedPair]) -> dict[str, Any]:
        tokenizer = self._tokenizer
        length = self._session.signature.fixed_length
        return collate(batch, pad_id=tokenizer.pad_id, padding_side=tokenizer.padding_side, length=length)

    def feeds(self, pairs: Sequence[Pair]) -> Iterator[Mapping[str, NDArray[Any]]]:
        """What the graph is fed for these pairs, batch by batch: to calibrate or to profile it."""
        for chunk in chunks(pairs):
            encoded = self._tokenizer.encode(chunk)
            lengths = [one.length for one in encoded]
            budget = self._lanes.way(len(encoded), sum(lengths), parallel=1).token_budget
            for batch in plan(lengths, budget, self._session.signature.batch_limit):
                yield self._session.signature.feeds(self._collate([encoded[i] for i in batch]))

    def token_count(self, pairs: Iterable[Pair]) -> int:
        encoded = (self._tokenizer.encode(chunk) for chunk in chunks(checked_pairs(pairs)))
        return sum(one.length for chunk in encoded for one in chunk)

    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        flags: list[bool] = []
        for chunk in chunks(checked_pairs(pairs)):
            cut = {one.pair for one in self._tokenizer.encode(chunk) if one.truncated}
            flags += [index in cut for index in range(len(chunk))]
        return flags

    def _try_out(self) -> NDArray[Any]:
        """The output for one real pair; runs the tokenizer's largest id too, so that a misfit shows at load."""
        inputs = self._collate(self._tokenizer.encode([("a canary", "sings")])[:1])
        output = self._run(inputs)
        largest = self._tokenizer.largest_id
        inputs["input_ids"] = np.where(inputs["attention_mask"] == 1, largest, inputs["input_ids"])
        try:
            self._session.run(inputs)
        except Exception as error:
            raise UnsupportedModelError(
                f"The tokenizer gives ids up to {largest}, and the graph of {self.files.name} fails on that one: its "
                f"vocabulary is smaller.\nUse the tokenizer.json that belongs to {self.files.onnx.name}."
            ) from error
        return output


def graph_to_run(files: ModelFiles, engine: Engine) -> Path:
    """The model's own graph, or the verified copy whose last layer computes only the first token."""
    if engine.optimize == "off" or is_lexical(files.config):
        return files.onnx
    try:
        return optimized_path(files.onnx, cache_dir=own_cache(files.cache_dir)) or files.onnx
    except MissingExtraError as error:
        logger.debug("%s runs as it is: %s", files.name, error)
        return files.onnx


@contextmanager
def progress_bar(total: int, *, shown: bool) -> Iterator[Callable[[int], Any]]:
    """A tqdm bar on stderr, as the function that moves it on by so many pairs."""
    if not shown:
        yield lambda pairs: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="pair") as bar:
        yield bar.update

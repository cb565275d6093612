"""The recipe: pairs -> tokens -> batches -> logits, with one model's files on this machine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.base import TextCrossEncoderBase, truncations
from onnx_rerank_integrations.core.batching import CHUNK_PAIRS, FEW_TOKENS, Way, chunks, deduplicate, plan, way
from onnx_rerank_integrations.core.checks import checked_pairs
from onnx_rerank_integrations.core.engine import open_session
from onnx_rerank_integrations.core.engine.company import (
    HALF_TOLERANCE,
    INT8_TOLERANCE,
    LONG_ROW,
    OTHER_ROWS,
    SHORT_ROWS,
    TOLERANCE,
    fault_alone,
    try_company,
)
from onnx_rerank_integrations.core.engine.forks import Once
from onnx_rerank_integrations.core.engine.onnxruntime import provider_name
from onnx_rerank_integrations.core.engine.stops import Stop, around, deadline, finish_by, stoppable
from onnx_rerank_integrations.core.engine.threads import Workers, ahead, available_cpus, side_by_side
from onnx_rerank_integrations.core.errors import (
    MissingExtraError,
    OutOfMemoryError,
    RerankTimeoutError,
    ScoreError,
    UnsupportedModelError,
)
from onnx_rerank_integrations.core.graphs.half import half_path
from onnx_rerank_integrations.core.graphs.optimized import optimized_path
from onnx_rerank_integrations.core.model.config import Kind, chosen_max_length, read_kind, refuse_embeddings
from onnx_rerank_integrations.core.model.head import read_answers, read_modular_head
from onnx_rerank_integrations.core.model.identity import content, own_cache, stamp
from onnx_rerank_integrations.core.onnx_format import FLOAT16, HALF_TYPES, INTEGER_TYPES, element_types, last_operator
from onnx_rerank_integrations.core.options import Engine, Reading, values
from onnx_rerank_integrations.core.score_cache import model_key
from onnx_rerank_integrations.core.scoring import (
    Activation,
    Floats,
    aggregate_windows,
    next_word_logits,
    relevance_logits,
    relevance_of_probabilities,
    relevant_label,
    units_of,
)
from onnx_rerank_integrations.core.tokens.auto import Side, TokenizerSettings, class_name
from onnx_rerank_integrations.core.tokens.pairs import INPUTS, EncodedPair, PairTokenizer, collate
from onnx_rerank_integrations.core.tokens.prompts import chosen_answers, chosen_prompt
from onnx_rerank_integrations.core.tokens.texts import panics_as
from onnx_rerank_integrations.core.types import ModelFiles, Pair

logger = logging.getLogger(__name__)


SIDES: Sequence[Side] = ("right", "left")
DEVICE_CHUNK = 512
"""Pairs that are tokenized while a device runs the ones before."""

TRIES = 8
"""Draws of a row for a score that is a number."""

TRIAL_SECONDS = 120.0
"""For the few short texts that a model is tried with when it is opened; its weights may have to be read meanwhile."""

Trial = TypeVar("Trial")


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
        self._kind = kind = read_kind(files)
        head, answers = read_modular_head(files.folder), read_answers(files.folder)
        causal = kind.causal or answers is not None
        self._prompt = chosen_prompt(
            reading.prompt,
            family=kind.prompt,
            chat_template=kind.chat_template,
            instruction=reading.instruction,
            default_instruction=kind.instruction,
            chat_options=kind.chat_options,
            causal=causal,
        )
        graph = graph_to_run(files, engine, kind)
        self._session = open_session(
            graph,
            engine,
            otherwise=files.onnx if graph != files.onnx and engine.precision != "fp16" else None,
            threads=engine.threads or kind.threads,
            output_ranks=(3,) if causal else (2, 3) if head else (2,),
        )
        self._workers = Workers(max(self._session.lanes, available_cpus()))
        self._token_budget = token_budget or kind.token_budget
        self._few_tokens = kind.token_budget or FEW_TOKENS
        self._head = head if self._session.signature.output_rank == 3 else None
        self._tokenizer = PairTokenizer(
            files.tokenizer,
            **values(reading, Reading, leave_out={"max_length", "label", "prompt", "warn_truncated"}),
            settings=TokenizerSettings(
                name=class_name(files.config, files.tokenizer_config),
                config=files.tokenizer_config,
                joins_plainly=kind.decoder or kind.lexical,
            ),
            max_length=chosen_max_length(reading.max_length, kind, files.name, self._session.signature.fixed_length),
            padding_side="left" if causal else None,
            pad_token_id=kind.pad_token_id,
            pads_by_config=kind.decoder,
            prompt=self._prompt,
            query_prefix=kind.instruction or "" if reading.prompt is None else "",
        )
        signature = self._session.signature
        self._padding_side = self._tokenizer.padding_side
        self._collate: Callable[..., dict[str, NDArray[Any]]] = partial(
            collate,
            pad_id=self._tokenizer.pad_id,
            length=signature.fixed_length,
            first_position=kind.first_position or 0,
            inputs={
                name: signature.dtypes.get(name, dtype)
                for name, dtype in INPUTS.items()
                if name in signature.dtypes or (name == "attention_mask" and self._head)
            },
        )
        self.batch_limit: int | None = signature.batch_limit
        """Most encodings of a batch that the graph, or sound scores, allow; None for any number."""
        self._told_of_memory = False
        self._warns_truncated = reading.warn_truncated and reading.long_documents != "first"
        rows, outputs = self._in_time(self._try_out)
        self._read: Callable[[NDArray[Any]], Floats]
        if causal:
            words = chosen_answers(reading.prompt, kind.prompt, answers)
            positive = self._tokenizer.token_id(words.positive)
            negative = None if words.negative is None else self._tokenizer.token_id(words.negative)
            self._read = partial(next_word_logits, positive=positive, negative=negative)
        else:
            name, columns = signature.output_name, outputs[0].shape[1]
            if any(output.shape[1] != columns for output in outputs):
                raise UnsupportedModelError(
                    f"The output {name!r} of {files.name} has a number for each token, and none for a pair.\n"
                    "Use a cross-encoder exported with its classification head."
                )
            refuse_embeddings(files, name, columns)
            operator = "" if self._head else last_operator(files.onnx, name)
            units = units_of(operator, np.concatenate(outputs))
            label = relevant_label(columns, reading.label, files.config)
            independent = files.config.get("problem_type") == "multi_label_classification"
            self._read = partial(relevance_logits, label=label, independent=independent)
            if units != "logits":
                self._read = partial(relevance_of_probabilities, units=units, label=label)
        if engine.batching == "auto" and signature.batch_limit != 1:
            alone = np.concatenate([self._read(output) for output in outputs])
            self._in_time(partial(self._keep_company, alone, rows, ("left",) if causal else SIDES))

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
            {
                **values(self._reading, Reading, leave_out={"warn_truncated"}),
                **values(self._engine, Engine, leave_out={"threads", "idle_threads"}),
                "kind": self._kind,
                "prompt": self._prompt,
            },
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
        on_device = self._session.on_device
        parts = chunks([pairs[first] for first in firsts], DEVICE_CHUNK if on_device else CHUNK_PAIRS)
        with (
            progress_bar(len(firsts)) if show_progress else nullcontext() as advance,
            stoppable() if on_device else nullcontext(),
        ):
            encoded = ahead(self._workers, self.encode, parts) if on_device else map(self.encode, parts)
            logits = [self._chunk_logits(chunk, batch_size, parallel, advance) for chunk in encoded]
        return np.concatenate(logits)[inverse]

    def _chunk_logits(
        self,
        encoded: Sequence[EncodedPair],
        batch_size: int | None,
        parallel: int | None,
        advance: Callable[[int], Any] | None,
    ) -> Floats:
        """Logits of the pairs that were encoded together; `advance` is told of each batch how many pairs are done."""
        # Texts that differ only in what the tokenizer drops, such as case, are the same to the model: one run for all,
        # so that they tie in any batch.
        firsts, inverse = deduplicate((one.ids.tobytes(), one.type_ids.tobytes()) for one in encoded)
        distinct = [encoded[first] for first in firsts]
        lengths = [len(one.ids) for one in distinct]
        way = self.way(len(distinct), sum(lengths), parallel)
        batches = list(plan(lengths, way.token_budget, self.batch_limit or batch_size))
        rows = [[distinct[place] for place in batch] for batch in batches]
        score = partial(self.score, all_threads=way.all_threads)
        pairs = encoded[-1].pair + 1
        logits = np.empty(len(distinct))
        with stoppable() if way.lanes > 1 else nullcontext() as stop:
            done = side_by_side(self._workers, way.lanes, score, rows, stop) if stop else enumerate(map(score, rows))
            for place, found in done:
                logits[batches[place]] = found
                if advance:
                    advance(round(len(found) * pairs / len(distinct)))
        logits = logits[inverse]
        return logits if len(logits) == pairs else self.join(logits, [one.pair for one in encoded], pairs)

    def encode(self, pairs: Sequence[Pair], *, document_tokens: int | None = None) -> list[EncodedPair]:
        """The tokens of N checked pairs, in order; a document in windows gives several with the same ``pair``.

        Args:
            pairs: N texts with their queries.
            document_tokens: Most tokens of a document that are read; None for as many as fit.
        """

        def failed(what: str) -> ScoreError:
            longest = max(len(text) for pair in pairs for text in pair)
            return ScoreError(
                f"{what}, on {len(pairs)} pairs whose longest text has {longest:,} characters.\nNo ranking was made: "
                "cut such texts, or leave long_documents out."
            )

        stop = around.get() or (Stop() if threading.current_thread().daemon else None)
        with stop.calling() if stop else nullcontext(), panics_as(failed):
            encoded = self._tokenizer.encode(pairs, document_tokens=document_tokens)
        if document_tokens is None and (cut := {one.pair for one in encoded if one.truncated}):
            self._tell_truncated(len(cut), len(pairs))
        return encoded

    def _tell_truncated(self, cut: int, pairs: int) -> None:
        """Counts documents that were cut, and warns of the first ones, unless the user chose to have them cut."""
        if (counts := truncations.get()) is not None:
            counts.truncated += cut
        if self._warns_truncated:
            self._warns_truncated = False
            logger.warning(
                "%s: %d of %d documents, with their query, are longer than the max_length of %d tokens and were cut. "
                'Score all of a document with long_documents="max", or read more with a larger max_length. This is '
                "said once; warn_truncated=False leaves it unsaid",
                self.files.name,
                cut,
                pairs,
                self.max_length,
            )

    def way(self, encodings: int, tokens: int, parallel: int | None = None) -> Way:
        """How so many encodings, of so many tokens together, are best run; `parallel` as callers give it."""
        lanes = self._session.lanes if parallel is None else min(parallel or available_cpus(), self._workers.threads)
        return way(encodings, tokens, lanes=lanes, few_tokens=self._few_tokens, token_budget=self._budget)

    def _budget(self, all_threads: bool) -> int:
        return self._token_budget or self._session.token_budget(all_threads=all_threads)

    @property
    def lanes(self) -> int:
        """Batches that the model runs at once."""
        return self._session.lanes

    @property
    def computed_by(self) -> str:
        """What runs which graph, for reports: ``onnxruntime, CPUExecutionProvider, 2 threads, fp32, its own graph``."""
        engine = self._engine
        names = [provider_name(provider) for provider in engine.providers or ["CPUExecutionProvider"]]
        precision = "fp16" if FLOAT16 in element_types(self._session.path) else engine.precision
        parts = [engine.backend, *(names if engine.backend == "onnxruntime" else ["CPU"])]
        parts += [f"{self._session.threads} thread{'s' * (self._session.threads != 1)}", precision]
        return ", ".join([*parts, "its own graph" if self._session.path == self.files.onnx else "a copy of the graph"])

    def join(self, logits: Floats, owners: Sequence[int], count: int) -> Floats:
        """Logits (N,) of `count` pairs from those of their encodings, (M,), and the pair that each belongs to."""
        return aggregate_windows(logits, np.asarray(owners, dtype=np.intp), count, self._reading.long_documents)

    def score(self, batch: Sequence[EncodedPair], *, all_threads: bool = False) -> Floats:
        """Logits (B,) of one batch, in halves where the memory is too small for the whole.

        Args:
            batch: B encodings.
            all_threads: Whether all threads compute it, because no other batch runs beside it.
        """
        try:
            inputs = self._collate(batch, padding_side=self._padding_side)
            return self._read(self._run(inputs, all_threads=all_threads))
        except OutOfMemoryError as error:
            if len(batch) == 1:
                raise
            self._take_less(len(batch) * max(one.length for one in batch), error)
        halves = (batch[: len(batch) // 2], batch[len(batch) // 2 :])
        return np.concatenate([self.score(half, all_threads=all_threads) for half in halves])

    def _take_less(self, tokens: int, error: OutOfMemoryError) -> None:
        """Has smaller batches made from now on, and says so once."""
        if not self._told_of_memory:
            self._told_of_memory = True
            logger.warning("%s: a batch of %d tokens doesn't fit: smaller ones from now on", self.files.name, tokens)
        logger.debug("%s", error)
        self._session.take_less(tokens)

    def _run(self, inputs: Mapping[str, NDArray[Any]], *, all_threads: bool = False) -> NDArray[Any]:
        """The graph's output for one batch, through the head where that lies beside the graph."""
        output = self._session.run(inputs, all_threads=all_threads)
        return self._head(output, inputs["attention_mask"]) if self._head else output

    def feeds(self, pairs: Sequence[Pair]) -> Iterator[Mapping[str, NDArray[Any]]]:
        """What the graph is fed for these pairs, batch by batch: to calibrate or to profile it."""
        for chunk in chunks(pairs):
            encoded = self.encode(chunk)
            lengths = [one.length for one in encoded]
            budget = self.way(len(encoded), sum(lengths), parallel=1).token_budget
            for batch in plan(lengths, budget, self._session.signature.batch_limit):
                yield self._session.signature.feeds(self._collate([encoded[i] for i in batch]))

    def token_count(self, pairs: Iterable[Pair]) -> int:
        encoded = (self.encode(chunk) for chunk in chunks(checked_pairs(pairs)))
        return sum(one.length for chunk in encoded for one in chunk)

    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        flags: list[bool] = []
        for chunk in chunks(checked_pairs(pairs)):
            cut = {one.pair for one in self.encode(chunk) if one.truncated}
            flags += [index in cut for index in range(len(chunk))]
        return flags

    def _in_time(self, trial: Callable[[], Trial]) -> Trial:
        """What a trial run gives; a graph may loop for ever, which nothing else would end."""
        try:
            return finish_by(deadline(TRIAL_SECONDS), trial)
        except RerankTimeoutError as error:
            raise UnsupportedModelError(
                f"{self.files.onnx} isn't done with a few short texts after {TRIAL_SECONDS:.0f} s: it may loop for "
                "ever.\nUse another export of the model, and don't trust this one."
            ) from error

    def _try_out(self) -> tuple[list[EncodedPair], list[NDArray[Any]]]:
        """Some short rows and a long one, and the output of each short one alone.

        Runs the tokenizer's largest id too, so that a misfit shows at load.
        """
        if self._kind.first_position is None and "position_ids" in self._session.signature.dtypes:
            raise UnsupportedModelError(
                f"The graph of {self.files.name} asks for position_ids, and where they begin depends on the "
                "model_type, which no config.json tells.\nAdd the config.json that belongs to the model."
            )
        inputs = self._collate(self._tokenizer.encode([("a canary", "sings")])[:1], inputs=INPUTS)
        self._run(inputs)
        largest = self._tokenizer.largest_id
        inputs["input_ids"] = np.where(inputs["attention_mask"] == 1, largest, inputs["input_ids"])
        try:
            self._session.run(inputs)
        except Exception as error:
            raise UnsupportedModelError(
                f"The tokenizer gives ids up to {largest}, and the graph of {self.files.name} fails on that one: its "
                f"vocabulary is smaller.\nUse the tokenizer.json that belongs to {self.files.onnx.name}."
            ) from error
        rows, outputs = [], []
        for size in SHORT_ROWS:
            for row in self._tokenizer.trial_rows(size, TRIES):
                output = self._run(self._collate([row]))
                if np.isfinite(output).all():
                    break
            rows.append(row)
            outputs.append(output)
        return [*rows, *self._tokenizer.trial_rows(LONG_ROW, 1)], outputs

    def _keep_company(self, alone: Floats, rows: Sequence[EncodedPair], sides: Sequence[Side]) -> None:
        """Pads rows where a score stays as it is alone, and runs them one by one where it stays on no side."""
        first = self._padding_side
        company = try_company(
            lambda batch, side: self._read(self._run(self._collate(batch, padding_side=side))),
            alone,
            rows,
            sides=[first, *(side for side in sides if side != first)],
            tolerance=self._tolerance(),
        )
        if company.side is not None:
            self._padding_side = company.side
            return
        others = [row for size in OTHER_ROWS for row in self._tokenizer.trial_rows(size, 1)]
        again, more = (np.concatenate([self.score([row]) for row in some]) for some in (rows[: len(alone)], others))
        if fault := fault_alone(again, alone, more, tolerance=self._tolerance()):
            raise UnsupportedModelError(
                f"{self.files.onnx} {fault}.\nExport the model again in evaluation mode (`onnx-rerank export` does)."
            )
        self.batch_limit = 1
        logger.warning(
            "%s: a score depends on what else is in its batch (one moved by %.2g), as with a dynamic int8 graph or "
            "with padding that isn't masked. Pairs are run one by one, which is slower and sound; a model file without "
            "this trait runs in batches (another model_file=, or a static int8 one made by `onnx-rerank quantize`)",
            self.files.name,
            company.moved,
        )

    def _tolerance(self) -> float:
        """How far rounding alone may move a score, in the types that the graph computes in."""
        types = element_types(self.files.onnx)
        if self._engine.precision != "fp32" or types & HALF_TYPES:
            return HALF_TOLERANCE
        return INT8_TOLERANCE if types & INTEGER_TYPES else TOLERANCE


def graph_to_run(files: ModelFiles, engine: Engine, kind: Kind) -> Path:
    """The model's own graph, or a verified copy that computes only the first token last, or in fp16, or both."""
    cache = own_cache(files.cache_dir)
    graph = files.onnx
    if engine.optimize == "auto" and not kind.final:
        try:
            graph = optimized_path(files.onnx, cache_dir=cache) or files.onnx
        except MissingExtraError as error:
            logger.debug("%s runs as it is: %s", files.name, error)
    if engine.precision == "fp16":
        return half_path(graph, cache_dir=cache)
    if FLOAT16 in element_types(files.onnx):
        logger.info("%s holds fp16 weights: it is computed in fp16, whatever `precision` says", files.onnx)
    return graph


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int], Any]]:
    """A tqdm bar on stderr, as the function that moves it on by so many pairs."""
    from tqdm import tqdm

    with tqdm(total=total, unit="pair") as bar:
        yield bar.update

"""The recipe: pairs -> tokens -> batches -> logits -> scores -> ranking.

TextCrossEncoderBase      what every encoder offers, over one method that gives logits
├── OnnxCrossEncoder      one model's files, opened
└── TextCrossEncoder      the public face: a name or folder and options, opened now or when first used
"""

from __future__ import annotations

import logging
import operator
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core import registry
from onnx_rerank_integrations.core.batching import deduplicate, default_token_budget, plan, windows
from onnx_rerank_integrations.core.cache import logits_through, model_key, open_cache
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError, ScoreError, UnsupportedModelError
from onnx_rerank_integrations.core.files import locate
from onnx_rerank_integrations.core.modular_head import read_modular_head
from onnx_rerank_integrations.core.onnx_format import operators
from onnx_rerank_integrations.core.prompts import is_causal, prompt_for
from onnx_rerank_integrations.core.scoring import (
    Activation,
    Floats,
    activation_function,
    aggregate_windows,
    best_first,
    check_finite,
    next_word_logits,
    relevance_logits,
    relevant_label,
)
from onnx_rerank_integrations.core.session import (
    IdleThreads,
    InferenceSession,
    Provider,
    Session,
    available_cpus,
    check_threads,
)
from onnx_rerank_integrations.core.tokenization import (
    EncodedPair,
    LongDocuments,
    PairTokenizer,
    SpecialTokensInText,
    Truncation,
    check_choice,
    collate,
)
from onnx_rerank_integrations.core.types import ModelFiles, Pair, RankedDocument
from onnx_rerank_integrations.core.workers import Workers

if TYPE_CHECKING:
    from onnx_rerank_integrations.core.cascade import Cascade

logger = logging.getLogger(__name__)

_warned_of_licence: set[str] = set()

Backend = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16"]
Batching = Literal["auto", "sorted"]

FALLBACK_MAX_LENGTH = 512
LARGEST_DEFAULT_LENGTH = 8192
"""Some language models state 131,072 tokens; one such row would take all memory before the user asked for it."""

LARGEST_BELIEVABLE_LENGTH = 10**6
"""transformers writes model_max_length = 1e30 for 'not known'."""

POSITIONS_AFTER_PADDING = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "data2vec-text",
}
"""Model types that number positions from pad_token_id + 1, and so lose that many of max_position_embeddings."""


class TextCrossEncoderBase(ABC):
    """Scores (query, document) pairs with one model. Higher scores mean more relevant documents."""

    activation: Activation = "identity"

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

    @abstractmethod
    def token_count(self, pairs: Iterable[Pair]) -> int:
        """Tokens the model reads for these pairs: special tokens included, after truncation, without padding."""

    @abstractmethod
    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        """For each pair, whether tokens are left out because it is longer than ``max_length``."""

    @property
    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """The model's config.json."""

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
        activation: Activation | None = None,
    ) -> list[float]:
        """Scores each document for the query.

        Args:
            query: The question. An empty one is scored like any other text.
            documents: N texts.
            batch_size: Most pairs of a batch, beside the budget of padded tokens; None for that budget alone.
            parallel: Batches that run at once, each on one thread; 0 for one per available CPU, None to give all
                threads to one batch after the other. Scores are equal either way.
            show_progress: Show a tqdm bar on stderr.
            activation: ``"identity"`` for raw logits, ``"sigmoid"`` for 0..1, ``"model"`` for what the model's config
                asks for; None for the constructor's.

        Returns:
            N scores in input order.

        Raises:
            InputTypeError: The query or a document is no str; the message names the document's index.
            ScoreError: The model gave NaN or infinity for a document.
        """
        pairs = pairs_of(query, documents)
        logits = self._checked_logits(pairs, batch_size, parallel, show_progress)
        return [float(score) for score in self._scores(logits, activation)]

    def rerank_pairs(
        self,
        pairs: Iterable[Pair],
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
        activation: Activation | None = None,
    ) -> list[float]:
        """Scores each (query, document) pair; otherwise as `rerank`.

        Returns:
            N scores in input order.
        """
        logits = self._checked_logits(checked_pairs(pairs), batch_size, parallel, show_progress)
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

        Returns:
            At most ``min(top_n, N)`` documents.

        Raises:
            InputValueError: `top_n` is below 1, or `score_threshold` is NaN.
            InputTypeError, ScoreError: As for `rerank`.
        """
        check_top_n(top_n)
        check_score_threshold(score_threshold)
        pairs = pairs_of(query, documents)
        logits = self._checked_logits(pairs, batch_size, parallel, show_progress)
        scores = self._scores(logits, activation)
        kept = best_first(logits, scores, top_n=top_n, score_threshold=score_threshold)
        return [RankedDocument(index=index, score=float(scores[index]), text=pairs[index][1]) for index in kept]

    def _checked_logits(
        self, pairs: Sequence[Pair], batch_size: int | None, parallel: int | None, show_progress: bool
    ) -> Floats:
        check_batch_size(batch_size)
        check_parallel(parallel)
        if not pairs:
            return np.empty(0)
        logits = self.logits(pairs, batch_size=batch_size, parallel=parallel, show_progress=show_progress)
        if len(logits) != len(pairs):
            raise ScoreError(
                f"{type(self).__name__} gave {len(logits)} scores for {len(pairs)} documents. No ranking was made: its "
                "logits() must give one per pair."
            )
        check_finite(logits)
        return logits

    def _scores(self, logits: Floats, activation: Activation | None) -> Floats:
        chosen = self.activation if activation is None else activation
        check_choice("activation", chosen, Activation)
        if len(logits) == 0:
            return logits
        return activation_function(chosen, self.config)(logits)


class OnnxCrossEncoder(TextCrossEncoderBase):
    """A sequence classifier in ONNX form, opened from files on this machine.

    Args:
        files: Graph, tokenizer and configs.
        providers: Execution providers; None for the CPU.
        threads: Threads inside one operator; None for all available CPUs.
        idle_threads: ``"sleep"`` or ``"spin"``.
        max_length: Tokens of the longest pair; None for what the model was made for.
        truncation: ``"longest_first"`` or ``"only_second"``.
        special_tokens_in_text: ``"special"`` or ``"text"``.
        long_documents: ``"truncate"``, ``"max"``, ``"mean"`` or ``"first"``.
        instruction: What a language model is told to look for; None for its family's own.
        label: The label that means 'relevant'; None to take it from the config.
        activation: The default of the methods' `activation`.
        token_budget: Padded tokens of a batch; None for a budget that fits the model's width.
        batching: ``"auto"`` runs dynamically quantized graphs pair by pair, ``"sorted"`` batches them too.
        score_cache: Scores kept in memory, as their number, or on disk, as a file; None for no cache.
        backend: ``"onnxruntime"`` or ``"openvino"``.
        precision: ``"fp32"``, or ``"bf16"`` with OpenVINO.
    """

    def __init__(
        self,
        files: ModelFiles,
        *,
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        idle_threads: IdleThreads = "sleep",
        max_length: int | None = None,
        truncation: Truncation = "longest_first",
        special_tokens_in_text: SpecialTokensInText = "special",
        long_documents: LongDocuments = "truncate",
        instruction: str | None = None,
        label: int | str | None = None,
        activation: Activation = "identity",
        token_budget: int | None = None,
        batching: Batching = "auto",
        score_cache: int | str | Path | None = None,
        backend: Backend = "onnxruntime",
        precision: Precision = "fp32",
    ) -> None:
        self.files = files
        self.activation = activation
        self._long_documents = long_documents
        self._cache = open_cache(score_cache)
        self._cache_key = b""
        if self._cache:
            options = (
                *(max_length, truncation, special_tokens_in_text, long_documents, instruction, label),
                *(providers, batching, backend, precision),
            )
            self._cache_key = model_key([files.onnx, files.tokenizer], {"options": options})
        causal = is_causal(files.config)
        prompt = prompt_for(files.config, instruction)
        head = read_modular_head(files.folder)
        self._session = open_session(
            files.onnx,
            backend=backend,
            precision=precision,
            providers=providers,
            threads=threads,
            idle_threads=idle_threads,
            output_ranks=(3,) if causal else (2, 3) if head else (2,),
        )
        self._lock = threading.Lock()
        self._parallel: Lanes | None = None
        self._one_by_one = batching == "auto" and "DynamicQuantizeLinear" in operators(files.onnx)
        self._head = head if self._session.graph.output_rank == 3 else None
        self._tokenizer = PairTokenizer(
            files.tokenizer,
            max_length=chosen_max_length(max_length, files, self._session.graph.fixed_length),
            truncation=truncation,
            truncation_side=files.tokenizer_config.get("truncation_side") or "right",
            padding_side="left" if causal else files.tokenizer_config.get("padding_side") or "right",
            pad_token=token_text(files.tokenizer_config.get("pad_token")),
            special_tokens_in_text=special_tokens_in_text,
            long_documents=long_documents,
            prompt=prompt,
            instruction=instruction,
        )
        self._token_budget = token_budget or default_token_budget(hidden_size(files.config))
        output = self._try_out()
        self._read: Callable[[NDArray[Any]], Floats]
        if causal and prompt:
            positive, negative = map(self._tokenizer.token_id, (prompt.positive, prompt.negative))
            self._read = partial(next_word_logits, positive=positive, negative=negative)
        else:
            self._read = partial(relevance_logits, label=relevant_label(output.shape[1], label, files.config))

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
        unique, inverse = deduplicate(pairs)
        compute = partial(self._compute, batch_size=batch_size, parallel=parallel, show_progress=show_progress)
        logits = logits_through(self._cache, self._cache_key, unique, compute) if self._cache else compute(unique)
        return logits[inverse]

    def _compute(
        self, pairs: Sequence[Pair], batch_size: int | None, parallel: int | None, show_progress: bool
    ) -> Floats:
        run_all = self._in_order if parallel is None else self._lanes(parallel).run_all
        with progress_bar(len(pairs), shown=show_progress) as advance:
            return np.concatenate(
                [self._window_logits(window, batch_size, run_all, advance) for window in windows(pairs)]
            )

    def _window_logits(
        self, pairs: Sequence[Pair], batch_size: int | None, run_all: RunAll, advance: Callable[[int], Any]
    ) -> Floats:
        encoded = self._tokenizer.encode(pairs)
        owners = np.array([one.pair for one in encoded])
        begins_pair = np.diff(owners, prepend=-1) > 0
        limit = self._session.graph.batch_limit or (1 if self._one_by_one else batch_size)
        batches = list(plan([one.length for one in encoded], self._token_budget, limit))
        logits = np.empty(len(encoded))
        for batch, found in zip(batches, run_all([[encoded[i] for i in batch] for batch in batches]), strict=True):
            logits[batch] = found
            advance(int(begins_pair[batch].sum()))
        return aggregate_windows(logits, owners, len(pairs), self._long_documents)

    def _in_order(self, batches: Iterable[Sequence[EncodedPair]]) -> Iterator[Floats]:
        return (self._batch_logits(self._session, batch) for batch in batches)

    def _lanes(self, parallel: int) -> Lanes:
        """The threads that run batches side by side: made at the first call that asks for so many, then kept."""
        count = parallel or available_cpus()
        with self._lock:
            if self._parallel is None or self._parallel.workers.threads != count:
                narrow = self._parallel.session if self._parallel else self._session.narrow()
                self._parallel = Lanes(narrow, Workers(count), self._batch_logits)
            return self._parallel

    def _batch_logits(self, session: Session, batch: Sequence[EncodedPair]) -> Floats:
        return self._read(self._run(session, self._collate(batch)))

    def _run(self, session: Session, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The graph's output for one batch, through the head where that lies beside the graph."""
        output = session.run(inputs)
        return self._head(output, inputs["attention_mask"]) if self._head else output

    def _collate(self, batch: Sequence[EncodedPair]) -> dict[str, Any]:
        tokenizer = self._tokenizer
        length = self._session.graph.fixed_length
        return collate(batch, pad_id=tokenizer.pad_id, padding_side=tokenizer.padding_side, length=length)

    def token_count(self, pairs: Iterable[Pair]) -> int:
        encoded = (self._tokenizer.encode(window) for window in windows(checked_pairs(pairs)))
        return sum(one.length for window in encoded for one in window)

    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        flags: list[bool] = []
        for window in windows(checked_pairs(pairs)):
            cut = {one.pair for one in self._tokenizer.encode(window) if one.truncated}
            flags += [index in cut for index in range(len(window))]
        return flags

    def _try_out(self) -> NDArray[Any]:
        """The output for one real pair; runs the tokenizer's largest id too, so that a misfit shows at load."""
        inputs = self._collate(self._tokenizer.encode([("a canary", "sings")])[:1])
        output = self._run(self._session, inputs)
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


RunAll = Callable[[Iterable[Sequence[EncodedPair]]], Iterable[Floats]]
"""Runs many batches; gives the logits (B,) of each, in order."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """Batches side by side: several threads that share one session, whose operators use one thread each."""

    session: Session
    workers: Workers
    score: Callable[[Session, Sequence[EncodedPair]], Floats]

    def run_all(self, batches: Iterable[Sequence[EncodedPair]]) -> Iterator[Floats]:
        return self.workers.pool.map(partial(self.score, self.session), batches)


class TextCrossEncoder(TextCrossEncoderBase):
    """Scores and ranks documents for a query with an ONNX cross-encoder.

    Example:
        >>> encoder = TextCrossEncoder("embedded")
        >>> documents = ["Berlin is the capital of Germany.", "Paris is the capital of France."]
        >>> encoder.rank("What is the capital of France?", documents, top_n=1)[0].text
        'Paris is the capital of France.'

    One object may be used by many threads at once. It pickles as its arguments, and copies are the object itself.

    Args:
        model_name: A supported model's name, any hub id with ONNX files, or a folder; ``"embedded"`` is inside the
            package. None for the environment variable ``ONNX_RERANK_MODEL``, else ``Xenova/ms-marco-MiniLM-L-6-v2``.
        cache_dir: Where hub files are kept; None for huggingface_hub's own cache.
        threads: Threads inside one operator; None for all CPUs this process may use.
        providers: onnxruntime's execution providers in order of preference; None for the CPU. One that isn't there
            or doesn't start is an error.
        revision: The hub's branch, tag or commit.
        local_files_only: Never ask the network.
        specific_model_path: A folder to take the model's files from, instead of the hub.
        model_file: ``"auto"``, ``"fp32"``, ``"int8"`` (the variant that fits this CPU), or a path in the repository.
        expected_sha256: The ONNX file's checksum, in hexadecimal; None for no check.
        max_length: Tokens of the longest pair, special tokens included; None for what the model was made for.
        truncation: How a longer pair is cut: ``"longest_first"`` takes tokens from the longer text, as
            sentence-transformers and FastEmbed do; ``"only_second"`` from the document, after a query that fills more
            than half of the room is cut to half.
        special_tokens_in_text: ``"special"`` reads ``[SEP]`` and the like in a text as control tokens, as the
            reference implementations do; ``"text"`` as plain characters, so that a document can't forge structure.
        long_documents: ``"truncate"``, or the ``"max"``, ``"mean"`` or ``"first"`` of the logits of overlapping
            windows over the document's tokens.
        instruction: For rerankers that are language models (Qwen3-Reranker, mxbai-rerank-v2), what they are told to
            look for; None for the default of the model's family.
        label: For models of three or more labels, the one to rank by, as its name or its place.
        activation: ``"identity"`` for raw logits, ``"sigmoid"`` for 0..1, ``"model"`` for what the model's config
            asks for, as sentence-transformers would.
        idle_threads: ``"sleep"`` between operators, or ``"spin"`` on a machine that does nothing else.
        batching: A *dynamically* quantized (int8) graph takes one scale per batch, so that a score would move by 2 to
            3 hundredths with its batch mates. ``"auto"`` runs such graphs pair by pair, and scores don't depend on what
            else is scored; ``"sorted"`` batches them like any other.
        backend: ``"onnxruntime"``, or ``"openvino"`` (the extra ``[openvino]``).
        precision: ``"fp32"``; with OpenVINO also ``"bf16"``, faster on CPUs that have it, and about 1e-2 away.
        score_cache: Remembers the scores of pairs: so many in memory (an int), or in an SQLite file (a path), which
            processes may share. The key holds the model file's hash and the options. None for no cache.
        lazy_load: Find and open the model when it is first used, not now.

    Raises:
        InputValueError: An option is out of range.
        UnknownModelError, ModelNotFoundError, InvalidModelError, UnsupportedModelError, ProviderError: The model
            can't be found, fetched, read or run as asked. See `onnx_rerank_integrations.core.errors`.
    """

    def __init__(
        self,
        model_name: str | Path | None = None,
        *,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        specific_model_path: str | Path | None = None,
        model_file: str | None = None,
        expected_sha256: str | None = None,
        max_length: int | None = None,
        truncation: Truncation = "longest_first",
        special_tokens_in_text: SpecialTokensInText = "special",
        long_documents: LongDocuments = "truncate",
        instruction: str | None = None,
        label: int | str | None = None,
        activation: Activation = "identity",
        idle_threads: IdleThreads = "sleep",
        batching: Batching = "auto",
        backend: Backend = "onnxruntime",
        precision: Precision = "fp32",
        score_cache: int | str | Path | None = None,
        lazy_load: bool = False,
    ) -> None:
        if isinstance(model_name, Path):
            model_name = str(model_name)
        if model_name is not None and not isinstance(model_name, str):
            raise InputTypeError(f"model_name must be a str, a Path or None, not {type(model_name).__name__}")
        check_threads(threads)
        check_max_length(max_length)
        check_choice("truncation", truncation, Truncation)
        check_choice("special_tokens_in_text", special_tokens_in_text, SpecialTokensInText)
        check_choice("long_documents", long_documents, LongDocuments)
        check_choice("activation", activation, Activation)
        check_choice("idle_threads", idle_threads, IdleThreads)
        check_choice("batching", batching, Batching)
        check_choice("backend", backend, Backend)
        check_choice("precision", precision, Precision)
        self.model_name = model_name or registry.default_model()
        self.activation = activation
        self._locate = partial(
            locate,
            self.model_name,
            cache_dir=cache_dir,
            revision=revision,
            local_files_only=local_files_only,
            specific_model_path=specific_model_path,
            model_file=model_file,
            expected_sha256=expected_sha256,
        )
        self._open = partial(
            OnnxCrossEncoder,
            threads=threads,
            providers=providers,
            idle_threads=idle_threads,
            max_length=max_length,
            truncation=truncation,
            special_tokens_in_text=special_tokens_in_text,
            long_documents=long_documents,
            instruction=instruction,
            label=label,
            activation=activation,
            batching=batching,
            backend=backend,
            precision=precision,
            score_cache=score_cache,
        )
        self._lazy_load = lazy_load
        self._lock = threading.Lock()
        self._opened: OnnxCrossEncoder | None = None
        if not lazy_load:
            self.load()

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models known by name; any other hub id or folder with ONNX files works too.

        Returns:
            One dict per model: model, sources, model_file, description, license, size_in_GB, additional_files,
            languages, max_length, activation. Unknown facts are None.
        """
        return registry.list_supported_models()

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        sources: str | Mapping[str, str],
        model_file: str = "onnx/model.onnx",
        description: str = "",
        license: str = "",
        size_in_gb: float = 0.0,
        additional_files: list[str] | None = None,
    ) -> None:
        """Adds a model to the supported ones of this process, under a name of your own.

        Args:
            model: The name, unique in any case of letters.
            sources: The hub id that holds its files, alone or as ``{"hf": id}``.
            model_file: The ONNX file's path there.
            description: One sentence.
            license: SPDX identifier.
            size_in_gb: Size of the ONNX file with its external data, in 10**9 bytes.
            additional_files: Further files the graph needs.

        Raises:
            InputValueError: The name is taken.
        """
        registry.add_custom_model(model, sources, model_file, description, license, size_in_gb, additional_files)

    @staticmethod
    def cascade(models: Sequence[str | Path | TextCrossEncoderBase], keep: Sequence[int]) -> Cascade:
        """Several models in a row: a cheap one prunes, a strong one decides.

        Example:
            >>> cascade = TextCrossEncoder.cascade(["embedded", "BAAI/bge-reranker-base"], keep=[50, 10])
            >>> cascade.rank(query, documents)  # embedded ranks all, bge-reranker-base its best 50; gives 10

        Args:
            models: Names, folders or encoders, from the cheapest to the strongest.
            keep: How many documents of a query each model keeps; the last model's number may be left out.

        Returns:
            An encoder like any other, for both doors too.
        """
        from onnx_rerank_integrations.core.cascade import Cascade

        return Cascade([TextCrossEncoder(model) if isinstance(model, (str, Path)) else model for model in models], keep)

    def load(self) -> OnnxCrossEncoder:
        """Opens the model if it isn't open yet; a race of threads opens it once."""
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    files = self._locate()
                    warn_of_licence(files)
                    self._opened = self._open(files)
        return self._opened

    @property
    def config(self) -> Mapping[str, Any]:
        return self.load().config

    @property
    def max_length(self) -> int:
        """Tokens of the longest pair, special tokens included."""
        return self.load().max_length

    def logits(
        self,
        pairs: Sequence[Pair],
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Floats:
        return self.load().logits(pairs, batch_size=batch_size, parallel=parallel, show_progress=show_progress)

    def token_count(self, pairs: Iterable[Pair]) -> int:
        return self.load().token_count(pairs)

    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        return self.load().truncated(pairs)

    @property
    def _arguments(self) -> dict[str, Any]:
        """What this object was made with: all of its identity, and all that a pickle holds."""
        return {"model_name": self.model_name, **self._locate.keywords, **self._open.keywords}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._arguments, lazy_load=self._lazy_load), ()

    def __eq__(self, other: object) -> bool:
        """Made with equal arguments; whether the model is open yet doesn't count."""
        return isinstance(other, TextCrossEncoder) and self._arguments == other._arguments

    def __hash__(self) -> int:
        return hash((type(self), self.model_name))

    def __copy__(self) -> TextCrossEncoder:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TextCrossEncoder:
        return self

    def __repr__(self) -> str:
        defaults = TextCrossEncoder.__init__.__kwdefaults__ or {}
        changed = {
            name: value
            for name, value in self._arguments.items()
            if name != "model_name" and value != defaults.get(name)
        }
        return f"TextCrossEncoder({', '.join([repr(self.model_name), *(f'{k}={v!r}' for k, v in changed.items())])})"


def warn_of_licence(files: ModelFiles) -> None:
    """Logs a warning, once per process, for a model whose licence doesn't allow commercial use."""
    if files.license and "-nc" in files.license.lower() and files.name not in _warned_of_licence:
        _warned_of_licence.add(files.name)
        logger.warning("%s has the licence %s, which doesn't allow commercial use", files.name, files.license)


@contextmanager
def progress_bar(total: int, *, shown: bool) -> Iterator[Callable[[int], Any]]:
    """A tqdm bar on stderr, as the function that moves it on by so many pairs."""
    if not shown:
        yield lambda pairs: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="pair") as bar:
        yield bar.update


def open_session(
    path: Path,
    *,
    backend: Backend,
    precision: Precision,
    providers: Sequence[Provider] | None,
    threads: int | None,
    idle_threads: IdleThreads,
    output_ranks: Sequence[int],
) -> Session:
    """Opens the graph with the chosen backend.

    Raises:
        InputValueError: Options that don't go with the backend.
    """
    if backend == "openvino":
        if providers is not None:
            raise InputValueError("providers are onnxruntime's, and don't go with backend=\"openvino\"")
        from onnx_rerank_integrations.extras.openvino import OpenVinoSession  # an extra, only when asked for

        return OpenVinoSession(path, threads=threads, precision=precision, output_ranks=output_ranks)
    if precision != "fp32":
        raise InputValueError(
            f'precision={precision!r} needs backend="openvino"; onnxruntime computes in the graph\'s own types'
        )
    return InferenceSession(
        path, providers=providers, threads=threads, idle_threads=idle_threads, output_ranks=output_ranks
    )


def pairs_of(query: str, documents: Iterable[str]) -> list[Pair]:
    """N checked pairs of one query."""
    if not isinstance(query, str):
        raise InputTypeError(f"query must be a str, not {type(query).__name__}")
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Iterable):
        raise InputTypeError(
            f"documents must be an iterable of str, not one {type(documents).__name__}: put a single text in a list"
        )
    pairs = [(query, document) for document in documents]
    for index, (_, document) in enumerate(pairs):
        if not isinstance(document, str):
            raise InputTypeError(f"document {index} must be a str, not {type(document).__name__}")
    return pairs


def checked_pairs(pairs: Iterable[Pair]) -> list[Pair]:
    """N pairs as tuples of two str."""
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        raise InputTypeError(f"pairs must be an iterable of (query, document), not {type(pairs).__name__}")
    checked: list[Pair] = []
    for index, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputTypeError(f"pair {index} must be a (query, document) tuple, not {type(pair).__name__}")
        for part, text in zip(("query", "document"), pair, strict=True):
            if not isinstance(text, str):
                raise InputTypeError(f"the {part} of pair {index} must be a str, not {type(text).__name__}")
        checked.append((pair[0], pair[1]))
    return checked


def check_top_n(top_n: int | None, name: str = "top_n") -> None:
    if top_n is not None:
        _check_whole_number(name, top_n, "None for all documents")


def check_batch_size(batch_size: int | None) -> None:
    if batch_size is not None:
        _check_whole_number("batch_size", batch_size, "None for the token budget alone")


def check_parallel(parallel: int | None) -> None:
    if parallel is None or (parallel == 0 and not isinstance(parallel, bool)):
        return
    _check_whole_number("parallel", parallel, "0 for all CPUs, or None for one batch after the other")


def check_max_length(max_length: int | None) -> None:
    if max_length is not None:
        _check_whole_number("max_length", max_length, "None for what the model was made for")


def _check_whole_number(name: str, value: int, or_none: str) -> None:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise InputTypeError(f"{name} must be a whole number from 1 or {or_none}, not {value!r}")
    if number < 1:
        raise InputValueError(f"{name}={value} must be 1 or more, or {or_none}")


def check_score_threshold(score_threshold: float | None) -> None:
    if score_threshold is not None and score_threshold != score_threshold:
        raise InputValueError("score_threshold is NaN: every comparison with it fails; use None for no threshold")


def chosen_max_length(asked: int | None, files: ModelFiles, fixed_length: int | None) -> int:
    """The user's `max_length` if the model has that many positions, else the smallest limit that the files state."""
    positions = usable_positions(files.config)
    limits = [limit for limit in (positions, fixed_length) if limit]
    if asked is None:
        stated = [files.tokenizer_config.get("model_max_length"), files.tokenizer_config.get("max_length")]
        believable = [int(value) for value in stated if value and 0 < value < LARGEST_BELIEVABLE_LENGTH]
        return min([*believable, *limits, LARGEST_DEFAULT_LENGTH]) if believable or limits else FALLBACK_MAX_LENGTH
    if limits and asked > min(limits):
        raise InputValueError(f"max_length={asked} is more than the {min(limits)} positions that {files.name} has")
    return asked


def usable_positions(config: Mapping[str, Any]) -> int | None:
    """Tokens the position embeddings reach for; None where the config doesn't say."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.get("model_type") in POSITIONS_AFTER_PADDING:
        positions -= int(config.get("pad_token_id", 1)) + 1
    return positions


def hidden_size(config: Mapping[str, Any]) -> int:
    """Width of the model; 384, MiniLM's, where the config doesn't say."""
    return int(config.get("hidden_size") or config.get("dim") or config.get("d_model") or 384)


def token_text(token: Any) -> str | None:
    """A special token's text from tokenizer_config.json, where it is a str or ``{"content": str}``."""
    return token.get("content") if isinstance(token, Mapping) else token

"""The public face: a name or folder and options, opened now or when first used.

TextCrossEncoderBase      what every encoder offers (base.py)
├── OnnxCrossEncoder      one model's files, opened: the recipe (onnx_cross_encoder.py)
├── Cascade               several encoders in a row (cascade.py)
└── TextCrossEncoder      a name and options, in front of an OnnxCrossEncoder
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.checks import check_choice, check_max_length, check_threads
from onnx_rerank_integrations.core.engine.onnxruntime import IdleThreads, Provider
from onnx_rerank_integrations.core.errors import InputTypeError
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.core.model.files import locate
from onnx_rerank_integrations.core.onnx_cross_encoder import Backend, Batching, OnnxCrossEncoder, Optimize, Precision
from onnx_rerank_integrations.core.scoring import Activation, Floats
from onnx_rerank_integrations.core.tokens.pairs import LongDocuments, Truncation
from onnx_rerank_integrations.core.tokens.texts import SpecialTokensInText
from onnx_rerank_integrations.core.types import ModelFiles, Pair

if TYPE_CHECKING:
    from onnx_rerank_integrations.core.cascade import Cascade

__all__ = ["OnnxCrossEncoder", "TextCrossEncoder", "TextCrossEncoderBase"]

logger = logging.getLogger(__name__)

_warned_of_licence: set[str] = set()


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
        threads: Threads that compute at once; None for all CPUs this process may use. Each runs batches of its own;
            a call with fewer documents than half of the threads has each batch computed by all of them.
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
        optimize: ``"auto"`` runs a copy of the graph whose last layer computes only the token that the score is read
            from, where the extra ``[optimize]`` is installed and the graph allows it. The copy is made once, its scores
            are compared with the original's, and it is kept beside the hub's cache. ``"off"`` runs the graph as it is.
        batching: A *dynamically* quantized (int8) graph takes one scale per batch, so that a score would move with its
            batch mates, by a few hundredths and more. ``"auto"`` runs such graphs pair by pair, and scores don't depend
            on what else is scored; ``"sorted"`` batches them like any other.
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
        optimize: Optimize = "auto",
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
        check_choice("optimize", optimize, Optimize)
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
            optimize=optimize,
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

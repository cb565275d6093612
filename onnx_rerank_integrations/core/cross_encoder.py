"""The public face: a name or folder and options, opened now or when first used.

TextCrossEncoderBase      what every encoder offers (base.py)
├── OnnxCrossEncoder      one model's files, opened: the recipe (onnx_cross_encoder.py)
├── Cascade               several encoders in a row (cascade.py)
├── ScoreCache            an encoder that remembers its scores (score_cache.py)
└── TextCrossEncoder      a name and options, in front of an OnnxCrossEncoder
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.cascade import Cascade
from onnx_rerank_integrations.core.checks import check_list
from onnx_rerank_integrations.core.engine.forks import Once, undivided
from onnx_rerank_integrations.core.engine.stops import unstoppable
from onnx_rerank_integrations.core.errors import InputTypeError, InvalidModelError, RerankError
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.core.model.advice import how_to_mend
from onnx_rerank_integrations.core.model.files import anchored, locate
from onnx_rerank_integrations.core.onnx_cross_encoder import OnnxCrossEncoder
from onnx_rerank_integrations.core.options import Options, Source, advice, changed, defaults, documented, takes, values
from onnx_rerank_integrations.core.score_cache import ScoreCache, open_store
from onnx_rerank_integrations.core.scoring import Floats
from onnx_rerank_integrations.core.tokens.texts import panics_as
from onnx_rerank_integrations.core.types import ModelFiles, Pair

__all__ = ["OnnxCrossEncoder", "TextCrossEncoder", "TextCrossEncoderBase"]

logger = logging.getLogger(__name__)

_warned_of_licence: set[str] = set()


@documented
class TextCrossEncoder(TextCrossEncoderBase):
    """Scores and ranks documents for a query with an ONNX cross-encoder.

    Example:
        >>> encoder = TextCrossEncoder("embedded")
        >>> documents = ["Berlin is the capital of Germany.", "Paris is the capital of France."]
        >>> encoder.rank("What is the capital of France?", documents, top_n=1)[0].text
        'Paris is the capital of France.'

    One object may be used by many threads at once. It pickles as its arguments, and copies are the object itself.

    Args:
        {options}

    Raises:
        InputTypeError, InputValueError: An option is of the wrong type or out of range.
        UnknownModelError, ModelNotFoundError, InvalidModelError, UnsupportedModelError, ProviderError: The model
            can't be found, fetched, read or run as asked. See `onnx_rerank_integrations.core.errors`.
    """

    @takes(Options)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if unknown := [name for name in kwargs if name not in defaults()]:
            raise InputTypeError(f"TextCrossEncoder: {'; '.join(advice(name, list(defaults())) for name in unknown)}")
        self.options = options = Options(*args, **kwargs)
        self.model_name = str(options.model_name or registry.default_model())
        self.activation = options.activation
        self._store = open_store(options.score_cache)
        self._opened: Once[OnnxCrossEncoder] = Once()
        self.opened: OnnxCrossEncoder | ScoreCache | None = None
        """What answers, with the scores that it remembers; None before the first answer."""
        if not options.lazy_load:
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
        sources: str | Mapping[str, str] | registry.HubSource,
        model_file: str = "onnx/model.onnx",
        description: str = "",
        license: str = "",
        size_in_gb: float = 0.0,
        additional_files: list[str] | None = None,
    ) -> None:
        """Adds a model to the supported ones of this process, under a name of your own.

        Args:
            model: The name, unique in any case of letters.
            sources: The hub id that holds its files, alone, as ``{"hf": id}``, or as FastEmbed's ``ModelSource``.
            model_file: The ONNX file's path there.
            description: One sentence.
            license: SPDX identifier.
            size_in_gb: Size of the ONNX file with its external data, in 10**9 bytes.
            additional_files: Further files the graph needs.

        Raises:
            InputValueError: The name is taken by another model; the same one may be added again.
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
        check_list("models", models, "names, folders or encoders")
        check_list("keep", keep, "numbers")
        return Cascade([TextCrossEncoder(model) if isinstance(model, (str, Path)) else model for model in models], keep)

    def load(self) -> OnnxCrossEncoder:
        """Opens the model if it isn't open yet; a race of threads opens it once, and shares a failure."""
        return self._opened(self._open)

    def _open(self) -> OnnxCrossEncoder:
        try:
            files = locate(self.model_name, **values(self.options, Source, leave_out={"model_name"}))
            warn_of_licence(files)

            def failed(what: str) -> InvalidModelError:
                return InvalidModelError(f"{what}.\nFetch the model's {files.tokenizer.name} again, or make it anew.")

            with undivided(), unstoppable(), panics_as(failed):
                return OnnxCrossEncoder(files, reading=self.options, engine=self.options, activation=self.activation)
        except RerankError:
            raise
        except Exception as error:  # what nobody thought of in files that anybody may have made
            raise InvalidModelError(
                f"{self.model_name!r} can't be opened, one of its files holds something unexpected: "
                f"{type(error).__name__}: {error}\n{how_to_mend(self.model_name)}"
            ) from error

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
        if self.opened is None:
            encoder = self.load()
            self.opened = encoder if self._store is None else ScoreCache(encoder, self._store, encoder.identity)
        return self.opened.logits(pairs, batch_size=batch_size, parallel=parallel, show_progress=show_progress)

    def token_count(self, pairs: Iterable[Pair]) -> int:
        return self.load().token_count(pairs)

    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        return self.load().truncated(pairs)

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(type(self), **anchored({**changed(self.options), "model_name": self.model_name}))
        return registry.make_with, (registry.custom_row(self.model_name), make)

    def __eq__(self, other: object) -> bool:
        """Made with equal options; whether the model is open yet doesn't count, nor whether it waits to be."""
        return isinstance(other, TextCrossEncoder) and self._identity == other._identity

    @property
    def _identity(self) -> dict[str, Any]:
        return {**values(self.options, leave_out={"lazy_load"}), "model_name": self.model_name}

    def __hash__(self) -> int:
        return hash((type(self), self.model_name))

    def __copy__(self) -> TextCrossEncoder:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TextCrossEncoder:
        return self

    def __repr__(self) -> str:
        options = changed(self.options, leave_out={"model_name", "lazy_load"})
        return f"TextCrossEncoder({', '.join([repr(self.model_name), *(f'{k}={v!r}' for k, v in options.items())])})"


def warn_of_licence(files: ModelFiles) -> None:
    """Logs a warning, once per process, for a model whose licence doesn't allow commercial use."""
    if files.license and "-nc" in files.license.lower() and files.name not in _warned_of_licence:
        _warned_of_licence.add(files.name)
        logger.warning("%s has the licence %s, which doesn't allow commercial use", files.name, files.license)

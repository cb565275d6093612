"""What the two doors share: their options, the encoder behind them, the text that is scored, and bounded async."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import EllipsisType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictInt,
    ValidationError,
    ValidationInfo,
    create_model,
    field_serializer,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.checks import check_timeout, is_url
from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.engine.forks import Lock
from onnx_rerank_integrations.core.engine.stops import out_of_time, stoppable
from onnx_rerank_integrations.core.engine.threads import Workers
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.core.model.files import anchored
from onnx_rerank_integrations.core.options import (
    advice,
    check_option,
    defaults,
    descriptions,
    examples,
    listed,
    option_types,
)
from onnx_rerank_integrations.core.scoring import Activation
from onnx_rerank_integrations.core.types import RankedDocument
from onnx_rerank_integrations.remote import RemoteCrossEncoder

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

RETRIEVAL_SCORE = "retrieval_score"
"""The metadata key that keeps the first stage's score."""

LOADING_OPTIONS = tuple(
    name for name in defaults() if name not in ("model_name", "specific_model_path", "activation", "lazy_load")
)
"""Options that a `TextCrossEncoder` is made with: they go with a model's name, not with a ready encoder."""

SECRETS = frozenset({"key", "token", "password", "secret"})
"""Words of an option's name whose value no message shows, as in other libraries' ``api_key``."""

_lock = Lock()


def refuse_unknown_options(title: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Names the option that is meant, where another library's name or a misspelt one was given.

    Raises:
        ValidationError: Something given is no option.
    """
    known = list(known)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValidationError.from_exception_data(
            title,
            [
                InitErrorDetails(
                    type=PydanticCustomError("unknown_option", "{advice}", {"advice": advice(name, known)}),
                    loc=(name,),
                    input="not shown" if SECRETS.intersection(name.lower().split("_")) else given[name],
                )
                for name in unknown
            ],
        )


def strict(kind: Any) -> Any:
    """The type as pydantic should take it: a whole number is no float, no bool and no text."""
    if get_origin(kind) in (Union, UnionType):
        return Union[tuple(map(strict, get_args(kind)))]  # noqa: UP007 - made at run time
    return StrictInt if kind is int else kind


def checked_timeout(timeout: float | None) -> float | None:
    check_timeout(timeout)
    return timeout


_EncoderFields: type[BaseModel] = create_model(  # type: ignore[call-overload]  # its fields are known at run time
    "_EncoderFields",
    model=(
        str | Path | TextCrossEncoderBase,
        Field(
            default_factory=registry.default_model,
            description="A supported model's name, any hub id with ONNX files, a folder, the address of a server "
            "(onnx-rerank serve), or a ready TextCrossEncoder, which may be shared.",
            examples=["lexical"],
        ),
    ),
    batch_size=(
        StrictInt | None,
        Field(
            default=None, ge=1, description="Most pairs of a batch, beside the budget of padded tokens.", examples=[32]
        ),
    ),
    timeout=(
        Annotated[float | None, AfterValidator(checked_timeout)],
        Field(
            default=None,
            description="Seconds that a call may take before it is stopped; None for any time.",
            examples=[2.5],
        ),
    ),
    __config__=ConfigDict(arbitrary_types_allowed=True, protected_namespaces=()),
    **{
        name: (
            Annotated[strict(option_types()[name]), AfterValidator(partial(check_option, name))],
            Field(default=defaults()[name], description=descriptions()[name], examples=[examples()[name]]),
        )
        for name in (*LOADING_OPTIONS, "lazy_load")
    },
)


class Described(BaseModel):
    """Options whose descriptions stand in the class's docstring, too."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Puts the fields' descriptions, defaults and examples where ``help()`` shows them."""
        super().__pydantic_init_subclass__(**kwargs)
        if text := cls.__dict__.get("__doc__"):
            cls.__doc__ = f"{text.rstrip()}\n\n    Attributes:\n{described(cls.model_fields)}\n    "


def described(fields: Mapping[str, FieldInfo]) -> str:
    """Each option with what it does, its default and an example, as a docstring lists them."""
    return listed(
        {
            name: " ".join(filter(None, (field.description, _default_text(field), _example_text(name, field))))
            for name, field in fields.items()
            if field.description and not field.exclude
        }
    )


def _default_text(field: FieldInfo) -> str:
    if field.is_required() or field.default_factory:
        return ""
    return f"Default: {getattr(field.default, 'value', field.default)!r}."


def _example_text(name: str, field: FieldInfo) -> str:
    return f"Example: ``{name}={field.examples[0]!r}``." if field.examples else ""


class EncoderOptions(Described, _EncoderFields):  # type: ignore[valid-type, misc]  # made of core.options, where each is written
    """Which encoder, and how it is opened: the options of a `TextCrossEncoder` as fields.

    A subclass adds what its framework calls; this class never imports one.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", validate_assignment=True, arbitrary_types_allowed=True, protected_namespaces=()
    )

    _made: tuple[dict[str, Any], TextCrossEncoder | RemoteCrossEncoder] | None = PrivateAttr(default=None)

    def __init__(self, **options: Any) -> None:
        refuse_unknown_options(type(self).__name__, options, type(self).model_fields)
        super().__init__(**options)
        # Not in model_post_init: pydantic would turn our errors into its own, and their types and messages are lost.
        _ = self.encoder
        if self._made is not None and not self.lazy_load:
            self._made[1].load()

    @field_validator("model", "cache_dir", "score_cache")
    @classmethod
    def _paths_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("model", *LOADING_OPTIONS)
    @classmethod
    def _a_ready_encoder_takes_no_loading_options(cls, value: Any, info: ValidationInfo) -> Any:
        # Not a model validator: those run after an assignment, and leave the refused value where it was put.
        cls._refuse_options_of_a_ready_encoder({**info.data, str(info.field_name): value})
        return value

    @classmethod
    def _refuse_options_of_a_ready_encoder(cls, options: Mapping[str, Any]) -> None:
        usual = defaults()
        changed = [name for name in LOADING_OPTIONS if options.get(name, usual[name]) != usual[name]]
        if changed and is_url(options.get("model")):
            raise InputValueError(
                f"{', '.join(changed)} can't be combined with a server's address as model: they are the server's"
            )
        if changed and isinstance(options.get("model"), TextCrossEncoderBase):
            raise InputValueError(
                f"{', '.join(changed)} can't be combined with a ready encoder as model, which is loaded already: "
                "give them to TextCrossEncoder, or give its name as model"
            )

    @field_serializer("model")
    def _only_named_models(self, value: Any) -> Any:
        if isinstance(value, TextCrossEncoderBase):
            raise ValueError("model is a live encoder, which can't be serialized: give the model's name or folder")
        return value

    @property
    def model_name(self) -> str:
        """What events and traces call the model."""
        if isinstance(self.model, TextCrossEncoderBase):
            return str(getattr(self.model, "model_name", type(self.model).__name__))
        return str(self.model)

    @property
    def encoder(self) -> TextCrossEncoderBase:
        """The encoder behind the options: the given one, or one that is made once and shared with copies.

        Changing a loading option, by assignment or in a copy, leads to another encoder, opened when it is first used.
        """
        asked = {name: getattr(self, name) for name in ("model", *LOADING_OPTIONS)}
        made = self._made
        return made[1] if made is not None and made[0] == asked else self._encoder_of(asked)

    def _encoder_of(self, asked: dict[str, Any]) -> TextCrossEncoderBase:
        """The encoder that is given, or one made of what is asked for."""
        self._refuse_options_of_a_ready_encoder(asked)  # model_copy doesn't validate
        if isinstance(asked["model"], TextCrossEncoderBase):
            return asked["model"]
        with _lock:
            if self._made is None or self._made[0] != asked:
                self._made = asked, named_encoder(**asked)
            return self._made[1]

    @property
    def _options(self) -> dict[str, Any]:
        """All of the identity, and all that a pickle holds: not what a framework keeps out of its dumps."""
        fields = type(self).model_fields
        return {name: getattr(self, name) for name, field in fields.items() if not field.exclude}

    def __eq__(self, other: object) -> bool:
        """Equal options of the same class; which encoder happens to be open doesn't count."""
        return isinstance(other, EncoderOptions) and type(self) is type(other) and self._options == other._options

    def __reduce__(self) -> tuple[Any, ...]:
        """Whoever unpickles opens the model again.

        Not by `__getstate__`: LlamaIndex's leaves out what can't be pickled, and a lost `text` changes the scores.
        """
        make = partial(type(self), **anchored(self._options, "model"))
        return registry.make_with, (registry.custom_row(self.model_name), make)


def named_encoder(model: str, **options: Any) -> TextCrossEncoder | RemoteCrossEncoder:
    """The encoder with a name or an address, still to open."""
    return RemoteCrossEncoder(model) if is_url(model) else TextCrossEncoder(model, **options, lazy_load=True)


class Limits(Described):
    """How much of a ranking is returned."""

    top_n: StrictInt | None = Field(default=3, ge=1, description="Most documents returned; None for all.", examples=[5])
    score_threshold: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="The lowest score returned (>=), in the scale of `activation`; applied before `top_n`.",
        examples=[0.5],
    )


class RerankOptions(Limits, EncoderOptions):
    """The options of all doors: which encoder, what is scored, and what is returned."""

    activation: Activation = Field(
        default="sigmoid",
        description="Scale of the reported scores: sigmoid for 0..1, identity for raw logits, model for what the "
        "model's config asks for.",
        examples=["identity"],
    )
    text: Literal["content"] | Annotated[list[str], Field(min_length=1)] | Callable[[Any], str] = Field(
        default="content",
        description="What is scored: the document's content; metadata fields by name, joined by newlines ('content' "
        "among them stands for the content, a missing field for nothing); or a function of the document.",
        examples=[["title", "content"]],
    )
    keep_retrieval_score: bool = Field(
        default=False,
        description='Keep the first stage\'s score as metadata["retrieval_score"].',
        examples=[True],
    )
    max_concurrency: StrictInt = Field(
        default=1,
        ge=1,
        description="Asynchronous calls that run at once; further ones wait without holding a thread.",
        examples=[4],
    )

    _workers: Workers | None = PrivateAttr(default=None)
    _missed_fields: set[str] = PrivateAttr(default_factory=set)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._own_workers()

    @field_validator("text", mode="before")
    @classmethod
    def _one_field_is_a_list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) and value not in ("", "content") else value

    @field_serializer("text")
    def _only_named_texts(self, value: Any) -> Any:
        if callable(value):
            raise ValueError('text is a function, which can\'t be serialized: use "content" or metadata fields')
        return value

    def _texts(self, documents: Iterable[tuple[Any, str, Mapping[str, Any]]]) -> list[str]:
        """What is scored of each (document, content, metadata)."""
        if self.text == "content":
            return [content for _, content, _ in documents]
        documents = list(documents)
        text = [self.text] if isinstance(self.text, str) else self.text  # model_copy doesn't validate
        if isinstance(text, list) and documents:
            self._warn_of_missing_fields(text, [metadata for _, _, metadata in documents])
        return [chosen_text(text, *document, index) for index, document in enumerate(documents)]

    def _warn_of_missing_fields(self, fields: list[str], metadatas: Sequence[Mapping[str, Any]]) -> None:
        """One warning for each field of `text` that no document has: a misspelt one would make a ranking of nothing."""
        present = {str(name) for metadata in metadatas for name in metadata} | {"content"}
        if not present & set(fields):
            raise InputValueError(
                f"text={fields!r} names no field that any of the {len(metadatas)} documents has: all would be scored "
                f"as empty texts. Fields that are there: {', '.join(sorted(present))}"
            )
        missing = [name for name in fields if name not in present and name not in self._missed_fields]
        if missing:
            self._missed_fields.update(missing)
            logger.warning(
                "text names %s, which none of the %d documents has: it is scored as nothing. Fields that are there: %s",
                ", ".join(map(repr, missing)),
                len(metadatas),
                ", ".join(sorted(present)),
            )

    def _rank(
        self,
        query: str,
        texts: Sequence[str],
        top_n: int | None,
        score_threshold: float | EllipsisType | None = ...,
    ) -> list[RankedDocument]:
        """The kept texts, best first, in the options' scale. Where there are no texts, the model stays closed.

        A threshold that is left out is the options' own.
        """
        encoder = self.encoder
        if type(encoder) is TextCrossEncoder:  # not what inherits it, which may answer in a way of its own
            encoder = encoder.opened or encoder
        return encoder.rank(
            query,
            texts,
            top_n=top_n,
            score_threshold=self.score_threshold if isinstance(score_threshold, EllipsisType) else score_threshold,
            activation=self.activation,
            batch_size=self.batch_size,
            timeout=self.timeout,
        )

    async def _in_thread(self, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Awaits a call in a thread of the options' own, of which `max_concurrency` run at once.

        The event loop's shared pool stays free. A cancelled await, and one whose `timeout` is over, waiting for a
        thread included, leaves a call that hasn't begun undone and stops one that has.
        """
        with stoppable():
            call = partial(contextvars.copy_context().run, function, *args, **kwargs)
            running = asyncio.get_running_loop().run_in_executor(self._own_workers().pool, call)
            try:
                await asyncio.wait([running], timeout=self.timeout)
                if not running.done():
                    raise out_of_time()
                return running.result()
            finally:
                running.cancel()

    def _own_workers(self) -> Workers:
        """The threads that copies share; others after a new limit."""
        with _lock:
            workers = self._workers
            if workers is None or workers.threads != self.max_concurrency:
                workers = self._workers = Workers(self.max_concurrency)
            return workers


def chosen_text(
    text: Literal["content"] | list[str] | Callable[[Any], str],
    document: Any,
    content: str,
    metadata: Mapping[str, Any],
    index: int,
) -> str:
    """What is scored of one document, by the door's option `text`.

    Raises:
        InputTypeError: A function gave something else than a str; the message names the document's index.
    """
    if text == "content":
        return content
    if callable(text):
        chosen = text(document)
        if not isinstance(chosen, str):
            raise InputTypeError(f"the text function gave {type(chosen).__name__} for document {index}, not str")
        return chosen
    fields = {**metadata, "content": content}
    return "\n".join(str(fields[name]) for name in text if fields.get(name) is not None)


def check_query(query: object) -> None:
    if not isinstance(query, str):
        raise InputTypeError(f"query must be a str, not {type(query).__name__}")

"""The options that commands share: which model, and every one of its options as a flag, made of `core.options`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.core.options import defaults, deprecated, descriptions, option_types

MODEL_HELP = "A supported model, any hub id with ONNX files, a folder, or 'embedded' or 'lexical', which work offline."
_DEFAULT_MODEL = f"$ONNX_RERANK_MODEL, else {registry.DEFAULT_MODEL}"

NOT_FLAGS = frozenset({"model_name", "activation", "lazy_load"})
"""The model has an argument or an option of its own, the scale of scores is each command's, and a command loads now."""

_CONVERTED: dict[frozenset[type], type] = {
    frozenset({int}): int,
    frozenset({float}): float,
    frozenset({str, Path}): Path,
}
"""The flags that typer converts, by the kinds of values that an option takes; all others stay texts."""

ModelOptions = dict[str, Any]
"""Options of a `TextCrossEncoder` that the user gave, by name."""

Model = Annotated[str | None, typer.Option("--model", "-m", help=MODEL_HELP, show_default=_DEFAULT_MODEL)]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help=f"{MODEL_HELP} Repeat to compare several.", show_default=_DEFAULT_MODEL),
]
ModelArgument = Annotated[str | None, typer.Argument(help=f"{MODEL_HELP} Or name it by --model.", show_default=False)]
ModelNamed = Annotated[
    str | None, typer.Option("--model", "-m", help="The model, in place of the argument.", show_default=False)
]
OutArgument = Annotated[Path | None, typer.Argument(help="The folder to make.", show_default=False)]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model of ours that is there.")]


def the_model(argument: str | None, named: str | None) -> str | None:
    """The model of a command that takes it as its argument and as --model."""
    if argument is not None and named is not None:
        raise typer.BadParameter(f"the model is given twice: {argument}, and --model {named}")
    return named if argument is None else argument


def model_and_folder(argument: str | None, out: Path | None, named: str | None) -> tuple[str, Path]:
    """The model and the folder to make of it: with --model, the one argument is the folder."""
    if named is not None and out is None:
        argument, out = None, None if argument is None else Path(argument)
    model = the_model(argument, named)
    if model is None or out is None:
        raise typer.BadParameter("a model and the folder to make of it are needed")
    return model, out


def encoder_of(model: str | None, options: ModelOptions) -> TextCrossEncoder:
    """The model that a command was asked to run, opened."""
    return TextCrossEncoder(model, **options)


def model_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of a model as flags; it gets those that the user set as its keyword ``options``.

    Args:
        names: The options; all where none is named.
    """
    chosen = names or tuple(name for name in defaults() if name not in NOT_FLAGS and name not in deprecated())

    def with_flags(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in chosen}
            options = {name: _value(name, value) for name, value in given.items() if value not in (None, [])}
            command(**arguments, options=options)

        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name])
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "options"
        ]
        signature = inspect.Signature([*own, *map(_flag, chosen)])
        run.__signature__ = signature  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        return run

    return with_flags


def _flag(name: str) -> inspect.Parameter:
    """One option as typer's parameter; None where the user says nothing, so that its default stays in one place."""
    kind, usual = option_types()[name], defaults()[name]
    shown: Any = str(usual) if isinstance(usual, (str, int)) and not isinstance(usual, bool) else False
    flags = ["--provider"] if name == "providers" else [f"--{name.replace('_', '-')}"]
    if kind is bool:
        typed: Any = bool | None
        flags = [f"{flags[0]}/--no-{flags[0][2:]}"] if usual else flags
    elif get_origin(kind) is Literal:
        typed = kind | None
    else:
        kinds = set(get_args(kind)) - {NoneType}
        typed = list[str] if name == "providers" else _CONVERTED.get(frozenset(kinds), str)
        typed = typed | None
    help_text = (
        descriptions()[name]
        .replace("``", "")
        .replace(" (or None)", "")
        .replace(". None for", ". By default")
        .replace("None for", "by default")
    )
    if name == "providers":
        help_text += " Repeat for several."
    option = typer.Option(*flags, help=help_text, show_default=shown)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[typed, option])


def _value(name: str, value: Any) -> Any:
    """As `TextCrossEncoder` takes it: where a number or a text will do, digits are a number."""
    is_number = {int, str} <= set(get_args(option_types()[name])) and value.isdecimal() and len(value) < 20
    return int(value) if is_number else value

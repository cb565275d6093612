"""What callers pass in, refused early and by name."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, get_args

from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError
from onnx_rerank_integrations.core.types import Pair


def pairs_of(query: str, documents: Iterable[str]) -> list[Pair]:
    """N checked pairs of one query."""
    if not isinstance(query, str):
        raise InputTypeError(f"query must be a str, not {type(query).__name__}")
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Iterable):
        raise InputTypeError(
            f"documents must be an iterable of str, not one {type(documents).__name__}: put a single text in a list"
        )
    _refuse_mapping("documents", documents, "its texts: list(documents.values())")
    query = plain(query)
    pairs = []
    for index, document in enumerate(documents):
        if not isinstance(document, str):
            raise InputTypeError(f"document {index} must be a str, not {type(document).__name__}")
        pairs.append((query, plain(document)))
    return pairs


def plain(text: str) -> str:
    """A subclass's characters, whatever it says that it looks like or equals; any other text itself."""
    return text if type(text) is str else str.__str__(text)


def checked_pairs(pairs: Iterable[Pair]) -> list[Pair]:
    """N pairs as tuples of two str."""
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        raise InputTypeError(f"pairs must be an iterable of (query, document), not {type(pairs).__name__}")
    _refuse_mapping("pairs", pairs, "its pairs: list(pairs.items())")
    checked: list[Pair] = []
    for index, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputTypeError(f"pair {index} must be a (query, document) tuple, not {type(pair).__name__}")
        for part, text in zip(("query", "document"), pair, strict=True):
            if not isinstance(text, str):
                raise InputTypeError(f"the {part} of pair {index} must be a str, not {type(text).__name__}")
        checked.append((plain(pair[0]), plain(pair[1])))
    return checked


def _refuse_mapping(name: str, value: object, instead: str) -> None:
    """Refuses what gives keys, or names of columns, where texts are meant: dicts, and data frames."""
    if isinstance(value, Mapping) or (hasattr(value, "columns") and hasattr(value, "keys")):
        raise InputTypeError(f"{name} must not be a {type(value).__name__}, whose keys would be ranked: give {instead}")


def check_list(name: str, value: object, of: str) -> None:
    """Raises InputTypeError for a single text, a mapping, or what isn't a list at all."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InputTypeError(f"{name} must be a list of {of}, not {type(value).__name__}: {value!r:.80}")


def check_providers_option(providers: object) -> None:
    if providers is None:
        return
    check_list("providers", providers, "names, or of (name, options)")
    for provider in providers:  # type: ignore[attr-defined]  # a list
        named = isinstance(provider, (tuple, list)) and len(provider) == 2 and isinstance(provider[0], str)
        if not isinstance(provider, str) and not (named and isinstance(provider[1], Mapping)):
            raise InputTypeError(f"a provider must be a name or (name, options), not {provider!r}")


def check_label(label: object) -> None:
    if label is not None and (isinstance(label, bool) or not isinstance(label, (int, str))):
        raise InputTypeError(f"label must be a label's name or its place, not {label!r}")


def check_instruction(instruction: object) -> None:
    if instruction is not None and not isinstance(instruction, str):
        raise InputTypeError(f"instruction must be a str or None, not {type(instruction).__name__}")


def check_path(name: str) -> Callable[[object], None]:
    """A check for an option that is a path or None."""

    def check(value: object) -> None:
        if value is not None and not isinstance(value, (str, Path)):
            raise InputTypeError(f"{name} must be a str, a Path or None, not {value!r:.80}")
        if "\0" in str(value):
            raise InputValueError(f"{name}={str(value)!r:.80} can be no path: it holds a NUL character")

    return check


def check_flag(name: str) -> Callable[[object], None]:
    """A check for an option that is True or False."""

    def check(value: object) -> None:
        if not isinstance(value, bool):
            raise InputTypeError(f"{name} must be True or False, not {value!r}")

    return check


def check_top_n(top_n: int | None, name: str = "top_n") -> None:
    if top_n is not None:
        _check_whole_number(name, top_n, "None for all documents")


def check_batch_size(batch_size: int | None) -> None:
    if batch_size is not None:
        _check_whole_number("batch_size", batch_size, "None for the token budget alone")


def check_parallel(parallel: int | None) -> None:
    if parallel is None or (parallel == 0 and not isinstance(parallel, bool)):
        return
    _check_whole_number("parallel", parallel, "0 for one per CPU, or None for one per thread")


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
    if score_threshold is None:
        return
    if not _is_number(score_threshold):
        raise InputTypeError(f"score_threshold must be a number, or None for no threshold, not {score_threshold!r:.80}")
    if score_threshold != score_threshold:
        raise InputValueError("score_threshold is NaN: every comparison with it fails; use None for no threshold")


def _is_number(value: object) -> bool:
    """Whether it is a number that a float holds, Python's or NumPy's; True and False are none."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and float(value) is not None
    except OverflowError:
        return False


MOST_THREADS = 1024
"""More than the machines have that this runs on; onnxruntime starts them all when it opens a model."""


def check_threads(threads: int | None) -> None:
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputValueError(f"threads={threads!r} must be a whole number from 1, or None for all available CPUs")
    if threads is not None and threads > MOST_THREADS:
        raise InputValueError(f"threads={threads} is more than {MOST_THREADS}; None is for all available CPUs")


def check_timeout(timeout: float | None) -> None:
    if timeout is None:
        return
    if not _is_number(timeout):
        raise InputTypeError(f"timeout must be a number of seconds, or None for no limit, not {timeout!r:.80}")
    if not timeout > 0:
        raise InputValueError(f"timeout={timeout} must be more than 0 seconds, or None for no limit")


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises InputValueError unless `value` is one of the words of a ``Literal``."""
    words = get_args(choices)
    if value not in words:
        raise InputValueError(f"{name}={value!r} is not one of {', '.join(map(repr, words))}")


def check_model_name(model_name: object) -> None:
    if model_name is not None and not isinstance(model_name, (str, Path)):
        raise InputTypeError(f"model_name must be a str, a Path or None, not {type(model_name).__name__}")
    if is_url(model_name):
        raise InputValueError(
            f"{model_name!r} is a server's address, no model: give it to RemoteCrossEncoder, or as model to a door"
        )


def is_url(model: object) -> bool:
    """Whether it is a server's address, not a model's name."""
    return isinstance(model, str) and model.lower().startswith(("http://", "https://"))


NO_PROMPT = "none"
"""For the option `prompt`: query and document as a plain pair, whatever the model's files say."""

PROMPT_NAMES = ("qwen3", "mxbai-v2", "nemotron")
"""The families of `tokens.prompts.FAMILIES`."""


def check_prompt(prompt: str | None) -> None:
    """Raises InputTypeError or InputValueError for what the option `prompt` doesn't take."""
    if prompt is None or prompt in (NO_PROMPT, *PROMPT_NAMES):
        return
    if not isinstance(prompt, str):
        raise InputTypeError(f"prompt must be a str or None, not {type(prompt).__name__}")
    if prompt.count("{query}") != 1 or prompt.count("{document}") != 1:
        raise InputValueError(
            f"prompt={prompt[:80]!r} is no prompt: give a template with {{query}} and {{document}} once each, "
            f'"{NO_PROMPT}", or one of {", ".join(map(repr, PROMPT_NAMES))}'
        )

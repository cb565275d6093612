"""Every option is written once, and every place that shows or takes options is made of that."""

from __future__ import annotations

import inspect
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest

from onnx_rerank_integrations import InputTypeError, InputValueError, TextCrossEncoder
from onnx_rerank_integrations.core.options import (
    Engine,
    Options,
    Reading,
    Source,
    changed,
    defaults,
    descriptions,
    values,
    words,
)
from tests.toy import make_toy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_toy(tmp_path / "toy")


def test_the_three_parts_hold_each_option_once() -> None:
    parts = [set(defaults(part)) for part in (Source, Reading, Engine)]

    assert sum(map(len, parts)) == len(set.union(*parts))
    assert set(defaults()) == set.union(*parts) | {"activation", "score_cache", "lazy_load"}


def test_the_encoder_has_every_option_as_a_keyword_with_its_default_and_its_description() -> None:
    keywords = inspect.signature(TextCrossEncoder).parameters

    assert {name: keyword.default for name, keyword in keywords.items()} == defaults()
    assert next(iter(keywords)) == "model_name"
    assert all(name in (TextCrossEncoder.__doc__ or "") for name in keywords)
    documented = " ".join((TextCrossEncoder.__doc__ or "").split())
    assert all(" ".join(text.split()) in documented for text in descriptions().values())


def test_the_model_may_be_given_by_position_and_nothing_else(folder: Path) -> None:
    assert TextCrossEncoder(folder) == TextCrossEncoder(model_name=str(folder))
    with pytest.raises(TypeError):
        TextCrossEncoder(folder, 3)  # type: ignore[misc, arg-type]
    with pytest.raises(TypeError, match="max_lenght"):
        TextCrossEncoder(folder, max_lenght=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["truncation", "long_documents", "optimize", "backend", "activation"])
def test_an_option_of_words_names_them_all(name: str) -> None:
    with pytest.raises(InputValueError) as caught:
        Options(**{name: "perhaps"})

    assert all(repr(word) in str(caught.value) for word in words(name))
    assert len(words(name)) > 1


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"threads": 0}, InputValueError),
        ({"threads": 1.5}, InputValueError),
        ({"max_length": -1}, InputValueError),
        ({"max_length": "9"}, InputTypeError),
        ({"model_name": 3}, InputTypeError),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(options: dict[str, Any], kind: type[Exception]) -> None:
    [name] = options

    with pytest.raises(kind, match=name):
        Options(**options)


def test_what_is_changed_is_what_a_repr_and_a_pickle_hold(folder: Path) -> None:
    encoder = TextCrossEncoder(folder, max_length=16, threads=1)

    assert changed(encoder.options, leave_out={"model_name"}) == {"max_length": 16, "threads": 1}
    assert values(encoder.options, Engine)["threads"] == 1
    assert repr(encoder) == f"TextCrossEncoder({str(folder)!r}, max_length=16, threads=1)"
    assert pickle.loads(pickle.dumps(encoder)) == encoder


@pytest.mark.parametrize("options", [{"idle_threads": "spin"}, {"batching": "sorted"}, {"specific_model_path": "here"}])
def test_an_option_that_will_go_says_so_to_the_line_that_gives_it(options: dict[str, Any], folder: Path) -> None:
    [name] = options

    with pytest.warns(DeprecationWarning, match=f"{name} is deprecated: .+") as caught:
        TextCrossEncoder(folder, lazy_load=True, **options)

    assert [warning.filename for warning in caught] == [__file__]


def test_options_as_they_come_warn_of_nothing(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TextCrossEncoder(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cuda": True}, 'cuda is no option here: it is called providers, as in providers=\\["CUDA'),
        ({"max_lenght": 8}, "max_lenght is no option here: did you mean max_length?"),
        ({"trust_remote_code": True}, "no code of a model is ever run"),
    ],
)
def test_another_librarys_name_for_an_option_names_ours(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(InputTypeError, match=f"TextCrossEncoder: .*{message}"):
        TextCrossEncoder(folder, **options)

"""The options both doors share, on the toy model whose scores can be added up by hand; no framework is needed."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from onnx_rerank_integrations import InputTypeError, InputValueError, TextCrossEncoder, TextCrossEncoderBase
from onnx_rerank_integrations.core.model.registry import DEFAULT_MODEL
from onnx_rerank_integrations.core.options import PEERS_NAMES, PEERS_NEEDLESS, descriptions
from onnx_rerank_integrations.core.types import RankedDocument
from onnx_rerank_integrations.door import (
    LOADING_OPTIONS,
    RerankOptions,
    check_query,
    chosen_text,
)
from tests.toy import make_toy, toy_score


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"), config={"max_position_embeddings": 64})


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("other"), head="two")


def first_score(options: RerankOptions) -> float:
    return options._rank("q", ["b"], None)[0].score


def test_the_model_is_opened_at_once_unless_it_is_asked_to_wait(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    waiting = RerankOptions(model=nowhere, lazy_load=True, activation="identity")

    with pytest.raises((OSError, ValueError)):
        RerankOptions(model=nowhere)
    assert waiting._rank("q", [], None) == []
    make_toy(nowhere)
    assert first_score(waiting) == toy_score("q", "b")


def test_without_a_model_the_default_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONNX_RERANK_MODEL", raising=False)
    assert RerankOptions(lazy_load=True).model == DEFAULT_MODEL

    monkeypatch.setenv("ONNX_RERANK_MODEL", "some/model")
    assert RerankOptions(lazy_load=True).model == "some/model"


def test_an_error_of_the_model_keeps_its_type_and_message(folder: Path) -> None:
    with pytest.raises(InputValueError, match=r"^max_length=65 is more than the 64 positions"):
        RerankOptions(model=folder, max_length=65)


@pytest.mark.parametrize("top_n", [0, -1, True, 1.5, "3"])
def test_top_n_below_one_is_refused_at_construction_and_on_assignment(top_n: object, folder: Path) -> None:
    options = RerankOptions(model=folder, top_n=2)

    with pytest.raises(ValidationError, match="top_n"):
        RerankOptions(model=folder, top_n=top_n)
    with pytest.raises(ValidationError, match="top_n"):
        options.top_n = top_n  # type: ignore[assignment]
    assert options.top_n == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score_threshold", float("nan")),
        ("activation", "softmax"),
        ("text", ""),
        ("text", []),
        ("batch_size", 0),
        ("max_concurrency", 0),
        ("truncation", "longest"),
        ("model", 3),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: object, folder: Path) -> None:
    with pytest.raises(ValidationError, match=name):
        RerankOptions(**{"model": folder, name: value})


@pytest.mark.parametrize(
    ("peers", "ours"),
    [
        ({"top_k": 3}, "it is called top_n$"),
        ({"model_name": "x"}, "it is called model$"),
        ({"device": "cuda"}, r'it is called providers, as in providers=\["CUDAExecutionProvider"\]$'),
        ({"cuda": True}, "it is called providers"),
        ({"use_fp16": True}, "it is called precision"),
        ({"return_documents": False}, "leave it out, documents always come back"),
        ({"normalize": True}, 'it is called activation, as in activation="sigmoid"$'),
        ({"max_seq_length": 512}, "it is called max_length$"),
        ({"token": "secret"}, "leave it out, and log in with"),
        ({"score_cutoff": 0.2}, "it is called score_threshold$"),
        ({"topn": 3}, r"did you mean top_n\?$"),
        ({"score_treshold": 3}, r"did you mean score_threshold\?$"),
        ({"colour": "red"}, "there are model, batch_size, "),
    ],
)
def test_an_unknown_option_names_the_one_that_is_meant(peers: dict[str, Any], ours: str, folder: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        RerankOptions(model=folder, **peers)

    [error] = caught.value.errors()
    [name] = peers
    assert (error["type"], error["loc"]) == ("unknown_option", (name,))
    assert error["input"] == ("not shown" if name == "token" else peers[name])
    assert "secret" not in str(caught.value)
    assert re.search(f"^{name} is no option here: .*{ours}", error["msg"])


def test_each_option_a_peers_name_leads_to_is_there() -> None:
    ours = {meant.partition(" ")[0].rstrip(",") for meant in PEERS_NAMES.values()}

    assert ours <= {*RerankOptions.model_fields, "score_key", "retriever", "reranker"}
    assert not {*PEERS_NAMES, *PEERS_NEEDLESS} & set(RerankOptions.model_fields)


def test_several_unknown_options_are_told_at_once(folder: Path) -> None:
    with pytest.raises(ValidationError, match=r"(?s)2 validation errors.*called top_n.*called providers"):
        RerankOptions(model=folder, top_k=3, device="cpu")


def test_the_doors_take_every_option_of_the_encoder_with_its_default() -> None:
    keywords = inspect.signature(TextCrossEncoder).parameters.values()
    encoders = {keyword.name: keyword.default for keyword in keywords}
    for not_ours in ("model_name", "activation", "lazy_load", "specific_model_path"):  # the doors have their own
        del encoders[not_ours]

    assert {name: RerankOptions.model_fields[name].default for name in LOADING_OPTIONS} == encoders


def test_a_ready_encoder_is_used_as_it_is(folder: Path) -> None:
    encoder = TextCrossEncoder(folder)

    assert RerankOptions(model=encoder).encoder is encoder
    assert RerankOptions(model=encoder).model_name == str(folder) == RerankOptions(model=folder).model_name


def test_an_encoder_of_ones_own_answers_in_its_own_way_each_time(folder: Path) -> None:
    class Doubled(TextCrossEncoder):
        def logits(self, pairs: Any, **options: Any) -> Any:
            return 2 * super().logits(pairs, **options)

    class Raised(TextCrossEncoderBase):
        def logits(self, pairs: Any, **options: Any) -> Any:
            return Doubled(folder).logits(pairs, **options)

        def rank(self, *args: Any, **options: Any) -> list[RankedDocument]:
            return [replace(one, score=one.score + 1) for one in super().rank(*args, **options)]

    for encoder, expected in ((Doubled(folder), 2 * toy_score("q", "b")), (Raised(), 2 * toy_score("q", "b") + 1)):
        options = RerankOptions(model=encoder, activation="identity")
        assert [first_score(options) for _ in range(3)] == [expected] * 3


def test_a_ready_encoder_that_is_still_to_open_stays_so(tmp_path: Path) -> None:
    RerankOptions(model=TextCrossEncoder(tmp_path / "nowhere", lazy_load=True))


def test_a_ready_encoder_takes_no_loading_options(folder: Path) -> None:
    encoder = TextCrossEncoder(folder)
    options = RerankOptions(model=encoder)

    with pytest.raises(ValidationError, match="max_length can't be combined with a ready encoder"):
        RerankOptions(model=encoder, max_length=16)
    with pytest.raises(ValidationError, match="revision can't be combined with a ready encoder"):
        options.revision = "main"
    assert options.revision is None
    named = RerankOptions(model=folder, max_length=16)
    with pytest.raises(ValidationError, match="max_length can't be combined with a ready encoder"):
        named.model = encoder
    assert named.model == str(folder)


def test_a_copy_with_a_ready_encoder_and_loading_options_is_refused_when_it_is_used(folder: Path) -> None:
    copied = RerankOptions(model=folder, max_length=16).model_copy(update={"model": TextCrossEncoder(folder)})

    with pytest.raises(InputValueError, match="max_length can't be combined"):
        first_score(copied)


def test_copies_share_the_encoder_and_the_threads(folder: Path) -> None:
    for lazy_load in (True, False):
        options = RerankOptions(model=folder, lazy_load=lazy_load)
        for copied in (
            options.model_copy(update={"top_n": 1}),
            options.model_copy(deep=True),
            copy.copy(options),
            copy.deepcopy(options),
        ):
            assert copied.encoder is options.encoder
            assert copied._own_workers() is options._own_workers()


def test_another_model_or_loading_option_leads_to_another_encoder(folder: Path, other_folder: Path) -> None:
    options = RerankOptions(model=folder, activation="identity")
    first = options.encoder

    assert first_score(options.model_copy(update={"model": other_folder})) == 2 * toy_score("q", "b")
    assert options.model_copy(update={"max_length": 8}).encoder.max_length == 8  # type: ignore[attr-defined]
    assert options.encoder is first
    options.model = str(other_folder)
    assert first_score(options) == 2 * toy_score("q", "b")


def test_equal_options_are_equal_whatever_is_open(folder: Path) -> None:
    opened = RerankOptions(model=folder, top_n=2)

    assert opened == RerankOptions(model=str(folder), top_n=2, lazy_load=False)
    assert opened != RerankOptions(model=folder, top_n=1)
    assert opened != str(folder)


def test_a_pickle_holds_the_options_alone(folder: Path) -> None:
    options = RerankOptions(model=folder, top_n=None, text=["title"], max_length=16, max_concurrency=2)
    data = pickle.dumps(options)

    again = pickle.loads(data)

    assert len(data) < 1500
    assert again == options
    assert first_score(again) == first_score(options)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(options.model_copy(update={"text": lambda document: ""}))


def test_named_options_survive_json(folder: Path) -> None:
    options = RerankOptions(
        model=folder,
        cache_dir=folder,
        score_cache=100,
        top_n=None,
        score_threshold=0.0,
        text=["title", "content"],
        label=0,
        providers=[("CPUExecutionProvider", {})],
    )

    assert RerankOptions(**json.loads(options.model_dump_json())) == options


def test_a_live_encoder_or_a_function_is_refused_by_json(folder: Path) -> None:
    with pytest.raises(ValueError, match="model is a live encoder, which can't be serialized"):
        RerankOptions(model=TextCrossEncoder(folder)).model_dump()
    with pytest.raises(ValueError, match="text is a function, which can't be serialized"):
        RerankOptions(model=folder, text=str).model_dump_json()


def test_a_query_or_top_n_that_cannot_be_used_is_an_error_even_without_texts(folder: Path) -> None:
    options = RerankOptions(model=folder)

    with pytest.raises(InputTypeError, match="query must be a str, not NoneType"):
        options._rank(None, [], None)  # type: ignore[arg-type]
    with pytest.raises(InputValueError, match="top_n=0"):
        options._rank("q", [], 0)
    check_query("")


def test_the_threshold_is_in_the_scale_of_the_activation_and_comes_before_top_n(folder: Path) -> None:
    texts = ["a", "z", "k", "c"]
    scores = sorted((toy_score("q", text) for text in texts), reverse=True)
    options = RerankOptions(model=folder, activation="identity", score_threshold=scores[2])

    assert [one.score for one in options._rank("q", texts, None)] == scores[:3]
    assert [one.score for one in options._rank("q", texts, 2)] == scores[:2]
    assert options.model_copy(update={"score_threshold": 1e9})._rank("q", texts, 2) == []


METADATA = {"title": "a title", "year": 2024, "empty": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("content", "the content"),
        (["title"], "a title"),
        (["title", "content", "year"], "a title\nthe content\n2024"),
        (["missing", "empty", "title"], "a title"),
        (["missing"], ""),
        (lambda document: document.upper(), "A DOCUMENT"),
    ],
)
def test_the_text_that_is_scored_is_chosen(text: Any, expected: str) -> None:
    assert chosen_text(text, "a document", "the content", METADATA, 0) == expected


def test_one_field_is_a_list_of_one(folder: Path) -> None:
    options = RerankOptions(model=folder, text="title")

    assert options.text == ["title"]
    options.text = "year"
    assert options.text == ["year"]
    options.text = "content"
    assert options.text == "content"
    assert options.model_copy(update={"text": "title"})._texts([("d", "c", {"title": "t"})]) == ["t"]


def test_a_field_that_no_document_has_is_told_once_with_those_that_are_there(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = RerankOptions(model=folder, text=["titel", "content", "year"])
    documents = [("d", "c", {"title": "t", "year": 1}), ("d", "c", {"author": "a"})]

    texts = [options.model_copy()._texts(documents), options._texts(documents)]

    assert texts == [["c\n1", "c"]] * 2
    [told] = caplog.messages
    assert told == (
        "text names 'titel', which none of the 2 documents has: it is scored as nothing. "
        "Fields that are there: author, content, title, year"
    )
    assert options._texts([]) == []
    for text in ("content", ["title", "year"], lambda document: "x"):
        RerankOptions(model=folder, text=text)._texts(documents)
    assert len(caplog.messages) == 1


def test_a_text_function_that_gives_no_str_names_the_document() -> None:
    with pytest.raises(InputTypeError, match="the text function gave NoneType for document 7"):
        chosen_text(lambda document: None, "d", "c", {}, 7)  # type: ignore[arg-type,return-value]


class Gated(TextCrossEncoderBase):
    """An encoder that waits until it is let go, and counts who is inside at once."""

    config: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.lock = threading.Lock()
        self.inside = self.most = self.calls = 0
        self.batch_size: int | None = None

    def logits(self, pairs: Any, *, batch_size: int | None = None, **options: Any) -> Any:
        self.batch_size = batch_size
        with self.lock:
            self.calls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.gate.wait(120)
        with self.lock:
            self.inside -= 1
        return np.zeros(len(pairs))

    def token_count(self, pairs: Any) -> int:
        raise NotImplementedError

    def truncated(self, pairs: Any) -> list[bool]:
        raise NotImplementedError


@pytest.fixture
def gated() -> Iterator[Gated]:
    encoder = Gated()
    yield encoder
    encoder.gate.set()


async def until(condition: Any) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.001)


def test_the_batch_size_reaches_the_encoder(gated: Gated) -> None:
    gated.gate.set()

    RerankOptions(model=gated, batch_size=5)._rank("q", ["a"], None)

    assert gated.batch_size == 5


async def test_another_limit_holds_from_then_on(gated: Gated) -> None:
    options = RerankOptions(model=gated, max_concurrency=1)
    copied = options.model_copy(update={"max_concurrency": 3})

    calls = [asyncio.ensure_future(copied._in_thread(copied._rank, "q", ["a"], 1)) for _ in range(8)]
    await until(lambda: gated.inside == 3)
    gated.gate.set()
    await asyncio.gather(*calls)

    assert gated.most == 3
    assert copied._own_workers() is copied._own_workers() is not options._own_workers()


@pytest.mark.parametrize("max_concurrency", [1, 3])
async def test_no_more_async_calls_run_at_once_than_asked_for(max_concurrency: int, gated: Gated) -> None:
    options = RerankOptions(model=gated, max_concurrency=max_concurrency)
    copied = options.model_copy(update={"top_n": 1})

    calls = [asyncio.ensure_future(one._in_thread(one._rank, "q", ["a"], 1)) for one in [options, copied] * 8]
    await until(lambda: gated.inside == max_concurrency)
    # The loop's own pool is free meanwhile: this would never end if the waiting calls held its threads.
    assert await asyncio.gather(*(asyncio.to_thread(lambda: 7) for _ in range(40))) == [7] * 40
    gated.gate.set()

    assert len(await asyncio.gather(*calls)) == 16
    assert gated.most == max_concurrency


async def test_a_call_that_is_cancelled_while_it_waits_is_never_made(gated: Gated) -> None:
    options = RerankOptions(model=gated)
    running, waiting = (asyncio.ensure_future(options._in_thread(options._rank, "q", ["a"], 1)) for _ in range(2))
    await until(lambda: gated.calls == 1)

    waiting.cancel()
    running.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    gated.gate.set()

    assert len(await options._in_thread(options._rank, "q", ["a"], 1)) == 1
    assert gated.calls == 2


async def test_a_thread_sees_the_callers_context(folder: Path) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    request.set("mine")

    assert await RerankOptions(model=folder)._in_thread(request.get) == "mine"


FORK = """
import asyncio, os, sys
from onnx_rerank_integrations.door import RerankOptions
options = RerankOptions(model=sys.argv[1])
rank = lambda: asyncio.run(options._in_thread(options._rank, "q", ["a b", "c"], None))
expected = rank()
child = os.fork()
if child == 0:
    os._exit(0 if rank() == expected else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_has_threads_of_its_own(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, str(folder)], timeout=250, capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_shared_options_import_no_framework() -> None:
    code = "import sys, onnx_rerank_integrations.door; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not set(done.stdout.split()) & {"langchain_core", "llama_index", "torch", "transformers", "onnxruntime"}


def test_help_describes_every_option() -> None:
    described = " ".join((RerankOptions.__doc__ or "").split())

    for name, field in RerankOptions.model_fields.items():
        assert f" {name}: " in described
        assert field.examples
        assert " ".join((field.description or "?").split()) in described
        assert f" Example: ``{name}={field.examples[0]!r}``." in described
        assert field.default_factory or f" Default: {field.default!r}. Example: ``{name}=" in described
    assert all(" ".join(text.split()) in described for name, text in descriptions().items() if name in LOADING_OPTIONS)

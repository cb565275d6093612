"""A call that takes too long, or that nobody waits for any more, is stopped; the encoder is as good as before."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_rerank_integrations import (
    InputTypeError,
    InputValueError,
    RerankError,
    RerankTimeoutError,
    TextCrossEncoder,
    TextCrossEncoderBase,
)
from onnx_rerank_integrations.core.engine.onnxruntime import InferenceSession
from onnx_rerank_integrations.core.engine.stops import stoppable
from tests.parity import fixtures
from tests.toy import make_toy

onnx = pytest.importorskip("onnx")

FOR_EVER = "a a a a"
"""A query of four equal tokens, after a first one that is another: a model's trials at load have none."""


def endless(source: Path, folder: Path) -> Path:
    """A copy of a model that never comes to the end of a pair whose query is `FOR_EVER`."""
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    model = onnx.load(source / "model.onnx")
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["computed" if name == output else name for name in node.output]
        node.input[:] = ["computed" if name == output else name for name in node.input]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, []), helper.make_tensor_value_info("y", 1, None)],
    )
    constants = {"zero": [0], "one": [1], "five": [5], "axis": [1], "once": 1, "for_ever": 2**62}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), k) for k, v in constants.items())
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.extend(
        [
            helper.make_node("Slice", ["input_ids", "zero", "one", "axis"], ["first"]),
            helper.make_node("Slice", ["input_ids", "one", "five", "axis"], ["query"]),
            helper.make_node("ReduceMax", ["query"], ["highest"], keepdims=0),
            helper.make_node("ReduceMin", ["query"], ["lowest"], keepdims=0),
            helper.make_node("ReduceMax", ["first"], ["begins"], keepdims=0),
            helper.make_node("Equal", ["highest", "lowest"], ["same"]),
            helper.make_node("Equal", ["highest", "begins"], ["all"]),
            helper.make_node("Not", ["all"], ["not_all"]),
            helper.make_node("And", ["same", "not_all"], ["endless"]),
            helper.make_node("Where", ["endless", "for_ever", "once"], ["trips"]),
            helper.make_node("Loop", ["trips", "yes", "computed"], [output], body=body),
        ]
    )
    onnx.save(model, folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> TextCrossEncoder:
    """Scores as BERT does, and for one query never."""
    return TextCrossEncoder(endless(fixtures.folder("bert"), tmp_path_factory.mktemp("slow") / "model"), optimize="off")


LONG = ["bees live on their honey in the winter " * 5]


@pytest.fixture
def nothing_left_running() -> Iterator[None]:
    before = {thread for thread in threading.enumerate() if thread.name.startswith("onnx-rerank-timed")}
    yield
    end = time.monotonic() + 120
    while time.monotonic() < end and running() - before:
        time.sleep(0.01)
    assert not running() - before


def running() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("onnx-rerank-timed")}


METHODS: list[Callable[..., Any]] = [
    lambda encoder, texts, **options: encoder.rerank(FOR_EVER, texts, **options),
    lambda encoder, texts, **options: encoder.rank(FOR_EVER, texts, **options),
    lambda encoder, texts, **options: encoder.rerank_pairs([(FOR_EVER, text) for text in texts], **options),
]


@pytest.mark.usefixtures("nothing_left_running")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("texts", [LONG, [f"{LONG[0]} {i}" for i in range(50)]], ids=["one", "side by side"])
def test_a_call_ends_with_its_timeout_and_the_encoder_is_as_good_as_before(
    method: Callable[..., Any], texts: Sequence[str], slow: TextCrossEncoder
) -> None:
    expected = TextCrossEncoder(fixtures.folder("bert")).rerank("a bee", ["a hive", "soup"])

    with pytest.raises(RerankTimeoutError, match="stopped") as caught:
        method(slow, texts, timeout=0.2)

    assert isinstance(caught.value, RerankError)
    assert isinstance(caught.value, TimeoutError)
    assert slow.rerank("a bee", ["a hive", "soup"]) == pytest.approx(expected, abs=1e-5)
    assert slow.rerank("a bee", ["a hive", "soup"], timeout=60) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("timeout", [None, 60, 1e300, float("inf")])
def test_a_call_in_time_gives_the_same(timeout: float | None, slow: TextCrossEncoder) -> None:
    assert slow.rerank("a bee", ["a hive"], timeout=timeout) == slow.rerank("a bee", ["a hive"])


@pytest.mark.parametrize(
    ("timeout", "error"), [(0, InputValueError), (-1, InputValueError), (float("nan"), InputValueError),
                           ("1", InputTypeError), (True, InputTypeError)]
)  # fmt: skip
def test_a_timeout_out_of_range(timeout: object, error: type[Exception], slow: TextCrossEncoder) -> None:
    for method in METHODS:
        with pytest.raises(error, match="timeout"):
            method(slow, ["a"], timeout=timeout)


def test_errors_of_a_timed_call_are_its_own(slow: TextCrossEncoder) -> None:
    class Failing(TextCrossEncoderBase):
        def logits(self, pairs: Sequence[tuple[str, str]], **options: object) -> Any:
            raise TimeoutError("my own")

    with pytest.raises(TimeoutError, match="my own") as caught:
        Failing().rerank("q", ["a"], timeout=60)
    assert not isinstance(caught.value, RerankTimeoutError)


@pytest.mark.usefixtures("nothing_left_running")
def test_a_cascade_and_a_wrapper_of_ones_own_hand_nothing_on_and_are_stopped_too(slow: TextCrossEncoder) -> None:
    class Wrapper(TextCrossEncoderBase):
        def logits(self, pairs: Sequence[tuple[str, str]], **options: Any) -> Any:
            return slow.logits(pairs, **options)

    cascade = TextCrossEncoder.cascade(["lexical", Wrapper()], keep=[5])
    texts = [f"{LONG[0]} {i}" for i in range(9)]

    for encoder in (Wrapper(), cascade):
        with pytest.raises(RerankTimeoutError):
            encoder.rank(FOR_EVER, texts, timeout=0.2)


def test_a_stop_reaches_those_within_but_not_those_around() -> None:
    with stoppable() as around:
        with pytest.raises(KeyError), stoppable() as failed:
            raise KeyError
        around.check()
        with pytest.raises(CancelledError):
            failed.check()
        with stoppable() as inner:
            around.now()
            with pytest.raises(CancelledError):
                inner.check()
        with pytest.raises(CancelledError), around.calling():
            pass


def test_a_run_is_ended_within_it(slow: TextCrossEncoder) -> None:
    encoder = slow.load()
    batch = encoder._collate(encoder.encode([(FOR_EVER, LONG[0])]))

    with stoppable() as stop:
        threading.Timer(0.1, stop.now).start()
        with pytest.raises(CancelledError):
            encoder._session.run(batch)


def test_openvino_is_stopped_too(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino isn't installed: pip install '...[openvino]'")
    encoder = TextCrossEncoder(fixtures.folder("bert"), backend="openvino")
    texts = [f"{LONG[0] * 4} {i}" for i in range(1000)]
    expected = encoder.rerank("a bee", texts[:3])

    with pytest.raises(RerankTimeoutError):
        encoder.rerank("a bee", texts, timeout=0.01)

    assert encoder.rerank("a bee", texts[:3]) == pytest.approx(expected, abs=1e-5)


def test_a_slow_load_goes_on_for_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, opened = InferenceSession._open, []

    def slowly(self: InferenceSession, threads: int) -> object:
        opened.append(threads)
        time.sleep(0.5)
        return real(self, threads)

    monkeypatch.setattr(InferenceSession, "_open", slowly)
    encoder = TextCrossEncoder(make_toy(tmp_path), lazy_load=True, threads=1)

    with pytest.raises(RerankTimeoutError):
        encoder.rerank("q", ["a"], timeout=0.1)

    assert len(encoder.rerank("q", ["a"])) == 1
    assert opened == [1]


class TestDoors:
    @pytest.fixture
    def door(self, slow: TextCrossEncoder) -> Any:
        module = pytest.importorskip("onnx_rerank_integrations.langchain")
        return module.OnnxRerank(model=slow, timeout=0.2)

    def test_langchain(self, door: Any) -> None:
        with pytest.raises(RerankTimeoutError):
            door.rerank(LONG, FOR_EVER)
        door.timeout = 120
        assert len(door.rerank(["a hive"], "a bee")) == 1
        with pytest.raises((InputValueError, ValueError), match="timeout"):
            door.timeout = 0

    def test_langchains_cross_encoder(self, slow: TextCrossEncoder) -> None:
        module = pytest.importorskip("onnx_rerank_integrations.langchain")
        with pytest.raises(RerankTimeoutError):
            module.OnnxCrossEncoderModel(model=slow, timeout=0.2).score([(FOR_EVER, LONG[0])])

    def test_llama_index(self, slow: TextCrossEncoder) -> None:
        module = pytest.importorskip("onnx_rerank_integrations.llama_index")
        schema = pytest.importorskip("llama_index.core.schema")
        nodes = [schema.NodeWithScore(node=schema.TextNode(text=LONG[0]))]
        with pytest.raises(RerankTimeoutError):
            module.OnnxRerank(model=slow, timeout=0.2).postprocess_nodes(nodes, query_str=FOR_EVER)

    async def test_the_wait_for_a_thread_counts(self, door: Any) -> None:
        from langchain_core.documents import Document

        calls = [door.acompress_documents([Document("soup")], query) for query in (FOR_EVER, "a bee", "a hive")]

        first, *others = await asyncio.gather(*calls, return_exceptions=True)

        assert isinstance(first, RerankTimeoutError)
        assert all(isinstance(other, (list, RerankTimeoutError)) for other in others)
        door.timeout = 120
        assert len(await door.acompress_documents([Document("short")], "a bee")) == 1

    async def test_a_cancelled_await_stops_the_work(self, door: Any) -> None:
        from langchain_core.documents import Document

        door.timeout = None
        call = asyncio.create_task(door.acompress_documents([Document("soup")], FOR_EVER))
        await asyncio.sleep(0.2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        # The one thread is free again: it would compute for ever.
        assert len(await asyncio.wait_for(door.acompress_documents([Document("short")], "a bee"), 120)) == 1

"""What LlamaIndex's instrumentation and callbacks hear of a reranking (case 26 of the table in test_llama_index.py)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnx_rerank_integrations import ScoreError
from tests.toy import make_toy, toy_score

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.events.span import SpanDropEvent
from llama_index.core.instrumentation.span import SimpleSpan
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from onnx_rerank_integrations.llama_index import OnnxRerank

METHODS = {"sync": "_postprocess_nodes", "async": "_apostprocess_nodes"}


class Heard(BaseEventHandler):
    events: list[Any] = []  # noqa: RUF012 - a pydantic field

    @classmethod
    def class_name(cls) -> str:
        return "Heard"

    def handle(self, event: Any, **_: Any) -> None:
        self.events.append(event)


class Callbacks(BaseCallbackHandler):
    """Every callback in order: ("start" or "end", event type, payload, event id)."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.calls: list[tuple[str, CBEventType, dict[str, Any], str]] = []

    def on_event_start(self, event_type: Any, payload: Any = None, event_id: str = "", **_: Any) -> str:
        self.calls.append(("start", event_type, payload or {}, event_id))
        return event_id

    def on_event_end(self, event_type: Any, payload: Any = None, event_id: str = "", **_: Any) -> None:
        self.calls.append(("end", event_type, payload or {}, event_id))

    def start_trace(self, trace_id: str | None = None) -> None:
        pass

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        pass


class Spans(SimpleSpanHandler):
    def ids(self, spans: list[SimpleSpan]) -> list[str]:
        return [span.id_ for span in spans if span.id_.startswith("OnnxRerank.")]


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    handler = Heard(events=[])
    root = get_dispatcher()
    root.event_handlers.append(handler)
    yield handler.events
    root.event_handlers.remove(handler)


@pytest.fixture
def spans() -> Iterator[Spans]:
    handler = Spans()
    root = get_dispatcher()
    root.span_handlers.append(handler)
    yield handler
    root.span_handlers.remove(handler)


@pytest.fixture
def callbacks() -> Callbacks:
    return Callbacks()


@pytest.fixture
def rerank(toy_folder: Path, callbacks: Callbacks) -> OnnxRerank:
    return OnnxRerank(
        model=toy_folder,
        activation="identity",
        top_n=2,
        keep_retrieval_score=True,
        callback_manager=CallbackManager([callbacks]),
    )


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"))


def retrieved(*texts: str) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=f"n{place}", text=text), score=0.9 - place / 10)
        for place, text in enumerate(texts)
    ]


def call(rerank: OnnxRerank, mode: str, nodes: list[NodeWithScore], query: QueryBundle | None) -> list[NodeWithScore]:
    if mode == "sync":
        return rerank.postprocess_nodes(nodes, query)
    return asyncio.run(rerank.apostprocess_nodes(nodes, query))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_end_tells_how_many_nodes_were_cut(
    mode: str, toy_folder: Path, callbacks: Callbacks, heard: list[Any]
) -> None:
    rerank = OnnxRerank(
        model=toy_folder, max_length=8, warn_truncated=False, callback_manager=CallbackManager([callbacks])
    )

    call(rerank, mode, retrieved("a " * 20, "b", "c " * 30), QueryBundle("q"))

    assert heard[-1].tags["truncated"] == 2
    assert callbacks.calls[-1][2]["truncated"] == 2


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_call_is_one_start_and_one_end_event_in_one_span(
    mode: str, rerank: OnnxRerank, heard: list[Any], spans: Spans
) -> None:
    nodes, query = retrieved("a", "b", "c"), QueryBundle("q")

    reranked = call(rerank, mode, nodes, query)

    start, end = heard
    assert (type(start), type(end)) == (ReRankStartEvent, ReRankEndEvent)
    assert start.query is query
    assert (type(start.top_n), start.top_n) == (int, 2)
    assert start.model_name == rerank.model
    assert end.nodes == reranked
    assert [scored.score for scored in end.nodes] == [toy_score("q", "c"), toy_score("q", "b")]
    assert spans.ids(spans.completed_spans) == [start.span_id] == [end.span_id]
    assert start.span_id.startswith(f"OnnxRerank.{METHODS[mode]}-")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_start_event_keeps_the_retrieval_scores(mode: str, rerank: OnnxRerank, heard: list[Any]) -> None:
    call(rerank, mode, retrieved("a", "b", "c"), QueryBundle("q"))

    assert [(scored.node_id, scored.score, scored.metadata) for scored in heard[0].nodes] == [
        ("n0", 0.9, {}),
        ("n1", 0.8, {}),
        ("n2", pytest.approx(0.7), {}),
    ]


def test_all_nodes_asked_for_are_still_a_number(rerank: OnnxRerank, heard: list[Any], callbacks: Callbacks) -> None:
    rerank.top_n = None

    rerank.postprocess_nodes(retrieved("a", "b", "c"), QueryBundle("q"))

    assert heard[0].top_n == callbacks.calls[0][2][EventPayload.TOP_K] == 3


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_call_is_one_pair_of_callbacks(mode: str, rerank: OnnxRerank, callbacks: Callbacks) -> None:
    nodes = retrieved("a", "b", "c")

    reranked = call(rerank, mode, nodes, QueryBundle("q"))

    (_, *start), (_, *end) = callbacks.calls
    assert [kind for kind, *_ in callbacks.calls] == ["start", "end"]
    assert start[0] == end[0] == CBEventType.RERANKING
    assert start[2] == end[2]
    assert start[1] == {
        EventPayload.NODES: nodes,
        EventPayload.MODEL_NAME: rerank.model,
        EventPayload.QUERY_STR: "q",
        EventPayload.TOP_K: 2,
    }
    assert end[1] == {EventPayload.NODES: reranked, "truncated": 0}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("query", [QueryBundle("q"), None])
def test_nothing_to_rerank_is_no_event(
    query: QueryBundle | None, mode: str, rerank: OnnxRerank, heard: list[Any], callbacks: Callbacks
) -> None:
    if query is None:
        with pytest.raises(ValueError, match="query"):
            call(rerank, mode, retrieved("a"), query)
    else:
        assert call(rerank, mode, [], query) == []

    assert [event for event in heard if not isinstance(event, SpanDropEvent)] == []
    assert callbacks.calls == []


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_failure_closes_the_callback_and_the_span_with_the_exception(
    mode: str, rerank: OnnxRerank, heard: list[Any], spans: Spans, callbacks: Callbacks
) -> None:
    with pytest.raises(ScoreError) as caught:
        call(rerank, mode, retrieved("a", "nan"), QueryBundle("q"))

    assert [(kind, event_type) for kind, event_type, *_ in callbacks.calls] == [
        ("start", CBEventType.RERANKING),
        ("end", CBEventType.RERANKING),
    ]
    assert callbacks.calls[1][2] == {EventPayload.EXCEPTION: caught.value}
    start, dropped = heard
    assert (type(start), type(dropped)) == (ReRankStartEvent, SpanDropEvent)
    assert spans.ids(spans.dropped_spans) == [start.span_id] == [dropped.span_id]
    assert spans.ids(spans.completed_spans) == []


class Both(BaseEventHandler):
    """Writes an event's name into the list that the callbacks are written into, too."""

    written: list[str]

    @classmethod
    def class_name(cls) -> str:
        return "Both"

    def handle(self, event: Any, **_: Any) -> None:
        self.written.append(type(event).__name__)


class WritingCallbacks(Callbacks):
    def __init__(self, written: list[str]) -> None:
        super().__init__()
        self.written = written

    def on_event_start(self, event_type: Any, *args: Any, **options: Any) -> str:
        self.written.append(f"{event_type.value} start")
        return super().on_event_start(event_type, *args, **options)

    def on_event_end(self, event_type: Any, payload: Any = None, **options: Any) -> None:
        outcome = "failed" if EventPayload.EXCEPTION in (payload or {}) else "end"
        self.written.append(f"{event_type.value} {outcome}")
        super().on_event_end(event_type, payload, **options)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("b", ["reranking start", "ReRankStartEvent", "ReRankEndEvent", "reranking end"]),
        ("nan", ["reranking start", "ReRankStartEvent", "reranking failed", "SpanDropEvent"]),
    ],
)
def test_callbacks_and_events_come_in_one_order(text: str, order: list[str], mode: str, rerank: OnnxRerank) -> None:
    written: list[str] = []
    rerank.callback_manager = CallbackManager([WritingCallbacks(written)])
    handler = Both(written=[])
    handler.written = written  # the same list: pydantic copied the given one
    root = get_dispatcher()
    root.event_handlers.append(handler)
    try:
        if text == "nan":
            with pytest.raises(ScoreError):
                call(rerank, mode, retrieved("a", text), QueryBundle("q"))
        else:
            call(rerank, mode, retrieved("a", text), QueryBundle("q"))
    finally:
        root.event_handlers.remove(handler)

    assert written == order


async def test_a_cancelled_call_closes_its_callback_and_its_span(
    rerank: OnnxRerank, spans: Spans, callbacks: Callbacks
) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def text(_: object) -> str:
        begun.set()
        assert let_go.wait(120)
        return "a"

    rerank.text = text

    running = asyncio.create_task(rerank.apostprocess_nodes(retrieved("a"), QueryBundle("q")))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    let_go.set()

    assert [kind for kind, *_ in callbacks.calls] == ["start", "end"]
    assert len(spans.ids(spans.dropped_spans)) == 1


async def test_calls_at_once_each_have_their_own_pair(
    rerank: OnnxRerank, heard: list[Any], callbacks: Callbacks
) -> None:
    rerank.max_concurrency = 4

    await asyncio.gather(*(rerank.apostprocess_nodes(retrieved("a", "b"), QueryBundle("q")) for _ in range(8)))

    starts = [event for event in heard if isinstance(event, ReRankStartEvent)]
    ends = [event for event in heard if isinstance(event, ReRankEndEvent)]
    assert len(starts) == len(ends) == 8 == len({event.span_id for event in starts})
    assert {event.span_id for event in starts} == {event.span_id for event in ends}
    for kind in ("start", "end"):
        assert len({event_id for called, _, _, event_id in callbacks.calls if called == kind}) == 8


def test_the_callback_manager_can_be_assigned_and_is_in_no_dump(rerank: OnnxRerank, callbacks: Callbacks) -> None:
    other = Callbacks()
    rerank.callback_manager = CallbackManager([other])

    rerank.postprocess_nodes(retrieved("a"), QueryBundle("q"))

    assert (len(other.calls), len(callbacks.calls)) == (2, 0)
    assert "callback_manager" not in rerank.to_dict()

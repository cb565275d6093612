"""A model on a server, used like one that is here."""

from __future__ import annotations

import contextlib
import copy
import http.server
import json
import multiprocessing
import os
import pickle
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from onnx_rerank_integrations import (
    InputTypeError,
    InputValueError,
    RemoteCrossEncoder,
    RemoteError,
    RerankError,
    RerankTimeoutError,
    ScoreError,
    TextCrossEncoder,
    UnknownModelError,
    UnsupportedModelError,
)
from onnx_rerank_integrations.remote import MOST_CHARACTERS, requests
from tests.live_server import running, until
from tests.toy import make_toy, toy_score

Reply = Callable[[http.server.BaseHTTPRequestHandler, bytes], None]


@contextlib.contextmanager
def scripted(*replies: Reply) -> Iterator[tuple[str, list[str]]]:
    """A server of raw replies, one after the other, the last for ever; and the paths that were asked for."""
    asked: list[str] = []
    left = list(replies)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append(self.path)
            if self.path.endswith("/info"):
                as_json({"max_client_batch_size": 32})(self, body)
                return
            reply = left.pop(0) if len(left) > 1 else left[0]
            reply(self, body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def as_json(content: Any, status: int = 200, **headers: str) -> Reply:
    def reply(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        data = json.dumps(content).encode()
        handler.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def scores(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
    """Each text's length, as TEI would answer it."""
    texts = json.loads(body)["texts"]
    as_json([{"index": i, "score": float(len(text))} for i, text in reversed(list(enumerate(texts)))])(handler, body)


def hangs_up(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def drips(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(1000):
            handler.wfile.write(b"x-a: b\r\n")
            time.sleep(0.05)


def says_nothing(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
    handler.connection.recv(1)  # comes back when the client leaves
    handler.close_connection = True


def test_texts_in_any_order_of_answers_and_in_requests_of_the_servers_size() -> None:
    with scripted(scores) as (url, asked):
        found = RemoteCrossEncoder(url).rerank("q", ["x" * i for i in range(70)])

    assert found == [float(i) for i in range(70)]
    assert asked == ["/info", "/rerank", "/rerank", "/rerank"]


def test_each_query_is_a_request_and_no_request_is_too_large() -> None:
    pairs = [("a", "x"), ("b", "y"), ("a", "z"), *[("c", "w" * (MOST_CHARACTERS // 2 - 1))] * 1]
    assert list(requests(pairs, 10)) == [[0, 2], [1], [3]]
    long = [("a", "w" * (MOST_CHARACTERS // 2)), ("a", "w" * (MOST_CHARACTERS // 2)), ("a", "v"), ("a", "w" * 10**7)]
    assert list(requests(long, 10)) == [[0, 1], [2], [3]]
    with scripted(scores) as (url, _):
        pairs = [(random.choice("ab"), "x" * i) for i in range(50)] * 2
        assert RemoteCrossEncoder(url).rerank_pairs(pairs) == [float(len(text)) for _, text in pairs]


def test_a_path_in_front_and_a_model_of_several() -> None:
    bodies: list[Any] = []

    def noted(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        bodies.append((handler.path, json.loads(body).get("model"), handler.headers.get("authorization")))
        scores(handler, body)

    with scripted(noted) as (url, _):
        RemoteCrossEncoder(f"{url}/behind/?model=org%2Fname", api_key="secret").rerank("q", ["x"])

    assert bodies == [("/behind/rerank", "org/name", "Bearer secret")]


@pytest.mark.parametrize(
    "failures",
    [
        [hangs_up, hangs_up],
        [as_json({}, 503), as_json({"message": "wait"}, 429, retry_after="0")],
        [as_json({}, 502), hangs_up],
    ],
)
def test_what_may_pass_is_tried_again(failures: list[Reply]) -> None:
    with scripted(*failures, scores) as (url, _):
        assert RemoteCrossEncoder(url).rerank("q", ["xx"]) == [2.0]
    with scripted(*failures, scores) as (url, _), pytest.raises(RemoteError):
        RemoteCrossEncoder(url, retries=0).rerank("q", ["xx"])


def test_a_long_retry_after_is_not_waited_for() -> None:
    overloaded = as_json({"message": "overloaded"}, 429, retry_after="3600")
    with scripted(overloaded) as (url, asked), pytest.raises(RemoteError, match="429: overloaded"):
        RemoteCrossEncoder(url, timeout=120).rerank("q", ["x"])
    assert asked.count("/rerank") == 1


@pytest.mark.parametrize("reply", [says_nothing, drips])
def test_a_server_that_takes_too_long_is_left(reply: Reply) -> None:
    with scripted(reply) as (url, _), pytest.raises(RerankTimeoutError, match=r"no answer within 0\.5 s"):
        RemoteCrossEncoder(url, timeout=0.5).rerank("q", ["x"])


def test_a_calls_own_timeout_ends_it_too() -> None:
    with scripted(says_nothing) as (url, _):
        encoder = RemoteCrossEncoder(url, timeout=3600).load()
        with pytest.raises(RerankTimeoutError, match="timeout was over"):
            encoder.rerank("q", ["x"], timeout=0.2)


@pytest.mark.parametrize(
    "answer",
    [
        {"results": []},
        [],
        [{"index": 0, "score": 1.0}],
        [{"index": 0, "score": 1.0}, {"index": 0, "score": 2.0}],
        [{"index": 0, "score": 1.0}, {"index": 2, "score": 2.0}],
        [{"index": 0, "score": 1.0}, {"index": 1, "score": "2"}],
        [{"index": 0, "score": 1.0}, {"index": 1, "score": None}],
        [{"index": 0, "score": 1.0}, {"index": True, "score": 2.0}],
        [{"index": 0, "score": 1.0}, {"index": 1, "score": 1.0}, {"index": 1, "score": 2.0}],
        "scores", None, 7,
    ],
)  # fmt: skip
def test_an_answer_that_is_no_score_for_each_text_is_an_error(answer: Any) -> None:
    with scripted(as_json(answer)) as (url, _), pytest.raises(RemoteError, match="something else than the score"):
        RemoteCrossEncoder(url).rerank("q", ["x", "y"])


def test_nan_from_a_server_is_never_a_position() -> None:
    nan = as_json([{"index": 0, "score": 1.0}, {"index": 1, "score": float("nan")}])
    with scripted(nan) as (url, _), pytest.raises(ScoreError, match="index 1"):
        RemoteCrossEncoder(url).rerank("q", ["x", "y"])


def test_a_login_page_and_endless_nesting_are_no_json() -> None:
    def page(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "200000")
        handler.end_headers()
        handler.wfile.write(b"[" * 200_000)

    with scripted(page) as (url, _), pytest.raises(RemoteError, match="no JSON"):
        RemoteCrossEncoder(url).rerank("q", ["x"])


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RemoteError, match="Is the server running") as raised:
        RemoteCrossEncoder(url, retries=1).load()
    assert isinstance(raised.value, ConnectionError)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8080", "ftp://host", "http://", "http://host:port", "http://host/#x", "http://host?x=1",
     "http://user:secret-word@host", "http://[::1", "http://h\u00f6st"],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_no_key_is_shown(url: str) -> None:
    with pytest.raises(InputValueError) as raised:
        RemoteCrossEncoder(url)
    assert "secret-word" not in str(raised.value)


@pytest.mark.parametrize("key", ["secret-word\nX-A: b", "secret-word\0", "secret-word\u00e9", "secret-word\ud800"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputValueError, match="api_key must hold printable ASCII") as raised:
        RemoteCrossEncoder("http://127.0.0.1:1", api_key=key)
    assert "secret-word" not in str(raised.value)
    with pytest.raises(InputTypeError, match="api_key must be a str or None, not bytes"):
        RemoteCrossEncoder("http://127.0.0.1:1", api_key=b"secret-word")  # type: ignore[arg-type]

    monkeypatch.setattr("os.environ", {**os.environ, "ONNX_RERANK_API_KEY": key})
    with scripted(scores) as (url, asked), pytest.raises(InputValueError, match="ONNX_RERANK_API_KEY must") as raised:
        RemoteCrossEncoder(url).rerank("q", ["x"])
    assert "secret-word" not in str(raised.value)
    assert asked == []


@pytest.mark.parametrize("where", ["body", "status line"])
def test_what_a_server_says_works_on_no_terminal(where: str) -> None:
    def status_line(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        handler.wfile.write(b"HTTP/9.9 \x1b[2Jgone\r\n\r\n")
        handler.close_connection = True

    reply = as_json({"message": "\x1b[2Jgone\x07\u202e"}, 400) if where == "body" else status_line
    with scripted(reply) as (url, _), pytest.raises(RerankError, match="gone") as raised:
        RemoteCrossEncoder(url, retries=0).rerank("q", ["x"])
    assert all(letter.isprintable() or letter == "\n" for letter in str(raised.value))


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": "3"}, {"retries": -1}, {"activation": "softmax"}])
def test_options_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises((InputValueError, InputTypeError)):
        RemoteCrossEncoder("http://127.0.0.1:1", **options)
    with pytest.raises(InputTypeError):
        RemoteCrossEncoder(7)  # type: ignore[arg-type]


def test_it_pickles_copies_and_compares_as_its_arguments() -> None:
    encoder = RemoteCrossEncoder("http://127.0.0.1:1?model=a", timeout=3, activation="sigmoid")

    assert pickle.loads(pickle.dumps(encoder)) == encoder
    assert copy.deepcopy(encoder) is encoder
    assert encoder != RemoteCrossEncoder("http://127.0.0.1:1?model=a", timeout=4, activation="sigmoid")
    assert hash(encoder) == hash(pickle.loads(pickle.dumps(encoder)))
    assert "key" not in repr(RemoteCrossEncoder("http://127.0.0.1:1", api_key="the-key"))


def test_a_text_as_model_that_is_an_address_says_where_it_goes() -> None:
    with pytest.raises(InputValueError, match="RemoteCrossEncoder"):
        TextCrossEncoder("http://127.0.0.1:8080")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> TextCrossEncoder:
    return TextCrossEncoder(make_toy(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="module")
def url(toy: TextCrossEncoder) -> Iterator[str]:
    pytest.importorskip("fastapi", reason='NOT RUN: needs pip install ".[server]"')
    with running({"toy": toy, "lexical": TextCrossEncoder("lexical", lazy_load=True)}) as server:
        yield server.url


def test_it_is_as_if_the_model_were_here(url: str, toy: TextCrossEncoder) -> None:
    there = RemoteCrossEncoder(url)
    query, documents = "a", ["b c", "d", "b " * 100, "", "b \ud800", "d"]

    assert there.rerank(query, documents) == toy.rerank(query, documents)
    for activation in ("identity", "sigmoid", "model"):
        here = toy.rank(query, documents, activation=activation, top_n=3)
        assert there.rank(query, documents, activation=activation, top_n=3) == here
    pairs = [("a", "b"), ("c", "d"), ("a", "e")]
    assert there.rerank_pairs(pairs) == toy.rerank_pairs(pairs)
    assert there.token_count(pairs) == toy.token_count(pairs)
    assert there.truncated([("a", "b " * 100), ("a", "b")]) == [True, False]
    assert (there.max_length, there.config) == (toy.max_length, toy.config)
    assert there.rerank("a", []) == []


def test_a_model_that_rounds_differs_by_rounding_alone(url: str) -> None:
    here, there = TextCrossEncoder("lexical"), RemoteCrossEncoder(f"{url}?model=lexical")
    documents = [f"the {word} of a fox {i / 7}" for i in range(300) for word in ("den", "tail")]

    there_scores, here_scores = (one.rerank("where is the fox", documents) for one in (there, here))
    assert there_scores == pytest.approx(here_scores, abs=1e-5)


def test_errors_have_the_same_types(url: str) -> None:
    there = RemoteCrossEncoder(url)
    with pytest.raises(ScoreError, match="index 1"):
        there.rerank("a", ["b", "nan"])
    with pytest.raises(InputTypeError, match="document 1"):
        there.rerank("a", ["b", 7])  # type: ignore[list-item]
    with pytest.raises(UnknownModelError, match="toy, lexical"):
        RemoteCrossEncoder(url, model="other").load()
    with pytest.raises(InputValueError, match="top_n"):
        there.rank("a", ["b"], top_n=0)


def test_threads_share_connections(url: str, toy: TextCrossEncoder) -> None:
    there = RemoteCrossEncoder(url)

    def call(i: int) -> bool:
        letter = "abcdefghijklmnopqrstuvwxyz"[i % 26]
        return there.rerank(letter, ["b", letter]) == [toy_score(letter, "b"), toy_score(letter, letter)]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(400)))
    assert len(there._http._idle) <= 8


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_child_has_connections_of_its_own(url: str) -> None:
    there = RemoteCrossEncoder(url)
    there.rerank("a", ["b"])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(there.rerank, [("a", ["b"])] * 20) == [[toy_score("a", "b")]] * 20
    assert there.rerank("a", ["b"]) == [toy_score("a", "b")]


def test_a_call_that_is_stopped_is_taken_out_of_the_queue(
    toy: TextCrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason='NOT RUN: needs pip install ".[server]"')
    go = threading.Event()
    opened = toy.load()
    score = opened.score
    monkeypatch.setattr(opened, "score", lambda *args, **kwargs: go.wait(120) and score(*args, **kwargs))
    with running({"toy": toy}) as server:
        with pytest.raises(RerankTimeoutError):
            RemoteCrossEncoder(server.url).rerank("a", ["b"], timeout=0.3)
        queue = server.models.find("toy").queue
        until(lambda: queue.tokens == 0)
        go.set()


def test_the_doors_take_an_address_as_model(url: str, toy: TextCrossEncoder) -> None:
    from langchain_core.documents import Document
    from llama_index.core.schema import NodeWithScore, TextNode

    from onnx_rerank_integrations.langchain import OnnxRerank as ForLangChain
    from onnx_rerank_integrations.llama_index import OnnxRerank as ForLlamaIndex

    texts = ["b", "z", "c d"]
    here = toy.rank("a", texts, activation="sigmoid", top_n=2)
    door = ForLangChain(model=url, top_n=2)
    found = door.compress_documents([Document(page_content=text) for text in texts], "a")
    assert [(one.page_content, one.metadata["relevance_score"]) for one in found] == [
        (one.text, one.score) for one in here
    ]
    assert pickle.loads(pickle.dumps(door)) == door
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
    ranked = ForLlamaIndex(model=f"{url}?model=toy", top_n=2).postprocess_nodes(nodes, query_str="a")
    assert [(one.text, one.score) for one in ranked] == [(one.text, one.score) for one in here]


def test_options_of_a_model_are_the_servers(url: str) -> None:
    from onnx_rerank_integrations.langchain import OnnxRerank

    with pytest.raises(ValueError, match=r"max_length can't be combined with a server's address"):
        OnnxRerank(model=url, max_length=10)
    with pytest.raises(RemoteError):
        OnnxRerank(model="http://127.0.0.1:1")
    OnnxRerank(model="http://127.0.0.1:1", lazy_load=True)


def test_tei_says_nothing_of_its_models_config() -> None:
    with scripted(as_json({"error": "not found"}, 404)) as (url, _), pytest.raises(RerankError):
        _ = RemoteCrossEncoder(url).config
    with scripted(as_json([])) as (url, _), pytest.raises(UnsupportedModelError, match="choose an activation"):
        RemoteCrossEncoder(url).rank("q", [], activation="model") or RemoteCrossEncoder(url).config

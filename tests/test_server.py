"""The server, as clients see it: real requests over loopback."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_rerank_integrations import InputValueError, TextCrossEncoder
from onnx_rerank_integrations.core.scoring import sigmoid
from tests.live_server import ask, running, until
from tests.toy import make_toy, toy_score

pytest.importorskip("fastapi", reason='NOT RUN: the server\'s tests need pip install ".[server]"')

from onnx_rerank_integrations.extras.server.run import RerankServer
from onnx_rerank_integrations.extras.server.settings import ApiKeys, ServerSettings, read_keys

KEY = "a-key-of-many-characters"
QUERY, DOCUMENTS = "a", ["c b", "z", "b"]
LOGITS = [toy_score(QUERY, document) for document in DOCUMENTS]
BEST_FIRST = sorted(range(3), key=lambda i: -LOGITS[i])
SCORES = [float(score) for score in sigmoid(np.array(LOGITS))]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> TextCrossEncoder:
    return TextCrossEncoder(make_toy(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="module")
def server(toy: TextCrossEncoder) -> Iterator[RerankServer]:
    with running({"toy": toy, "lexical": TextCrossEncoder("lexical", lazy_load=True)}, max_documents=1000) as server:
        yield server


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_are_answered_as_cohere_and_jina_do(path: str, server: RerankServer) -> None:
    found = ask(server.url, path, {"model": "toy", "query": QUERY, "documents": DOCUMENTS})

    assert found.status == 200
    answer = found.json
    assert answer["results"] == [{"index": i, "relevance_score": SCORES[i]} for i in BEST_FIRST]
    assert answer["model"] == "toy"
    assert answer["usage"] == {"total_tokens": 16, "prompt_tokens": 16}  # 3 * ([CLS] a [SEP] ... [SEP]) + 4 words
    assert answer["meta"]["api_version"]["version"] == ("2" if path == "/v2/rerank" else "1")
    assert "warnings" not in answer["meta"]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_texts_are_answered_as_tei_does(path: str, server: RerankServer) -> None:
    assert ask(server.url, path, {"query": QUERY, "texts": DOCUMENTS}).json == [
        {"index": i, "score": SCORES[i]} for i in BEST_FIRST
    ]
    raw = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": True, "return_text": True}
    assert ask(server.url, path, raw).json == [
        {"index": i, "score": LOGITS[i], "text": DOCUMENTS[i]} for i in BEST_FIRST
    ]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"top_n": 1}, [{"index": 1}]),
        ({"top_n": 1.0}, [{"index": 1}]),
        ({"top_n": 9}, [{"index": 1}, {"index": 0}, {"index": 2}]),
        ({"return_documents": True, "top_n": 1}, [{"index": 1, "document": {"text": "z"}}]),
        ({"return_documents": "true", "top_n": 1}, [{"index": 1, "document": {"text": "z"}}]),
        ({"documents": [{"text": "c b", "id": 7}, "z"], "top_n": 1}, [{"index": 1}]),
        ({"top_n": None, "return_documents": None, "truncate": None}, [{"index": 1}, {"index": 0}, {"index": 2}]),
    ],
)
def test_what_can_be_asked_for(asked: dict[str, Any], expected: list[dict[str, Any]], server: RerankServer) -> None:
    answer = ask(server.url, "/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, **asked}).json

    assert [{k: v for k, v in result.items() if k != "relevance_score"} for result in answer["results"]] == expected


def test_raw_scores_are_logits_and_a_cap_cuts_documents(server: RerankServer) -> None:
    asked = {"query": QUERY, "documents": ["c b"], "raw_scores": True, "max_tokens_per_doc": 1}

    [result] = ask(server.url, "/v2/rerank", asked).json["results"]

    assert result["relevance_score"] == toy_score(QUERY, "c")


def test_fields_that_mean_nothing_here_are_named(server: RerankServer) -> None:
    asked = {"query": QUERY, "documents": ["b"], "max_chunks_per_doc": 3, "rank_fields": ["x"], "priority": None}

    assert ask(server.url, "/v1/rerank", asked).json["meta"]["warnings"] == ["ignored: max_chunks_per_doc, rank_fields"]


def test_two_models_and_the_first_is_the_default(server: RerankServer) -> None:
    asked = {"query": "cats", "documents": ["a cat", "z"]}
    toy, lexical, default = (
        ask(server.url, "/rerank", {**asked, **model}).json for model in ({"model": "toy"}, {"model": "lexical"}, {})
    )
    assert toy["results"] == default["results"] != lexical["results"]

    listed = ask(server.url, "/v1/models").json
    assert [(one["id"], one["max_length"], one["ready"]) for one in listed["data"]] == [
        ("toy", 64, True),
        ("lexical", 1024, True),
    ]
    details = ask(server.url, "/v1/models/lexical").json
    assert details["config"]["model_type"] == "lexical-cross-encoder"
    assert ask(server.url, "/info").json["max_client_batch_size"] == 1000


def test_tokens_are_counted_without_scoring(server: RerankServer) -> None:
    asked = {"query": QUERY, "texts": ["b c", "b " * 100]}

    assert ask(server.url, "/tokens", asked).json == [
        {"index": 0, "tokens": 6, "truncated": False},
        {"index": 1, "tokens": 64, "truncated": True},
    ]


@pytest.mark.parametrize(
    ("body", "status", "error_type", "message"),
    [
        ({"query": "a", "documents": []}, 400, "empty", "documents: List should have at least 1 item"),
        ({"query": "a", "texts": []}, 400, "empty", "texts: List should have at least 1 item"),
        ({"query": "a"}, 422, "validation", "documents: Field required"),
        ({"documents": ["a"]}, 422, "validation", "query: Field required"),
        ({"query": 7, "documents": ["a"]}, 422, "validation", "query: Input should be a valid string"),
        ({"query": "a", "documents": ["b", None]}, 422, "validation", "documents.1: must be a string, or an object"),
        ({"query": "a", "documents": ["b", {"t": "c"}]}, 422, "validation", "documents.1: must be a string, or"),
        ({"query": "a", "documents": ["b"], "top_n": 0}, 422, "validation", "top_n: Input should be greater"),
        ({"query": "a", "documents": ["b"], "model": "x/y"}, 404, "validation", "there is toy, lexical"),
        ({"query": "a", "documents": ["b"] * 1001}, 413, "validation", "1,001 documents are more than the 1,000"),
        ({"query": "a", "texts": ["b " * 99], "truncate": False}, 413, "validation", "document 0 is longer"),
        ({"query": "a", "documents": ["nan"]}, 500, "backend", "index 0"),
        (b"{", 422, "validation", "JSON"),
        (b"[" * 100_000, 400, "validation", ""),
        (b'{"query": "a", "documents": ["b"], "top_n": ' + b"9" * 5000 + b"}", 400, "validation", ""),
        (["a"], 422, "validation", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_shape(
    body: Any, status: int, error_type: str, message: str, server: RerankServer
) -> None:
    found = ask(server.url, "/rerank", body)

    assert (found.status, found.json["error_type"]) == (status, error_type), found.body[:500]
    assert message in found.json["message"]
    assert found.json["message"] == found.json["detail"] == found.json["error"]


def test_a_lone_surrogate_is_scored_like_any_text(server: RerankServer) -> None:
    asked = {"query": "a", "documents": ["b \ud800", "c"], "return_documents": True}

    found = ask(server.url, "/rerank", asked)

    assert {result["document"]["text"] for result in found.json["results"]} == {"b \ud800", "c"}


def test_many_clients_get_what_each_would_get_alone(server: RerankServer, toy: TextCrossEncoder) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"

    def request(seed: int) -> None:
        documents = [" ".join(letters[(seed * i * j) % 26] for j in range(seed % 40 + i % 7)) for i in range(1, 20)]
        found = ask(server.url, "/rerank", {"query": letters[seed % 26], "texts": documents, "raw_scores": True}).json
        scores = [one["score"] for one in sorted(found, key=lambda one: int(one["index"]))]
        assert scores == toy.rerank(letters[seed % 26], documents)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(request, range(200)))


def test_a_full_queue_says_when_to_come_again(toy: TextCrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold(toy, monkeypatch)
    with running({"toy": toy}, max_queue_tokens=10) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, server.url, "/rerank", {"query": "a", "texts": ["b"] * 3 + ["c d e f g h i j k"]})
        until(held.waits)
        refused = ask(server.url, "/rerank", {"query": "a", "texts": ["b"]})
        held.go.set()

    assert (refused.status, refused.json["error_type"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert first.result().status == 200


def test_a_request_that_takes_too_long_is_taken_out(toy: TextCrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold(toy, monkeypatch)
    with running({"toy": toy}, request_timeout=0.2) as server:
        found = ask(server.url, "/rerank", {"query": "a", "texts": ["b"]})
        queue = server.models.find("toy").queue
        assert found.status == 504
        assert "no answer within 0.2 s" in found.json["message"]
        until(lambda: queue.tokens == 0)
        held.go.set()


def test_a_client_that_leaves_is_taken_out(toy: TextCrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold(toy, monkeypatch)
    with running({"toy": toy}) as server:
        queue = server.models.find("toy").queue
        body = json.dumps({"query": "a", "texts": [f"b {'c ' * i}" for i in range(50)]}).encode()
        with connection(server.url) as client:
            client.sendall(b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
            client.sendall(b"content-length: %d\r\n\r\n" % len(body) + body)
            until(held.waits)
            assert queue.tokens > 0
        until(lambda: queue.tokens == 0)
        held.go.set()
        left = 'onnx_rerank_requests_total{route="/rerank",status="499"} 1.0'
        until(lambda: left in ask(server.url, "/metrics").body.decode())


class Hold:
    """Keeps a model from scoring until `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.runs = 0

    def waits(self) -> bool:
        return self.runs > 0


def hold(encoder: TextCrossEncoder, monkeypatch: pytest.MonkeyPatch) -> Hold:
    held = Hold()
    opened = encoder.load()
    score = opened.score

    def wait(*args: Any, **kwargs: Any) -> Any:
        held.runs += 1
        assert held.go.wait(120)
        return score(*args, **kwargs)

    monkeypatch.setattr(opened, "score", wait)
    return held


def connection(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=120)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(toy: TextCrossEncoder) -> None:
    with running({"toy": toy}, max_body=1000) as server:
        assert ask(server.url, "/rerank", {"query": "a", "texts": ["b" * 2000]}).status == 413
        with connection(server.url) as client:
            client.sendall(b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
        with connection(server.url) as client:  # no length said
            client.sendall(b"POST /rerank HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            client.sendall((b"100\r\n" + b"a" * 256 + b"\r\n") * 8)
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
        assert ask(server.url, "/health").status == 200


@pytest.mark.parametrize(
    "drops",
    [
        [],
        [b"GET /health HTTP/1.1\r\n", b"a: b\r\n", b"c: d\r\n"],
        [b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /health", b" HTTP/1.1\r\n"],
        [b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n", b"{", b'"q'],
    ],
    ids=["nothing", "headers that drip", "a second request that drips", "a body that drips"],
)
def test_a_slow_client_is_cut_off(drops: list[bytes], toy: TextCrossEncoder) -> None:
    with (
        running({"toy": toy}, read_timeout=0.5) as server,
        connection(server.url) as client,
        contextlib.suppress(ConnectionError),  # cut off before all was sent, or read
    ):
        for drop in drops:
            client.sendall(drop)
            time.sleep(0.1)
        while client.recv(4096):  # times out where the server holds the connection
            pass


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 17_000 + b"\r\n\r\n", b"431"),
        (b"GET /health?" + b"a" * 17_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"431"),
        (b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 17_000, b"400"),
    ],
)
def test_huge_headers_are_refused(head: bytes, status: bytes, server: RerankServer) -> None:
    with connection(server.url) as client:
        client.sendall(head)
        assert client.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_without_a_key_only_health_and_readiness_answer(toy: TextCrossEncoder) -> None:
    basic = "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode()
    with running({"toy": toy}, api_keys=ApiKeys([KEY, "another-key-0123456789"])) as server:
        routes = {route.path for route in server.app.routes} | {"/nothing", "/../health", "//health", "/health/"}
        for path in sorted(routes - {"/health", "/ready"}):
            assert ask(server.url, path.replace("{name:path}", "toy")).status == 401, path
        assert ask(server.url, "/rerank", {"query": "a", "texts": ["b"]}).status == 401
        assert [ask(server.url, path).status for path in ("/health", "/ready")] == [200, 200]
        for given in (f"Bearer {KEY}", f"bearer {KEY}", basic, "Bearer another-key-0123456789"):
            assert ask(server.url, "/v1/models", headers={"authorization": given}).status == 200, given
        for given in ("", KEY, "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Basic !", "Bearer \xff"):
            assert ask(server.url, "/v1/models", headers={"authorization": given}).status == 401, given


def test_keys_come_from_a_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{KEY}\n\nanother-key-0123456789\n")

    keys = read_keys(file, "one-from-the-environment, a-second-of-the-environment")

    assert all(map(keys.accept, [KEY, "another-key-0123456789", "a-second-of-the-environment"]))
    assert not any(map(keys.accept, ["", "# ours", "one-from-the-environment, a-second-of-the-environment"]))
    assert not read_keys(None, None)
    file.write_text("short\n")
    with pytest.raises(InputValueError, match="16 or more"):
        read_keys(file, None)
    file.write_text("# none\n")
    with pytest.raises(InputValueError, match="holds none"):
        read_keys(file, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_need_a_key(host: str) -> None:
    with pytest.raises(InputValueError, match="--allow-anonymous"):
        ServerSettings(host=host)
    ServerSettings(host=host, api_keys=ApiKeys([KEY]))
    ServerSettings(host=host, allow_anonymous=True)
    for loopback in ("127.0.0.1", "localhost", "::1"):
        ServerSettings(host=loopback)


def test_other_sites_get_no_permission(server: RerankServer) -> None:
    asked = {"origin": "https://example.org", "access-control-request-method": "POST"}

    assert ask(server.url, "/rerank", method="OPTIONS", headers=asked).status == 405
    assert not [name for name in ask(server.url, "/health", headers=asked).headers if name.startswith("access-control")]


def test_no_text_is_in_logs_or_metrics(server: RerankServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "zebracrossing"
    for body in ({"query": secret, "texts": [secret]}, {"query": secret, "texts": [secret, 7]}, {"texts": [secret]}):
        ask(server.url, "/rerank", body)
    ask(server.url, f"/rerank?query={secret}")
    ask(server.url, f"/{secret}")
    ask(server.url, "/rerank", {"query": "a", "texts": ["b"], "model": secret})

    assert secret not in caplog.text
    assert "POST /rerank 200" in caplog.text
    assert secret not in ask(server.url, "/metrics").body.decode()


def test_metrics_count_what_was_done(toy: TextCrossEncoder) -> None:
    with running({"toy": toy}) as server:
        ask(server.url, "/rerank", {"query": "a", "texts": ["b", "c d"]})
        ask(server.url, "/rerank", {"query": "a"})
        text = ask(server.url, "/metrics").body.decode()

    found = dict(re.findall(r"^(onnx_rerank_\S+) (\S+)$", text, re.MULTILINE))
    assert found['onnx_rerank_requests_total{route="/rerank",status="200"}'] == "1.0"
    assert found['onnx_rerank_requests_total{route="/rerank",status="422"}'] == "1.0"
    assert found['onnx_rerank_documents_total{model="toy"}'] == "2.0"
    assert found['onnx_rerank_tokens_total{model="toy"}'] == "11.0"
    assert found['onnx_rerank_queue_tokens{model="toy"}'] == "0.0"
    assert found["onnx_rerank_ready"] == "1.0"


def test_it_answers_health_while_models_are_opened(toy: TextCrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    slow = TextCrossEncoder("lexical", lazy_load=True)
    load = slow.load
    monkeypatch.setattr(slow, "load", lambda: go.wait(120) and load())
    with running({"toy": toy, "slow": slow}, wait=False) as server:
        until(lambda: server.models.opened("toy"))
        assert ask(server.url, "/health").status == 200
        assert ask(server.url, "/ready").status == 503
        found = ask(server.url, "/rerank", {"query": "a", "texts": ["b"], "model": "slow"})
        assert (found.status, found.json["error_type"]) == (503, "unhealthy")
        assert found.headers["retry-after"] == "2"
        assert ask(server.url, "/rerank", {"query": "a", "texts": ["b"]}).status == 200
        go.set()
        until(lambda: ask(server.url, "/ready").status == 200)


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_pages_take_nothing_from_elsewhere(path: str, server: RerankServer) -> None:
    found = ask(server.url, path)

    assert found.status == 200
    assert found.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in found.headers["content-security-policy"]
    assert not re.search(rb"(src|href)=\"?(https?:)?//|@import|url\(", found.body)


def started(*arguments: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """The command in a process of its own, once it is ready, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "onnx_rerank_integrations", "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stderr
    log = ""
    for line in process.stderr:
        log += line
        if line.rstrip().endswith(" ready"):
            break
    found = re.search(r"listening on (\S+),", log)
    assert found, log
    return process, found[1]


def test_sigterm_turns_readiness_false_first_and_a_second_one_ends_it_at_once() -> None:
    process, url = started("--model", "lexical", "--drain-delay", "600")
    with process:
        process.send_signal(signal.SIGTERM)
        until(lambda: ask(url, "/ready").status == 503)
        assert ask(url, "/rerank", {"query": "a", "texts": ["a b"]}).status == 200, "taken within the delay"
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


def test_sigterm_finishes_what_was_begun() -> None:
    process, url = started("--model", "lexical", "--read-timeout", "250", "--drain-timeout", "250")
    body = json.dumps({"query": "a fox", "texts": ["the quick brown fox", "a dog"]}).encode()
    with process, connection(url) as client:
        client.sendall(b"POST /rerank HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n")
        client.sendall(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
        assert client.recv(4096).startswith(b"HTTP/1.1 100 "), "it has begun, and waits for the body"
        process.send_signal(signal.SIGTERM)
        until(lambda: not is_listening(url))

        client.sendall(body)

        answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert [one["index"] for one in json.loads(answer.partition(b"\r\n\r\n")[2])] == [0, 1]
        assert process.wait(120) == 0


def is_listening(url: str) -> bool:
    try:
        connection(url).close()
    except ConnectionRefusedError:
        return False
    return True


def test_the_command_names_models_and_reads_keys(tmp_path: Path) -> None:
    make_toy(tmp_path / "toy")
    process, url = started("-m", f"mine={tmp_path / 'toy'}", "-m", "lexical", ONNX_RERANK_API_KEYS=KEY)
    with process:
        assert ask(url, "/v1/models").status == 401
        found = ask(url, "/v1/models", headers={"authorization": f"Bearer {KEY}"}).json
        assert [one["id"] for one in found["data"]] == ["mine", "lexical"]
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no/such-model", "--local-files-only", "--port", "0"], "no/such-model"),
        (["--host", "0.0.0.0"], "--allow-anonymous"),
        (["-m", "lexical", "-m", "lexical"], "NAME=MODEL"),
        (["--api-key-file", "nowhere"], "nowhere"),
    ],
)
def test_the_command_says_why_it_cannot_serve(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnx_rerank_integrations", "serve", *arguments], capture_output=True, text=True,
        timeout=250,
    )  # fmt: skip

    assert done.returncode == 1
    assert message in done.stderr.rsplit("Error:", 1)[-1]
    assert "Traceback" not in done.stderr


def test_the_two_commands_of_the_docs_lead_to_a_ranked_answer() -> None:
    if not shutil.which("curl"):
        pytest.skip("NOT RUN: needs curl")
    page = (Path(__file__).parent.parent / "docs" / "serving.md").read_text(encoding="utf-8")
    install, curl = re.findall(r"```console\n(.*?)```", page, re.DOTALL)[:2]
    model = re.search(r"onnx-rerank serve (.*)\n", install)
    assert model
    process, url = started(*model[1].split())
    with process:
        command = curl.replace("http://127.0.0.1:8080", url).replace("curl ", "curl -sS ", 1)
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=250)
        process.send_signal(signal.SIGTERM)

    assert [one["index"] for one in json.loads(done.stdout)["results"]] == [1], done.stderr

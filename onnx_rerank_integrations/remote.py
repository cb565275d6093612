"""An encoder whose model is in another process: a client of ``onnx-rerank serve`` and of Text Embeddings Inference.

On the standard library alone: connections that are kept and shared by threads, one deadline over each request, and
retries where a server is overloaded or a connection breaks.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np

from onnx_rerank_integrations.core import errors
from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.batching import deduplicate
from onnx_rerank_integrations.core.checks import check_choice, check_timeout, checked_pairs, is_url
from onnx_rerank_integrations.core.engine.forks import Lock, Once, renew_in_child
from onnx_rerank_integrations.core.engine.stops import stoppable
from onnx_rerank_integrations.core.errors import (
    InputTypeError,
    InputValueError,
    MissingExtraError,
    RemoteError,
    RerankError,
    RerankTimeoutError,
    UnknownModelError,
    UnsupportedModelError,
    printable,
)
from onnx_rerank_integrations.core.scoring import Activation, Floats
from onnx_rerank_integrations.core.types import Pair

API_KEY_VARIABLE = "ONNX_RERANK_API_KEY"
"""The key that is sent where none is given."""

MOST_TEXTS = 1_000
"""Texts of a request to a server that doesn't say how many it takes."""

MOST_CHARACTERS = 1_000_000
"""Of a request's texts, unless a single one is longer: TEI takes 2 MB."""

LARGEST_ANSWER = 64_000_000
"""Bytes."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before another try, where the server names none: doubled from try to try."""

TRY_AGAIN = frozenset({429, 502, 503})
"""Answers of a server that will do later what it can't do now."""

BROKEN = (OSError, http.client.HTTPException)
"""What a connection fails with."""


class RemoteCrossEncoder(TextCrossEncoderBase):
    """Scores pairs on a server, as its model would here: same scores, same errors by type.

    Example:
        >>> encoder = RemoteCrossEncoder("http://127.0.0.1:8080")  # doctest: +SKIP
        >>> encoder.rank("What is the capital of France?", documents, top_n=3)  # doctest: +SKIP

    One object may be used by many threads at once, and after a fork. It pickles as its arguments. Batches are the
    server's: the methods' `batch_size` and `parallel` change nothing.

    Args:
        url: Where the server listens: ``http://host:port``, with a path in front of its routes if there is one.
            ``?model=NAME`` asks for one of its models.
        model: The same as an argument; None for the server's first.
        api_key: Sent as a bearer token; None for the environment variable ``ONNX_RERANK_API_KEY``, if it is set.
        timeout: Seconds that a request may take, with all its tries.
        retries: Further tries where the connection fails or the server is overloaded.
        activation: As for `TextCrossEncoder`.

    Raises:
        InputTypeError, InputValueError: An argument is of the wrong type or can't be used.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 2,
        activation: Activation = "identity",
    ) -> None:
        check_timeout(timeout)
        check_choice("activation", activation, Activation)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InputValueError(f"retries={retries!r} must be a whole number from 0")
        check_key(api_key, "api_key")
        self.url = url
        self.activation = activation
        self._arguments: dict[str, Any] = {"model": model, "api_key": api_key, "timeout": timeout, "retries": retries}
        self._base, asked = parsed_url(url)
        self._model = model or asked
        self._http = Http(self._base, api_key=api_key, timeout=timeout, retries=retries)
        self._asked_info: Once[dict[str, Any]] = Once()
        self._asked_details: Once[dict[str, Any]] = Once()

    @property
    def model_name(self) -> str:
        """What events and traces call the model."""
        return self._model or self._base

    def load(self) -> RemoteCrossEncoder:
        """Asks the server whether it is there.

        Raises:
            RemoteError: It isn't.
        """
        _ = self._info
        if self._model:
            _ = self._details
        return self

    @property
    def _info(self) -> dict[str, Any]:
        return self._asked_info(self._ask_info)

    def _ask_info(self) -> dict[str, Any]:
        found = self._http.ask("GET", "/info")
        return found if isinstance(found, dict) else {}

    @property
    def _details(self) -> dict[str, Any]:
        """What the server says of the model; TEI says nothing."""
        return self._asked_details(self._ask_details)

    def _ask_details(self) -> dict[str, Any]:
        name = self._model or self._info.get("model_id")
        found = self._http.ask("GET", f"/v1/models/{quote(str(name), safe='/')}")
        if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
            raise UnsupportedModelError(f"{self._base} doesn't tell the config of its model: choose an activation")
        return found

    @property
    def config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = self._details["config"]
        return config

    @property
    def max_length(self) -> int:
        """Tokens of the longest pair, special tokens included."""
        return int(self._details["max_length"])

    def logits(
        self,
        pairs: Sequence[Pair],
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Floats:
        asked = {"raw_scores": True, "truncate": True}
        return np.array(self._of_each(pairs, "/rerank", asked, "score", (int, float)), dtype=np.float64)

    def token_count(self, pairs: Iterable[Pair]) -> int:
        return sum(self._of_each(checked_pairs(pairs), "/tokens", {}, "tokens", (int,)))

    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        return self._of_each(checked_pairs(pairs), "/tokens", {}, "truncated", (bool,))

    def _of_each(
        self, pairs: Sequence[Pair], path: str, asked: Mapping[str, Any], field: str, kinds: tuple[type, ...]
    ) -> list[Any]:
        """One field of the server's answer for each of N pairs, in their order; each distinct pair is sent once."""
        firsts, inverse = deduplicate(pairs)
        found: dict[int, Any] = {}
        most = self._info.get("max_client_batch_size")
        most = most if isinstance(most, int) and most > 0 else MOST_TEXTS
        for places in requests([pairs[first] for first in firsts], most):
            query = pairs[firsts[places[0]]][0]
            texts = [pairs[firsts[place]][1] for place in places]
            body = {"query": query, "texts": texts, **asked, **({"model": self._model} if self._model else {})}
            answer = self._http.ask("POST", path, body)
            found.update(zip(places, self._in_order(answer, len(texts), field, kinds), strict=True))
        return [found[place] for place in inverse]

    def _in_order(self, answer: Any, count: int, field: str, kinds: tuple[type, ...]) -> list[Any]:
        """The field of each text, from entries in any order.

        Raises:
            RemoteError: It isn't there for each text, once.
        """
        entries = answer if isinstance(answer, list) else []
        values = {
            entry["index"]: entry[field]
            for entry in entries
            if isinstance(entry, dict) and type(entry.get("index")) is int and type(entry.get(field)) in kinds
        }
        if len(entries) != count or sorted(values) != list(range(count)):
            raise RemoteError(
                f"{self._base} answered something else than the {field} of each of {count} texts.\n"
                "Give the address of onnx-rerank serve, or of Text Embeddings Inference with a reranker."
            )
        return [values[index] for index in range(count)]

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._arguments, activation=self.activation), (self.url,)

    def __eq__(self, other: object) -> bool:
        """Made with equal arguments."""
        return isinstance(other, RemoteCrossEncoder) and self._identity == other._identity

    @property
    def _identity(self) -> tuple[Any, ...]:
        return self.url, self.activation, self._arguments

    def __hash__(self) -> int:
        return hash((type(self), self.url))

    def __copy__(self) -> RemoteCrossEncoder:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> RemoteCrossEncoder:
        return self

    def __repr__(self) -> str:
        return f"RemoteCrossEncoder({self.url!r})"


def parsed_url(url: str) -> tuple[str, str | None]:
    """A server's address without what follows its path, and the model that is asked for.

    Raises:
        InputTypeError, InputValueError: It is no such address.
    """
    if not isinstance(url, str):
        raise InputTypeError(f"url must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        asked = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError as error:
        raise InputValueError(f"the address of a server can't be read: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise InputValueError(f"a key has no place in a server's address: give api_key, or set {API_KEY_VARIABLE}")
    if not is_url(url) or not parts.hostname or parts.fragment or set(asked) - {"model"} or not url.isascii():
        raise InputValueError(f"{url!r} is no server's address: give http://HOST:PORT, or http://HOST:PORT?model=NAME")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    model = asked.get("model", [None])[0]
    return f"{parts.scheme.lower()}://{host}{port}{parts.path.rstrip('/')}", model


def requests(pairs: Sequence[Pair], most_texts: int) -> Iterator[list[int]]:
    """Places of pairs that go into one request: of one query, and not too much of them."""
    by_query: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        by_query.setdefault(query, []).append(place)
    for places in by_query.values():
        taken: list[int] = []
        characters = 0
        for place in places:
            characters += len(pairs[place][1])
            if taken and (len(taken) == most_texts or characters > MOST_CHARACTERS):
                yield taken
                taken, characters = [], len(pairs[place][1])
            taken.append(place)
        yield taken


class Http:
    """Requests to one server.

    Args:
        base: Its address.
        api_key: As for `RemoteCrossEncoder`.
        timeout: Seconds of a request, with all its tries.
        retries: Further tries.
    """

    def __init__(self, base: str, *, api_key: str | None, timeout: float, retries: int) -> None:
        self._base = base
        self._parts = urlsplit(base)
        self._api_key = api_key
        self._timeout = timeout
        self._retries = retries
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = Lock()
        renew_in_child(self)

    def renew(self) -> None:
        """In a forked child: the parent's connections are left to it."""
        self._idle = []

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that the server answers.

        Raises:
            RemoteError: It can't be reached, or answers something else.
            RerankTimeoutError: No answer in time.
            RerankError: What went wrong at the server, by its type there.
        """
        end = time.monotonic() + self._timeout
        sent = None if body is None else json.dumps(body).encode()
        tries = 0
        while True:
            pause = min(FIRST_PAUSE * 2**tries, LONGEST_PAUSE) * random.uniform(0.5, 1)
            try:
                status, headers, answer = self._exchange(method, path, sent, end)
            except TimeoutError as error:
                raise RerankTimeoutError(
                    f"{self._base} gave no answer within {self._timeout:g} s: no ranking was made.\n"
                    "Allow more time, or give fewer or shorter documents."
                ) from error
            except BROKEN as error:
                failure: RerankError = RemoteError(
                    f"{self._base} can't be reached: {printable(str(error)) or type(error).__name__}\n"
                    "Is the server running (onnx-rerank serve), and is this its address?"
                )
                failure.__cause__ = error
            else:
                if status == 200:
                    return self._parsed(answer)
                failure = error_of(self._base, status, answer)
                if status not in TRY_AGAIN:
                    raise failure
                named = headers.get("retry-after", "")
                pause = max(float(named) if named.isdecimal() else 0.0, pause)
            tries += 1
            if tries > self._retries or time.monotonic() + pause >= end:
                raise failure
            time.sleep(pause)

    def _parsed(self, answer: bytes) -> Any:
        if len(answer) > LARGEST_ANSWER:
            raise RemoteError(f"{self._base} answered more than {LARGEST_ANSWER:,} bytes: is this a reranking server?")
        try:
            return json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise RemoteError(f"{self._base} answered no JSON: is this the address of a reranking server?") from error

    def _exchange(self, method: str, path: str, body: bytes | None, end: float) -> tuple[int, Mapping[str, str], bytes]:
        """One request and its answer; on a kept connection that the server has closed, on another one."""
        while True:
            connection, is_kept = self._connection()
            try:
                with closed_on_stop(connection):
                    return self._converse(connection, method, path, body, end)
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                if not is_kept:
                    raise
            except BaseException:
                connection.close()
                raise

    def _converse(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, end: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection.timeout = remaining(end)
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(remaining(end))
        connection.response_class = partial(TimedResponse, end=end)  # type: ignore[assignment]  # it is called alone
        connection.request(method, self._parts.path + path, body, self._headers(body))
        response = connection.getresponse()
        answer = response.read(LARGEST_ANSWER + 1)
        headers = {name.lower(): value for name, value in response.getheaders()}
        if response.isclosed() and not response.will_close:
            with self._lock:
                self._idle.append(connection)
        else:
            connection.close()
        return response.status, headers, answer

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """A connection that is nobody's, and whether it was used before."""
        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port), False

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        if key := self._api_key or os.environ.get(API_KEY_VARIABLE):
            check_key(key, API_KEY_VARIABLE)
            headers["authorization"] = f"Bearer {key}"
        return headers


def check_key(key: object, where: str) -> None:
    """Raises InputTypeError or InputValueError for what can't be sent as a key; no message shows it."""
    if key is None:
        return
    if not isinstance(key, str):
        raise InputTypeError(f"{where} must be a str or None, not {type(key).__name__}")
    if not (key.isascii() and key.isprintable()):
        raise InputValueError(f"{where} must hold printable ASCII characters only, as what is sent in a header does")


def remaining(end: float) -> float:
    """Seconds until then.

    Raises:
        TimeoutError: There are none.
    """
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the time is over")
    return seconds


@contextmanager
def closed_on_stop(connection: http.client.HTTPConnection) -> Iterator[None]:
    """Breaks the connection when the call around is over, so that the server takes its pairs out of the queue."""

    def hang_up() -> None:
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)

    with stoppable() as stop, stop.calling(hang_up):
        yield


class TimedResponse(http.client.HTTPResponse):
    """A response that is read whole by a time, however slowly it drips."""

    def __init__(self, sock: socket.socket, *, method: str | None = None, end: float) -> None:
        super().__init__(sock, method=method)
        self.fp.close()
        self.fp = io.BufferedReader(TimedReader(sock, end))


class TimedReader(io.RawIOBase):
    """The bytes of a socket, until a time."""

    def __init__(self, sock: socket.socket, end: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._end = end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(remaining(self._end))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def error_of(base: str, status: int, answer: bytes) -> RerankError:
    """What a server's error is here: the class that it names, else what its status means."""
    try:
        body = json.loads(answer)
    except (ValueError, RecursionError):
        body = {}
    body = body if isinstance(body, dict) else {}
    said = printable(str(body.get("message") or body.get("error") or "no more is said")[:1000])
    message = f"{base} answered {status}: {said}"
    named = getattr(errors, str(body.get("code")), None)
    if isinstance(named, type) and issubclass(named, RerankError) and not issubclass(named, MissingExtraError):
        return named(message)
    if status in (400, 413, 422):
        return InputValueError(message)
    if status == 404 and "code" in body:
        return UnknownModelError(message)
    if status in (401, 403):
        return RemoteError(f"{message}\nGive the server's API key as api_key, or set {API_KEY_VARIABLE}.")
    if status == 504:
        return RerankTimeoutError(message)
    return RemoteError(message)

"""One answer over HTTP, within limits of time and bytes that no server can move. Only `hub` uses it.

huggingface_hub's own session, headers and settings are used (its proxies, certificates, token and time-outs). It knows
no limits of its own: its client waits as long as a server asks it to (``Retry-After``), reads an answer that never ends
until memory or disk are full, and makes paths of what a server says.

* A server that is silent for ``HF_HUB_ETAG_TIMEOUT`` or ``HF_HUB_DOWNLOAD_TIMEOUT`` (10 s unless set) is given up.
* The head of an answer takes `HEAD_SECONDS` at most, however it drips.
* The body brings `WINDOW_BYTES` in every `WINDOW_SECONDS`, and ends after the number of bytes that was announced.
* The token, and a password in ``HF_ENDPOINT``, go to that host alone, never along with a redirect to another.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from onnx_rerank_integrations.core.errors import printable

HEAD_SECONDS = 30.0
WINDOW_SECONDS = 30.0
WINDOW_BYTES = 30_000
MOST_REDIRECTS = 5

_CHUNK = 1 << 16
_DIGITS = re.compile(r"[0-9]{1,18}")
_PASSWORD = re.compile(r"(?<=//)[^/\s@]*@")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CUT = frozenset({"ChunkedEncodingError", "ReadError", "RemoteProtocolError", "IncompleteRead", "ProtocolError"})


class TransferError(Exception):
    """No answer, or none that can be used.

    Attributes:
        may_pass: Whether the same request may well succeed in a second.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(printable(without_password(message)))
        self.may_pass = may_pass


class RefusedError(TransferError):
    """The server answers with a status that isn't success.

    Attributes:
        status: HTTP's.
        code: The hub's own word for it, such as ``GatedRepo``; empty where it gives none.
        reason: The hub's own sentence.
    """

    def __init__(self, status: int, code: str = "", reason: str = "") -> None:
        super().__init__(f"it answers with status {status}", may_pass=status in (429, 500, 502, 503, 504))
        self.status, self.code, self.reason = status, code, reason


@dataclass(frozen=True)
class Answer:
    """A successful answer, its body still to be read.

    Attributes:
        status: 200, or 206 for a part.
        headers: Looked up in any case of letters.
        chunks: The body as it arrives, undecoded.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]

    @property
    def length(self) -> int | None:
        """The bytes of the body, as announced."""
        stated = self.headers.get("content-length") or ""
        return int(stated) if _DIGITS.fullmatch(stated) else None


def without_password(text: str) -> str:
    """The text, user and password left out of each URL."""
    return _PASSWORD.sub("***@", text)


def located(url: str, *, seconds_of_silence: float) -> str:
    """The URL that the content of a hub's file is at: of its storage, where it has one elsewhere.

    Raises:
        RefusedError: The hub has no such file, or doesn't give it.
        TransferError: There is no answer, it is no HTTP, or it comes too slowly.
    """
    for _ in range(MOST_REDIRECTS + 1):
        with _answered("HEAD", url, {}, seconds_of_silence) as response:
            target = _target(url, response)
            if target is None:
                return url
            if _host(target) != _host(url):
                return target
            url = target
    raise _too_many_redirects()


@contextlib.contextmanager
def get(url: str, *, seconds_of_silence: float, start: int = 0) -> Iterator[Answer]:
    """Asks for a URL, redirects followed.

    Args:
        url: May hold a user and a password.
        seconds_of_silence: How long the server may say nothing.
        start: The first byte that is wanted.

    Raises:
        RefusedError: The answer isn't success.
        TransferError: There is no answer, it is no HTTP, or it comes too slowly.
    """
    headers = {"range": f"bytes={start}-"} if start else {}
    for _ in range(MOST_REDIRECTS + 1):
        with _answered("GET", url, headers, seconds_of_silence) as response:
            target = _target(url, response)
            if target is None:
                yield Answer(response.status_code, response.headers, _arriving(response))
                return
            url = target
    raise _too_many_redirects()


def read(answer: Answer, most_bytes: int) -> bytes:
    """The whole body of an answer.

    Raises:
        TransferError: It has more than `most_bytes`, is cut, or comes too slowly.
    """
    body = bytearray()
    for chunk in answer.chunks:
        body += chunk
        if len(body) > most_bytes:
            raise TransferError(f"it sends more than {most_bytes:,} bytes where a list of files is due")
    if answer.length not in (None, len(body)):
        raise TransferError(f"the connection broke after {len(body):,} of {answer.length:,} bytes", may_pass=True)
    return bytes(body)


@contextlib.contextmanager
def _answered(method: str, url: str, headers: Mapping[str, str], seconds_of_silence: float) -> Iterator[Any]:
    """The response to one request, closed after the block."""
    address, credentials = _address(url)
    response = _opened(method, address, {**credentials, **headers}, seconds_of_silence)
    try:
        yield response
    finally:
        with contextlib.suppress(Exception):
            response.close()


def _address(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its password, and the headers that may go to it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported, not declared so

    headers: dict[str, str] = build_hf_headers(library_name="onnx-rerank-integrations")
    headers["accept-encoding"] = "identity"
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    address = parts._replace(netloc=host).geturl()
    is_home = _host(url) == _host(constants.ENDPOINT)
    if at or not is_home:
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    if at and is_home:
        headers["authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    return address, headers


def _target(url: str, response: Any) -> str | None:
    """Where a response redirects to, None where it is the answer itself."""
    location = response.headers.get("location")
    if response.status_code in _REDIRECTS and location:
        return _followed(url, location)
    if response.status_code not in (200, 206):
        code, reason = (response.headers.get(f"x-error-{word}") or "" for word in ("code", "message"))
        raise RefusedError(response.status_code, code, reason)
    return None


def _too_many_redirects() -> TransferError:
    return TransferError(f"it redirects more than {MOST_REDIRECTS} times")


def _host(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _followed(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise TransferError(f"it redirects to {location[:200]!r}, which is no address of the web")
    if "@" in parts.netloc and _host(target) != _host(url):
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return target


def _opened(method: str, url: str, headers: Mapping[str, str], seconds_of_silence: float) -> Any:
    """The response, its body not read yet: of requests below huggingface_hub 1.0, of httpx from there on."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # exported, not declared so

    def send() -> Any:
        session: Any = get_session()
        options: dict[str, Any] = {"headers": headers, "timeout": seconds_of_silence}
        if hasattr(session, "build_request"):
            request = session.build_request(method, url, **options)
            with _locations_that_are_none("InvalidURL", "RemoteProtocolError: Invalid URL in location header"):
                return session.send(request, stream=True, follow_redirects=False)
        with _locations_that_are_none("ValueError"):
            return session.request(method, url, **options, stream=True, allow_redirects=False)

    with _our_errors():
        return _within(max(HEAD_SECONDS, 2 * seconds_of_silence), send)


@contextlib.contextmanager
def _locations_that_are_none(*failures: str) -> Iterator[None]:
    """Both libraries make an address of a redirect's location even where they aren't to follow it, and fail in that."""
    try:
        yield
    except Exception as error:
        if f"{type(error).__name__}: {error}".startswith(failures):
            raise TransferError(f"it redirects to a place which is no address of the web ({error})") from error
        raise


def _within(seconds: float, send: Callable[[], Any]) -> Any:
    """What a call gives, in a thread that is left to its own time-outs where it isn't back in time."""
    done = threading.Event()
    result: dict[str, Any] = {}

    def run() -> None:
        try:
            result["response"] = send()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            result["error"] = error
        done.set()
        if result.get("late") and "response" in result:
            result["response"].close()

    threading.Thread(target=run, daemon=True, name="onnx-rerank transfer").start()
    if not done.wait(seconds):
        result["late"] = True
        raise TransferError(f"the head of its answer isn't whole after {seconds:.0f} s")
    if "error" in result:
        raise result["error"]
    return result["response"]


def _arriving(response: Any) -> Iterator[bytes]:
    """The body in the pieces in which it arrives, so that the clock is looked at however slowly it does."""
    raw = getattr(response, "raw", None)
    read1 = getattr(raw, "read1", None) or getattr(raw, "read", None)
    chunks = iter(lambda: read1(_CHUNK, decode_content=False), b"") if read1 else response.iter_raw()
    since, received = time.monotonic(), 0
    with _our_errors():
        for chunk in chunks:
            yield chunk
            received += len(chunk)
            if time.monotonic() - since > WINDOW_SECONDS:
                if received < WINDOW_BYTES:
                    raise TransferError(f"it sent {received:,} bytes in {WINDOW_SECONDS:.0f} s")
                since, received = time.monotonic(), 0


@contextlib.contextmanager
def _our_errors() -> Iterator[None]:
    """Whatever an HTTP library raises of what a server does to it, as ours."""
    try:
        yield
    except TransferError:
        raise
    except Exception as error:
        kind = type(error).__name__
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise TransferError(f"{kind}: {first_line[:500]}", may_pass=kind in _CUT) from error

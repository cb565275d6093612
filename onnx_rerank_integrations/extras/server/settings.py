"""What can be set of a server, and what is refused."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_rerank_integrations.core.errors import InputValueError

API_KEYS_VARIABLE = "ONNX_RERANK_API_KEYS"
"""Keys that the server accepts, separated by commas or white space."""

SHORTEST_KEY = 16
"""Characters of a key that can't be guessed in practice."""


class ApiKeys:
    """The keys that open the server, kept as hashes. Without any, everybody may come in."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        for key in keys:
            if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable():
                raise InputValueError(
                    f"an API key must be {SHORTEST_KEY} or more printable ASCII characters; found one of {len(key)}: "
                    'make one with python -c "import secrets; print(secrets.token_urlsafe())"'
                )
        self._hashes = [_hash(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def accept(self, key: str) -> bool:
        """Whether it is one of them; takes as long for any that isn't."""
        given = _hash(key)
        return sum(hmac.compare_digest(given, known) for known in self._hashes) > 0  # no early end, unlike any()


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(file: Path | None, variable: str | None) -> ApiKeys:
    """Keys from a file, one a line, and from the environment variable's text.

    Raises:
        InputValueError: The file can't be read or holds no key, or a key is too short.
    """
    keys = (variable or "").replace(",", " ").split()
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputValueError(f"the file of API keys, {file}, can't be read: {error}") from error
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise InputValueError(f"the file of API keys, {file}, holds none: write one per line")
        keys += found
    return ApiKeys(keys)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits and times of a server.

    Attributes:
        host: The address it listens on.
        port: Its port; 0 for any free one.
        api_keys: Who may come in; none for everybody.
        allow_anonymous: Listen on other addresses than this machine's own without a key.
        max_body: Bytes of a request.
        max_documents: Documents of a request.
        max_document_tokens: Tokens of a document that are read; None for as many as the model reads.
        max_queue_tokens: Tokens that wait or are computed, of all requests to one model. A request that finds nobody
            before it is always taken.
        max_connections: Open connections.
        request_timeout: Seconds from a request's last byte to its answer.
        read_timeout: Seconds from a connection's or an answer's end to the last byte of the next request's head, and
            from there to the last byte of its body.
        drain_delay: Seconds after SIGTERM in which readiness is false and requests are still taken.
        drain_timeout: Seconds after that for requests that are being answered.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: ApiKeys = ApiKeys()  # noqa: RUF009 - it doesn't change
    allow_anonymous: bool = False
    max_body: int = 16_000_000
    max_documents: int = 2_000
    max_document_tokens: int | None = None
    max_queue_tokens: int = 500_000
    max_connections: int = 512
    request_timeout: float = 60.0
    read_timeout: float = 10.0
    drain_delay: float = 0.0
    drain_timeout: float = 30.0

    def __post_init__(self) -> None:
        if not self.api_keys and not self.allow_anonymous and not is_loopback(self.host):
            raise InputValueError(
                f"host {self.host!r} can be reached from other machines, and there is no API key: set "
                f"{API_KEYS_VARIABLE} or --api-key-file, or say --allow-anonymous where a network you trust guards it"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

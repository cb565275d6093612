"""A Hugging Face hub on loopback, for the real huggingface_hub client, with the faults that networks have.

Speaks the part of the hub's HTTP API that downloads use: model info (`/api/models/...`), the tree listing, and
`/ORG/NAME/resolve/REVISION/PATH` with the headers the client reads (ETag, X-Repo-Commit, X-Linked-Etag, X-Linked-Size).
Large files redirect to a second host name (`localhost` beside `127.0.0.1`), as the hub redirects to its storage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

LFS_ENDINGS = (".onnx", ".onnx_data", ".onnx.data", ".safetensors", ".bin", ".pt", "_data_1", ".weights")


@dataclass(frozen=True)
class Request:
    """One request that the server got."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Fault:
    """What goes wrong with requests whose method and path hold all of `matching`, so many `times`."""

    matching: tuple[str, ...]
    times: int
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    corrupt: bool = False
    delay: float = 0.0


@dataclass
class Repository:
    """The files of each commit, and the commit that each branch or tag is at."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    is_gated: bool = False


class LocalHub:
    """A running server. Use it as a context manager; `stop` it to see what happens when the hub is down."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._is_running = False

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> LocalHub:
        self._thread.start()
        self._is_running = True
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Connections are refused from now on, and those that clients keep open are closed."""
        if self._is_running:
            self._is_running = False
            self._server.shutdown()
            self._server.server_close()
            self._server.close_connections()

    def add(self, repo_id: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Commits `files` (all of them, as git does) to a branch; gives the commit."""
        repository = self.repositories.setdefault(repo_id, Repository())
        content = repr((repo_id, sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items())))
        commit = hashlib.sha1(content.encode()).hexdigest()
        repository.commits[commit] = dict(files)
        repository.refs[branch] = commit
        return commit

    def fail(self, *matching: str, status: int, times: int = 10**9, **headers: str) -> None:
        """Answers with a status, and headers such as ``x_error_code="GatedRepo"``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._faults.append(Fault(matching, times, status=status, headers=named))

    def cut(self, *matching: str, after: int, times: int = 1) -> None:
        """Closes the connection after so many bytes of the body."""
        self._faults.append(Fault(matching, times, cut_after=after))

    def corrupt(self, *matching: str, times: int = 10**9) -> None:
        """Flips a bit in the middle of the body."""
        self._faults.append(Fault(matching, times, corrupt=True))

    def delay(self, *matching: str, seconds: float, times: int = 10**9) -> None:
        """Waits before it answers."""
        self._faults.append(Fault(matching, times, delay=seconds))

    def asked_for(self, *parts: str) -> list[Request]:
        """The requests whose method and path hold all of `parts`."""
        return [
            request for request in self.requests if all(part in f"{request.method} {request.path}" for part in parts)
        ]

    def fault_for(self, request: Request) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and all(part in f"{request.method} {request.path}" for part in fault.matching):
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: list[socket.socket] = []

    def process_request(self, request: socket.socket, client_address: object) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def close_connections(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news on stderr."""


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = Request(self.command, path, self.headers.get("Range"), self.headers.get("Authorization"))
        self.hub.requests.append(request)
        fault = self.hub.fault_for(request)
        if fault and fault.delay:
            time.sleep(fault.delay)
        if fault and fault.status:
            self._send(fault.status, b"{}", dict(fault.headers))
        elif path.startswith("/api/models/"):
            self._model_info(path.removeprefix("/api/models/"))
        elif path.startswith("/storage/"):
            self._storage(path.removeprefix("/storage/"), fault)
        elif "/resolve/" in path:
            self._resolve(path, fault)
        else:
            self._send(404, b"{}", {})

    def _model_info(self, path: str) -> None:
        repo_id, _, rest = path.partition("/revision/")
        repo_id, tree, revision = repo_id.partition("/tree/")
        repository = self._allowed(repo_id, info=True)
        if repository is None:
            return
        commit = self._commit(repository, rest or revision or "main")
        if commit is None:
            return
        files = [_entry(name, data) for name, data in repository.commits[commit].items()]
        body: object = files if tree else {"id": repo_id, "modelId": repo_id, "sha": commit, "siblings": files}
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, path: str, fault: Fault | None) -> None:
        repo_id, _, rest = path.removeprefix("/").partition("/resolve/")
        repository = self._allowed(repo_id)
        if repository is None:
            return
        revision = max(
            (ref for ref in (*repository.refs, *repository.commits) if rest.startswith(ref + "/")), default=""
        )
        commit = self._commit(repository, revision)
        if commit is None:
            return
        name = rest.removeprefix(revision + "/")
        data = repository.commits[commit].get(name)
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_hash(data)}"', "Accept-Ranges": "bytes"}
        if name.endswith(LFS_ENDINGS):
            headers |= {"X-Linked-Etag": f'"{_sha256(data)}"', "X-Linked-Size": str(len(data))}
            headers["Location"] = f"http://localhost:{self.hub.port}/storage/{repo_id}/{commit}/{name}"
            self._send(302, b"", headers)
        else:
            self._send_content(data, headers, fault)

    def _storage(self, path: str, fault: Fault | None) -> None:
        organisation, name, commit, file = path.split("/", 3)
        data = self.hub.repositories[f"{organisation}/{name}"].commits[commit][file]
        self._send_content(data, {"ETag": f'"{_sha256(data)}"', "Accept-Ranges": "bytes"}, fault)

    def _allowed(self, repo_id: str, *, info: bool = False) -> Repository | None:
        repository = self.hub.repositories.get(repo_id)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.token and not repository.is_gated and token != repository.token):
            # The hub doesn't tell a missing repository from a private one to those who aren't logged in.
            status, message = (404, "Repository not found") if token else (401, "Invalid username or password.")
            self._send(status, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": message})
            return None
        if repository.is_gated and not info and token != repository.token:
            self._send(403 if token else 401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access denied"})
            return None
        return repository

    def _commit(self, repository: Repository, revision: str) -> str | None:
        commit = repository.refs.get(revision, revision)
        if commit in repository.commits:
            return commit
        self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return None

    def _send_content(self, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        if fault and fault.corrupt and data:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        status, total = 200, len(data)
        if asked := self.headers.get("Range"):
            first = int(asked.removeprefix("bytes=").split("-")[0])
            status, data = 206, data[first:]
            headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
        self._send(status, data, headers, cut_after=fault.cut_after if fault else None)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], cut_after: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if cut_after is None else body[:cut_after])
        if cut_after is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()


def _entry(name: str, data: bytes) -> dict[str, object]:
    """One file, in the words of both the model info and the tree listing."""
    entry: dict[str, object] = {"rfilename": name, "path": name, "type": "file", "size": len(data)}
    entry |= {"blobId": _git_hash(data), "oid": _git_hash(data)}
    if name.endswith(LFS_ENDINGS):
        digest = _sha256(data)
        entry["lfs"] = {"sha256": digest, "oid": digest, "size": len(data), "pointerSize": 134}
    return entry


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def environment(hub: LocalHub, home: Path) -> dict[str, str]:
    """The environment variables that make huggingface_hub talk to this hub, for a process that starts with them."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",  # whoever runs the tests may have it on
        "TRANSFORMERS_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def point_client_at(hub: LocalHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same inside a running process, where huggingface_hub has read its environment. Gives the cache folder.

    Only addresses and folders are patched: the client, its HTTP library and its cache are the real ones.
    """
    from huggingface_hub import constants, file_download

    cache = home / "hub"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # versions below 1.0 keep a copy of their own
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    if hasattr(constants, "HF_URL_HOSTS"):
        monkeypatch.setattr(constants, "HF_URL_HOSTS", frozenset({"127.0.0.1"}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return cache

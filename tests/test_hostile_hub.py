"""What a hostile or broken server, and whoever may write to a shared cache, can't do."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest

from onnx_rerank_integrations.core.errors import ModelNotFoundError
from onnx_rerank_integrations.core.model import files, hub, storage, transfer
from tests.local_hub import LocalHub, point_client_at
from tests.onnx_files import model_files, run, write
from tests.soak.mirror import COMMIT, Addressed, Mirror, Plan, chain, entry, heard, listing


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    yield mirror
    mirror.stop()


@pytest.fixture
def cache(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hub, "_PAUSES", (0.0,))
    mirror.plan = Plan(contents=model_files(), listing=json.dumps(listing(model_files())).encode())
    return point_client_at(Addressed(mirror.url), tmp_path / "home", monkeypatch)  # type: ignore[arg-type]


def serve(talk: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A server that does to each connection what `talk` does."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=quietly, args=(connection,), daemon=True).start()

    def quietly(connection: socket.socket) -> None:
        with connection:
            try:
                talk(connection)
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    point_client_at(Addressed(f"http://127.0.0.1:{server.getsockname()[1]}"), home, monkeypatch)  # type: ignore[arg-type]


def failure() -> str:
    with pytest.raises(ModelNotFoundError) as caught:
        files.locate("org/name")
    return str(caught.value)


# --- what a server says is no path ------------------------------------------------------------------------------------


def test_an_etag_is_no_path(mirror: Mirror, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    for target in (tmp_path / "precious.txt", tmp_path / "planted.txt"):
        mirror.plan.headers = {"ETag": f'"{target}"', "X-Linked-Etag": f'"{target}"', "X-Repo-Commit": f"../{target}"}
        files.download("org/name", force_download=True)

    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert not (tmp_path / "planted.txt").exists()


@pytest.mark.parametrize(
    "name",
    ["../up", "a/../../up", "/root", "a//b", "a/./b", "./a", "a/", "a\\..\\b", "C:\\a", "C:a", "a\0b", "a\nb", "", "..",
     "x" * 256, "x/" * 600 + "x", "\ud800", "\\\\server\\share", 7, None, ["a"]],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_none_of_the_repositorys(name: object) -> None:
    assert not hub.is_safe_name(name)


@pytest.mark.parametrize(
    "name", ["model.onnx", "onnx/model.onnx_data", "1_Dense/config.json", "é/ü 1.json", "..a", "a..b"]
)
def test_usual_names_are_names(name: str) -> None:
    assert hub.is_safe_name(name)


def test_hostile_names_beside_a_model_are_left_out(mirror: Mirror, cache: Path) -> None:
    document = listing(model_files())
    document["siblings"].append(entry("../../../up/tokenizer.json", b"evil"))  # type: ignore[attr-defined]
    mirror.plan.listing = json.dumps(document).encode()

    found = files.locate("org/name")

    assert run(found.onnx) == [5.0, 7.0, 9.0]
    record = json.loads((cache / "models--org--name/onnx-rerank" / f"{COMMIT}.json").read_text())
    assert set(record["files"]) == set(model_files())


@pytest.mark.parametrize("commit", ["../../up", "A" * 40, "0" * 39, "", 7, None])
def test_a_commit_that_is_none_is_no_answer(mirror: Mirror, cache: Path, commit: object) -> None:
    mirror.plan.listing = json.dumps(listing(model_files()) | {"sha": commit}).encode()

    assert "something else than a list of files" in failure()
    assert not cache.exists()


# --- links that others planted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "blobs", "snapshots", "refs", "onnx-rerank"])
def test_nothing_is_written_or_removed_through_a_planted_link(
    mirror: Mirror, cache: Path, tmp_path: Path, place: str
) -> None:
    victim = write(tmp_path / "victim", {"thesis.txt": b"years", "photos/cat.jpg": b"cat", f"{'f' * 40}.json": b"mine"})
    before = sorted(victim.rglob("*"))
    link = cache / "models--org--name" / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim)

    if place in ("", "blobs", "snapshots"):
        assert "a link there leads out of the cache" in failure()
    else:
        assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]
    assert sorted(victim.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
@pytest.mark.parametrize("planted", ["a pipe", "a device", "endless", "no text", "a path"])
@pytest.mark.parametrize("place", ["refs/main", f"onnx-rerank/{COMMIT}.json"])
def test_what_is_planted_in_the_place_of_a_small_file_is_no_answer_and_not_waited_for(
    mirror: Mirror, cache: Path, place: str, planted: str
) -> None:
    files.locate("org/name")
    path = cache / "models--org--name" / place
    path.unlink()
    if planted == "a pipe":
        os.mkfifo(path)
    elif planted == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes({"endless": b"a" * 5_000_000, "no text": b"\xff" * 40, "a path": b"../../../up"}[planted])

    assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]
    os.mkfifo(cache / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        storage.read_bytes(cache / "pipe")


def test_what_is_cleaned_is_what_this_package_made(mirror: Mirror, cache: Path) -> None:
    files.locate("org/name")
    ours = cache / "models--org--name" / "onnx-rerank"
    write(ours, {"notes.txt": b"mine", f"{'f' * 40}/model.onnx": b"ours", f"{'f' * 40}.json": b"{}"})

    files.download("org/name")

    assert sorted(path.name for path in ours.iterdir()) == [f"{COMMIT}.json", "notes.txt"]


# --- whom secrets reach -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_the_list", [True, False])
def test_a_redirect_takes_no_token_along(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch, on_the_list: bool
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    mirror.plan.headers = {"Location": f"http://127.0.0.1:{mirror.other_port}/x"}
    mirror.plan.status = 302
    mirror.plan.listing_status = 302 if on_the_list else 200

    with pytest.raises(Exception, match="org/name"):
        files.locate("org/name")
    assert mirror.others == []


@pytest.mark.parametrize(
    "where",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "javascript:alert(1)", "data:text,x", "mailto:a@b", "about:blank",
     "http://[::1/x", "http://127.0.0.1:999999/x", "http://127.0.0.1:x/", "https://"],
)  # fmt: skip
def test_a_redirect_to_what_is_no_address_of_the_web_is_refused(mirror: Mirror, cache: Path, where: str) -> None:
    mirror.plan.status, mirror.plan.headers = 302, {"Location": where}

    assert "which is no address of the web" in failure()


def test_what_a_hub_says_works_on_no_terminal() -> None:
    assert str(transfer.TransferError("\x1b[2Jgone\x07 é\nand more")) == "\ufffd[2Jgone\ufffd é\nand more"


def test_a_redirect_without_end_has_one(mirror: Mirror, cache: Path) -> None:
    mirror.plan.status, mirror.plan.headers = 302, {"Location": "/loop"}

    assert "redirects more than 5 times" in failure()
    assert mirror.requests < 30


def test_the_password_of_an_endpoint_is_sent_to_it_and_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalHub() as local_hub:
        local_hub.add("org/name", model_files())
        address = local_hub.url.replace("//", "//alice:TOPSECRET@")
        point_client_at(Addressed(address), tmp_path / "home", monkeypatch)  # type: ignore[arg-type]
        monkeypatch.setenv("HF_TOKEN", "hf_of_alice")
        with heard() as messages:
            assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]
            local_hub.stop()
            with pytest.raises(ModelNotFoundError, match=r"http://\*\*\*@127") as caught:
                files.download("org/name")

    sent = {request.authorization for request in local_hub.requests if "/storage/" not in request.path}
    assert sent == {"Basic YWxpY2U6VE9QU0VDUkVU"}
    told = "\n".join([*map(str, chain(caught.value)), *messages])
    assert "TOPSECRET" not in told
    assert "hf_of_alice" not in told


# --- answers without end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b"{}", b"", b"[" * 100_000, b"\xff"])
def test_a_login_page_is_told_and_the_cache_serves_where_it_can(mirror: Mirror, cache: Path, body: bytes) -> None:
    mirror.plan.listing = body
    assert "a proxy or a login page may stand between" in failure()

    write(cache / "models--org--name", {"refs/main": COMMIT.encode()})
    write(
        cache / "models--org--name" / "snapshots" / COMMIT,
        {n: c for n, c in model_files().items() if "config" not in n},
    )
    assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]


def test_a_patient_server_is_not_waited_for(mirror: Mirror, cache: Path) -> None:
    mirror.plan.listing_status, mirror.plan.headers = 503, {"Retry-After": "3600"}

    assert "status 503" in failure()


def test_an_endless_file_ends_after_the_bytes_that_it_has(mirror: Mirror, cache: Path) -> None:
    mirror.plan.endless = True

    assert "sends more than the" in failure()
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < 1000


def test_an_endless_list_ends(mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST_LIST_BYTES", 10_000)
    mirror.plan.listing = b"[" + b" " * 20_000

    assert "sends more than 10,000 bytes where a list of files is due" in failure()


def test_a_file_larger_than_the_disk_is_refused_before_it_is_fetched(mirror: Mirror, cache: Path) -> None:
    document = listing(model_files())
    for one in document["siblings"]:  # type: ignore[attr-defined]
        one["size"] = 1 << 60
    mirror.plan.listing = json.dumps(document).encode()

    message = failure()

    assert "the disk hasn't as many left" in message
    assert mirror.requests <= 2


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
    serve(lambda connection: time.sleep(3600), monkeypatch, tmp_path)

    assert "imeout" in failure()


def drip(head: bytes, body: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head)
        for byte in body:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    return talk


def test_a_server_that_drips_its_head_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 2)
    serve(drip(b"", b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 10_000), monkeypatch, tmp_path)

    assert "the head of its answer isn't whole" in failure()


def test_a_server_that_drips_its_body_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "WINDOW_SECONDS", 0.5)
    serve(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" " * 1000), monkeypatch, tmp_path)

    assert "it sent" in failure()


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_a_beginning_that_somebody_else_planted_is_not_continued(mirror: Mirror, cache: Path, tmp_path: Path) -> None:
    digest = entry("", model_files()["config.json"])["blobId"]
    (tmp_path / "precious.txt").write_text("mine")
    blobs = cache / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.incomplete").symlink_to(tmp_path / "precious.txt")

    assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]
    assert (tmp_path / "precious.txt").read_text() == "mine"

"""Models from a hub: the real huggingface_hub client against a real server on loopback, with the faults it may meet."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from onnx_rerank_integrations.core.errors import InvalidModelError, ModelNotFoundError, UnknownModelError
from onnx_rerank_integrations.core.model import files, hub, identity, registry
from onnx_rerank_integrations.core.model.registry import DEFAULT_MODEL
from tests.local_hub import LocalHub, environment, point_client_at
from tests.onnx_files import graph, model_files, run, write

NEVER_FETCHED = {
    "README.md": b"# model",
    "model.safetensors": b"weights",
    "modeling_custom.py": b"import os",
    "onnx/model.pt": b"pickle",
    "onnx/model_int8.onnx": b"another",
    "openvino/openvino_model.bin": b"weights",
    "pytorch_model.bin": b"pickle",
}


@pytest.fixture
def local_hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """huggingface_hub talks to the local hub and keeps its cache here; nothing waits between attempts."""
    monkeypatch.setattr(hub, "_PAUSES", (0.0, 0.0, 0.0))
    return point_client_at(local_hub, tmp_path / "home", monkeypatch)


def last_line(error: pytest.ExceptionInfo[Exception]) -> str:
    return str(error.value).splitlines()[-1]


# --- what is fetched --------------------------------------------------------------------------------------------------


def test_a_hub_id_is_listed_once_and_only_what_is_needed_is_fetched(local_hub: LocalHub) -> None:
    content = model_files() | {"special_tokens_map.json": b"{}"}
    commit = local_hub.add("org/name", content | NEVER_FETCHED)

    found = files.locate("org/name")

    assert run(found.onnx) == [5.0, 7.0, 9.0]
    assert found.commit == commit
    assert found.config == {"num_labels": 1}
    assert len(local_hub.asked_for("/api/")) == 1
    fetched = {request.path.split(f"/{commit}/")[1] for request in local_hub.asked_for("GET", f"/{commit}/")}
    assert fetched == set(content)


def test_the_second_load_asks_nothing_of_the_network_even_when_the_hub_is_down(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files())
    first = files.locate("org/name")
    local_hub.requests.clear()

    assert files.locate("org/name") == first
    local_hub.stop()
    assert files.locate("org/name") == first
    assert local_hub.requests == []


def test_a_registered_model_comes_from_its_source_with_its_license(local_hub: LocalHub) -> None:
    local_hub.add("onnx-community/bge-reranker-v2-m3-ONNX", model_files("model.onnx_data"))

    found = files.locate("baai/bge-reranker-V2-M3")

    assert run(found.onnx) == [5.0, 7.0, 9.0]
    assert found.license == "apache-2.0"


def test_the_additional_files_of_a_custom_model_are_fetched(local_hub: LocalHub) -> None:
    registry.add_custom_model("mine", "org/name", additional_files=["extra/labels.txt", "not/there.txt"])
    local_hub.add("org/name", model_files() | {"extra/labels.txt": b"yes\nno"})

    assert (files.locate("mine").folder / "extra" / "labels.txt").read_bytes() == b"yes\nno"


def test_int8_fetches_the_one_file_that_fits_this_cpu(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    content = model_files() | {
        "onnx/model_qint8_arm64.onnx": graph(tag="arm64")["model.onnx"],
        "onnx/model_qint8_avx512_vnni.onnx": graph(tag="vnni")["model.onnx"],
        "onnx/model_quint8_avx2.onnx": graph(tag="avx2")["model.onnx"],
    }
    local_hub.add("org/name", content)
    monkeypatch.setattr(
        "onnx_rerank_integrations.core.model.variants.cpu_features", lambda: frozenset({"avx2", "avx512"})
    )

    found = files.locate("org/name", model_file="int8")

    assert found.onnx.name == "model_quint8_avx2.onnx"
    assert [request.path.rpartition("/")[2] for request in local_hub.asked_for("GET", "/storage/")] == [
        "model_quint8_avx2.onnx"
    ]


def test_another_file_of_a_cached_commit_is_fetched_without_a_second_listing(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files() | {"onnx/model_O2.onnx": graph(tag="O2")["model.onnx"]})
    files.locate("org/name")
    local_hub.requests.clear()

    assert files.locate("org/name", model_file="onnx/model_O2.onnx").onnx.name == "model_O2.onnx"
    assert local_hub.asked_for("/api/") == []
    assert all("model_O2.onnx" in request.path for request in local_hub.requests)


def test_the_folders_of_a_modular_head_are_fetched(local_hub: LocalHub) -> None:
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Dense", "type": "sentence_transformers.models.Dense"},
        {"idx": 2, "path": "../outside", "type": "sentence_transformers.models.Dense"},
    ]
    head = {"1_Dense/config.json": b"{}", "1_Dense/model.safetensors": b"weights"}
    local_hub.add(
        "org/name",
        model_files() | NEVER_FETCHED | head | {"modules.json": json.dumps(modules).encode(), "1_Dense/evil.py": b""},
    )

    found = files.locate("org/name")

    assert (found.folder / "1_Dense" / "model.safetensors").read_bytes() == b"weights"
    assert not (found.folder / "1_Dense" / "evil.py").exists()
    assert not (found.folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    "names",
    [
        ("model.onnx_data",),
        ("model.onnx.data",),
        ("model.onnx_data", "model.onnx_data_1"),
        ("some.weights",),
        ("parts/first.weights", "parts/second.weights"),
    ],
)
@pytest.mark.parametrize("folder", ["onnx/", ""])
def test_external_data_of_any_name_loads_from_the_hubs_cache(
    local_hub: LocalHub, names: tuple[str, ...], folder: str
) -> None:
    local_hub.add("org/name", model_files(*names, folder=folder))

    found = files.locate("org/name")

    assert run(found.onnx) == [5.0, 7.0, 9.0]
    assert found.onnx.is_relative_to(found.folder), "links of ours aren't needed here"
    local_hub.stop()
    assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]


def test_external_data_that_the_repository_lacks_is_named(local_hub: LocalHub) -> None:
    content = model_files("model.onnx_data")
    del content["onnx/model.onnx_data"]
    local_hub.add("org/name", content)

    with pytest.raises(ModelNotFoundError, match=r"org/name has no file onnx/model\.onnx_data at revision 'main'"):
        files.locate("org/name")


def test_external_data_of_the_shared_store_is_linked_beside_its_graph_once(local_hub: LocalHub, cache: Path) -> None:
    local_hub.add("org/name", model_files("model.onnx_data"))
    files.locate("org/name")
    storage = cache / "models--org--name"
    for blob in (storage / "blobs").iterdir():  # the layout that huggingface_hub 2 gives to Xet files
        shared = cache / "blobs" / blob.name[:2] / blob.name
        shared.parent.mkdir(parents=True, exist_ok=True)
        blob.rename(shared)
        blob.symlink_to(os.path.relpath(shared, blob.parent))

    first = files.locate("org/name")
    inode = first.onnx.stat().st_ino
    second = files.locate("org/name")

    assert first.onnx.is_relative_to(storage / "onnx-rerank")
    assert run(first.onnx) == [5.0, 7.0, 9.0]
    assert second.onnx.stat().st_ino == inode
    assert not list(storage.rglob("*.tmp"))


def test_links_of_a_commit_that_was_deleted_from_the_cache_go_with_the_next_download(
    local_hub: LocalHub, cache: Path
) -> None:
    old = local_hub.add("org/name", model_files(tag="old"))
    files.locate("org/name")
    ours = cache / "models--org--name" / "onnx-rerank"
    write(ours / old / "onnx", {"model.onnx": b"a link of ours"})
    shutil.rmtree(cache / "models--org--name" / "snapshots" / old)

    new = local_hub.add("org/name", model_files(tag="new"))
    files.download("org/name")

    assert [path.name for path in ours.iterdir()] == [f"{new}.json"]


def test_where_hard_links_cannot_be_made_the_files_are_copied(
    local_hub: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    local_hub.add("org/name", model_files("model.onnx_data"))
    monkeypatch.setattr("onnx_rerank_integrations.core.model.hub.is_accepted", lambda *_: False)
    monkeypatch.setattr(os, "link", refuse)

    first = files.locate("org/name")
    inode = first.onnx.stat().st_ino

    assert run(first.onnx) == [5.0, 7.0, 9.0]
    assert files.locate("org/name").onnx.stat().st_ino == inode, "copied once"


# --- revisions --------------------------------------------------------------------------------------------------------


def test_a_revision_is_a_branch_a_tag_or_a_commit(local_hub: LocalHub) -> None:
    old = local_hub.add("org/name", model_files(tag="old"), branch="v1")
    new = local_hub.add("org/name", model_files(tag="new"))
    pull = local_hub.add("org/name", model_files(tag="pull"), branch="refs/pr/1")

    assert files.locate("org/name").commit == new
    assert files.locate("org/name", revision="v1").commit == old
    assert files.locate("org/name", revision=old).commit == old
    assert files.locate("org/name", revision="refs/pr/1").commit == pull
    local_hub.stop()
    for revision, commit in (("main", new), ("v1", old), (old, old), ("refs/pr/1", pull)):
        assert files.locate("org/name", revision=revision).commit == commit


def test_a_branch_stays_where_it_was_fetched_until_it_is_downloaded_again(local_hub: LocalHub) -> None:
    old = local_hub.add("org/name", model_files(tag="old"))
    files.locate("org/name")
    new = local_hub.add("org/name", model_files(tag="new"))

    assert files.locate("org/name").commit == old
    assert files.download("org/name").commit == new
    assert files.locate("org/name").commit == new


def test_a_pinned_commit_is_never_another_one(local_hub: LocalHub) -> None:
    old = local_hub.add("org/name", model_files(tag="old"))
    local_hub.add("org/name", model_files(tag="new"))

    content = files.locate("org/name", revision=old).onnx.read_bytes()

    assert content == graph(tag="old")["model.onnx"]


def test_a_pinned_commit_is_no_branch_of_the_cache(local_hub: LocalHub, cache: Path) -> None:
    old = local_hub.add("org/name", model_files(tag="old"))
    new = local_hub.add("org/name", model_files(tag="new"))

    files.locate("org/name", revision=old)
    files.locate("org/name")

    (repository,) = huggingface_hub.scan_cache_dir(cache).repos
    assert {revision.commit_hash: revision.refs for revision in repository.revisions} == {
        old: frozenset(),
        new: frozenset({"main"}),
    }


def test_an_unknown_revision_says_so(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files())

    with pytest.raises(ModelNotFoundError, match="org/name has no revision 'v9'") as caught:
        files.locate("org/name", revision="v9")
    assert last_line(caught) == (
        "To load 'org/name', give a branch, a tag or a commit that it has, or none for 'main'."
    )


# --- offline ----------------------------------------------------------------------------------------------------------


def test_local_files_only_takes_the_cache_and_never_asks_the_network(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files())
    with pytest.raises(ModelNotFoundError, match="and the network is off: local_files_only=True") as caught:
        files.locate("org/name", local_files_only=True)
    assert local_hub.requests == []
    assert "`onnx-rerank download org/name`" in last_line(caught)

    files.locate("org/name")
    local_hub.requests.clear()
    assert files.locate("org/name", local_files_only=True).onnx.is_file()
    with pytest.raises(ModelNotFoundError, match="revision 'v9'"):
        files.locate("org/name", revision="v9", local_files_only=True)
    assert local_hub.requests == []


def test_a_download_is_no_silent_look_at_the_cache_when_the_network_is_off(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_hub.add("org/name", model_files())
    files.locate("org/name")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(ModelNotFoundError, match="or is to be fetched anew, and the network is off: HF_HUB_OFFLINE"):
        files.download("org/name")


def test_a_file_that_was_not_fetched_is_named_when_the_network_is_off(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files() | {"onnx/model_O2.onnx": graph(tag="O2")["model.onnx"]})
    files.locate("org/name")

    with pytest.raises(ModelNotFoundError, match=r"onnx/model_O2\.onnx of 'org/name' isn't in the cache"):
        files.locate("org/name", model_file="onnx/model_O2.onnx", local_files_only=True)


def test_hf_hub_offline_is_obeyed_by_a_fresh_process(local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.add("org/name", model_files())
    code = "from onnx_rerank_integrations.core.model import files; print(files.locate('org/name').commit)"

    variables = environment(local_hub, tmp_path / "other home")
    refused = _python(code, variables | {"HF_HUB_OFFLINE": "1"})
    assert "the network is off: HF_HUB_OFFLINE is set" in refused.stderr
    assert local_hub.requests == []

    assert _python(code, variables).returncode == 0
    local_hub.requests.clear()
    assert _python(code, variables | {"HF_HUB_OFFLINE": "1"}).returncode == 0
    assert local_hub.requests == []


def test_when_the_hub_is_down_the_default_model_names_the_three_ways_on(local_hub: LocalHub) -> None:
    local_hub.stop()

    with pytest.raises(ModelNotFoundError) as caught:
        files.locate(DEFAULT_MODEL)

    assert f"can't be fetched from {local_hub.url}" in str(caught.value)
    assert last_line(caught) == (
        "To load 'Xenova/ms-marco-MiniLM-L-6-v2': run `onnx-rerank download Xenova/ms-marco-MiniLM-L-6-v2` "
        "on a machine with network and copy its cache here, or give a folder with the files, "
        'or use model="embedded", which needs no download.'
    )


def test_is_cached_tells_without_a_request(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files("model.onnx_data"))
    assert not files.is_cached("org/name")
    files.locate("org/name")
    local_hub.requests.clear()

    assert files.is_cached("org/name")
    assert not files.is_cached("org/name", model_file="onnx/model_int8.onnx")
    assert not files.is_cached("org/name", revision="v9")
    assert not files.is_cached("org/other")
    assert local_hub.requests == []


# --- caches that another tool filled ----------------------------------------------------------------------------------


def test_a_cache_that_huggingface_hub_filled_is_taken_without_a_request(local_hub: LocalHub, cache: Path) -> None:
    commit = local_hub.add("org/name", model_files("model.onnx_data"))
    for name in model_files("model.onnx_data"):
        huggingface_hub.hf_hub_download("org/name", name)
    local_hub.requests.clear()

    found = files.locate("org/name")

    assert found.commit == commit
    assert run(found.onnx) == [5.0, 7.0, 9.0]
    assert local_hub.requests == []


def test_external_data_that_another_tool_did_not_fetch_is_fetched(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files("model.onnx_data"))
    for name in model_files():
        huggingface_hub.hf_hub_download("org/name", name)

    assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]


def test_where_another_tool_fetched_only_a_part_the_hub_is_asked_for_the_rest(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files() | {"onnx/model_int8.onnx": graph(tag="int8")["model.onnx"]})
    for name in ("onnx/model_int8.onnx", "tokenizer.json", "config.json", "tokenizer_config.json"):
        huggingface_hub.hf_hub_download("org/name", name)

    assert files.locate("org/name").onnx.name == "model.onnx", "not the int8 file only because it is there"


def test_a_part_that_suffices_is_taken_with_a_warning_when_the_hub_is_down(
    local_hub: LocalHub, caplog: pytest.LogCaptureFixture
) -> None:
    local_hub.add("org/name", model_files())
    for name in ("onnx/model.onnx", "tokenizer.json"):
        huggingface_hub.hf_hub_download("org/name", name)
    local_hub.stop()

    with caplog.at_level(logging.WARNING, logger="onnx_rerank_integrations"):
        assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]
    assert "taking what the cache holds" in caplog.text
    with pytest.raises(ModelNotFoundError, match="can't be fetched from"):
        files.download("org/name")


def test_our_files_do_not_disturb_huggingface_hubs_view_of_its_cache(local_hub: LocalHub, cache: Path) -> None:
    local_hub.add("org/name", model_files("model.onnx_data"))
    files.locate("org/name")

    seen = huggingface_hub.scan_cache_dir(cache)

    assert seen.warnings == []
    assert [repo.repo_id for repo in seen.repos] == ["org/name"]
    assert {ref for repo in seen.repos for ref in repo.refs} == {"main"}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"files": 7}', '{"files": {"a": 1}}', '{"files": {"../a": [1, null]}}']
)
def test_a_record_of_ours_that_is_broken_is_written_anew(local_hub: LocalHub, cache: Path, content: str) -> None:
    commit = local_hub.add("org/name", model_files())
    found = files.locate("org/name")
    record = cache / "models--org--name" / "onnx-rerank" / f"{commit}.json"
    whole = record.read_text()
    record.write_text(content)

    assert files.locate("org/name") == found
    assert files.download("org/name") == found
    assert record.read_text() == whole


def test_a_cache_without_room_for_our_record_serves_all_the_same(local_hub: LocalHub, cache: Path) -> None:
    local_hub.add("org/name", model_files())
    write(cache / "models--org--name", {"onnx-rerank": b"a file where our folder would be"})

    assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]


def test_a_cache_that_cannot_be_written_is_named(local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.add("org/name", model_files())
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ModelNotFoundError, match="can't be written to the cache") as caught:
        files.locate("org/name", cache_dir=tmp_path / "file" / "cache")
    assert last_line(caught).startswith("To load 'org/name', make room there or leave to write, or give another folder")


# --- verification -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["onnx/model.onnx", "onnx/model.onnx_data", "tokenizer.json"])
def test_a_file_that_arrives_corrupted_is_refused_and_leaves_no_trace(local_hub: LocalHub, name: str) -> None:
    local_hub.add("org/name", model_files("model.onnx_data"))
    local_hub.corrupt("GET", name, times=1)

    with pytest.raises(InvalidModelError, match=f"{name} of org/name arrived corrupted: its hash is ") as caught:
        files.locate("org/name")
    assert last_line(caught).startswith("To load 'org/name', try again;")
    assert not files.is_cached("org/name")

    assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]


def test_a_file_that_was_damaged_in_the_cache_is_found_and_mended_by_a_forced_download(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files())
    path = files.locate("org/name").onnx
    _flip_a_bit(path)

    with pytest.raises(InvalidModelError, match=r"model\.onnx is corrupted: its hash is .*, the hub says ") as caught:
        files.locate("org/name")
    assert last_line(caught) == (
        "To load 'org/name', replace the file; one from the hub with `onnx-rerank download org/name --force`."
    )

    assert run(files.download("org/name", force_download=True).onnx) == [5.0, 7.0, 9.0]
    assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]


def test_a_file_that_was_truncated_in_the_cache_is_found_by_its_size(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files())
    path = files.locate("org/name").onnx
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1)

    with pytest.raises(InvalidModelError, match=f"it has {size - 1} bytes, the hub says {size}"):
        files.locate("org/name")


def test_damage_in_a_cache_that_another_tool_filled_is_found_by_the_blobs_name(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files())
    for name in model_files():
        path = huggingface_hub.hf_hub_download("org/name", name)
        if name.endswith(".onnx"):
            _flip_a_bit(Path(path))

    with pytest.raises(InvalidModelError, match="is corrupted: its hash is"):
        files.locate("org/name")


def test_damage_that_leaves_size_and_time_alone_is_found_by_the_expected_sha256(local_hub: LocalHub) -> None:
    content = model_files()
    digest = hashlib.sha256(content["onnx/model.onnx"]).hexdigest()
    local_hub.add("org/name", content)
    path = files.locate("org/name", expected_sha256=digest).onnx
    before = path.stat()
    _flip_a_bit(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(InvalidModelError, match="is corrupted"):  # the time of change (ctime) can't be put back
        files.locate("org/name")
    shutil.rmtree(path.parents[3] / "onnx-rerank")  # nothing is known of the hub's hashes any more
    blob = path.resolve()
    path.unlink()
    shutil.copy2(blob, path)
    with pytest.raises(InvalidModelError, match=f"expected_sha256 says {digest}"):
        files.locate("org/name", expected_sha256=digest)


def test_a_file_is_hashed_once_and_not_on_every_load(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    local_hub.add("org/name", model_files("model.onnx_data"))
    hashed: list[str] = []
    hash_file = identity.hash_file
    for module in (identity, hub):
        monkeypatch.setattr(module, "hash_file", lambda path, kind: hashed.append(path.name) or hash_file(path, kind))

    files.locate("org/name")
    assert len(hashed) == 5, "graph, data, tokenizer and two configs"

    hashed.clear()
    files.locate("org/name")
    identity._known.clear()  # as in another process
    files.locate("org/name")
    assert hashed == []


def test_a_file_whose_length_differs_from_the_listed_one_is_refused(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files())
    local_hub.fail("GET", "/storage/", status=200)  # an empty object where the file should be

    with pytest.raises(ModelNotFoundError, match=r"can't be fetched.*Consistency check failed"):
        files.locate("org/name")


# --- who may read it --------------------------------------------------------------------------------------------------


def test_a_private_repository_needs_a_token_which_the_storage_never_sees(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_hub.add("org/name", model_files())
    local_hub.repositories["org/name"].token = "hf_secret"

    with pytest.raises(ModelNotFoundError, match="has no repository org/name, or it is private") as caught:
        files.locate("org/name")
    assert last_line(caught) == (
        "To load 'org/name', log in with a token that may read it (`hf auth login`, or the environment variable "
        "HF_TOKEN), or check the name."
    )

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]
    assert {request.authorization for request in local_hub.asked_for("/storage/")} == {None}


@pytest.mark.parametrize("token", [None, "hf_of_somebody_else"])
def test_a_gated_repository_says_where_to_accept_its_terms(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    local_hub.add("org/name", model_files())
    local_hub.repositories["org/name"].token = "hf_of_a_friend"
    local_hub.repositories["org/name"].is_gated = True
    if token:
        monkeypatch.setenv("HF_TOKEN", token)

    with pytest.raises(ModelNotFoundError, match=f"Accept the terms at {local_hub.url}/org/name") as caught:
        files.locate("org/name")
    assert "org/name is gated" in str(caught.value)
    assert "log in with a token" in last_line(caught)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_told_by_its_status(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    local_hub.add("org/name", model_files())
    local_hub.fail("/api/", status=status, x_error_message="Invalid credentials in Authorization header")
    monkeypatch.setenv("HF_TOKEN", "hf_expired")

    with pytest.raises(ModelNotFoundError, match=f"refuses org/name with status {status}: the token is") as caught:
        files.locate("org/name")
    assert "log in with a token" in last_line(caught)


def test_a_repository_that_is_not_there_suggests_near_names(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_mine")

    with pytest.raises(ModelNotFoundError, match="has no repository BAAI/bge-reranker-v2-m4") as caught:
        files.locate("BAAI/bge-reranker-v2-m4")
    assert "Did you mean 'BAAI/bge-reranker-v2-m3'" in str(caught.value)


def test_a_name_that_the_client_refuses_is_no_hub_id() -> None:
    with pytest.raises(UnknownModelError, match="'org/na--me' is no hub id") as caught:
        files.locate("org/na--me")
    assert last_line(caught).startswith("To load 'org/na--me', give a supported name")


def test_a_file_that_is_listed_and_not_there_says_so(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files())
    local_hub.fail("HEAD", "config.json", status=404, x_error_code="EntryNotFound")

    with pytest.raises(ModelNotFoundError, match=r"lists the file config\.json, and has none") as caught:
        files.locate("org/name")
    assert "To load 'org/name', try again" in last_line(caught)


def test_a_file_that_the_repository_lacks_lists_those_it_has(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files() | {"onnx/model_int8.onnx": b"..."})

    with pytest.raises(ModelNotFoundError) as caught:
        files.locate("org/name", model_file="onnx/model_O4.onnx")
    assert "has no onnx/model_O4.onnx. Its ONNX files: onnx/model.onnx, onnx/model_int8.onnx." in str(caught.value)
    assert last_line(caught) == "To load 'org/name', name one of them, such as model_file='onnx/model.onnx'."


def test_a_repository_without_onnx_files_or_tokenizer_says_which(local_hub: LocalHub) -> None:
    local_hub.add("org/torch-only", {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"..."})
    local_hub.add("org/slow-tokenizer", {"onnx/model.onnx": graph()["model.onnx"], "tokenizer.model": b"..."})

    with pytest.raises(ModelNotFoundError, match=r"'org/torch-only' holds no \.onnx file"):
        files.locate("org/torch-only")
    with pytest.raises(ModelNotFoundError, match=r"only tokenizer\.model, which transformers can convert"):
        files.locate("org/slow-tokenizer")
    assert local_hub.asked_for("GET", "/storage/") == []


# --- a bad network ----------------------------------------------------------------------------------------------------


def test_a_busy_hub_is_asked_again(local_hub: LocalHub) -> None:
    local_hub.add("org/name", model_files())
    local_hub.fail("/api/", status=503, times=2)
    local_hub.fail("HEAD", "onnx/model.onnx", status=503, times=1)

    assert run(files.locate("org/name").onnx) == [5.0, 7.0, 9.0]
    assert len(local_hub.asked_for("/api/")) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_stays_busy_is_given_up_with_the_ways_on(local_hub: LocalHub, status: int) -> None:
    local_hub.add("org/name", model_files())
    local_hub.fail("/api/", status=status)

    with pytest.raises(ModelNotFoundError, match=f"it answers with status {status}") as caught:
        files.locate("org/name")
    assert 'use model="embedded", which needs no download' in last_line(caught)
    assert len(local_hub.requests) == 4


def test_a_refused_connection_is_told_at_once(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    connect = socket.socket.connect

    def counted(self: socket.socket, address: tuple[str, int]) -> None:
        tried.append(address[1])
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", counted)
    local_hub.stop()

    with pytest.raises(ModelNotFoundError, match="can't be fetched"):
        files.locate("org/name")
    assert tried == [local_hub.port]


def test_a_hub_that_does_not_answer_is_given_up_after_the_clients_timeout(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    local_hub.add("org/name", model_files())
    local_hub.delay("/api/", seconds=60.0)

    with pytest.raises(ModelNotFoundError, match=r"can't be fetched from .*[Tt]ime"):
        files.locate("org/name")


def test_a_connection_cut_in_mid_file_is_continued_where_it_broke(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    content = model_files()
    content["onnx/model.onnx"] = graph(tag="x" * 100_000)["model.onnx"]
    local_hub.add("org/name", content)
    local_hub.cut("GET", "/storage/", "model.onnx", after=50_000)

    found = files.locate("org/name")

    assert found.onnx.read_bytes() == content["onnx/model.onnx"]
    first, second = (request.range for request in local_hub.asked_for("GET", "/storage/"))
    assert first is None
    assert second is not None
    assert 40_000 < int(second.removeprefix("bytes=").rstrip("-")) <= 50_000


def test_two_processes_at_once_both_get_the_whole_model(local_hub: LocalHub, tmp_path: Path) -> None:
    content = model_files("model.onnx_data")
    content["onnx/model.onnx"] = graph("model.onnx_data", tag="x" * 1_000_000)["model.onnx"]
    commit = local_hub.add("org/name", content)
    local_hub.delay("/storage/", seconds=0.5)
    variables = environment(local_hub, tmp_path / "shared home")
    code = (
        "import hashlib; from onnx_rerank_integrations.core.model import files; found = files.locate('org/name');"
        "print(found.commit, hashlib.sha256(found.onnx.read_bytes()).hexdigest(), end='')"
    )

    processes = [_start_python(code, variables) for _ in range(2)]
    outputs = [process.communicate(timeout=250) for process in processes]

    expected = f"{commit} {hashlib.sha256(content['onnx/model.onnx']).hexdigest()}"
    assert outputs == [(expected, ""), (expected, "")]
    snapshot = tmp_path / "shared home" / "hub" / "models--org--name" / "snapshots" / commit
    assert run(snapshot / "onnx" / "model.onnx") == [5.0, 7.0, 9.0]
    assert not list(snapshot.parent.parent.rglob("*.tmp"))
    assert not list(snapshot.parent.parent.rglob("*.incomplete"))


def test_nothing_is_printed_off_a_terminal_not_even_when_a_connection_breaks(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    local_hub.add("org/name", model_files())
    local_hub.cut("GET", "/storage/", after=10)
    code = "from onnx_rerank_integrations.core.model import files; files.locate('org/name')"

    done = _python(code, environment(local_hub, tmp_path / "other home"))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(local_hub.asked_for("GET", "/storage/")) == 2


@pytest.mark.skipif(
    "tqdm_class" not in inspect.signature(huggingface_hub.hf_hub_download).parameters,
    reason="this huggingface_hub takes no bar of ours",
)
def test_progress_is_shown_off_a_terminal_where_asked_for(local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.add("org/name", model_files())
    code = "from onnx_rerank_integrations.core.model import files; files.locate('org/name', show_progress=True)"

    done = _python(code, environment(local_hub, tmp_path / "other home"))

    assert done.returncode == 0
    assert done.stdout == ""
    assert "100%" in done.stderr


def test_huggingface_hubs_own_messages_are_left_alone_outside_of_our_calls(
    local_hub: LocalHub, capfd: pytest.CaptureFixture[str]
) -> None:
    local_hub.add("org/name", model_files())
    files.locate("org/name")
    logger = logging.getLogger("huggingface_hub")
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        files.download("org/name")
        logger.warning("said by somebody else")
    finally:
        logger.removeHandler(handler)

    assert heard == ["said by somebody else"]


def _flip_a_bit(path: Path) -> None:
    """Changes one bit of a file in place; its time of change moves on, as that of a damaged file would."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    before = path.stat()
    path.resolve().write_bytes(data)
    os.utime(path, (before.st_atime, before.st_mtime + 60))


def _start_python(code: str, variables: dict[str, str]) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=inherited | variables,
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _python(code: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    process = _start_python(code, variables)
    stdout, stderr = process.communicate(timeout=250)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

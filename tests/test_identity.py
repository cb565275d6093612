"""What a model's content is, and whom copies of it are trusted from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from onnx_rerank_integrations import InvalidModelError, ModelNotFoundError, TextCrossEncoder, UnknownModelError
from onnx_rerank_integrations.core.graphs import copies
from onnx_rerank_integrations.core.graphs.optimized import optimized_path
from onnx_rerank_integrations.core.model import files, identity
from onnx_rerank_integrations.core.model.storage import read_json, why_untrusted, write_atomically
from tests.onnx_files import graph, model_files, write

PARITY = Path(__file__).parent / "parity"
DOCUMENTS = ["Bees live on honey.", "Soup is warm."]
needs_owners = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
needs_root = pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root gives files away")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This package's own cache; no warning was given yet."""
    monkeypatch.setattr(copies, "_warned", set())
    monkeypatch.setenv(identity.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are really read and hashed."""
    names: list[str] = []
    hash_file = identity.hash_file
    monkeypatch.setattr(
        identity, "hash_file", lambda path, kind="sha256": names.append(path.name) or hash_file(path, kind)
    )
    return names


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PARITY / "bert", tmp_path / "model"))


def forget_process() -> None:
    identity._known.clear()


# --- the content of a file --------------------------------------------------------------------------------------------


def test_a_file_is_hashed_once_for_all_processes(tmp_path: Path, hashed: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"bees")

    assert identity.sha256(tmp_path / "file") == hashlib.sha256(b"bees").hexdigest()
    assert identity.sha256(tmp_path / "file") == hashlib.sha256(b"bees").hexdigest()
    forget_process()
    assert identity.sha256(tmp_path / "file") == hashlib.sha256(b"bees").hexdigest()
    assert hashed == ["file"]


def test_a_process_remembers_by_itself_whatever_becomes_of_the_cache(
    tmp_path: Path, cache: Path, hashed: list[str]
) -> None:
    (tmp_path / "file").write_bytes(b"bees")
    identity.sha256(tmp_path / "file")
    (memo,) = (cache / "digests").iterdir()
    assert memo.stat().st_mode & 0o777 == 0o600
    shutil.rmtree(cache)

    assert identity.sha256(tmp_path / "file") == hashlib.sha256(b"bees").hexdigest()
    assert hashed == ["file"]


@pytest.mark.parametrize("way", ["written", "replaced", "written with the old time put back"])
def test_a_file_that_changes_is_hashed_again_even_at_once(tmp_path: Path, way: str) -> None:
    file = tmp_path / "file"
    for number in range(30):
        content = b"%04d" % number
        if way == "replaced":
            write_atomically(file, content)
        else:
            file.write_bytes(content)
        if way.endswith("back"):
            os.utime(file, ns=(10**18, 10**18))
        assert identity.sha256(file) == hashlib.sha256(content).hexdigest(), "no two changes share a stamp"


@pytest.mark.parametrize(("age", "waits"), [(-5.0, False), (0.0, True), (2**-6, True), (2**-5, False), (5.0, False)])
def test_only_a_file_that_changed_this_very_tick_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, waits: bool
) -> None:
    changed, now = 2**30, 2**30 + age
    slept: list[float] = []

    def time() -> float:
        nonlocal now
        now += 2**-10
        return now - 2**-10

    monkeypatch.setattr(identity, "TICK", 2**-5)
    monkeypatch.setattr(identity, "stamp", lambda path: (4, changed * 10**9, changed * 10**9, 7))
    monkeypatch.setattr(identity.time, "time", time)
    monkeypatch.setattr(identity.time, "sleep", slept.append)

    assert identity._settled(tmp_path) == (4, changed * 10**9, changed * 10**9, 7)
    assert bool(slept) is waits
    assert all(0 < seconds < identity.TICK for seconds in slept)


def test_git_names_small_files_by_another_hash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bees\n")

    found = identity.hash_like("0" * 40, tmp_path / "file")

    assert found == hashlib.sha1(b"blob 5\0bees\n").hexdigest()


def test_gits_hash_is_taken_where_sha1_is_forbidden_for_security(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha1 = hashlib.sha1

    def strict(data: bytes = b"", *, usedforsecurity: bool = True) -> object:
        if usedforsecurity:
            raise ValueError("disabled for FIPS")
        return sha1(data)

    (tmp_path / "file").write_bytes(b"bees\n")
    monkeypatch.setattr(identity.hashlib, "sha1", strict)

    assert identity.hash_file(tmp_path / "file", "git") == sha1(b"blob 5\0bees\n").hexdigest()


@needs_owners
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_what_others_could_have_written_is_not_believed(
    tmp_path: Path, cache: Path, hashed: list[str], mode: int
) -> None:
    (tmp_path / "file").write_bytes(b"bees")
    identity.sha256(tmp_path / "file")
    (memo,) = (cache / "digests").iterdir()
    memo.write_text(json.dumps(json.loads(memo.read_text()) | {"digest": "f" * 64}))
    forget_process()
    assert identity.sha256(tmp_path / "file") == "f" * 64, "the forged record is read at all"

    (cache / "digests").chmod(mode)
    forget_process()
    assert identity.sha256(tmp_path / "file") == hashlib.sha256(b"bees").hexdigest()


def test_the_memory_of_digests_has_a_lid(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "MOST_REMEMBERED", 5)
    forget_process()
    known, written = [], []
    for number in range(12):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
        identity.sha256(tmp_path / f"{number}")
        known.append(len(identity._known))
        written.append(len(list((cache / "digests").iterdir())))

    assert known == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]
    assert written == [1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0]


def test_a_file_that_is_written_to_meanwhile_is_hashed_and_not_remembered(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"bees")
    hash_file = identity.hash_file

    def hash_and_write(path: Path, kind: str = "sha256") -> str:
        digest = hash_file(path, kind)
        file.write_bytes(b"soup")
        return digest

    monkeypatch.setattr(identity, "hash_file", hash_and_write)
    assert identity.sha256(file) == hashlib.sha256(b"bees").hexdigest()
    assert not (cache / "digests").exists()
    assert identity.sha256(file) == hashlib.sha256(b"soup").hexdigest()


def test_what_was_hashed_on_its_way_is_not_hashed_in_its_place(tmp_path: Path, cache: Path, hashed: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"bees")
    digest = hashlib.sha256(b"bees").hexdigest()

    identity.learn(tmp_path / "file", digest)
    assert identity.sha256(tmp_path / "file") == digest
    forget_process()
    assert identity.sha256(tmp_path / "file") == digest
    assert hashed == []
    assert len(list((cache / "digests").iterdir())) == 1

    elsewhere = tmp_path / "elsewhere"
    identity.learn(tmp_path / "file", digest, elsewhere)
    forget_process()
    assert identity.sha256(tmp_path / "file", elsewhere) == digest
    assert hashed == []
    assert len(list((elsewhere / "digests").iterdir())) == 1


def test_our_cache_lies_beside_the_hubs_unless_it_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(identity.CACHE_VARIABLE, "~/moved")
    assert identity.own_cache() == tmp_path / "moved"
    assert identity.own_cache("~/given") == tmp_path / "given" / "onnx-rerank"

    monkeypatch.delenv(identity.CACHE_VARIABLE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface" / "hub"))
    assert identity.own_cache() == tmp_path / "huggingface" / "onnx-rerank"


def test_the_folder_of_a_user_who_isnt_there_is_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = "~nobody-of-that-name/x"
    monkeypatch.setenv(identity.CACHE_VARIABLE, place)

    assert identity.own_cache() == tmp_path / place
    assert identity.own_cache(place) == tmp_path / place / "onnx-rerank"
    assert len(TextCrossEncoder("lexical", cache_dir=place, score_cache=f"{place}/scores").rerank("q", ["a"])) == 1
    assert (tmp_path / place / "scores").is_file()
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        TextCrossEncoder(place + "/model")
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        TextCrossEncoder("lexical", specific_model_path=place + "/model")


def test_a_name_too_long_for_any_file_is_no_model() -> None:
    with pytest.raises(UnknownModelError, match="is no supported model"):
        TextCrossEncoder("x" * 5000)
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        TextCrossEncoder("./" + "x" * 5000 + "/y")


def test_a_digests_kind_shows_in_its_length() -> None:
    assert [identity.kind_of("0" * length) for length in (40, 64)] == ["git", "sha256"]


def test_a_cache_that_cannot_be_written_costs_no_answer(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file where the folder would be")
    (tmp_path / "file").write_bytes(b"bees")

    assert identity.sha256(tmp_path / "file") == hashlib.sha256(b"bees").hexdigest()


def test_several_files_are_hashed_as_sha256sum_lists_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {"a.onnx": b"a", "parts/b.data": b"b"})

    found = identity.content([folder / "a.onnx", folder / "parts/b.data"], folder)

    listed = subprocess.run("sha256sum a.onnx parts/b.data | sha256sum", shell=True, cwd=folder, capture_output=True)
    assert listed.stdout.decode().split()[0] == found


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "a/../../secret"])
def test_a_graphs_files_are_in_its_folder(tmp_path: Path, name: str) -> None:
    content = graph("b.data", "a.data")
    folder = write(tmp_path / "model", content)
    assert identity.graph_files(folder / "model.onnx") == [
        folder / "model.onnx",
        folder / "a.data",
        folder / "b.data",
    ]

    write(folder, {"model.onnx": graph(name)["model.onnx"]})
    with pytest.raises(ValueError, match="outside the model's folder"):
        identity.graph_files(folder / "model.onnx")


# --- what a pin covers ------------------------------------------------------------------------------------------------


def test_a_pin_of_a_model_with_external_data_covers_the_data(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", model_files("model.onnx_data"))
    graph = hashlib.sha256((folder / "onnx/model.onnx").read_bytes()).hexdigest()

    with pytest.raises(InvalidModelError, match="which is that of the graph without the weights beside it") as caught:
        files.locate(folder, expected_sha256=graph)
    pin = str(caught.value).split("has the sha256 ")[1][:64]
    assert "`sha256sum onnx/model.onnx onnx/model.onnx_data`" in str(caught.value)

    assert files.locate(folder, expected_sha256=pin).onnx.is_file()
    data = folder / "onnx/model.onnx_data"
    data.write_bytes(bytes(len(data.read_bytes())))
    with pytest.raises(InvalidModelError, match=f"expected_sha256 says {pin}"):
        files.locate(folder, expected_sha256=pin)


def test_a_pin_of_a_model_with_a_head_beside_its_graph_covers_the_head(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(PARITY / "ettin", tmp_path / "ettin"))
    with pytest.raises(InvalidModelError) as caught:
        files.locate(folder, expected_sha256="0" * 64)
    pin = str(caught.value).split("has the sha256 ")[1][:64]
    files.locate(folder, expected_sha256=pin)

    weights = folder / "4_Dense" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0x80
    weights.write_bytes(content)

    with pytest.raises(InvalidModelError, match=f"expected_sha256 says {pin}"):
        files.locate(folder, expected_sha256=pin)


# --- whom a copy is trusted from --------------------------------------------------------------------------------------


def negate(weights: Path) -> None:
    """Other weights of the same size."""
    content = weights.read_bytes()
    whole = len(content) // 4 * 4
    weights.write_bytes((-np.frombuffer(content[:whole], dtype=np.float32)).tobytes() + content[whole:])


def forge(entry: Path) -> None:
    """A copy that gives other scores, and a record that says it is right."""
    (weights,) = entry.glob("weights-*.bin")
    negate(weights)
    record = json.loads((entry / "record.json").read_text())
    record["files"][weights.name] = [identity.stamp(weights), hashlib.sha256(weights.read_bytes()).hexdigest()]
    (entry / "record.json").write_text(json.dumps(record))


def entry_of(cache: Path) -> Path:
    (entry,) = (cache / "first-token").iterdir()
    return entry


def test_the_forgery_of_these_tests_would_change_scores(model: Path, cache: Path) -> None:
    honest = TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS)
    forge(entry_of(cache))

    assert TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS) != pytest.approx(honest, abs=0.1)


@needs_root
@pytest.mark.parametrize("given_away", ["everything", "the cache's folder", "the weights", "the record"])
def test_a_copy_of_somebody_else_is_not_used(
    model: Path, cache: Path, given_away: str, caplog: pytest.LogCaptureFixture
) -> None:
    honest = TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS)
    entry = entry_of(cache)
    forge(entry)
    (weights,) = entry.glob("weights-*.bin")
    parts = {
        "everything": [cache, *cache.rglob("*")],
        "the cache's folder": [cache],
        "the weights": [weights],
        "the record": [entry / "record.json"],
    }[given_away]
    for part in parts:
        os.chown(part, 65534, 65534)

    for _ in range(3):
        assert TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS) == pytest.approx(honest, abs=1e-5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "belongs to user 65534" in caplog.text


@needs_owners
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_copy_that_others_may_write_to_is_not_used(
    model: Path, cache: Path, mode: int, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    honest = TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS)
    forge(entry_of(cache))
    [entry_of(cache), entry_of(cache).parent, cache][level].chmod(mode)

    assert TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS) == pytest.approx(honest, abs=1e-5)
    assert "others may write to" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@needs_owners
def test_a_link_planted_in_the_cache_is_not_followed(model: Path, cache: Path, tmp_path: Path) -> None:
    honest = TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS)
    entry = entry_of(cache)
    forge(entry)
    moved = entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(moved)
    before = sorted(path.name for path in moved.iterdir())

    assert TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS) == pytest.approx(honest, abs=1e-5)
    assert sorted(path.name for path in moved.iterdir()) == before


@needs_owners
def test_a_folder_that_everybody_may_write_to_is_trusted_only_if_it_is_sticky(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "mine"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o777)
    assert f"everybody may write to {folder.parent}" in str(why_untrusted(folder, folder))

    folder.parent.chmod(0o1777)
    assert why_untrusted(folder, folder) is None


def test_a_copy_of_another_model_in_its_place_is_made_again(model: Path, cache: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(PARITY / "bert", tmp_path / "other"))
    expected = TextCrossEncoder(other, optimize="off").rerank("what is a bee?", DOCUMENTS)
    optimized_path(model / "model.onnx")
    first = entry_of(cache)
    graph = bytearray((other / "model.onnx").read_bytes())
    graph += b"\x32\x00"  # an empty doc string: another content, the same scores
    (other / "model.onnx").write_bytes(graph)
    forge(first)
    second = cache / "first-token" / identity.sha256(other / "model.onnx")
    shutil.copytree(first, second)

    assert TextCrossEncoder(other).rerank("what is a bee?", DOCUMENTS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("file", ["model.onnx", "weights-*.bin"])
def test_a_byte_damaged_behind_the_stamps_back_leads_to_a_right_copy_with_one_warning(
    model: Path, cache: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    honest = TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS)
    (damaged,) = entry_of(cache).glob(file)
    status, content = damaged.stat(), bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0x40
    damaged.write_bytes(content)
    os.utime(damaged, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS) == pytest.approx(honest, abs=1e-5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "isn't what was written there" in caplog.text


def test_new_folders_are_for_this_user_alone(model: Path, cache: Path) -> None:
    TextCrossEncoder(model)

    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
    assert all(not path.stat().st_mode & 0o022 for path in cache.rglob("record.json"))


def test_a_copy_that_cannot_be_opened_leaves_the_model_as_it_is_with_one_warning(
    model: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    honest = TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS)
    entry = entry_of(cache)
    (entry / "model.onnx").write_bytes(b"no graph")
    record = json.loads((entry / "record.json").read_text())
    record["files"]["model.onnx"] = [identity.stamp(entry / "model.onnx"), hashlib.sha256(b"no graph").hexdigest()]
    (entry / "record.json").write_text(json.dumps(record))

    assert TextCrossEncoder(model).rerank("what is a bee?", DOCUMENTS) == pytest.approx(honest, abs=1e-5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "can't be opened, the model runs as it is" in caplog.text


def test_a_copy_that_is_cleared_away_under_an_open_encoder_costs_no_answer(model: Path, cache: Path) -> None:
    encoder = TextCrossEncoder(model)
    honest = encoder.rerank("what is a bee?", DOCUMENTS)
    for copy in copies.copies(cache):
        copies.remove(copy)
    assert not any(cache.rglob("model.onnx"))

    encoder.load()._session.renew()  # as in a forked child, which opens its graph anew

    assert encoder.rerank("what is a bee?", DOCUMENTS) == pytest.approx(honest, abs=1e-5)


def test_a_graph_that_was_replaced_under_an_open_encoder_is_not_mixed_with_the_old_model(model: Path) -> None:
    encoder = TextCrossEncoder(model, optimize="off")
    honest = encoder.rerank("what is a bee?", DOCUMENTS)
    graph = model / "model.onnx"
    content, status = graph.read_bytes(), graph.stat()

    os.link(graph, graph.with_name("a hard link"))
    encoder.load()._session.renew()
    assert encoder.rerank("what is a bee?", DOCUMENTS) == honest

    write_atomically(graph, content)
    os.utime(graph, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    encoder.load()._session.renew()
    with pytest.raises(InvalidModelError, match="was replaced while an encoder had it open"):
        encoder.rerank("what is a bee?", DOCUMENTS)


def test_scores_are_not_remembered_under_the_name_of_a_model_that_came_after(model: Path, tmp_path: Path) -> None:
    where = tmp_path / "scores.sqlite"
    encoder = TextCrossEncoder(model, score_cache=where)
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 12}))
    old = encoder.rerank("what is a bee?", ["Bees live on honey. " * 30])

    new = TextCrossEncoder(model).rerank("what is a bee?", ["Bees live on honey. " * 30])

    assert old != new
    assert TextCrossEncoder(model, score_cache=where).rerank("what is a bee?", ["Bees live on honey. " * 30]) == new


# --- the lid ----------------------------------------------------------------------------------------------------------


def made_copy(path: Path, tag: int) -> Path | None:
    graph = (PARITY / "bert" / "model.onnx").read_bytes() + b"\x32\x01" + bytes([48 + tag])
    path.write_bytes(graph)
    return optimized_path(path)


@pytest.mark.parametrize("bound", ["number", "size"])
def test_copies_that_were_used_longest_ago_make_room(
    tmp_path: Path, cache: Path, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [made_copy(tmp_path / f"{tag}.onnx", tag) for tag in range(2)]
    assert all(made)
    for age, copy in zip((100, 200), made, strict=True):
        os.utime(copy.with_name("record.json"), (age, age))  # type: ignore[union-attr]
    if bound == "number":
        monkeypatch.setattr(copies, "MOST_COPIES", 2)
    else:
        monkeypatch.setattr(copies, "MOST_BYTES", sum(copy.size for copy in copies.copies(cache)) + 1000)
    assert optimized_path(tmp_path / "0.onnx") == made[0]  # used again, and so no longer the oldest

    third = made_copy(tmp_path / "2.onnx", 2)

    assert {copy.folder for copy in copies.copies(cache)} == {made[0].parent, third.parent}  # type: ignore[union-attr]


def test_clearing_removes_what_this_package_made_and_nothing_else(tmp_path: Path, cache: Path) -> None:
    copy = made_copy(tmp_path / "0.onnx", 0)
    assert copy is not None
    note = copy.with_name("notes.txt")
    note.write_text("mine")
    (cache / "first-token" / "photos").mkdir()
    (cache / "first-token" / "photos" / "record.json").write_text("{}")

    for one in copies.copies(cache):
        copies.remove(one)

    assert not copy.exists()
    assert note.read_text() == "mine"
    assert (cache / "first-token" / "photos" / "record.json").exists()


def test_copies_lie_below_cache_dir_where_one_is_given(model: Path, cache: Path, tmp_path: Path) -> None:
    TextCrossEncoder(model, cache_dir=tmp_path / "mine")

    assert len(copies.copies(tmp_path / "mine" / "onnx-rerank")) == 1
    assert copies.copies(cache) == []


# --- files of our own -------------------------------------------------------------------------------------------------


def test_json_is_read_up_to_a_limit_and_never_raises_anything_foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(b"[" * 200_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_json(file)
    monkeypatch.setattr("onnx_rerank_integrations.core.model.storage.MOST_JSON_BYTES", 10)
    file.write_bytes(b'"0123456789"')
    with pytest.raises(ValueError, match="more than 10 bytes"):
        read_json(file)


def test_writing_replaces_a_link_and_leaves_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "record.json").symlink_to(tmp_path / "precious.txt")

    write_atomically(tmp_path / "record.json", "{}")

    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert read_json(tmp_path / "record.json") == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious.txt", "record.json"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_lists_and_clears_copies(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer", reason="needs the extra [cli]")
    from onnx_rerank_integrations.extras.cli.app import app

    copy = made_copy(tmp_path / "mine.onnx", 0)
    assert copy is not None

    app(["cache", "--json"], standalone_mode=False)
    row = json.loads(capsys.readouterr().out)
    assert (row["model"], row["kind"], row["folder"]) == ("mine.onnx", "first-token", str(copy.parent))

    app(["cache", "--clear"], standalone_mode=False)
    printed = capsys.readouterr()
    assert "mine.onnx" in printed.out
    assert "1 copies" in printed.err
    assert not copy.parent.exists()

    app(["cache"], standalone_mode=False)
    assert capsys.readouterr().out == ""

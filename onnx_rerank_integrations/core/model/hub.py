"""Repositories of the Hugging Face hub, in huggingface_hub's own cache.

Files lie in the cache's own layout, so other tools share them. What this package adds lies in
``models--org--name/onnx-rerank/`` there: ``COMMIT.json``, the list of the repository's files; and ``COMMIT/``, graphs
with their external data side by side.

* Cache first: where all that is needed is there, nothing is asked of the network. A branch stays at the commit it was
  fetched at until it is refreshed.
* Else one request lists the repository at the revision, and each missing file is fetched at that commit.
* A file is hashed once, right after its download (or when first met in a cache that another tool filled), and again
  only when its stamp differs (`identity`).
* Nothing that a server says becomes a path unlooked at: commits and hashes are hexadecimal, file names lead nowhere but
  down, ETags aren't used. A file gets its place in the cache only after its hash was found right. Links that lead out
  of the cache's folder for the model aren't followed by anything that is written, and nothing is removed that this
  package didn't make.

huggingface_hub 0.30 to 2.4 is supported. It is imported late: it takes 0.4 s.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, TypeGuard, TypeVar
from urllib.parse import quote

from onnx_rerank_integrations.core.errors import InvalidModelError, ModelNotFoundError, UnknownModelError
from onnx_rerank_integrations.core.model import transfer
from onnx_rerank_integrations.core.model.advice import how_to_log_in, how_to_mend, how_to_name, near_names, ways_on
from onnx_rerank_integrations.core.model.external_data import is_accepted, link_side_by_side
from onnx_rerank_integrations.core.model.identity import OUR_FOLDER, hash_file, hash_like, kind_of, learn, own_cache
from onnx_rerank_integrations.core.model.locks import locked
from onnx_rerank_integrations.core.model.storage import (
    expanded,
    is_inside,
    make_folder,
    read_bytes,
    read_record,
    write_atomically,
)
from onnx_rerank_integrations.core.model.variants import GRAPH_FOLDERS

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

Files = dict[str, tuple[int | None, str | None]]
"""Size in bytes and hash (sha256, or git's sha1 of small files) of every file; each None where the hub doesn't say."""

MOST_LIST_BYTES = 64 << 20
"""Of the list of a repository's files; 300 bytes are usual for each."""

MOST_UNLISTED_BYTES = 1 << 30
"""Of a file whose size neither the list nor the answer states."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_OUR_ENTRY = re.compile(r"[0-9a-f]{40}(\.json)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAUSES = (0.5, 1.0, 2.0)  # seconds between attempts
_PATIENCE = 15.0  # seconds, after which a failed request isn't tried again


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """How to look for a repository.

    Attributes:
        cache_dir: None is where huggingface_hub keeps its cache.
        revision: Branch, tag or commit.
        offline: Never touch the network; ``HF_HUB_OFFLINE`` does the same.
        refresh: Ask the hub where the revision is now, whatever the cache holds.
        force_download: Fetch files that are there already.
        look_only: Neither hash nor write anything.
        show_progress: Show bars off a terminal too.
    """

    cache_dir: Path | None = None
    revision: str = "main"
    offline: bool = False
    refresh: bool = False
    force_download: bool = False
    look_only: bool = False
    show_progress: bool = False


class HubRepository:
    """A repository of the hub at one commit, in the cache as far as it was fetched.

    Attributes:
        model: The name the user asked for, for messages.
        repo_id: ``org/name``.
        commit: 40 hexadecimal digits.
        root: The folder of its files in the cache.
    """

    def __init__(self, model: str, repo_id: str, storage: Path, commit: str, options: HubOptions) -> None:
        self.model = model
        self.repo_id = repo_id
        self.commit = commit
        self.root = storage / "snapshots" / commit
        self._storage = storage
        self._options = options
        self._why_offline = _why_offline(options)
        self._record_path = storage / OUR_FOLDER / f"{commit}.json"
        self._files = _known_files(read_record(self._record_path))
        self._has_news = False

    @property
    def names(self) -> frozenset[str]:
        """The paths of the repository's files; of those in the cache, where the hub was never asked."""
        if self._files is not None:
            return frozenset(self._files)
        return frozenset(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

    @property
    def graph_folders(self) -> tuple[str, ...]:
        return GRAPH_FOLDERS

    @property
    def is_listed(self) -> bool:
        """Whether `names` is the whole repository."""
        return self._files is not None

    @property
    def holds_a_model(self) -> bool:
        """Whether the cache holds a graph and a tokenizer, enough to try."""
        names = [path.name for path in self.root.rglob("*") if path.is_file()]
        return "tokenizer.json" in names and any(name.endswith(".onnx") for name in names)

    def fetch(self, name: str) -> Path:
        """The file, from the cache or the hub, its size and hash checked.

        Raises:
            ModelNotFoundError: It isn't in the cache and can't be fetched.
            InvalidModelError: It isn't the file that the hub has.
        """
        path = self.root / name
        if path.is_file() and not self._options.force_download:
            self._check(name, path)
            return path
        if self._why_offline:
            raise ModelNotFoundError(
                f"{name} of {self.model!r} isn't in the cache {self._storage.parent}, "
                f"and the network is off: {self._why_offline}.\n{ways_on(self.model)}"
            )
        if self._files is not None and name not in self._files:
            raise self._no_such_file(name)
        with _hub_errors(self.model, self.repo_id, self._options.revision, name):
            self._download(name, path)
        return path

    def side_by_side(self, graph: str, data: list[str]) -> Path:
        """The graph where onnxruntime finds its external data and accepts it."""
        path = self.root / graph
        if self._options.look_only or is_accepted(path, [self.root / name for name in data]):
            return path
        return link_side_by_side(self.model, self.root, graph, data, self._storage / OUR_FOLDER / self.commit)

    def settle(self) -> None:
        """Remembers what was learnt: which commit the revision is at, and what it holds."""
        if not self._has_news or self._options.look_only:
            return
        try:
            if is_inside(self._record_path.parent, self._storage):
                write_atomically(self._record_path, json.dumps({"files": self._files}, indent=1))
                self._drop_deleted_commits()
            if not _COMMIT.fullmatch(self._options.revision) and not self._why_offline:
                ref = self._storage / "refs" / self._options.revision
                if is_inside(ref.parent, self._storage):
                    write_atomically(ref, self.commit)
        except OSError as error:
            _log.debug("%s: the cache can't be written, it serves all the same: %s", self.model, error)

    def set_files(self, files: Files) -> None:
        """Takes what the hub says it holds."""
        self._files = files
        self._has_news = True

    def _known(self, name: str) -> tuple[int | None, str | None]:
        return (self._files or {}).get(name, (None, None))

    def _check(self, name: str, path: Path) -> None:
        """Compares a file of the cache with its known size and hash."""
        if self._options.look_only:
            return
        size, digest = self._known(name)
        if problem := self._problem(path, size, digest or _blob_name(path)):
            raise InvalidModelError(f"{path} is corrupted: {problem}.\n{how_to_mend(self.model)}")

    def _problem(self, path: Path, size: int | None, digest: str | None, *, is_fresh: bool = False) -> str | None:
        found_size = path.stat().st_size
        if size is not None and size != found_size:
            return f"it has {found_size} bytes, the hub says {size}"
        if digest is None:
            return None
        found = hash_file(path, kind_of(digest)) if is_fresh else hash_like(digest, path, self._memo)
        if found != digest:
            return f"its hash is {found}, the hub says {digest}"
        return None

    @property
    def _memo(self) -> Path:
        return own_cache(self._options.cache_dir)

    def _download(self, name: str, path: Path) -> None:
        """Brings a file into the cache, its size and hash checked before it gets its place."""
        size, digest = self._known(name)
        blobs = self._storage / "blobs"
        for folder in (self._storage, blobs, self.root, path.parent, self._lock_path(digest).parent):
            if not is_inside(folder, self._storage.parent):
                raise PermissionError(errno.EPERM, "a link there leads out of the cache", str(folder))
            make_folder(folder)
        with locked(self._lock_path(digest)) as is_alone:
            blob = blobs / digest if digest else None
            if blob is None or self._options.force_download or not blob.is_file() or self._problem(blob, size, digest):
                incomplete = blobs / f"{digest if digest and is_alone else uuid.uuid4().hex}.incomplete"
                try:
                    self._transfer(name, incomplete, size, digest)
                    digest = digest or hash_file(incomplete)
                    blob = blobs / digest
                    os.replace(incomplete, blob)
                    learn(blob, digest, self._memo)
                except (InvalidModelError, OSError):
                    incomplete.unlink(missing_ok=True)
                    raise
            _link(path, blob)

    def _transfer(self, name: str, incomplete: Path, size: int | None, digest: str | None) -> None:
        from huggingface_hub import constants

        url = f"{constants.ENDPOINT.rstrip('/')}/{self.repo_id}/resolve/{self.commit}/{quote(name)}"
        _log.debug("%s: downloading %s at %s", self.model, name, self.commit)
        is_resumed = _stands_alone(incomplete) and incomplete.stat().st_size > 0
        with _progress(name, size, shown=self._options.show_progress) as advance:
            content = _patiently(lambda: transfer.located(url, seconds_of_silence=constants.HF_HUB_ETAG_TIMEOUT))
            _patiently(lambda: _continue(content, incomplete, size, advance))
        problem = self._problem(incomplete, size, digest, is_fresh=True)
        if problem and is_resumed:  # what an earlier process left was no beginning of this file
            incomplete.unlink()
            self._transfer(name, incomplete, size, digest)
        elif problem:
            raise InvalidModelError(
                f"{name} of {self.repo_id} arrived corrupted: {problem}. It was removed from the cache again.\n"
                f"To load {self.model!r}, try again; if it keeps arriving so, ask who runs the proxy or mirror between."
            )

    def _lock_path(self, digest: str | None) -> Path:
        return self._storage.parent / ".locks" / self._storage.name / f"{digest or self.commit}.lock"

    def _no_such_file(self, name: str) -> ModelNotFoundError:
        graphs = sorted(known for known in self.names if known.endswith(".onnx"))
        return ModelNotFoundError(
            f"{self.repo_id} has no file {name} at revision {self._options.revision!r}. "
            f"Its ONNX files: {', '.join(graphs) or 'none'}.\n"
            f"To load {self.model!r}, name another file with model_file=, or another revision."
        )

    def _drop_deleted_commits(self) -> None:
        """Drops our files of commits that were deleted from the cache: the links would keep their blobs on the disk."""
        for path in (self._storage / OUR_FOLDER).iterdir():
            commit = path.name.removesuffix(".json")
            if not _OUR_ENTRY.fullmatch(path.name) or (self._storage / "snapshots" / commit).is_dir():
                continue
            if path.suffix == ".json":
                path.unlink(missing_ok=True)
            elif not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)


def open_repository(
    model: str, repo_id: str, options: HubOptions, is_complete: Callable[[HubRepository], bool]
) -> HubRepository:
    """The repository at the commit that the revision is at: in the cache, else on the hub.

    Args:
        model: The name the user asked for, for messages.
        repo_id: ``org/name``.
        options: How to look for it.
        is_complete: Asked where another tool filled the cache: whether it surely holds all that is needed.

    Raises:
        UnknownModelError: The hub refuses the form of the name.
        ModelNotFoundError: It isn't in the cache, and not to be had from the hub.
    """
    from huggingface_hub import constants

    cache = expanded(constants.HF_HUB_CACHE if options.cache_dir is None else options.cache_dir).absolute()
    storage = cache / f"models--{repo_id.replace('/', '--')}"
    commit = _cached_commit(storage, options.revision)
    cached = HubRepository(model, repo_id, storage, commit, options) if commit else None
    why_offline = _why_offline(options)
    if cached and not options.refresh and (cached.is_listed or is_complete(cached)):
        return cached
    if why_offline:
        if cached and cached.holds_a_model and not options.refresh:
            return cached
        raise ModelNotFoundError(
            f"{model!r} (revision {options.revision!r}) isn't in the cache {cache}, or is to be fetched anew, "
            f"and the network is off: {why_offline}.\n{ways_on(model)}"
        )
    try:
        commit, files = _list_files(model, repo_id, options.revision)
    except ModelNotFoundError as error:
        if options.refresh or cached is None or not cached.holds_a_model:
            raise
        _log.warning("%s: taking what the cache holds, the hub can't be asked for the rest: %s", model, error)
        return cached
    repository = HubRepository(model, repo_id, storage, commit, options)
    repository.set_files(files)
    return repository


def _why_offline(options: HubOptions) -> str | None:
    from huggingface_hub import constants

    if options.offline:
        return "local_files_only=True"
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else None


def _cached_commit(storage: Path, revision: str) -> str | None:
    """The commit a revision was at when it was last fetched, None where it never was."""
    if _COMMIT.fullmatch(revision):
        return revision if (storage / "snapshots" / revision).is_dir() else None
    try:
        commit = read_bytes(storage / "refs" / revision, most=1000).decode("utf-8").strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _list_files(model: str, repo_id: str, revision: str) -> tuple[str, Files]:
    """The commit that a revision is at, and size and hash of every file, in one request."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # exported, not declared so

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UnknownModelError(f"{repo_id!r} is no hub id: {error}\n{how_to_name(model)}") from error
    endpoint = constants.ENDPOINT.rstrip("/")
    url = f"{endpoint}/api/models/{repo_id}/revision/{quote(revision, safe='')}?blobs=True"

    def ask() -> bytes:
        with transfer.get(url, seconds_of_silence=constants.HF_HUB_ETAG_TIMEOUT) as answer:
            return transfer.read(answer, MOST_LIST_BYTES)

    with _hub_errors(model, repo_id, revision):
        return _parsed_list(_patiently(ask))


def _parsed_list(body: bytes) -> tuple[str, Files]:
    """The commit and the files in the hub's answer, as far as they can be trusted to name paths."""
    try:
        answer = json.loads(body)
        commit, siblings = answer["sha"], answer["siblings"]
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit) or not isinstance(siblings, list):
            raise ValueError("no commit, or no list")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        begins = body[:60].decode("utf-8", "replace")
        raise transfer.TransferError(
            f"it answers with something else than a list of files ({begins!r}): "
            "a proxy or a login page may stand between"
        ) from error
    files: Files = {}
    for entry in siblings:
        name = entry.get("rfilename") if isinstance(entry, dict) else None
        if is_safe_name(name):
            lfs = entry.get("lfs")
            digest = lfs.get("sha256") if isinstance(lfs, dict) else entry.get("blobId")
            files[name] = _known_file(entry.get("size"), digest)
        else:
            _log.debug("a name that is no path in a repository is left out: %.200r", name)
    return commit, files


def is_safe_name(name: object) -> TypeGuard[str]:
    """Whether a file name of a server leads nowhere but down, on any system."""
    if not isinstance(name, str) or not 0 < len(name) <= 1024 or not name.isprintable() or "\\" in name:
        return False
    path = PurePosixPath(name)
    return (
        str(path) == name
        and not path.is_absolute()
        and not PureWindowsPath(name).anchor
        and not (os.name == "nt" and PureWindowsPath(name).is_reserved())
        and ":" not in name
        and all(part != ".." and len(part.encode("utf-8", "surrogatepass")) <= 255 for part in path.parts)
    )


def _known_files(record: Mapping[str, Any]) -> Files | None:
    """The files that a record of ours names, None where it is none."""
    files = record.get("files")
    if not isinstance(files, dict):
        return None
    try:
        known = {name: _known_file(size, digest) for name, (size, digest) in files.items()}
    except (TypeError, ValueError):
        return None
    return known if all(map(is_safe_name, known)) else None


def _known_file(size: object, digest: object) -> tuple[int | None, str | None]:
    is_digest = isinstance(digest, str) and (_COMMIT.fullmatch(digest) or _SHA256.fullmatch(digest))
    return (
        size if type(size) is int and 0 <= size < 1 << 62 else None,
        digest if isinstance(digest, str) and is_digest else None,
    )


def _continue(url: str, incomplete: Path, size: int | None, advance: Callable[[int], Any]) -> None:
    """Fetches what is missing of a file."""
    from huggingface_hub import constants

    with _opened_alone(incomplete) as file:
        start = file.seek(0, os.SEEK_END)
        if size is not None and start >= size:
            start = file.seek(0)
        if size is not None and size - start > shutil.disk_usage(incomplete.parent).free:
            raise OSError(errno.ENOSPC, f"{size - start:,} bytes are to come, and the disk hasn't as many left")
        with transfer.get(url, seconds_of_silence=constants.HF_HUB_DOWNLOAD_TIMEOUT, start=start) as answer:
            if answer.status != 206 or not (answer.headers.get("content-range") or "").startswith(f"bytes {start}-"):
                start = file.seek(0)
            file.truncate()
            stated = None if answer.length is None else start + answer.length
            expected = stated if size is None else size
            most = start + MOST_UNLISTED_BYTES if expected is None else expected
            received = start
            for chunk in answer.chunks:
                received += len(chunk)
                if received > most:
                    raise transfer.TransferError(f"it sends more than the {most:,} bytes that the file has")
                file.write(chunk)
                advance(len(chunk))
        if expected is not None and received != expected:
            raise transfer.TransferError(
                f"Consistency check failed: the answer ended after {received:,} of {expected:,} bytes",
                may_pass=True,
            )


def _stands_alone(path: Path) -> bool:
    """Whether a file that an earlier process left may be continued: a plain one of this user's, in no other place."""
    try:
        status = path.lstat()
    except OSError:
        return False
    is_ours = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and is_ours


def _opened_alone(path: Path) -> IO[bytes]:
    """The file, to be continued; never one that a link leads to."""
    if not _stands_alone(path):
        path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b")


def _link(path: Path, blob: Path) -> None:
    """Puts a link to the blob in the file's place; the blob itself, where the system has no links."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        os.symlink(os.path.relpath(blob, path.parent), temporary)
    except (OSError, NotImplementedError):
        shutil.copyfile(blob, temporary)
    os.replace(temporary, path)


@contextlib.contextmanager
def _progress(name: str, size: int | None, *, shown: bool) -> Iterator[Callable[[int], Any]]:
    """A bar on a terminal, elsewhere where it is asked for; huggingface_hub's own settings turn it off."""
    from huggingface_hub.utils import are_progress_bars_disabled  # type: ignore[attr-defined]  # exported, not so declared
    from tqdm.auto import tqdm

    if are_progress_bars_disabled():
        yield lambda _: None
        return
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=name, disable=False if shown else None)
    with bar:
        yield bar.update


def _patiently(call: Callable[[], _Result]) -> _Result:
    """Calls again, after a pause, while the hub says it is busy or a connection breaks off in mid-file."""
    started = time.monotonic()
    for pause in _PAUSES:
        try:
            return call()
        except transfer.TransferError as error:
            if not error.may_pass or time.monotonic() - started > _PATIENCE:
                raise
            _log.debug("trying again in %.1f s: %s", pause, error)
        time.sleep(pause)
    return call()


@contextlib.contextmanager
def _hub_errors(model: str, repo_id: str, revision: str, name: str | None = None) -> Iterator[None]:
    """Turns what goes wrong on the way to a file into our errors, with what to do about each."""
    endpoint = _endpoint()
    try:
        yield
    except transfer.RefusedError as error:
        if error.code == "GatedRepo":
            raise ModelNotFoundError(
                f"{repo_id} is gated: its owner asks for consent, and the hub for the token of an account that gave it."
                f" Accept the terms at {endpoint}/{repo_id}.\n{how_to_log_in(model)}"
            ) from error
        if error.code == "RevisionNotFound":
            raise ModelNotFoundError(
                f"{repo_id} has no revision {revision!r}.\n"
                f"To load {model!r}, give a branch, a tag or a commit that it has, or none for 'main'."
            ) from error
        if error.code == "EntryNotFound" or (name is not None and error.status == 404 and not error.code):
            raise ModelNotFoundError(
                f"{repo_id} lists the file {name}, and has none at revision {revision!r}.\n"
                f"To load {model!r}, try again, name another file with model_file=, or another revision."
            ) from error
        wrong_token = error.reason == "Invalid credentials in Authorization header"
        if error.code == "RepoNotFound" or (error.status == 401 and not error.code and not wrong_token):
            raise ModelNotFoundError(
                f"The hub {endpoint} has no repository {repo_id}, or it is private and the token is missing."
                f"{near_names(model)}\n{how_to_log_in(model).removesuffix('.')}, or check the name."
            ) from error
        if error.status in (401, 403):
            raise ModelNotFoundError(
                f"The hub refuses {repo_id} with status {error.status}: the token is missing, invalid, or may not "
                f"read it.\n{how_to_log_in(model)}"
            ) from error
        raise _unreachable(model, error) from error
    except transfer.TransferError as error:
        raise _unreachable(model, error) from error
    except OSError as error:
        if isinstance(error, ModelNotFoundError):
            raise
        raise ModelNotFoundError(
            f"The files of {model!r} can't be written to the cache: {error}.\n"
            f"To load {model!r}, make room there or leave to write, or give another folder with cache_dir=."
        ) from error


def _endpoint() -> str:
    from huggingface_hub import constants

    return transfer.without_password(constants.ENDPOINT.rstrip("/"))


def _unreachable(model: str, cause: transfer.TransferError) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{model!r} isn't, or not all, in the cache and can't be fetched from {_endpoint()}: {cause}\n{ways_on(model)}"
    )


def _blob_name(path: Path) -> str | None:
    """The sha256 that the cache names a large file's blob after, None for others.

    Only the first link is followed: a shared store names its files by another hash. Names of 40 digits aren't trusted,
    as proxies make up such ETags.
    """
    if not path.is_symlink():
        return None
    name = PureWindowsPath(os.readlink(path)).name
    return name if _SHA256.fullmatch(name) else None

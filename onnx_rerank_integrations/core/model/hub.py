"""Repositories of the Hugging Face hub, in huggingface_hub's own cache. The only file that touches the network.

Files lie in the cache's own layout, so other tools share them. What this package adds lies in
``models--org--name/onnx-rerank/`` there: ``COMMIT.json``, the list of the repository's files and which of them were
hashed; and ``COMMIT/``, graphs with their external data side by side.

* Cache first: where all that is needed is there, nothing is asked of the network. A branch stays at the commit it was
  fetched at until it is refreshed.
* Else one request lists the repository at the revision, and each missing file is fetched at that commit.
* A file is hashed once, right after its download (or when first met in a cache that another tool filled), and again
  only when its size or time of change differs. sha256 takes 2 s per GB (2.2 s for 1.07 GB out of the page cache,
  measured on two cores of an AMD EPYC): too much for every load of a large model.

huggingface_hub 0.30 to 2.4 is supported. It is imported late: it takes 0.4 s.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

from onnx_rerank_integrations.core.errors import InvalidModelError, ModelNotFoundError, UnknownModelError
from onnx_rerank_integrations.core.model.advice import how_to_log_in, how_to_mend, how_to_name, near_names, ways_on
from onnx_rerank_integrations.core.model.external_data import is_accepted, link_side_by_side

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

OUR_FOLDER = "onnx-rerank"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BUSY = frozenset({429, 500, 502, 503, 504})
_CUT = frozenset({"ChunkedEncodingError", "ReadError", "RemoteProtocolError"})  # requests; httpx, httpx2
_PAUSES = (0.5, 1.0, 2.0)  # seconds between attempts
_PATIENCE = 15.0  # seconds; huggingface_hub from 1.0 on has waited longer by itself when it gives up
_CACHE_ERRNOS = frozenset({errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR})


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


@dataclass
class _Record:
    """What is known of a repository at one commit, kept between processes.

    Attributes:
        files: Size in bytes and hash (sha256, or git's sha1 of small files) of every file of the repository; each None
            where the hub doesn't say. None as a whole where the hub was never asked.
        hashed: Size and time of change, in seconds, of files whose hash was found right.
    """

    files: dict[str, tuple[int | None, str | None]] | None = None
    hashed: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _Record:
        """The record in `path`; an empty one where it is missing or unreadable."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            files = stored["files"]
            return cls(
                files=None if files is None else {name: (size, digest) for name, (size, digest) in files.items()},
                hashed={name: (size, changed) for name, (size, changed) in stored["hashed"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def write(self, path: Path) -> None:
        _write_atomically(path, json.dumps({"files": self.files, "hashed": self.hashed}, indent=1))


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
        self._record = _Record.read(self._record_path)
        self._has_news = False

    @property
    def names(self) -> frozenset[str]:
        """The paths of the repository's files; of those in the cache, where the hub was never asked."""
        if self._record.files is not None:
            return frozenset(self._record.files)
        return frozenset(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

    @property
    def is_listed(self) -> bool:
        """Whether `names` is the whole repository."""
        return self._record.files is not None

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
            self._check(name, path, is_fresh=False)
            return path
        if self._why_offline:
            raise ModelNotFoundError(
                f"{name} of {self.model!r} isn't in the cache {self._storage.parent}, "
                f"and the network is off: {self._why_offline}.\n{ways_on(self.model)}"
            )
        if self._record.files is not None and name not in self._record.files:
            raise self._no_such_file(name)
        path = _download(self, name)
        self._check(name, path, is_fresh=True)
        return path

    def side_by_side(self, graph: str, data: list[str]) -> Path:
        """The graph where onnxruntime finds its external data and accepts it."""
        path = self.root / graph
        if self._options.look_only or is_accepted(path, [self.root / name for name in data]):
            return path
        return link_side_by_side(self.model, self.root, graph, data, self._storage / OUR_FOLDER / self.commit)

    def settle(self) -> None:
        """Remembers what was learnt: which commit the revision is at, what it holds, what was hashed."""
        if not self._has_news or self._options.look_only:
            return
        try:
            self._record.write(self._record_path)
            if not _COMMIT.fullmatch(self._options.revision) and not self._why_offline:
                _write_atomically(self._storage / "refs" / self._options.revision, self.commit)
            self._drop_deleted_commits()
        except OSError as error:
            _log.debug("%s: the cache can't be written, it serves all the same: %s", self.model, error)

    def set_files(self, files: dict[str, tuple[int | None, str | None]]) -> None:
        """Takes what the hub says it holds."""
        self._record.files = files
        self._has_news = True

    def _check(self, name: str, path: Path, *, is_fresh: bool) -> None:
        """Compares a file with its known size and hash, the hash once per file and change."""
        if self._options.look_only:
            return
        stat = path.stat()
        stamp = (stat.st_size, int(stat.st_mtime))
        if not is_fresh and self._record.hashed.get(name) == stamp:
            return
        size, digest = (self._record.files or {}).get(name, (None, None))
        digest = digest or _blob_name(path)
        problem = None
        if size is not None and size != stat.st_size:
            problem = f"it has {stat.st_size} bytes, the hub says {size}"
        elif digest is not None and (found := hash_like(digest, path)) != digest:
            problem = f"its hash is {found}, the hub says {digest}"
        if problem is None:
            self._record.hashed[name] = stamp
            self._has_news = True
        elif is_fresh:
            _discard(path)
            raise InvalidModelError(
                f"{name} of {self.repo_id} arrived corrupted: {problem}. It was removed from the cache again.\n"
                f"To load {self.model!r}, try again; if it keeps arriving so, ask who runs the proxy or mirror between."
            )
        else:
            raise InvalidModelError(f"{path} is corrupted: {problem}.\n{how_to_mend(self.model)}")

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
            if not (self._storage / "snapshots" / path.name.removesuffix(".json")).is_dir():
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


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

    cache = Path(constants.HF_HUB_CACHE if options.cache_dir is None else options.cache_dir).expanduser()
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
    except _UnreachableError as error:
        if options.refresh or cached is None or not cached.holds_a_model:
            raise
        _log.warning("%s: taking what the cache holds, the hub can't be asked for the rest: %s", model, error)
        return cached
    repository = HubRepository(model, repo_id, storage, commit, options)
    repository.set_files(files)
    return repository


def hash_like(digest: str, path: Path) -> str:
    """A file's sha256, or, where `digest` is as short as git's, the sha1 that git names its content by."""
    with path.open("rb") as file:
        if len(digest) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        git = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := file.read(1 << 20):
            git.update(chunk)
        return git.hexdigest()


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
        commit = (storage / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _list_files(model: str, repo_id: str, revision: str) -> tuple[str, dict[str, tuple[int | None, str | None]]]:
    """The commit that a revision is at, and size and hash of every file, in one request."""
    from huggingface_hub import HfApi, constants

    def ask() -> Any:
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        return HfApi().model_info(repo_id, revision=revision, files_metadata=True, timeout=timeout)

    with _quiet_hub(), _hub_errors(model, repo_id, revision):
        info = _patiently(ask)
    return info.sha, {
        file.rfilename: (file.size, file.lfs.sha256 if file.lfs else file.blob_id) for file in info.siblings or ()
    }


def _download(repository: HubRepository, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    options = repository._options
    bar: dict[str, Any] = {}
    if options.show_progress and "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        bar["tqdm_class"] = _visible_bar()

    def fetch() -> Path:
        path = hf_hub_download(
            repository.repo_id,
            name,
            revision=repository.commit,
            cache_dir=repository._storage.parent,
            force_download=options.force_download,
            **bar,
        )
        return Path(path)

    _log.debug("%s: downloading %s at %s", repository.model, name, repository.commit)
    with _quiet_hub(), _hub_errors(repository.model, repository.repo_id, options.revision, name):
        return _patiently(fetch)


def _patiently(call: Callable[[], _Result]) -> _Result:
    """Calls again, after a pause, while the hub says it is busy or a connection breaks off in mid-file."""
    started = time.monotonic()
    for pause in _PAUSES:
        try:
            return call()
        except _library_errors() as error:
            if not _is_passing(error) or time.monotonic() - started > _PATIENCE:
                raise
            _log.debug("trying again in %.1f s: %s", pause, error)
        time.sleep(pause)
    return call()


def _is_passing(error: BaseException) -> bool:
    """Whether the same request may well succeed in a second. A refused connection may not: it fails at once."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):  # its cause is what happened when the hub was asked for the file
        return error.__cause__ is not None and _is_passing(error.__cause__)
    if _status(error) in _BUSY:
        return True
    # A connection that was cut in mid-file: huggingface_hub keeps what has arrived, and continues there.
    return type(error).__name__ in _CUT or "Consistency check failed" in str(error)


def _library_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises over its HTTP libraries: requests below 1.0, httpx from 1.0, httpx2 from 2.0.

    `HTTPError` of huggingface_hub.errors is the base class of the library in use, an OSError in requests only. hf_xet
    raises RuntimeError.
    """
    from huggingface_hub import errors

    names = ("HTTPError", "HfHubHTTPError", "EntryNotFoundError", "FileMetadataError", "XetDownloadError")
    return (OSError, RuntimeError, *(getattr(errors, name) for name in names if hasattr(errors, name)))


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


@contextlib.contextmanager
def _hub_errors(model: str, repo_id: str, revision: str, name: str | None = None) -> Iterator[None]:
    """Turns the errors of huggingface_hub and its HTTP library into ours, with what to do about each."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.HFValidationError as error:
        raise UnknownModelError(f"{repo_id!r} is no hub id: {error}\n{how_to_name(model)}") from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(model, error.__cause__ or error) from error
    except errors.GatedRepoError as error:
        raise ModelNotFoundError(
            f"{repo_id} is gated: its owner asks for consent, and the hub for the token of an account that gave it. "
            f"Accept the terms at {constants.ENDPOINT}/{repo_id}.\n{how_to_log_in(model)}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"The hub {constants.ENDPOINT} has no repository {repo_id}, or it is private and the token is missing."
            f"{near_names(model)}\n{how_to_log_in(model).removesuffix('.')}, or check the name."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(
            f"{repo_id} has no revision {revision!r}.\n"
            f"To load {model!r}, give a branch, a tag or a commit that it has, or none for 'main'."
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelNotFoundError(
            f"{repo_id} lists the file {name}, and has none at revision {revision!r}.\n"
            f"To load {model!r}, try again, name another file with model_file=, or another revision."
        ) from error
    except _library_errors() as error:
        if _status(error) in (401, 403):
            raise ModelNotFoundError(
                f"The hub refuses {repo_id} with status {_status(error)}: the token is missing, invalid, or may not "
                f"read it.\n{how_to_log_in(model)}"
            ) from error
        if isinstance(error, OSError) and error.errno in _CACHE_ERRNOS:
            raise ModelNotFoundError(
                f"The files of {model!r} can't be written to the cache: {error}.\n"
                f"To load {model!r}, make room there or leave to write, or give another folder with cache_dir=."
            ) from error
        raise _unreachable(model, error) from error


class _UnreachableError(ModelNotFoundError):
    """No answer from the hub, or none that it could give on a good day."""


def _unreachable(model: str, cause: BaseException) -> _UnreachableError:
    from huggingface_hub import constants

    status = _status(cause)
    first_line = next(iter(str(cause).strip().splitlines()), "")
    reason = f"it answers with status {status}" if status else f"{type(cause).__name__}: {first_line}"
    return _UnreachableError(
        f"{model!r} isn't, or not all, in the cache and can't be fetched from {constants.ENDPOINT}: {reason}\n"
        f"{ways_on(model)}"
    )


class _HubFilter(logging.Filter):
    """Sends huggingface_hub's own messages to our debug log while this thread is inside `_quiet_hub`."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(self.thread, "is_quiet", False):
            return True
        _log.debug("huggingface_hub: %s", record.getMessage())
        return False


_hub_filter = _HubFilter()


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Off a terminal, keeps huggingface_hub's warnings out of stderr. Its bars hide there by themselves."""
    if sys.stderr is not None and sys.stderr.isatty():
        yield
        return
    for handler in logging.getLogger("huggingface_hub").handlers:
        if _hub_filter not in handler.filters:
            handler.addFilter(_hub_filter)
    _hub_filter.thread.is_quiet = True
    try:
        yield
    finally:
        _hub_filter.thread.is_quiet = False


def _visible_bar() -> type:
    """A progress bar that is shown off a terminal too, for huggingface_hub from 1.0 on."""
    from tqdm.auto import tqdm

    class VisibleBar(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *args: Any, name: str | None = None, **options: Any) -> None:
            super().__init__(*args, **(options | {"disable": False}))

    return VisibleBar


def _blob_name(path: Path) -> str | None:
    """The sha256 that the cache names a large file's blob after, None for others.

    Only the first link is followed: a shared store names its files by another hash. Names of 40 digits aren't trusted,
    as proxies make up such ETags.
    """
    if not path.is_symlink():
        return None
    name = PureWindowsPath(os.readlink(path)).name
    return name if _SHA256.fullmatch(name) else None


def _discard(path: Path) -> None:
    """Removes a file of the cache together with its blob."""
    if path.is_symlink():
        (path.parent / os.readlink(path)).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

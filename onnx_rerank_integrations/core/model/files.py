"""A model's name or folder -> its files on this machine.

Only ``.onnx`` files, the external data they name, ``.json`` files and the safetensors of modular heads are looked at or
fetched: no pickle, no ``.py``, nothing that is run. What the hub needs is in `hub`; a folder needs nothing.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from onnx_rerank_integrations.core.errors import (
    InputTypeError,
    InputValueError,
    InvalidModelError,
    ModelError,
    ModelNotFoundError,
    UnknownModelError,
)
from onnx_rerank_integrations.core.model import registry, variants
from onnx_rerank_integrations.core.model.advice import how_to_mend, how_to_name, near_names
from onnx_rerank_integrations.core.model.external_data import inner_path, is_accepted, link_side_by_side
from onnx_rerank_integrations.core.model.hub import HubOptions, HubRepository, open_repository
from onnx_rerank_integrations.core.model.identity import OUR_FOLDER, content, own_cache, sha256
from onnx_rerank_integrations.core.model.storage import expanded, read_bytes, read_json
from onnx_rerank_integrations.core.onnx_format import describe_broken, external_data
from onnx_rerank_integrations.core.types import ModelDescription, ModelFiles

__all__ = ["anchored", "describe_broken", "download", "is_cached", "locate"]

_log = logging.getLogger(__name__)

_PACKAGED_MODELS = Path(__file__).parents[2] / "models"
_OPTIONAL_FILES = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "chat_template.jinja",
)
_JSON_OBJECTS = frozenset(_OPTIONAL_FILES) - {"modules.json", "chat_template.jinja"}
_OTHER_TOKENIZERS = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "vocab.txt",
    "vocab.json",
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def locate(
    model_name: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    specific_model_path: str | os.PathLike[str] | None = None,
    model_file: str | None = None,
    expected_sha256: str | None = None,
    show_progress: bool = False,
) -> ModelFiles:
    """The files of a model: from a folder, else from the cache, else from the hub.

    Args:
        model_name: ``"embedded"``, ``"lexical"``, a name of the registry, an existing folder, or a hub id
            (``org/name``), in this order; ``./org/name`` is always a folder.
        cache_dir: huggingface_hub's cache; None is where that keeps it.
        revision: Branch, tag or commit on the hub; None is ``main``.
        local_files_only: Never touch the network (``HF_HUB_OFFLINE=1`` does the same).
        specific_model_path: A folder to read instead of the hub; the registry's facts of `model_name` still count.
        model_file: ``"auto"`` (or None), ``"fp32"``, ``"int8"``, or a path; see `variants.candidates`.
        expected_sha256: Of the ONNX file, 64 hexadecimal digits. Of a model with weights beside it (external data, the
            safetensors of a head), of what ``sha256sum`` prints of all of them; the error names that.
        show_progress: Show the download's progress bars off a terminal too; on one huggingface_hub shows them anyway.

    Raises:
        UnknownModelError: The name is no supported model, no hub id and no folder.
        ModelNotFoundError: A file is missing, or can't be fetched.
        InvalidModelError: A file is broken, or its checksum differs.
        InputValueError: `model_file` leads out of the model, or an argument is malformed.
    """
    options = HubOptions(
        cache_dir=_path("cache_dir", cache_dir),
        revision=_checked_revision(revision),
        offline=local_files_only,
        show_progress=show_progress,
    )
    return _locate(model_name, options, specific_model_path, model_file, expected_sha256)


def download(
    model_name: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    model_file: str | None = None,
    expected_sha256: str | None = None,
    show_progress: bool = False,
    force_download: bool = False,
) -> ModelFiles:
    """Brings a model of the hub into the cache, at the commit the revision has now.

    Unlike `locate` it always asks the hub, so a branch that has moved is fetched anew. `force_download` fetches every
    file again, which mends a corrupted cache. Raises as `locate` does.
    """
    options = HubOptions(
        cache_dir=_path("cache_dir", cache_dir),
        revision=_checked_revision(revision),
        refresh=True,
        force_download=force_download,
        show_progress=show_progress,
    )
    return _locate(model_name, options, None, model_file, expected_sha256)


def is_cached(
    model_name: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    model_file: str | None = None,
) -> bool:
    """Whether `locate` would need no network. Looks at names and headers only, nothing is hashed."""
    options = HubOptions(
        cache_dir=_path("cache_dir", cache_dir), revision=_checked_revision(revision), offline=True, look_only=True
    )
    try:
        _locate(model_name, options, None, model_file, None)
    except ModelError:
        return False
    return True


class _Source(Protocol):
    """Where a model's files are: a folder, or a repository of the hub at one commit."""

    @property
    def model(self) -> str:
        """The name the user asked for."""

    @property
    def root(self) -> Path:
        """The folder that file paths are relative to."""

    @property
    def commit(self) -> str | None:
        """The commit on the hub, None for a folder."""

    @property
    def names(self) -> frozenset[str]:
        """The paths of its files, ``/`` between folders."""

    @property
    def graph_folders(self) -> tuple[str, ...]:
        """Where graphs of the usual names lie, best first."""

    def fetch(self, name: str) -> Path:
        """The file on this machine, checked as far as its size or hash is known."""

    def side_by_side(self, graph: str, data: list[str]) -> Path:
        """The graph where onnxruntime finds its external data and accepts it."""

    def settle(self) -> None:
        """Remembers what was learnt, for the next load."""


def _locate(
    model_name: str | os.PathLike[str],
    options: HubOptions,
    specific_model_path: str | os.PathLike[str] | None,
    model_file: str | None,
    expected_sha256: str | None,
) -> ModelFiles:
    model = _text("model_name", model_name)
    expected_sha256 = _checked_sha256(expected_sha256)
    description = registry.find(model)
    preferred = description.model_file if description else None
    first_choice = variants.candidates(model_file, preferred=preferred)[0]
    source: _Source
    folder = _folder_of(model, description, _path("specific_model_path", specific_model_path))
    if folder is not None:
        source = _folder_source(model, folder, description, options.revision)
    else:
        repo_id = _hub_id_of(model, description)
        source = open_repository(model, repo_id, options, lambda cached: _is_complete(cached, first_choice))
    files = _collect(source, description, model_file)
    files = replace(files, cache_dir=options.cache_dir)
    if expected_sha256 is not None:
        _check_sha256(files, expected_sha256)
    source.settle()
    _log.debug("%s: %s, commit %s", model, files.onnx, files.commit)
    return files


def _collect(source: _Source, description: ModelDescription | None, model_file: str | None) -> ModelFiles:
    """The recipe. Small files go first, so that what is missing shows before a large download."""
    model, names = source.model, source.names
    preferred = description.model_file if description else None
    graph = variants.choose(model, names, model_file, preferred=preferred, folders=source.graph_folders)
    tokenizer = source.fetch(_tokenizer_name(model, names, graph))
    _refuse_broken(model, tokenizer)
    optional = {name: source.fetch(place) for name in _OPTIONAL_FILES if (place := nearest(name, graph, names))}
    contents = {name: _read_json_object(model, path) for name, path in optional.items() if name in _JSON_OBJECTS}
    sentence_transformers = contents.get("config_sentence_transformers.json", {})
    modules = _fetch_modules(source, optional.get("modules.json"))
    data = _fetch_graph(source, graph)
    additional = description.additional_files if description and description.model_file == graph else ()
    more_data = [source.fetch(name) for name in additional if name in names and name not in data]
    graph_files = [source.root / name for name in (graph, *data)]
    return ModelFiles(
        name=model,
        folder=optional["modules.json"].parent if "modules.json" in optional else source.root,
        onnx=source.side_by_side(graph, data) if data else source.root / graph,
        tokenizer=tokenizer,
        config=with_activation(contents.get("config.json", {}), sentence_transformers),
        tokenizer_config=with_special_tokens(
            contents.get("tokenizer_config.json", {}),
            contents.get("special_tokens_map.json", {}),
            _read_text(optional.get("chat_template.jinja")),
        ),
        sentence_transformers={**contents.get("sentence_bert_config.json", {}), **sentence_transformers},
        description=description,
        license=description.license if description else None,
        commit=source.commit,
        files=(*graph_files, *more_data, tokenizer, *optional.values(), *modules),
    )


def nearest(name: str, graph: str, names: Collection[str]) -> str | None:
    """Where a file of a model lies: beside the graph, one level up, or in the root; None where it is in none."""
    beside = PurePosixPath(graph).parent
    for folder in dict.fromkeys((beside, beside.parent, PurePosixPath())):
        if str(folder / name) in names:
            return str(folder / name)
    return None


def with_activation(config: Mapping[str, Any], sentence_transformers: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json with the activation that newer sentence-transformers save in a file of their own."""
    if not sentence_transformers.get("activation_fn"):
        return config
    older = config.get("sentence_transformers")
    older = older if isinstance(older, dict) else {}
    return {**config, "sentence_transformers": {**older, "activation_fn": sentence_transformers["activation_fn"]}}


def with_special_tokens(
    config: Mapping[str, Any], special_tokens: Mapping[str, Any], chat_template: str | None
) -> Mapping[str, Any]:
    """tokenizer_config.json with what lies beside it, as transformers reads them: files of their own come first.

    Where the config lists its added tokens, the older special_tokens_map.json isn't read.
    """
    older = {} if "added_tokens_decoder" in config else special_tokens
    template = {} if chat_template is None else {"chat_template": chat_template}
    return {**config, **older, **template}


def _fetch_graph(source: _Source, graph: str) -> list[str]:
    """Fetches the graph and the external data it names; gives the latter's paths."""
    path = source.fetch(graph)
    _refuse_broken(source.model, path)
    try:
        needed = external_data(path)
    except ValueError as error:
        raise InvalidModelError(f"{path} isn't a sound ONNX model: {error}.\n{how_to_mend(source.model)}") from error
    sizes = {inner_path(source.model, graph, location): size for location, size in needed.items()}
    for name, size in sizes.items():
        _check_data_size(source.model, source.fetch(name), size)
    return list(sizes)


def _fetch_modules(source: _Source, modules_file: Path | None) -> list[Path]:
    """Fetches the folders of a modular head (sentence-transformers' modules.json): their .json and .safetensors."""
    if modules_file is None:
        return []
    modules = _read_json(source.model, modules_file)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise InvalidModelError(f"{modules_file} isn't a list of modules.\n{how_to_mend(source.model)}")
    root = PurePosixPath(modules_file.relative_to(source.root).parent.as_posix())
    folders = {str(root / str(module.get("path", ""))) for module in modules} - {str(root)}
    return [
        source.fetch(name)
        for name in sorted(source.names)
        if str(PurePosixPath(name).parent) in folders and name.endswith((".json", ".safetensors"))
    ]


def _is_complete(cached: HubRepository, graph: str) -> bool:
    """Whether a cache that another tool filled surely holds all that decides how a model is read.

    `graph` is the first choice only: a second choice could be wrong where the repository holds the first. External data
    is fetched by its name where it lacks, so it needs no list.
    """
    return {graph, "tokenizer.json", "config.json", "tokenizer_config.json"} <= cached.names


@dataclass(frozen=True)
class _Folder:
    """A folder that the user keeps, or a hub snapshot that was named by its path.

    Attributes:
        model: The name the user asked for.
        root: The folder.
        inside: The folder in it that the user named, where configs and tokenizer lie one level above; else empty.
    """

    model: str
    root: Path
    inside: str = ""
    commit: str | None = None

    @property
    def names(self) -> frozenset[str]:
        patterns = ("*.onnx", "*/*.onnx", "*/*/*.onnx", "*.json", "*/*.json", "*.jinja", "*/*.jinja", "*/*.safetensors")
        found = (path for pattern in (*patterns, *_OTHER_TOKENIZERS) for path in self.root.glob(pattern))
        names = (path.relative_to(self.root).as_posix() for path in found)
        return frozenset(
            name
            for name in names
            if not is_left_behind(name) and (not self.inside or not name.endswith(".onnx") or self._is_inside(name))
        )

    def _is_inside(self, name: str) -> bool:
        return name.startswith(f"{self.inside}/")

    @property
    def graph_folders(self) -> tuple[str, ...]:
        return (f"{self.inside}/",) if self.inside else variants.GRAPH_FOLDERS

    def fetch(self, name: str) -> Path:
        path = self.root / name
        if not path.is_file():
            raise ModelNotFoundError(f"{path} is missing.\nTo load {self.model!r}, copy the file to that place.")
        return path

    def side_by_side(self, graph: str, data: list[str]) -> Path:
        path = self.root / graph
        if is_accepted(path, [self.root / name for name in data]):
            return path
        storage = self.root.parent.parent
        if self.root.parent.name == "snapshots" and storage.name.startswith("models--"):
            return link_side_by_side(self.model, self.root, graph, data, storage / OUR_FOLDER / self.root.name)
        raise InvalidModelError(
            f"The external data of {path} is a link that leads out of its folder: {', '.join(data)}. onnxruntime "
            f"refuses that.\nTo load {self.model!r}, put the data itself beside the graph."
        )

    def settle(self) -> None:
        """Nothing to remember."""


def _folder_of(model: str, description: ModelDescription | None, specific_model_path: Path | None) -> Path | None:
    """The folder that a name stands for, None where it stands for something on the hub."""
    if specific_model_path is not None:
        folder = expanded(specific_model_path)
        if not folder.is_dir():
            raise ModelNotFoundError(_no_folder(model, folder, "specific_model_path"))
        return folder.absolute()
    if packaged := registry.PACKAGED.get(model.lower()):
        folder = _PACKAGED_MODELS / packaged
        if not folder.is_dir():
            raise ModelNotFoundError(
                f"The {packaged} model is missing from this installation: there is no {folder}.\n"
                f"To load {model!r}, install the package again from its wheel."
            )
        return folder
    if description is not None or not model.strip():
        return None
    path = expanded(model)
    if os.path.isdir(path):  # unlike pathlib's, of a name that is too long too
        return path.absolute()  # its graph may be opened once more, wherever the process has gone meanwhile
    if os.path.isfile(path):
        graph = f" and model_file={path.name!r}" if path.suffix == ".onnx" else f": {str(path.parent)!r}"
        raise InputValueError(
            f"{model!r} is a file, and a model is a folder: its tokenizer and configuration are needed too.\n"
            f"To load {model!r}, give its folder as the model{graph}."
        )
    if _looks_like_a_path(model):
        raise ModelNotFoundError(_no_folder(model, path, "model_name"))
    return None


def _folder_source(model: str, folder: Path, description: ModelDescription | None, revision: str) -> _Folder:
    """The folder that holds the whole model, where the user named one near it.

    That is a snapshot in the hub's cache, where the cache or a repository's folder in it was named; and the folder
    above the one of the graphs, where tokenizer and configs lie there.
    """
    repo_id = description.sources.get("hf", model) if description is not None else model
    if (snapshot := snapshot_in(folder, repo_id, revision)) is not None:
        return _Folder(model, snapshot)
    source = _Folder(model, folder)
    names = [PurePosixPath(name) for name in source.names]
    above = folder.resolve().parent
    has_graph = any(name.suffix == ".onnx" for name in names)
    if has_graph and not any(name.name == "tokenizer.json" for name in names) and (above / "tokenizer.json").is_file():
        return _Folder(model, above, inside=folder.resolve().name)
    return source


def snapshot_in(folder: Path, repo_id: str, revision: str) -> Path | None:
    """The snapshot that a folder of the hub's cache stands for; None where it is no such folder.

    Raises:
        ModelNotFoundError: It stands for several, or for none that is here.
    """
    repositories = sorted(path for path in folder.glob("models--*") if (path / "snapshots").is_dir())
    if repositories:
        wanted = f"models--{repo_id.replace('/', '--')}"
        chosen = next((path for path in repositories if path.name == wanted), None)
        chosen = chosen or (repositories[0] if len(repositories) == 1 and not _HUB_ID.fullmatch(repo_id) else None)
        if chosen is None:
            held = ", ".join(path.name.removeprefix("models--").replace("--", "/") for path in repositories)
            raise ModelNotFoundError(
                f"{folder} is a cache of the hub, and holds {held}.\n"
                f"To load one of them, give its name as the model, and cache_dir={str(folder)!r}."
            )
        folder = chosen
    if folder.name != "snapshots" and not folder.name.startswith("models--"):
        return None
    snapshots = folder if folder.name == "snapshots" else folder / "snapshots"
    held_commits = sorted(path for path in snapshots.glob("*") if path.is_dir()) if snapshots.is_dir() else []
    if not held_commits:
        return None
    ref = snapshots.parent / "refs" / revision
    commit = read_bytes(ref).decode("utf-8", "replace").strip() if ref.is_file() else revision
    for path in held_commits:
        if path.name == commit or len(held_commits) == 1:
            return path
    raise ModelNotFoundError(
        f"{folder} holds {len(held_commits)} commits of a model, and none is marked as {revision!r}: "
        f"{', '.join(path.name for path in held_commits)}.\n"
        f"To load one, give {held_commits[0]} or another as the model."
    )


def is_left_behind(name: str) -> bool:
    """Whether a file is what an operating system, an editor or a version control leaves in folders."""
    return any(part.startswith((".", "~$", "__MACOSX")) for part in PurePosixPath(name).parts)


def _looks_like_a_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or "\\" in model or model.count("/") > 1 or model.endswith(("/", ".onnx"))


def _no_folder(model: str, path: Path, argument: str) -> str:
    path = path.absolute()
    there = next((parent for parent in path.parents if os.path.isdir(parent)), path)
    missing = path.relative_to(there).parts[0] if path != there else ""
    siblings = [entry.name for entry in there.iterdir() if entry.is_dir()] if os.access(there, os.R_OK) else []
    near = difflib.get_close_matches(missing, siblings, n=2)
    hint = f" Did you mean {' or '.join(repr(str(there / name)) for name in near)}?" if near else ""
    return (
        f"{argument} looks like a path, and there is no folder {path}.{hint}\n"
        f"To load {model!r}, give an existing folder with an .onnx file and tokenizer.json, or a hub id (org/name)."
    )


def anchored(options: Mapping[str, Any], model: str = "model_name") -> dict[str, Any]:
    """Options that mean the same in a process of another working directory: their relative paths are absolute.

    Args:
        options: By name.
        model: The name of the one that is a model's name or folder.
    """
    name = options.get(model)
    is_folder = isinstance(name, str | Path) and registry.find(str(name)) is None
    is_folder = is_folder and str(name).lower() not in registry.PACKAGED and os.path.isdir(expanded(str(name)))
    paths = ["specific_model_path", "cache_dir", "score_cache", *([model] if is_folder else [])]
    return {
        **options,
        **{path: _absolute(options[path]) for path in paths if isinstance(options.get(path), str | Path)},
    }


def _absolute(path: str | Path) -> str | Path:
    absolute = expanded(path).absolute()
    return path if Path(path).is_absolute() else absolute if isinstance(path, Path) else str(absolute)


def _hub_id_of(model: str, description: ModelDescription | None) -> str:
    if description is not None:
        return description.sources["hf"]
    if _HUB_ID.fullmatch(model):
        return model
    raise UnknownModelError(
        f"{model!r} is no supported model, no hub id (org/name) and no folder here."
        f"{near_names(model)}\n{how_to_name(model)}"
    )


def _tokenizer_name(model: str, names: frozenset[str], graph: str) -> str:
    if found := nearest("tokenizer.json", graph, names):
        return found
    others = sorted(found for name in _OTHER_TOKENIZERS if (found := nearest(name, graph, names)))
    found = f"only {', '.join(others)}, which transformers can convert" if others else "and no other tokenizer file"
    raise ModelNotFoundError(
        f"{model!r} has no tokenizer.json, {found}.\n"
        f"To load {model!r}, make a folder of it where transformers is installed: "
        f"`AutoTokenizer.from_pretrained({model!r}).save_pretrained(FOLDER)`, with the ONNX files beside."
    )


def _check_data_size(model: str, path: Path, needed: int) -> None:
    size = path.stat().st_size
    if size < max(needed, 1):
        raise InvalidModelError(
            f"{path} is truncated, or isn't the data itself: it has {size} bytes, the graph reads {needed}.\n"
            f"{how_to_mend(model)}"
        )


def _refuse_broken(model: str, path: Path) -> None:
    if broken := describe_broken(path, parse_json=False):
        raise InvalidModelError(f"{path} {broken}.\n{how_to_mend(model)}")


def _read_json(model: str, path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InvalidModelError(f"{path} {describe_broken(path) or error}.\n{how_to_mend(model)}") from error


def _read_text(path: Path | None) -> str | None:
    return None if path is None else read_bytes(path).decode("utf-8", "replace")


def _read_json_object(model: str, path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    content = _read_json(model, path)
    if not isinstance(content, dict):
        raise InvalidModelError(f"{path} holds a JSON {type(content).__name__}, not an object.\n{how_to_mend(model)}")
    return content


def _check_sha256(files: ModelFiles, expected: str) -> None:
    """Compares the graph, and all weights that lie beside it, with the pin."""
    cache = own_cache(files.cache_dir)
    pinned = [path for path in files.files if path.suffix != ".json"]
    found = content(pinned, files.folder, cache)
    if found == expected:
        return
    names = " ".join(path.relative_to(files.folder).as_posix() for path in pinned)
    covers = f" (of `sha256sum {names}`, hashed with sha256sum once more)" if len(pinned) > 1 else ""
    alone = len(pinned) > 1 and sha256(pinned[0], cache) == expected
    raise InvalidModelError(
        f"{pinned[0]} has the sha256 {found}{covers}, expected_sha256 says {expected}"
        f"{', which is that of the graph without the weights beside it' if alone else ''}.\n"
        f"To load {files.name!r}, pin the revision it was taken from, or correct expected_sha256 if you trust this "
        f"{'model' if covers else 'file'}."
    )


def _path(argument: str, value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else Path(_text(argument, value))


def _text(argument: str, value: str | os.PathLike[str]) -> str:
    if not isinstance(value, str | os.PathLike):
        raise InputTypeError(f"{argument} must be a str or a path, got {type(value).__name__}")
    return os.fspath(value)


def _checked_sha256(digest: str | None) -> str | None:
    if digest is None:
        return None
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest.lower()):
        raise InputValueError(f"expected_sha256 must be 64 hexadecimal digits, got {digest!r}")
    return digest.lower()


def _checked_revision(revision: str | None) -> str:
    if revision is None:
        return "main"
    if not isinstance(revision, str):
        raise InputTypeError(f"revision must be a str or None, got {type(revision).__name__}")
    if not revision.strip() or revision.startswith("/") or "\\" in revision or ".." in revision:
        raise InputValueError(f"revision must be a branch, a tag or a commit, got {revision!r}")
    return revision

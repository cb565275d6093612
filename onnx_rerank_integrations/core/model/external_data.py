"""Where a graph's external data may lie, and how onnxruntime is brought to accept it.

From 1.24 on onnxruntime refuses data whose real path is outside the graph's folder, both as that is named and as it
really is. huggingface_hub's plain cache passes (graph and data are links into one ``blobs/``); its shared store, where
blobs lie in folders by their first two digits, does not (measured with 1.24.4; 1.32 makes an exception for it).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx_rerank_integrations.core.errors import InvalidModelError, ModelNotFoundError
from onnx_rerank_integrations.core.model.identity import sha256
from onnx_rerank_integrations.core.model.storage import is_inside, make_folder, replacing


def inner_path(model: str, graph: str, location: str) -> str:
    """The path inside the model of data that a graph names.

    Args:
        model: For the message.
        graph: The graph's path inside the model.
        location: As the graph spells it, relative to its own folder.

    Raises:
        InvalidModelError: It leads out of the graph's folder.
    """
    path, as_windows = PurePosixPath(location), PureWindowsPath(location)
    if not path.parts or path.is_absolute() or as_windows.anchor or ".." in as_windows.parts:
        raise InvalidModelError(
            f"{graph} of {model!r} names external data outside its folder: {location!r}. It is not read.\n"
            f"To load {model!r}, export it again with its data beside the graph; don't trust this copy."
        )
    return str(PurePosixPath(graph).parent / path)


def is_accepted(graph: Path, data: Iterable[Path]) -> bool:
    """Whether onnxruntime takes the data from where it lies."""
    folders = (graph.parent.resolve(), graph.resolve().parent)
    return all(any(path.resolve().is_relative_to(folder) for folder in folders) for path in data)


def link_side_by_side(model: str, root: Path, graph: str, data: Iterable[str], place: Path) -> Path:
    """Gives the graph in `place`, its data beside it, as hard links to the files of `root`.

    Copies where links can't be made. Each file appears at once and the graph last, so other processes may do the same.

    Raises:
        ModelNotFoundError: `place` can't be written, or a link there leads out of it.
    """
    try:
        for name in (*data, graph):
            if not is_inside((place / name).parent, root.parent.parent):
                raise PermissionError("a link on the way leads elsewhere")
            _link(target=(root / name).resolve(), link=place / name)
    except OSError as error:
        raise ModelNotFoundError(
            f"onnxruntime wants {graph} and its external data in one folder, and {place} can't be written: {error}.\n"
            f"To load {model!r}, make the cache writable, or give another one with cache_dir=."
        ) from error
    return place / graph


def _link(*, target: Path, link: Path) -> None:
    if _is_same_file(link, target):
        return
    make_folder(link.parent)
    with replacing(link) as temporary:
        temporary.unlink()
        try:
            os.link(target, temporary)
        except OSError:
            shutil.copy2(target, temporary)


def _is_same_file(link: Path, target: Path) -> bool:
    """Whether `link` is a hard link to `target`, or a copy of it whose content was compared."""
    try:
        ours, theirs = link.lstat(), target.stat()
    except FileNotFoundError:
        return False
    if os.path.samestat(ours, theirs):
        return True
    return stat.S_ISREG(ours.st_mode) and ours.st_size == theirs.st_size and sha256(link) == sha256(target)

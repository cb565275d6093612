"""Keeps a faster, verified copy of a user's graph on disk: made once, found again by content.

The rewrite itself is in ``first_token.py``. This file alone knows when its result may be used and where it is kept:

    <cache>/digests/<path>.json                     what a file's content is: a gigabyte isn't hashed at every start
    <cache>/first-token/<digest>/model.onnx         the rewritten graph
    <cache>/first-token/<digest>/weights-<hash>.bin its weights
    <cache>/first-token/<digest>/record.json        what was found, "nothing to gain" included

The weights lie in a file of their own because onnxruntime maps such a file into memory, where it reads a graph's own
weights and copies them: XLM-R base opens in a ninth of the time and a quarter of the memory, since of its embeddings
only what is looked up is ever read (benchmarks/README.md).

Which graphs qualify: classifiers whose score is read from the first token, BERT family (MiniLM, TinyBERT, ELECTRA,
DistilBERT) and RoBERTa family (XLM-R), as optimum, transformers.js and torch export them, fp32 and fp16; ModernBERT and
DeBERTa-v2 qualify too, with fewer percent to gain per layer. Gains measured on one AMD EPYC core, onnxruntime 1.32,
same sorted batches: 1.9-2.4x with 2 layers, 1.18-1.38x with 6, 1.08x with 12.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from onnx_rerank_integrations.core.engine.onnxruntime import onnxruntime
from onnx_rerank_integrations.core.errors import InvalidModelError, MissingExtraError, ModelNotFoundError

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ONNX_RERANK_CACHE"
"""Environment variable that moves the cache; by default it lies beside the hub's."""

VERSION = 2
"""Of the rewrite and its verification: raise it, and every cached graph is made again."""

LARGEST_BYTES = 1_900_000_000
"""Larger models are left alone: they can't be rewritten in memory (protobuf ends at 2 GB), and a model of that size has
so many layers that leaving out one gains 4 %."""

SMALLEST_OUTSIDE = 1024
"""Bytes; smaller weights stay in the graph."""

ALIGNMENT = 64
"""Bytes; each weight begins at a multiple of a cache line."""

LOCK_SECONDS = 600.0


def optimized_path(onnx_path: str | Path, *, cache_dir: str | Path | None = None) -> Path | None:
    """A file with the same scores as ``onnx_path`` that computes only the first token in its last layer.

    The first call on a file takes seconds, up to four times its size in memory, and its size once more on disk; later
    calls, also from other processes, read two small files. Processes may call it at once.

    Args:
        onnx_path: The user's graph; never changed.
        cache_dir: Where copies are kept; None is ``$ONNX_RERANK_CACHE``, else the folder ``onnx-rerank`` beside the
            hub's cache.

    Returns:
        The copy, or None where there is nothing to gain, where it can't be kept, or, with a warning, where its scores
        on random inputs weren't the original's.

    Raises:
        ModelNotFoundError: There is no such file.
        MissingExtraError: The answer isn't known yet, and onnx isn't installed.
    """
    source = Path(onnx_path).absolute()
    if not source.is_file():
        raise ModelNotFoundError(f"optimize: no ONNX file at {source}")
    cache = Path(cache_dir or os.environ.get(CACHE_VARIABLE) or _beside_hub_cache()).expanduser()
    try:
        digest = _remembered_digest(source, cache) or _digest(source, cache)
        entry = cache / "first-token" / digest
        if (record := _usable_record(entry)) is None:
            with _locked(entry):
                record = _usable_record(entry) or _build(source, entry)
    except (OSError, MemoryError) as error:  # may well be gone next time: not remembered
        logger.info("no optimized copy of %s in the cache at %s: %r", source, cache, error)
        return None
    if not record["applies"]:
        logger.debug("no optimized copy of %s: %s", source, record["reason"])
        return None
    return entry / "model.onnx"


def _beside_hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).parent / "onnx-rerank"


# --- a file's identity ------------------------------------------------------------------------------------------------


def _remembered_digest(source: Path, cache: Path) -> str | None:
    """The content's digest, where none of the model's files changed since it was taken."""
    memo = _read_json(_memo_path(source, cache))
    try:
        unchanged = memo is not None and all(_stamp(source.parent / name) == stamp for name, stamp in memo["files"])
        return str(memo["digest"]) if memo and unchanged else None
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _digest(source: Path, cache: Path) -> str:
    names = [source.name, *external_files(load_graph(source).graph.initializer)]
    stamps = [(name, _stamp(source.parent / name)) for name in names]
    total = hashlib.sha256()
    for name in names:
        total.update(bytes.fromhex(_sha256(source.parent / name)))
    _write_json(_memo_path(source, cache), {"digest": total.hexdigest(), "files": stamps})
    return total.hexdigest()


def _memo_path(source: Path, cache: Path) -> Path:
    return cache / "digests" / f"{hashlib.sha256(str(source).encode()).hexdigest()}.json"


def _stamp(path: Path) -> list[int]:
    """Changes whenever the file is written to or replaced, even by one of the same size and time."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the cache's entries ----------------------------------------------------------------------------------------------


def _made_by() -> str:
    return f"first-token {VERSION}, onnxruntime {onnxruntime().__version__}"


def _usable_record(entry: Path) -> dict[str, Any] | None:
    """What is known of the graph, or None where that is nothing, outdated or damaged."""
    record = _read_json(entry / "record.json")
    try:
        if record is None or record["made_by"] != _made_by():
            return None
        return record if not record["applies"] or _is_whole(entry, record) else None
    except (OSError, KeyError, TypeError, AttributeError):
        return None


def _is_whole(entry: Path, record: dict[str, Any]) -> bool:
    return all(_is_unchanged(entry / name, *known) for name, known in record["files"].items())


def _is_unchanged(file: Path, stamp: list[int], sha256: str) -> bool:
    found = _stamp(file)[:2]
    return found == stamp or (found[0] == stamp[0] and _sha256(file) == sha256)


def _build(source: Path, entry: Path) -> dict[str, Any]:
    model = load_graph(source)
    from onnx_rerank_integrations.core.graphs.trials import NotApplicable, ScoresMovedError

    for leftover in entry.glob("*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    record: dict[str, Any] = {"made_by": _made_by(), "source": source.name, "applies": False, "reason": ""}
    try:
        names = _write_copy(model, source, entry)
    except NotApplicable as reason:
        record["reason"] = str(reason)
    except ScoresMovedError as reason:
        logger.warning("the optimized copy of %s isn't used, its scores differ: %s", source, reason)
        record["reason"] = str(reason)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the graph as it is still gives scores
        logger.warning("optimizing %s failed, it is used as it is: %r", source, error, exc_info=True)
        record["reason"] = repr(error)
    else:
        made = {name: (_stamp(entry / name)[:2], _sha256(entry / name)) for name in names}
        record |= {"applies": True, "files": made}
        for outdated in entry.glob("weights-*.bin"):
            if outdated.name not in names:
                outdated.unlink(missing_ok=True)
    _write_json(entry / "record.json", record)
    return record


def _write_copy(model: onnx.ModelProto, source: Path, entry: Path) -> list[str]:
    """Rewrites the graph and writes it to ``entry``, if its scores are the original's; gives the files' names."""
    from onnx_rerank_integrations.core.graphs import first_token, trials

    embed_external_data(model, source.parent)
    feeds = trials.canary(model)
    rewritten = first_token.rewrite(model)
    with tempfile.TemporaryDirectory(dir=entry, suffix=".partial") as folder:
        names = write_with_weights_beside(rewritten, Path(folder))
        trials.verify(source, Path(folder) / "model.onnx", feeds)
        for name in names:
            os.replace(Path(folder) / name, entry / name)
    return names


@contextlib.contextmanager
def _locked(entry: Path) -> Iterator[None]:
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # exported without being declared so

    entry.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(entry / "lock", timeout=LOCK_SECONDS):
        yield


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{uuid.uuid4().hex}.partial")
    partial.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(partial, path)


# --- the graph as a file ----------------------------------------------------------------------------------------------


def load_graph(path: Path) -> onnx.ModelProto:
    """The graph, its external data left where it is."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("Optimizing a graph", "optimize") from error
    try:
        return onnx.load(path, load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf's DecodeError, whose module differs between versions
        raise InvalidModelError(f"optimize: {path} isn't an ONNX graph: {error}") from error


def external_files(tensors: Iterable[onnx.TensorProto]) -> list[str]:
    """The names of the files that hold external data, relative to the model's folder."""
    outside = [tensor for tensor in tensors if tensor.data_location == tensor.EXTERNAL]
    names = {item.value for tensor in outside for item in tensor.external_data if item.key == "location"}
    for name in names:
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise InvalidModelError(f"optimize: external data outside the model's folder: {name}")
    return sorted(names)


def embed_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """Reads the weights into the model.

    Copies of data files are avoided because they can't be links: onnxruntime refuses symbolic ones that lead out of the
    folder (1.24), onnx refuses hard ones (1.23), which a hub cache may hold already.
    """
    from onnx_rerank_integrations.core.graphs.trials import NotApplicable

    tensors = model.graph.initializer
    size = model.ByteSize() + sum((folder / name).stat().st_size for name in external_files(tensors))
    if size > LARGEST_BYTES:
        raise NotApplicable(f"it has {size / 1e9:.1f} GB, more than {LARGEST_BYTES / 1e9:.1f}")
    for tensor in tensors:
        if tensor.data_location == tensor.EXTERNAL:
            place = {item.key: item.value for item in tensor.external_data}
            with (folder / place["location"]).open("rb") as file:
                file.seek(int(place.get("offset", 0)))
                tensor.raw_data = file.read(int(place["length"]) if "length" in place else -1)
            tensor.ClearField("external_data")
            tensor.data_location = tensor.DEFAULT


def write_with_weights_beside(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Writes ``model.onnx``, and its large weights to a file beside it that is named by its content.

    Args:
        model: The graph, its weights loaded; changed on the way.
        folder: Where the files go.

    Returns:
        The files' names, the graph's last.
    """
    outside = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= SMALLEST_OUTSIDE]
    unnamed = folder / "weights.bin"
    offsets: list[int] = []
    with unnamed.open("wb") as file:
        for tensor in outside:
            file.write(bytes(-file.tell() % ALIGNMENT))
            offsets.append(file.tell())
            file.write(tensor.raw_data)
    weights = unnamed.rename(folder / f"weights-{_sha256(unnamed)[:16]}.bin")
    for tensor, offset in zip(outside, offsets, strict=True):
        place = {"location": weights.name, "offset": offset, "length": len(tensor.raw_data)}
        tensor.ClearField("raw_data")
        tensor.data_location = tensor.EXTERNAL
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return [weights.name, "model.onnx"]

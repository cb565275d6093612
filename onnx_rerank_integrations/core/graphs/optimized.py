"""Gives a faster, verified copy of a user's graph: made once, found again by content.

The rewrite itself is in ``first_token.py``, and where copies are kept and when they are trusted in ``copies.py``. This
file alone knows which graphs get one, and what a copy's files hold:

    model.onnx          the rewritten graph
    weights-<hash>.bin  its weights, those of matrix products also as onnxruntime packs them (``packed.py``)

The weights lie in a file of their own because onnxruntime maps such a file into memory, where it reads a graph's own
weights and copies them: XLM-R base opens in a ninth of the time and a quarter of the memory, since of its embeddings
only what is looked up is ever read (benchmarks/README.md).

Which graphs qualify: classifiers whose score is read from the first token, BERT family (MiniLM, TinyBERT, ELECTRA,
DistilBERT) and RoBERTa family (XLM-R), as optimum, transformers.js and torch export them, fp32 and fp16; ModernBERT and
DeBERTa-v2 qualify too, with fewer percent to gain per layer. Gains measured on one AMD EPYC core, onnxruntime 1.32,
same sorted batches: 1.9-2.4x with 2 layers, 1.18-1.38x with 6, 1.08x with 12.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

from onnx_rerank_integrations.core.engine.onnxruntime import PACKED_ENTRY, onnxruntime
from onnx_rerank_integrations.core.engine.stops import deadline, finish_by
from onnx_rerank_integrations.core.errors import (
    InvalidModelError,
    MissingExtraError,
    ModelNotFoundError,
    RerankTimeoutError,
)
from onnx_rerank_integrations.core.graphs.copies import NoCopyError, copy_of
from onnx_rerank_integrations.core.model.identity import content, graph_files, hash_file, own_cache
from onnx_rerank_integrations.core.model.storage import expanded

if TYPE_CHECKING:
    import onnx

    from onnx_rerank_integrations.core.graphs.packed import Packed

logger = logging.getLogger(__name__)

VERSION = 3
"""Of the rewrite and its verification: raise it, and every cached graph is made again."""

KIND = "first-token"

LARGEST_BYTES = 1_900_000_000
"""Larger models are left alone: they can't be rewritten in memory (protobuf ends at 2 GB), and a model of that size has
so many layers that leaving out one gains 4 %."""

LONGEST_SECONDS = 300.0
"""To make and try a copy; a graph may loop for ever."""

SMALLEST_OUTSIDE = 1024
"""Bytes; smaller weights stay in the graph."""

ALIGNMENT = 64
"""Bytes; each weight begins at a multiple of a cache line."""


def optimized_path(onnx_path: str | Path, *, cache_dir: str | Path | None = None) -> Path | None:
    """A file with the same scores as ``onnx_path`` that computes only the first token in its last layer.

    The first call on a file takes seconds, up to four times its size in memory, and up to twice its size on disk (1.5
    times for MiniLM); later calls, also from other processes, read two small files. Processes may call it at once.

    Args:
        onnx_path: The user's graph; never changed.
        cache_dir: Where copies are kept; None for `identity.own_cache`.

    Returns:
        The copy, or None where there is nothing to gain, where it can't be kept or trusted, or, with a warning, where
        its scores on random inputs weren't the original's.

    Raises:
        ModelNotFoundError: There is no such file.
        InvalidModelError: It is no ONNX graph, or names data outside its folder.
        MissingExtraError: The answer isn't known yet, and onnx isn't installed.
    """
    source = Path(onnx_path).absolute()
    if not source.is_file():
        raise ModelNotFoundError(f"optimize: no ONNX file at {source}")
    cache = expanded(cache_dir) if cache_dir else own_cache()
    try:
        if not (cache / KIND).is_dir() and importlib.util.find_spec("onnx") is None:
            raise MissingExtraError("Optimizing a graph", "optimize")  # before a large file is hashed for nothing
        digest = content(graph_files(source), source.parent, cache)
        made_by = f"{KIND} {VERSION}, onnxruntime {onnxruntime().__version__}"
        return copy_of(source, digest, KIND, made_by=made_by, make=partial(_make_in_time, source), cache=cache)
    except InvalidModelError:
        raise
    except ValueError as error:
        raise InvalidModelError(f"optimize: {source} isn't an ONNX graph: {error}") from error
    except (OSError, MemoryError, RerankTimeoutError) as error:  # may well be gone next time: not remembered
        logger.info("no optimized copy of %s in the cache at %s: %r", source, cache, error)
        return None


def _make_in_time(source: Path, folder: Path) -> list[str]:
    return finish_by(deadline(LONGEST_SECONDS), partial(_make, source, folder))


def _make(source: Path, folder: Path) -> list[str]:
    """Rewrites the graph into ``folder``, if its scores are the original's; gives the files' names."""
    model = load_graph(source)
    from onnx_rerank_integrations.core.graphs import first_token, trials
    from onnx_rerank_integrations.core.graphs.packed import packed_weights

    try:
        embed_external_data(model, source.parent)
        feeds = trials.canary(model)
        rewritten = first_token.rewrite(model)
        names = write_with_weights_beside(rewritten, folder, packed_weights(rewritten, feeds, folder))
        trials.verify(source, folder / "model.onnx", feeds)
    except trials.NotApplicable as reason:
        raise NoCopyError(str(reason)) from reason
    except trials.ScoresMovedError as reason:
        logger.warning("the optimized copy of %s isn't used, its scores differ: %s", source, reason)
        raise NoCopyError(str(reason)) from reason
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the graph as it is still gives scores
        logger.warning("optimizing %s failed, it is used as it is: %r", source, error, exc_info=True)
        raise NoCopyError(repr(error)) from error
    return names


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


def write_with_weights_beside(model: onnx.ModelProto, folder: Path, packed: Packed = MappingProxyType({})) -> list[str]:
    """Writes ``model.onnx``, and its large weights to a file beside it that is named by its content.

    Args:
        model: The graph, its weights loaded; changed on the way.
        folder: Where the files go.
        packed: What else goes to that file, see `packed.packed_weights`.

    Returns:
        The files' names, the graph's last.
    """
    outside = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= SMALLEST_OUTSIDE]
    unnamed = folder / "weights.bin"
    with unnamed.open("wb") as file:
        places = [_append(file, tensor.raw_data) for tensor in outside]
        for tensor, place in zip(outside, places, strict=True):
            for number, (name, parts) in enumerate(packed.get(tensor.name, {}).items()):
                located = [";".join([*_append(file, part).values(), "0"]) for part in parts]
                place[f"{PACKED_ENTRY}_{number}"] = "|".join([name, *located])
    weights = unnamed.rename(folder / f"weights-{hash_file(unnamed)[:16]}.bin")
    for tensor, place in zip(outside, places, strict=True):
        tensor.ClearField("raw_data")
        tensor.data_location = tensor.EXTERNAL
        for key, value in {"location": weights.name, **place}.items():
            tensor.external_data.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return [weights.name, "model.onnx"]


def _append(file: BinaryIO, data: bytes) -> dict[str, str]:
    """Where the data came to lie."""
    file.write(bytes(-file.tell() % ALIGNMENT))
    place = {"offset": str(file.tell()), "length": str(len(data))}
    file.write(data)
    return place

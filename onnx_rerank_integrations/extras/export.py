"""Turns a cross-encoder of PyTorch into a folder with ONNX files. Needs the extra ``[export]``.

The folder is laid out as the hub's are (``onnx/model.onnx`` beside the configs), so that this package, FastEmbed,
optimum and sentence-transformers can all load it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.errors import (
    InputValueError,
    MissingExtraError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from onnx_rerank_integrations.core.model.config import FALLBACK_MAX_LENGTH, stated_length
from onnx_rerank_integrations.core.model.storage import read_record, write_atomically
from onnx_rerank_integrations.core.types import Pair

if TYPE_CHECKING:
    import torch

OPSET = 17
MARK = "onnx-rerank.json"
"""Lies in each folder that is written here, and lists its files: only such a folder may be replaced."""

LARGEST_SINGLE_FILE = 1_900_000_000
"""Bytes. A protobuf file holds less than 2 GiB; larger models keep their weights in ``model.onnx_data``."""

TOLERANCE = 1e-3
"""Largest difference from PyTorch's logits with which an export is kept."""

SAMPLE: tuple[Pair, ...] = (
    ("What is the capital of France?", "Paris is the capital of France."),
    ("What is the capital of France?", "Berlin is the capital of Germany."),
    ("how do solar panels work", "A photovoltaic cell turns light into electricity. " * 12),
    ("¿Qué es un bosque?", "Un bosque es un ecosistema donde la vegetación predominante son los árboles."),
    ("", "A document for an empty query."),
    ("a query for an empty document", ""),
)


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written, and how near it is to the original.

    Attributes:
        folder: The folder that holds the exported model.
        largest_difference: Between PyTorch's logits and onnxruntime's on the sample, absolute.
        pairs: How many pairs were compared.
        size: Bytes of the ONNX file with its external data.
    """

    folder: Path
    largest_difference: float
    pairs: int
    size: int


def export(
    model: str, out: Path, *, revision: str | None = None, sample: Sequence[Pair] = SAMPLE, overwrite: bool = False
) -> Export:
    """Exports a sequence classification model and compares it with the original.

    The folder appears only when the comparison went well; a failed export leaves nothing behind.

    Args:
        model: A hub id, or a folder as transformers or sentence-transformers save it.
        out: The folder to make.
        revision: The hub's branch, tag or commit.
        sample: Pairs to compare the logits on.
        overwrite: Replace `out` if it is a model that this package made, and nothing else.

    Raises:
        MissingExtraError: torch or transformers isn't installed.
        InputValueError: `out` is there and isn't to be replaced.
        ModelNotFoundError: The model can't be found or fetched.
        UnsupportedModelError: It is no sequence classifier, has no fast tokenizer, can't be exported, or the result
            differs from the original by more than `TOLERANCE`.
    """
    source = Path(model) if Path(model).is_dir() else None
    check_out(out, source, overwrite=overwrite)
    original, tokenizer = _load(model, revision)
    with folder_when_done(out, source) as folder:
        original.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _complete_configs(folder, original, tokenizer)
        _write_graph(model, original, tokenizer, folder / "onnx" / "model.onnx")
        expected = _torch_logits(original, tokenizer, sample)
        largest = _largest_difference(folder, expected, sample)
        if not largest <= TOLERANCE:
            raise UnsupportedModelError(
                f"The export of {model} differs from PyTorch by {largest:.2g}, more than {TOLERANCE}, and was not kept."
                "\nThe model may do something that the exporter can't trace; look for ONNX files on its hub page."
            )
    size = sum(path.stat().st_size for path in (out / "onnx").iterdir())
    return Export(folder=out, largest_difference=largest, pairs=len(sample), size=size)


def _load(model: str, revision: str | None) -> tuple[Any, Any]:
    try:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("Exporting a model", "export") from error
    try:
        config = AutoConfig.from_pretrained(model, revision=revision)
        _check_is_classifier(model, config)
        original = AutoModelForSequenceClassification.from_pretrained(
            model, revision=revision, attn_implementation="eager", dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError) as error:
        if isinstance(error, UnsupportedModelError):
            raise
        raise ModelNotFoundError(
            f"{model} can't be loaded by transformers: {error}\nName a hub id, or a folder with config.json, weights "
            "(safetensors) and a tokenizer."
        ) from error
    if not tokenizer.is_fast:
        raise UnsupportedModelError(
            f"The tokenizer of {model} ({type(tokenizer).__name__}) has no fast form, so no tokenizer.json can be "
            "written.\nConvert it with transformers first."
        )
    stated = stated_length(config.to_dict(), {"model_max_length": tokenizer.model_max_length})
    tokenizer.model_max_length = FALLBACK_MAX_LENGTH if stated is None else stated
    return original.eval(), tokenizer


def _check_is_classifier(model: str, config: Any) -> None:
    architectures = config.architectures or []
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise UnsupportedModelError(
            f"{model} is {', '.join(architectures) or 'of no stated architecture'}, not a sequence classification "
            "model: its head would be made of random numbers.\nExport a cross-encoder, such as "
            "cross-encoder/ms-marco-MiniLM-L6-v2."
        )


def check_out(out: Path, source: Path | None, *, overwrite: bool) -> None:
    """Refuses a folder that isn't to be replaced, or that holds anything that this package didn't make.

    Args:
        out: Where a model is to be written.
        source: The folder that it is made from; None where that is no folder of the user's.
        overwrite: Whether a model of ours may be replaced.

    Raises:
        InputValueError: Each of these, saying what is there.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise InputValueError(
            f"{out} is there already: name another folder, or allow it to be replaced (overwrite=True, --overwrite)"
        )
    place = out.resolve()
    if source is not None and (source.resolve().is_relative_to(place) or place.is_relative_to(source.resolve())):
        raise InputValueError(f"{out} is where the model itself lies, and isn't replaced.\nName another folder.")
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return
    made = read_record(out / MARK).get("files")
    if out.is_symlink() or not out.is_dir() or not isinstance(made, list):
        raise InputValueError(
            f"{out} wasn't made by this package (it has no {MARK}), and isn't replaced.\n"
            "Name another folder, or remove this one yourself."
        )
    if others := sorted(_files(out) - {MARK, *map(str, made)}):
        raise InputValueError(
            f"{out} holds what this package didn't make, and isn't replaced: {', '.join(others[:5])}.\nName another "
            "folder, or remove this one yourself."
        )


@contextmanager
def folder_when_done(out: Path, source: Path | None = None) -> Iterator[Path]:
    """A folder that takes its name only if the block ends well, and the place of an older one of ours (`check_out`)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        (work / "onnx").mkdir()
        yield work
        write_atomically(work / MARK, json.dumps({"files": sorted(_files(work))}, indent=1))
        check_out(out, source, overwrite=True)
        if out.exists():
            shutil.rmtree(out)
        work.chmod(0o755)
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _files(folder: Path) -> set[str]:
    """All that lies in a folder but plain folders, by its path there."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def _complete_configs(folder: Path, original: Any, tokenizer: Any) -> None:
    """Adds what other loaders ask for: the special tokens' map, and a length that is no 1e30.

    ``max_length`` is what the tokenizer was last set to. transformers doesn't read it, FastEmbed and this package do.
    """
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2, ensure_ascii=False), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["model_max_length"] = tokenizer.model_max_length
    settings.pop("max_length", None)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")


def _write_graph(model: str, original: Any, tokenizer: Any, path: Path) -> None:
    import torch

    example = _encode(tokenizer, SAMPLE[:2])
    rows = {0: "batch_size", 1: "sequence_length"}
    parameters = sum(parameter.numel() * 4 for parameter in original.parameters())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of each Python number in the model's code
            torch.onnx.export(
                _NamedInputs(original, list(example)),
                tuple(example.values()),
                str(path),
                input_names=list(example),
                output_names=["logits"],
                dynamic_axes=dict.fromkeys(example, rows) | {"logits": {0: "batch_size"}},
                opset_version=OPSET,
                dynamo=False,  # its graphs are the ones optimum and the hub's models have
            )
    except Exception as error:
        raise UnsupportedModelError(
            f"{model} can't be exported by torch {torch.__version__}: {error}\nLook for ONNX files on its hub page."
        ) from error
    if parameters > LARGEST_SINGLE_FILE:
        _move_weights_beside(path)


def _move_weights_beside(path: Path) -> None:
    """One external data file, whatever pieces the exporter made."""
    import onnx

    graph = onnx.load(path)
    for piece in path.parent.iterdir():
        piece.unlink()
    onnx.save_model(graph, path, save_as_external_data=True, location=f"{path.name}_data")


def _NamedInputs(original: Any, names: Sequence[str]) -> torch.nn.Module:  # noqa: N802 - a class that needs torch
    """A module that takes its inputs in order, as the tracer passes them, and gives the logits alone."""
    import torch

    class Module(torch.nn.Module):  # type: ignore[misc]  # torch isn't type-checked here
        def __init__(self) -> None:
            super().__init__()
            self.original = original

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.original(**dict(zip(names, tensors, strict=True))).logits
            return logits

    return Module().eval()


def _encode(tokenizer: Any, pairs: Sequence[Pair]) -> dict[str, Any]:
    queries, documents = map(list, zip(*pairs, strict=True))
    return dict(tokenizer(queries, documents, padding=True, truncation="longest_first", return_tensors="pt"))


def _torch_logits(original: Any, tokenizer: Any, pairs: Sequence[Pair]) -> np.ndarray[Any, Any]:
    """(N, L), one pair at a time, so that nothing is padded."""
    import torch

    with torch.no_grad():
        rows = [original(**_encode(tokenizer, [pair])).logits[0].numpy() for pair in pairs]
    return np.array(rows)


def _largest_difference(folder: Path, expected: np.ndarray[Any, Any], pairs: Sequence[Pair]) -> float:
    """Between the original's logits and this package's whole road, all labels of it."""
    labels = expected.shape[1]
    largest = 0.0
    for label in range(labels) if labels > 1 else [None]:
        ours = TextCrossEncoder(folder, label=label).rerank_pairs(pairs)
        theirs = expected[:, 0]
        if label is not None:
            theirs = expected[:, label] - np.logaddexp.reduce(np.delete(expected, label, axis=1), axis=1)
        largest = max(largest, float(np.abs(np.array(ours) - theirs).max()))
    return largest

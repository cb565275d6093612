"""Makes an int8 model from an fp32 one, and keeps it only if it ranks like the original. Needs ``[optimize]``.

``mode="static"`` fixes the activations' scales beforehand, from the user's own texts: a document's score doesn't depend
on its batch (1e-5). ``mode="dynamic"`` takes them from each batch, so that a score moves with its company, on a trained
MiniLM-L6 by 0.06 on average and up to 0.34 where scores have a standard deviation of 1.3; the encoder therefore runs
such a model pair by pair. Batch by batch both are equally fast: against the fp32 graph 2.9 times with 2 layers of width
128, 2.6 with 6 of 384, 3.1 with 12 of 768 (one core with AVX-512 VNNI, 60 to 200 words). Prefer static.

The graph is rewritten to compute only the first token in its last layer before it is quantized, so that the copy needs
nothing at load. It runs with onnxruntime on a CPU (its MatMulIntegerToFloat is onnxruntime's own operator).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from onnx_rerank_integrations.core.cross_encoder import TextCrossEncoder
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError, UnsupportedModelError
from onnx_rerank_integrations.core.graphs.optimized import embed_external_data, external_files, load_graph
from onnx_rerank_integrations.core.types import Pair
from onnx_rerank_integrations.extras.export import check_out, folder_when_done
from onnx_rerank_integrations.extras.needs_extra import needs_extra
from onnx_rerank_integrations.extras.quantize.agreement import LOWEST_CORRELATION, Agreement, compare

if TYPE_CHECKING:
    import onnx

    from onnx_rerank_integrations.core.graphs.trials import Feed

logger = logging.getLogger(__name__)

Mode = Literal["static", "dynamic"]

CALIBRATION_PAIRS = 200
"""More move the ranges of a MiniLM by little, and take seconds each hundred."""

FILE_NAME = "model_int8.onnx"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A query with documents to rank for it, as the model will meet them.

    Attributes:
        query: The query.
        documents: Candidates, good and bad; ten or more say more about the order than two.
        relevances: How relevant each is, 0 for not at all; None where nobody knows.
    """

    query: str
    documents: Sequence[str]
    relevances: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.documents, str):
            raise InputTypeError("documents must be a list of texts, not one str")
        if self.relevances is not None and len(self.relevances) != len(self.documents):
            raise InputValueError(
                f"a sample needs a relevance for each document: got {len(self.relevances)} for {len(self.documents)}"
            )


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """An int8 model that was kept.

    Attributes:
        folder: Where it is; a model name for `TextCrossEncoder`.
        mode: ``"static"`` or ``"dynamic"``.
        agreement: Its scores beside the original's.
        held_out: Whether those are of other queries than the ranges were taken from.
        size: Bytes of the graph.
        size_before: Bytes of the original's, external data included.
    """

    folder: Path
    mode: Mode
    agreement: Agreement
    held_out: bool
    size: int
    size_before: int


def quantize(
    model: str | Path,
    out: str | Path,
    samples: Sequence[Sample],
    *,
    mode: Mode = "static",
    lowest_correlation: float = LOWEST_CORRELATION,
    label: int | str | None = None,
    max_length: int | None = None,
    model_file: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    overwrite: bool = False,
) -> Quantization:
    """Quantizes a model, compares it with the original, and writes it as a folder.

    Every other sample is for the ranges of the activations, the rest for the comparison; a single sample is for both.
    The folder appears only if the result is good enough.

    Args:
        model: A supported name, a hub id or a folder; its fp32 graph is used.
        out: The folder to make.
        samples: Queries and documents like those the model is for.
        mode: ``"static"`` or ``"dynamic"``.
        lowest_correlation: The mean Spearman correlation within a query below which the result is refused.
        label: The label that means 'relevant', for models with three or more.
        max_length: Tokens of the longest pair; None for what the model was made for.
        model_file: As `TextCrossEncoder` takes it.
        revision: As `TextCrossEncoder` takes it.
        cache_dir: As `TextCrossEncoder` takes it.
        local_files_only: As `TextCrossEncoder` takes it.
        overwrite: Replace `out` if it is a model that this package made, and nothing else.

    Raises:
        InputValueError: No samples, or `out` is there and isn't to be replaced.
        UnsupportedModelError: The graph can't be quantized (not fp32, a language model, over 1.9 GB), or the result
            ranks too differently; the message says how differently.
        MissingExtraError: onnx isn't installed.
        UnknownModelError, ModelNotFoundError, InvalidModelError: As `TextCrossEncoder`.
    """
    out = Path(out)
    if mode not in get_args(Mode):
        raise InputValueError(f"mode must be one of {', '.join(get_args(Mode))}, not {mode!r}")
    samples = [sample for sample in samples if sample.documents]
    if not samples:
        raise InputValueError("quantize needs samples: queries with documents like those the model is for")
    check_out(out, Path(model) if Path(model).is_dir() else None, overwrite=overwrite)
    with needs_extra("optimize", "Quantizing a model"):
        import onnx

    original = TextCrossEncoder(
        model,
        label=label,
        max_length=max_length,
        model_file=model_file,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        optimize="off",
    )
    files = original.load().files
    calibration, held_out = samples[0::2], samples[1::2] or samples
    quantized = quantized_graph(files.onnx, batches(original, spread_pairs(calibration)), mode=mode)
    with folder_when_done(out, files.folder) as folder:
        copy_without_weights(files.folder, folder)
        shutil.copyfile(files.tokenizer, folder / "tokenizer.json")
        graph = folder / "onnx" / FILE_NAME
        onnx.save(quantized, graph)
        changed = TextCrossEncoder(folder, label=label, max_length=original.max_length, optimize="off")
        agreement = agreement_on(held_out, original, changed)
        if objections := agreement.objections(lowest_correlation=lowest_correlation):
            raise UnsupportedModelError(
                f"The int8 copy of {model} was not kept: {'; '.join(objections)}.\nThe samples may be too few, or "
                "unlike each other; else stay with fp32, or try the int8 file its makers offer (model_file='int8')."
            )
    outside = external_files(onnx.load(files.onnx, load_external_data=False).graph.initializer)
    return Quantization(
        folder=out,
        mode=mode,
        agreement=agreement,
        held_out=held_out is not samples,
        size=(out / "onnx" / FILE_NAME).stat().st_size,
        size_before=sum(path.stat().st_size for path in (files.onnx, *(files.onnx.parent / name for name in outside))),
    )


def quantized_graph(path: Path, calibration: Iterator[Feed], *, mode: Mode) -> onnx.ModelProto:
    """The int8 graph of a file, its last layer computing only the first token where that is possible.

    Args:
        path: The fp32 graph.
        calibration: Batches of typical inputs.
        mode: ``"static"`` or ``"dynamic"``.

    Raises:
        UnsupportedModelError: It can't be quantized.
        MissingExtraError: onnx isn't installed.
    """
    graph = load_graph(path)
    from onnx_rerank_integrations.core.graphs import first_token
    from onnx_rerank_integrations.core.graphs.trials import NotApplicable
    from onnx_rerank_integrations.extras.quantize import int8_graph

    try:
        embed_external_data(graph, path.parent)
        try:
            graph = first_token.rewrite(graph)
        except NotApplicable as reason:
            logger.debug("%s is quantized as it is: %s", path, reason)
        ranges = int8_graph.calibrate(graph, calibration)
        return int8_graph.quantize_graph(graph, ranges, fixed_scales=mode == "static")
    except NotApplicable as reason:
        raise UnsupportedModelError(f"{path} can't be quantized: {reason}.") from reason


def batches(encoder: TextCrossEncoder, pairs: Sequence[Pair]) -> Iterator[Feed]:
    """What the graph is fed for these pairs, batch by batch."""
    return (dict(feed) for feed in encoder.load().feeds(pairs))


def spread_pairs(samples: Sequence[Sample], limit: int = CALIBRATION_PAIRS) -> list[Pair]:
    """At most `limit` pairs, evenly from all samples."""
    pairs = [(sample.query, document) for sample in samples for document in sample.documents]
    step = max(1, -(-len(pairs) // limit))
    return pairs[::step]


def agreement_on(samples: Sequence[Sample], original: TextCrossEncoder, changed: TextCrossEncoder) -> Agreement:
    """Scores the samples with both encoders. Samples of one document each count as one query."""
    pairs = [(sample.query, document) for sample in samples for document in sample.documents]
    single = all(len(sample.documents) < 2 for sample in samples)
    groups = [0 if single else index for index, sample in enumerate(samples) for _ in sample.documents]
    relevances = [
        grade
        for sample in samples
        for grade in (sample.relevances if sample.relevances is not None else [None] * len(sample.documents))
    ]
    return compare(
        original.rerank_pairs(pairs, activation="identity"),
        changed.rerank_pairs(pairs, activation="identity"),
        groups,
        relevances,
    )


def copy_without_weights(source: Path, target: Path) -> None:
    """Copies a model's folder but for its graphs and its weights in other formats; heads beside the graph are kept."""
    weights = (".onnx", ".onnx_data", ".data", ".bin", ".h5", ".msgpack", ".ot", ".pt", ".xml", ".gguf")

    def left_out(folder: str, names: list[str]) -> set[str]:
        at_root = Path(folder) == source
        return {
            name
            for name in names
            if name.endswith(weights) or name.startswith(".") or (at_root and name.endswith(".safetensors"))
        }

    shutil.copytree(source, target, ignore=left_out, dirs_exist_ok=True)

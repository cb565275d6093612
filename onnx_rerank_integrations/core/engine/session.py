"""What the encoder needs of whatever runs its graph: a session, and the signature that the graph declares. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.errors import UnsupportedModelError
from onnx_rerank_integrations.core.scoring import is_vector_name


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output.

    Attributes:
        name: Its name.
        shape: Its axes: a number where it is fixed, anything else where it is free; empty where it isn't declared.
        dtype: Its element type.
    """

    name: str
    shape: Sequence[Any]
    dtype: np.dtype[Any]


class Signature:
    """The inputs that a graph is fed, and the one output that is read.

    Args:
        path: The file, for messages.
        inputs: All inputs, in the graph's order.
        outputs: All outputs.
        output_ranks: Axes of the output that is read, in order of preference: 2 for a classifier's (B, L), 3 for a
            vector per token, (B, T, V).

    Attributes:
        output_name: Of the output that is read.
        output_rank: Its axes, one of `output_ranks`.
        dtypes: The element type of each input.
        batch_limit: The batch size a graph with a fixed batch axis was exported for; None where it is free.
        fixed_length: The T a graph with a fixed token axis was exported for; None where it is free.

    Raises:
        UnsupportedModelError: No output has such a rank.
    """

    def __init__(
        self, path: Path, inputs: Sequence[Port], outputs: Sequence[Port], output_ranks: Sequence[int] = (2,)
    ) -> None:
        self._path = path
        self._inputs = {node.name: node for node in inputs}
        self.dtypes = {node.name: node.dtype for node in inputs}
        self.output_name, self.output_rank = choose_output(outputs, output_ranks, path)
        batch, length = next((node.shape for node in inputs if node.name == "input_ids"), (None, None))
        self.batch_limit = batch if isinstance(batch, int) else None
        self.fixed_length = length if isinstance(length, int) else None

    def feeds(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Exactly the declared inputs, in the declared element types, from a batch's arrays (B, T).

        Raises:
            UnsupportedModelError: The graph declares an input that is none of a text cross-encoder's.
        """
        rows = len(arrays["input_ids"])
        return {
            name: arrays[name].astype(node.dtype, copy=False) if name in arrays else self._decoder_input(node, rows)
            for name, node in self._inputs.items()
        }

    def _decoder_input(self, node: Port, rows: int) -> NDArray[Any]:
        """What a language model's graph asks for beside the tokens: an empty past, and only the last logits."""
        if node.name.startswith("past_key_values"):
            rest = [size if isinstance(size, int) else 0 for size in node.shape[1:]]
            return np.zeros([rows, *rest], dtype=node.dtype)
        if node.name == "num_logits_to_keep":
            return np.ones([1] * len(node.shape), dtype=node.dtype)
        if node.name == "use_cache_branch":
            return np.zeros([1] * len(node.shape), dtype=node.dtype)
        raise UnsupportedModelError(
            f"The graph asks for {node.name!r}, which isn't an input of a text cross-encoder.\n"
            f"Export {self._path.name} again as a sequence classifier (onnx-rerank export)."
        )

    def logits(self, output: NDArray[Any], rows: int) -> NDArray[Any]:
        """The output as (B, L) or (B, T, V).

        Raises:
            UnsupportedModelError: It doesn't have one row per pair.
        """
        logits = np.asarray(output)
        if logits.size == rows and self.output_rank == 2:  # one score a row, however many axes of one are around it
            logits = logits.reshape(rows, 1)
        if logits.ndim == 3 and self.output_rank == 2:
            logits = without_spare_axis(logits)
        if logits.ndim != self.output_rank or len(logits) != rows:
            raise UnsupportedModelError(
                f"The model's output {self.output_name!r} has shape {np.shape(output)} for a batch of {rows}; a "
                f"cross-encoder gives one row of logits per pair.\nCheck that {self._path.name} is a sequence "
                "classifier, not an embedding model."
            )
        return logits


def without_spare_axis(logits: NDArray[Any]) -> NDArray[Any]:
    """(B, 1, L) or (B, L, 1) as (B, L); any other shape as it is."""
    spare = next((axis for axis in (1, 2) if logits.shape[axis] == 1), None)
    return logits if spare is None else logits.squeeze(spare)


def choose_output(outputs: Sequence[Port], ranks: Sequence[int], path: Path) -> tuple[str, int]:
    """The output that holds the logits and its rank: ``logits``, else one of the most wanted rank.

    Integers, such as a mask that was left among the outputs, are no logits. An output that is named a vector, or whose
    axes aren't declared (a loss has none), is taken where there is no other.
    """
    numbers = [output for output in outputs if output.dtype.kind == "f"]
    for rank in ranks:
        fitting = [output for output in numbers if _could_have(output, rank)]
        if fitting:
            best = min(fitting, key=lambda one: (one.name != "logits", is_vector_name(one.name), not one.shape))
            return best.name, rank
    if 2 in ranks and any(output.name == "logits" for output in numbers):
        return "logits", 2  # one of its axes may turn out to be spare
    shapes = ", ".join(f"{output.name} {list(output.shape)}" for output in outputs)
    raise UnsupportedModelError(
        f"No output of {path.name} is a score per pair: {shapes}. Embedding models and bare encoders give a vector per "
        "token.\nUse a cross-encoder exported with its classification head."
    )


def _could_have(output: Port, rank: int) -> bool:
    """Whether the output has these axes; exporters may leave the shape out, squeeze a label's axis, or add ones."""
    axes = len(output.shape)
    if rank == 2 and axes == 3:
        _, second, third = output.shape
        return second == 1 or (third == 1 and isinstance(second, int))  # a free second axis is that of the tokens
    return axes in (0, rank) or (rank == 2 and axes == 1)


class Session(Protocol):
    """What the encoder needs of whatever runs its graph.

    Attributes:
        signature: What the graph is fed and what is read of it.
        lanes: How many batches should run at once, given enough of them.
        path: The graph's file.
        threads: That compute at once, on the CPU.
        on_device: Whether a device computes, while the CPU can prepare the next texts.
    """

    signature: Signature
    lanes: int
    on_device: bool
    path: Path
    threads: int

    def run(self, arrays: Mapping[str, NDArray[Any]], *, all_threads: bool = False) -> NDArray[Any]:
        """One batch, arrays (B, T) by name to logits; `all_threads` where no other batch runs beside it."""

    def token_budget(self, *, all_threads: bool) -> int:
        """The padded tokens of a batch that suit such a run."""

    def take_less(self, tokens: int) -> None:
        """A batch of so many padded tokens didn't fit into the device's memory."""

"""Runs the graph with OpenVINO instead of onnxruntime: bf16 on CPUs that have it. Needs the extra ``[openvino]``."""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.engine.forks import renew_in_child, undivided
from onnx_rerank_integrations.core.engine.session import Port, Signature
from onnx_rerank_integrations.core.engine.stops import current
from onnx_rerank_integrations.core.engine.threads import available_cpus
from onnx_rerank_integrations.core.errors import InvalidModelError, MissingExtraError, ProviderError, ScoreError
from onnx_rerank_integrations.core.onnx_format import describe_broken
from onnx_rerank_integrations.core.options import Precision

logger = logging.getLogger(__name__)

HINTS = {"fp32": "f32", "bf16": "bf16"}
CAPABILITIES = {"fp32": "FP32", "bf16": "BF16"}

_used_by: int | None = None
"""The process that first used OpenVINO."""

TOKENS_PER_THREAD = 1024
"""Padded tokens of a batch for each thread: of 205 to 2,048, the quickest with two (benchmarks/README.md)."""


class OpenVinoSession:
    """One ONNX graph, compiled once for the CPU and shared by any number of threads.

    All its threads compute each run: OpenVINO pins them to cores, so that several sessions of one thread each would
    share a core.

    Args:
        path: The graph.
        threads: Threads inside one operator; None for all CPUs this process may use.
        precision: ``"fp32"``, or ``"bf16"`` for matrix products in bfloat16, which moves logits by about 1e-2.
        output_ranks: As for `Signature`.

    Raises:
        MissingExtraError: openvino isn't installed.
        ProviderError: bf16 was asked for, and this CPU lacks it: it would be emulated, slower than fp32.
        InvalidModelError: OpenVINO can't read the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        precision: Precision = "fp32",
        output_ranks: Sequence[int] = (2,),
    ) -> None:
        try:
            with undivided():
                import openvino
        except ImportError as error:
            raise MissingExtraError('backend="openvino"', "openvino") from error
        check_not_forked()
        self.lanes = 1
        self.on_device = False
        self.path = path
        self.threads = threads or available_cpus()
        self._precision: Precision = precision
        self._compiled = self._compile(openvino)
        renew_in_child(self)
        self._idle: deque[Any] = deque()
        self.signature = Signature(path, _ports(self._compiled.inputs), _ports(self._compiled.outputs), output_ranks)

    def run(self, arrays: Mapping[str, NDArray[Any]], *, all_threads: bool = True) -> NDArray[Any]:
        """Runs one batch: arrays (B, T) by name to logits (B, L), as `InferenceSession.run`.

        Raises:
            ProviderError: This process was forked from one that used OpenVINO.
            CancelledError, ScoreError: As for `InferenceSession.run`.
        """
        check_not_forked()
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        stop = current()
        feeds = self.signature.feeds(arrays)
        try:
            with stop.calling(request.cancel):
                results = request.infer(feeds, share_inputs=True)
                output = np.array(results[self.signature.output_name])
        except RuntimeError as error:
            stop.check()
            rows, length = arrays["input_ids"].shape
            raise ScoreError(
                f"OpenVINO failed on a batch of {rows} pairs of {length} tokens: {error}\n"
                "No ranking was made: leave backend out to run the model with onnxruntime."
            ) from error
        finally:
            self._idle.append(request)
        return self.signature.logits(output, len(arrays["input_ids"]))

    def take_less(self, tokens: int) -> None:
        """A CPU's memory is the system's: there is nothing to learn from one batch."""

    def token_budget(self, *, all_threads: bool) -> int:
        return TOKENS_PER_THREAD * self.threads

    def _compile(self, openvino: Any) -> Any:
        global _used_by
        _used_by = os.getpid()
        core = openvino.Core()
        if CAPABILITIES[self._precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ProviderError(
                f"precision={self._precision!r} was asked for, and this CPU can't compute in it.\n"
                'Use precision="fp32", or a machine with AVX-512 BF16, AMX or the like.'
            )
        options = {
            "INFERENCE_PRECISION_HINT": HINTS[self._precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            compiled = core.compile_model(core.read_model(str(self.path)), "CPU", options)
        except Exception as error:
            raise InvalidModelError(
                f"OpenVINO {openvino.__version__} can't open {self.path}: {describe_broken(self.path) or error}\n"
                "Leave backend out to run it with onnxruntime."
            ) from error
        logger.debug("compiled %s with OpenVINO, %s, %d threads", self.path, self._precision, self.threads)
        return compiled

    def renew(self) -> None:
        """Leaves what was inherited alone for good: freeing it in a child hangs or crashes."""
        for inherited in (self._compiled, *self._idle):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def check_not_forked() -> None:
    """Raises ProviderError in a child of a process that used OpenVINO, whose threads it would wait for in vain."""
    if _used_by not in (None, os.getpid()):
        raise ProviderError(
            f"This process was forked from one (pid {_used_by}) that had opened a model with OpenVINO, which doesn't "
            'survive a fork.\nStart processes with multiprocessing.get_context("spawn"), open the model only in the '
            "children, or leave backend out: onnxruntime may be forked."
        )


def _ports(declared: Sequence[Any]) -> list[Port]:
    """OpenVINO's inputs or outputs, as ours."""
    return [
        Port(
            port.any_name,
            [axis.get_length() if axis.is_static else None for axis in port.partial_shape],
            np.dtype(port.element_type.to_dtype()),
        )
        for port in declared
    ]

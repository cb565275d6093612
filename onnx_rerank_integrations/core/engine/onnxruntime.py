"""Runs the graph: the only file that imports onnxruntime."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.engine.forks import Once, renew_in_child, undivided
from onnx_rerank_integrations.core.engine.session import Port, Signature
from onnx_rerank_integrations.core.engine.stops import Stop, around
from onnx_rerank_integrations.core.engine.threads import available_cpus
from onnx_rerank_integrations.core.errors import (
    InputValueError,
    InvalidModelError,
    OutOfMemoryError,
    ProviderError,
    ScoreError,
)
from onnx_rerank_integrations.core.onnx_format import describe_broken
from onnx_rerank_integrations.core.options import IdleThreads, Precision, Provider

logger = logging.getLogger(__name__)

BOUND_PROVIDERS = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})
"""Providers that compute in a memory of their own."""

LOG_FATAL_ONLY = 4
"""onnxruntime writes warnings and errors to stderr; the errors reach the caller as exceptions anyway."""

ELEMENT_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bool)": np.dtype(np.bool_),
}

TOKENS_PER_THREAD = 384
"""Padded tokens of a batch for each thread that computes it: keeps a layer's activations in the core's cache.

Of 128 to 8,192, the quickest or within 2 % of it on models of 2 x 128, 6 x 384 and 12 x 768 (benchmarks/README.md); 512
is as quick, and takes a quarter more memory for activations.
"""

TOKENS_ON_DEVICE = 2**17
"""The same for a device that computes many rows at once. On an H200 2^14 is as quick in bulk, and 100 passages in fp16
take 47 ms instead of 18 on a model of 6 x 384, 61 instead of 36 on one of 12 x 768."""

PACKED_ENTRY = "prepacked"
"""What the entries for packed forms in a tensor's external data are called, each with a number behind:
``prepacked_0 = NAME|OFFSET;LENGTH;ALIGNMENT|...``, the file being the tensor's."""

OUT_OF_MEMORY = re.compile(r"allocate memory|out of memory|bad.?alloc|Available memory", re.IGNORECASE)
"""In what onnxruntime says of a batch that doesn't fit."""


@cache
def onnxruntime() -> Any:
    """The onnxruntime module, imported when first needed, with its telemetry off unless the user chose otherwise.

    With telemetry on, onnxruntime 1.29 and later write a device id below ~/.cache, and a process forked after the
    import hangs when it ends.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with undivided():
        import onnxruntime

    return onnxruntime


class InferenceSession:
    """One ONNX graph, opened once and shared by any number of threads.

    On the CPU, a run takes one thread and as many runs as there are threads go side by side. onnxruntime fixes the
    threads of a run when it opens a graph: it is opened a second time at the first run that wants all of them.

    Args:
        path: The graph.
        providers: Execution providers in order of preference; None for the CPU. Each must become active.
        threads: Threads that compute at once; None for `available_cpus`.
        idle_threads: What those threads do between operators: ``"sleep"`` leaves the cores to others, ``"spin"`` is a
            little quicker on a machine that does nothing else.
        output_ranks: As for `Signature`.
        otherwise: The graph that `path` is a copy of, to open where the copy can't be (any more).

    Raises:
        InvalidModelError: The file is no ONNX graph this onnxruntime can read, or was replaced since it was opened.
        ProviderError: A provider isn't available, or was refused.
    """

    def __init__(
        self,
        path: Path,
        *,
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        idle_threads: IdleThreads = "sleep",
        output_ranks: Sequence[int] = (2,),
        otherwise: Path | None = None,
    ) -> None:
        self.path = path
        self._otherwise = otherwise
        self._written = {graph: written(graph) for graph in (path, otherwise) if graph is not None and graph.exists()}
        self._providers: list[Provider] = list(providers or ["CPUExecutionProvider"])
        self.threads = threads or available_cpus()
        self._idle_threads: IdleThreads = idle_threads
        names = [provider_name(provider) for provider in self._providers]
        check_providers(names)
        self._bound = self.on_device = names[0] in BOUND_PROVIDERS
        self._tokens_on_device = TOKENS_ON_DEVICE
        self.lanes = self.threads if names == ["CPUExecutionProvider"] else 1
        self._opened: dict[int, Once[Any]] = {count: Once() for count in (self.threads, self.threads // self.lanes)}
        session = self._live(self._threads_of_a_run(all_threads=False))
        self.signature = Signature(path, ports(session.get_inputs()), ports(session.get_outputs()), output_ranks)
        renew_in_child(self)

    def run(self, arrays: Mapping[str, NDArray[Any]], *, all_threads: bool = False) -> NDArray[Any]:
        """Runs one batch; the stop around ends it within some 20 ms.

        Args:
            arrays: Arrays (B, T) by name; of those, the ones that the graph declares are fed.
            all_threads: Whether all threads compute it, and not one.

        Returns:
            Logits (B, L), or (B, T, V) of a language model or a bare encoder.

        Raises:
            CancelledError: It was stopped.
            ScoreError: onnxruntime failed on this batch.
            UnsupportedModelError: The graph asks for another input, or gives something else than one row per pair.
        """
        signature = self.signature
        declared = {name: array.dtype for name, array in arrays.items()} == signature.dtypes
        feeds = arrays if declared else signature.feeds(arrays)
        session = self._live(self._threads_of_a_run(all_threads=all_threads))
        stop = around.get() or (Stop() if threading.current_thread().daemon else None)
        options = onnxruntime().RunOptions()
        rows, length = arrays["input_ids"].shape
        with stop.calling(partial(setattr, options, "terminate", True)) if stop else nullcontext():
            try:
                if self._bound:
                    output = run_bound(session, feeds, signature.output_name, options)
                else:
                    (output,) = session.run([signature.output_name], feeds, options)
            except Exception as error:
                if stop:
                    stop.check()
                kind = OutOfMemoryError if OUT_OF_MEMORY.search(str(error)) else ScoreError
                raise kind(
                    f"onnxruntime failed on a batch of {rows} pairs of {length} tokens: {error}\n"
                    "No ranking was made: give a smaller batch_size if memory is short, else look at the model with "
                    "onnx-rerank check."
                ) from error
        shape = np.shape(output)
        usual = len(shape) == signature.output_rank and shape[0] == rows
        return output if usual else signature.logits(output, rows)

    def token_budget(self, *, all_threads: bool) -> int:
        if self.on_device:
            return self._tokens_on_device
        return TOKENS_PER_THREAD * self._threads_of_a_run(all_threads=all_threads)

    def take_less(self, tokens: int) -> None:
        self._tokens_on_device = min(self._tokens_on_device, max(tokens // 2, 1))

    def _threads_of_a_run(self, *, all_threads: bool) -> int:
        return self.threads if all_threads else self.threads // self.lanes

    def _live(self, threads: int) -> Any:
        """The session of so many threads a run; opened anew in a forked child, which can't use its parent's."""
        opened = self._opened[threads]
        return opened.made or opened(partial(self._open, threads))

    def _open(self, threads: int) -> Any:
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = LOG_FATAL_ONLY
        options.enable_mem_pattern = False  # a plan of memory for each shape: nearly every batch has a shape of its own
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self._idle_threads == "spin")))
        try:
            self._refuse_replaced()
            session = new_session(str(self.path), options, self._providers)
        except Exception as error:
            if self._otherwise is not None:
                logger.warning("the copy %s can't be opened, the model runs as it is: %s", self.path, error)
                self.path, self._otherwise = self._otherwise, None
                return self._open(threads)
            if isinstance(error, InvalidModelError):
                raise
            raise InvalidModelError(
                f"onnxruntime {ort.__version__} can't open {self.path}: {describe_broken(self.path) or error}\n"
                "Fetch the model again, or export it anew (onnx-rerank export)."
            ) from error
        check_active(self._providers, session.get_providers())
        logger.debug("opened %s with %s, %d threads", self.path, session.get_providers(), threads)
        return session

    def _refuse_replaced(self) -> None:
        """A graph that is opened again, in a forked child say, must be the one whose tokenizer and labels are used."""
        if written(self.path) != self._written.get(self.path):
            raise InvalidModelError(
                f"{self.path} was replaced while an encoder had it open.\nOpen a new encoder, for the new model."
            )

    def renew(self) -> None:
        """Leaves the inherited sessions alone for good: freeing one in a child hangs or crashes."""
        for opened in self._opened.values():
            if opened.made is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened.made))
                opened.forget()


def written(path: Path) -> tuple[int, int]:
    """A file's size and time of writing: a link made to it, or a copy of the same file, leaves both."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def new_session(source: str | bytes, options: Any, providers: Sequence[Provider]) -> Any:
    """An ``onnxruntime.InferenceSession`` of a file or of a graph's bytes."""
    with undivided():
        # The fallback would try again on the CPU and say so on stdout, from within the constructor.
        return onnxruntime().InferenceSession(source, options, providers=list(providers), enable_fallback=0)


def to_fp16(model: Any) -> Any:
    """An ONNX graph with fp16 weights and products, its inputs and outputs as they were. Needs onnx."""
    onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def run_bound(
    session: Any, feeds: Mapping[str, NDArray[Any]], output_name: str, options: Any, device: str = "cuda"
) -> NDArray[Any]:
    """Runs one batch with its output bound to the device, from where only the logits are copied back."""
    binding = session.io_binding()
    for name, values in feeds.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(values))
    binding.bind_output(output_name, device)
    session.run_with_iobinding(binding, options)
    output: NDArray[Any] = binding.copy_outputs_to_cpu()[0]
    return output


def ports(declared: Sequence[Any]) -> list[Port]:
    """onnxruntime's inputs or outputs, as ours."""
    return [Port(port.name, port.shape or (), ELEMENT_TYPES.get(port.type, np.dtype(np.float32))) for port in declared]


def providers_for(providers: Sequence[Provider] | None, precision: Precision) -> Sequence[Provider] | None:
    """The providers, told what to compute in: CUDA takes TF32 for fp32 unless it is told otherwise.

    That moved scores by up to 6e-2 on an H200 (onnxruntime-gpu 1.31.1), 1e-4 with TF32 off. A provider's own options
    come before ours.

    Raises:
        InputValueError: TF32 is asked for, and no provider has it.
    """
    if precision == "tf32" and "CUDAExecutionProvider" not in map(provider_name, providers or ()):
        raise InputValueError('precision="tf32" is CUDA\'s: it needs providers=["CUDAExecutionProvider"]')
    return providers and [_with_tf32(provider, on=precision == "tf32") for provider in providers]


def _with_tf32(provider: Provider, *, on: bool) -> Provider:
    if provider_name(provider) != "CUDAExecutionProvider":
        return provider
    given = {} if isinstance(provider, str) else provider[1]
    return "CUDAExecutionProvider", {"use_tf32": str(int(on)), **given}


def provider_name(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def check_providers(names: Sequence[str]) -> None:
    """Raises ProviderError for a provider this onnxruntime wasn't built with."""
    available = onnxruntime().get_available_providers()
    for name in names:
        if name not in available:
            raise ProviderError(
                f"The execution provider {name!r} was asked for; this onnxruntime has {', '.join(available)}.\n"
                "Install the onnxruntime package that holds it (onnxruntime-gpu for CUDA), or leave providers out to "
                "run on the CPU."
            )


def check_active(asked: Sequence[Provider], active: Sequence[str]) -> None:
    """Raises ProviderError when onnxruntime quietly left out a provider."""
    left_out = [name for name in map(provider_name, asked) if name not in active]
    if left_out:
        raise ProviderError(
            f"The execution provider {left_out[0]!r} didn't start (active: {', '.join(active)}).\n"
            "Check its driver and libraries, or leave providers out to run on the CPU."
        )

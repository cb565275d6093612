"""Runs the graph: the only file that imports onnxruntime."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.errors import (
    InputValueError,
    InvalidModelError,
    ProviderError,
    UnsupportedModelError,
)
from onnx_rerank_integrations.core.files import describe_broken

logger = logging.getLogger(__name__)

Provider = str | tuple[str, dict[str, Any]]
"""An execution provider's name, alone or with its options, as onnxruntime takes it."""

IdleThreads = Literal["sleep", "spin"]

LOG_FATAL_ONLY = 4
"""onnxruntime writes warnings and errors to stderr; the errors reach the caller as exceptions anyway."""

ELEMENT_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float16)": np.float16}

_sessions: weakref.WeakSet[InferenceSession] = weakref.WeakSet()


def onnxruntime() -> Any:
    """The onnxruntime module, imported when first needed, with its telemetry off unless the user chose otherwise.

    With telemetry on, onnxruntime 1.29 and later write a device id below ~/.cache, and a process forked after the
    import hangs when it ends.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def available_cpus() -> int:
    """CPUs this process may use: its affinity mask and its container's quota, at least 1."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cpus = os.cpu_count() or 1
    return max(1, min(cpus, _container_quota() or cpus))


def _container_quota() -> int | None:
    """Whole CPUs of the cgroup's quota, rounded up; None where there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return math.ceil(int(quota) / int(period))


class InferenceSession:
    """One ONNX graph, opened once and shared by any number of threads.

    Args:
        path: The graph.
        providers: Execution providers in order of preference; None for the CPU. Each must become active.
        threads: Threads inside one operator; None for `available_cpus`.
        idle_threads: What those threads do between operators: ``"sleep"`` leaves the cores to others, ``"spin"`` is a
            little quicker on a machine that does nothing else.
        output_ranks: Axes of the output that is read, in order of preference: 2 for a classifier's (B, L), 3 for a
            vector per token, (B, T, V).

    Attributes:
        input_names: The inputs the graph declares, in its order.
        batch_limit: The batch size a graph with a fixed batch axis was exported for; None where it is free.
        fixed_length: The T a graph with a fixed token axis was exported for; None where it is free.
        output_rank: Axes of the output that is read, one of `output_ranks`.

    Raises:
        InvalidModelError: The file is no ONNX graph this onnxruntime can read.
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
    ) -> None:
        self._path = path
        self._providers: list[Provider] = list(providers or ["CPUExecutionProvider"])
        self._threads = threads or available_cpus()
        self._idle_threads: IdleThreads = idle_threads
        self._lock = threading.Lock()
        check_providers(self._providers)
        session = self._open()
        self._session: Any = session
        self._inputs = {node.name: node for node in session.get_inputs()}
        self.input_names: tuple[str, ...] = tuple(self._inputs)
        self._output, self.output_rank = choose_output(session.get_outputs(), output_ranks, path)
        shape = next((node.shape for node in session.get_inputs() if node.name == "input_ids"), [None, None])
        self.batch_limit = shape[0] if isinstance(shape[0], int) else None
        self.fixed_length = shape[1] if isinstance(shape[1], int) else None
        _sessions.add(self)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Runs one batch.

        Args:
            inputs: Arrays (B, T) by name; of those, the ones that the graph declares are fed, in its element type.

        Returns:
            The graph's output, in its element type: logits (B, L), or (B, T, V) of a language model.

        Raises:
            UnsupportedModelError: The graph declares an input that is none of a text cross-encoder's, or gives
                something else than one row per pair.
        """
        rows = len(inputs["input_ids"])
        feeds = {
            name: self._in_graphs_type(name, inputs[name]) if name in inputs else self._decoder_input(name, rows)
            for name in self.input_names
        }
        (output,) = self._live().run([self._output], feeds)
        logits = np.asarray(output)
        if logits.ndim == 1:
            logits = logits[:, None]
        if len(logits) != rows or logits.ndim != self.output_rank:
            raise UnsupportedModelError(
                f"The model's output {self._output!r} has shape {logits.shape} for a batch of {rows}; a cross-encoder "
                f"gives one row of logits per pair.\nCheck that {self._path.name} is a sequence classifier, not an "
                "embedding model."
            )
        return logits

    def _decoder_input(self, name: str, rows: int) -> NDArray[Any]:
        """What a language model's graph asks for beside the tokens: an empty past, and only the last logits."""
        node = self._inputs[name]
        if name.startswith("past_key_values"):
            rest = [size if isinstance(size, int) else 0 for size in node.shape[1:]]
            return np.zeros([rows, *rest], dtype=ELEMENT_TYPES.get(node.type, np.float32))
        if name == "num_logits_to_keep":
            return np.array(1, dtype=np.int64).reshape([1] * len(node.shape))
        if name == "use_cache_branch":
            return np.zeros([1] * len(node.shape), dtype=bool)
        raise UnsupportedModelError(
            f"The graph asks for {name!r}, which isn't an input of a text cross-encoder.\n"
            f"Export {self._path.name} again as a sequence classifier (onnx-rerank export)."
        )

    def _in_graphs_type(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        return values.astype(ELEMENT_TYPES.get(self._inputs[name].type, values.dtype), copy=False)

    def _live(self) -> Any:
        """The session; opened anew in a forked child, which can't use its parent's threads."""
        if self._session is None:
            with self._lock:
                if self._session is None:
                    self._session = self._open()
        return self._session

    def _open(self) -> Any:
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = LOG_FATAL_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self._idle_threads == "spin")))
        try:
            session = ort.InferenceSession(str(self._path), options, providers=self._providers)
        except Exception as error:
            raise InvalidModelError(
                f"onnxruntime {ort.__version__} can't open {self._path}: {describe_broken(self._path) or error}\n"
                "Fetch the model again, or export it anew (onnx-rerank export)."
            ) from error
        session.disable_fallback()
        check_active(self._providers, session.get_providers())
        logger.debug("opened %s with %s, %d threads", self._path, session.get_providers(), self._threads)
        return session

    def _forget_in_child(self) -> None:
        """Leaves the inherited session alone for good: freeing it in a child hangs or crashes."""
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        self._session = None
        self._lock = threading.Lock()


def choose_output(outputs: Sequence[Any], ranks: Sequence[int], path: Path) -> tuple[str, int]:
    """The output that holds the logits and its rank: ``logits``, else the first of the most wanted rank."""
    for rank in ranks:
        fitting = [str(output.name) for output in outputs if _could_have(output, rank)]
        if fitting:
            return ("logits" if "logits" in fitting else fitting[0]), rank
    shapes = ", ".join(f"{output.name} {output.shape}" for output in outputs)
    raise UnsupportedModelError(
        f"No output of {path.name} is a score per pair: {shapes}. Embedding models and bare encoders give a vector per "
        "token.\nUse a cross-encoder exported with its classification head."
    )


def _could_have(output: Any, rank: int) -> bool:
    """Whether the output has these axes; exporters may leave the shape out, or squeeze a single label's axis."""
    axes = len(output.shape or ())
    return axes in (0, rank) or (rank == 2 and axes == 1)


def provider_name(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def check_providers(providers: Sequence[Provider]) -> None:
    """Raises ProviderError for a provider this onnxruntime wasn't built with."""
    available = onnxruntime().get_available_providers()
    for name in map(provider_name, providers):
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


def check_threads(threads: int | None) -> None:
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputValueError(f"threads={threads!r} must be a whole number from 1, or None for all available CPUs")


def _after_fork_in_child() -> None:
    # tokenizers warns on stderr when its thread pool was used before a fork, unless this is set.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for session in list(_sessions):
        session._forget_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

"""What is computed in: fp32 means fp32 on every device, fp16 is a copy that is compared first, and devices are fed."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra [optimize]")

import onnx
from onnx import numpy_helper

from onnx_rerank_integrations import InputValueError, OutOfMemoryError, TextCrossEncoder, UnsupportedModelError
from onnx_rerank_integrations.core import onnx_cross_encoder
from onnx_rerank_integrations.core.engine import open_session
from onnx_rerank_integrations.core.engine.onnxruntime import OUT_OF_MEMORY, providers_for
from onnx_rerank_integrations.core.onnx_format import FLOAT16, element_types
from onnx_rerank_integrations.core.options import Engine
from tests.parity import fixtures
from tests.toy import make_toy

BERT = fixtures.folder("bert")
TEXTS = ["rain on the roofs", "a canary sings", "bees live on honey in winter", "the harbour at night", "soup"] * 3


@pytest.mark.parametrize(
    ("given", "precision", "expected"),
    [
        (None, "fp32", None),
        (["CPUExecutionProvider"], "fp32", ["CPUExecutionProvider"]),
        (["CUDAExecutionProvider"], "fp32", [("CUDAExecutionProvider", {"use_tf32": "0"})]),
        (["CUDAExecutionProvider"], "fp16", [("CUDAExecutionProvider", {"use_tf32": "0"})]),
        (["CUDAExecutionProvider"], "tf32", [("CUDAExecutionProvider", {"use_tf32": "1"})]),
        (
            [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"],
            "fp32",
            [("CUDAExecutionProvider", {"use_tf32": "0", "device_id": 1}), "CPUExecutionProvider"],
        ),
        (
            [("CUDAExecutionProvider", {"use_tf32": "1"})],
            "fp32",
            [("CUDAExecutionProvider", {"use_tf32": "1"})],
        ),
    ],
)
def test_cuda_computes_in_tf32_only_where_it_is_asked_to(given: Any, precision: Any, expected: Any) -> None:
    assert providers_for(given, precision) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "tf32"}, "it needs providers"),
        ({"precision": "tf32", "providers": ["CPUExecutionProvider"]}, "it needs providers"),
        ({"precision": "bf16"}, 'needs backend="openvino"'),
        ({"precision": "fp16", "backend": "openvino"}, "onnxruntime's"),
    ],
)
def test_a_precision_that_nothing_here_computes_in_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        open_session(BERT / "model.onnx", Engine(**options), threads=1, output_ranks=(2,))


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "electra", "distilbert"])
@pytest.mark.parametrize("optimize", ["auto", "off"])
def test_fp16_runs_a_converted_copy_whose_scores_are_near(name: str, optimize: Any) -> None:
    folder = fixtures.folder(name)
    exact = np.array(TextCrossEncoder(folder).rerank("rain", TEXTS))

    encoder = TextCrossEncoder(folder, precision="fp16", optimize=optimize)
    half = np.array(encoder.rerank("rain", TEXTS))

    ran = encoder.load()._session.path  # type: ignore[attr-defined]
    assert FLOAT16 in element_types(ran)
    assert FLOAT16 not in element_types(folder / "model.onnx")
    assert 0 < np.abs(half - exact).max() < 0.05 * np.ptp(exact) + 1e-3
    assert TextCrossEncoder(folder, precision="fp16", optimize=optimize).load()._session.path == ran  # type: ignore[attr-defined]


def test_a_graph_that_overflows_in_fp16_is_refused_each_time(tmp_path: Path) -> None:
    folder = make_toy(tmp_path)
    model = onnx.load(folder / "model.onnx")
    [values] = [tensor for tensor in model.graph.initializer if tensor.name == "values"]
    values.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(values) * np.float32(1e6), "values"))
    onnx.save(model, folder / "model.onnx")

    for _ in range(2):
        with pytest.raises(
            UnsupportedModelError, match=r'precision="fp16" isn\'t to be had(?s:.*)Use precision="fp32"'
        ):
            TextCrossEncoder(folder, precision="fp16")


def test_a_file_that_is_fp16_says_so_and_is_not_converted(caplog: pytest.LogCaptureFixture) -> None:
    graph = Path(__file__).parent / "graphs" / "bert_torchscript17_fp16.onnx"
    from onnx_rerank_integrations.core.graphs.half import half_path

    assert half_path(graph) == graph


class Device:
    """A CPU session that is run as a device is: one batch after the other, and only so much memory."""

    on_device = True
    lanes = 1

    def __init__(self, session: Any, memory: int) -> None:
        self._session, self._memory = session, memory
        self.signature = session.signature
        self.budget = 2**17
        self.batches: list[int] = []
        self.threads: set[str] = set()

    def run(self, arrays: Any, **options: Any) -> Any:
        size = arrays["input_ids"].size
        if size > self._memory:
            raise OutOfMemoryError(f"onnxruntime failed: Failed to allocate memory for {size} tokens")
        self.batches.append(size)
        self.threads.add(threading.current_thread().name)
        return self._session.run(arrays, **options)

    def token_budget(self, *, all_threads: bool) -> int:
        return self.budget

    def take_less(self, tokens: int) -> None:
        self.budget = min(self.budget, tokens // 2)


def on_device(folder: Path, memory: int) -> tuple[TextCrossEncoder, Device]:
    encoder = TextCrossEncoder(folder, optimize="off")
    opened = encoder.load()
    device = Device(opened._session, memory)
    opened._session = device  # type: ignore[assignment]
    return encoder, device


def test_a_device_is_given_the_next_texts_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_cross_encoder, "DEVICE_CHUNK", 4)
    encoder, device = on_device(BERT, memory=2**20)
    texts = [f"{text} {place}" for place, text in enumerate(TEXTS)]
    tokenizer = encoder.load()._tokenizer
    encode, encoders = tokenizer.encode, []

    def encoded(*args: Any, **options: Any) -> Any:
        encoders.append(threading.current_thread().name)
        return encode(*args, **options)

    tokenizer.encode = encoded  # type: ignore[method-assign]

    assert encoder.rerank("rain", texts) == pytest.approx(TextCrossEncoder(BERT).rerank("rain", texts), abs=1e-5)
    assert len(encoders) == 4
    assert all(name.startswith("onnx-rerank") for name in encoders)
    assert not device.threads & set(encoders)


def test_a_batch_that_does_not_fit_is_halved_said_once_and_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    encoder, device = on_device(BERT, memory=40)
    texts = [f"{text} {place}" for place, text in enumerate(TEXTS)]

    with caplog.at_level(logging.WARNING):
        scores = encoder.rerank("rain", texts)
        again = encoder.rerank("rain", texts)

    assert scores == pytest.approx(TextCrossEncoder(BERT).rerank("rain", texts), abs=1e-5)
    assert again == pytest.approx(scores, abs=1e-5)
    assert max(device.batches) <= 40
    [message] = [record.message for record in caplog.records if "doesn't fit" in record.message]
    assert re.fullmatch(rf"{BERT}: a batch of \d+ tokens doesn't fit: smaller ones from now on", message)


def test_a_pair_that_does_not_fit_alone_is_an_error() -> None:
    encoder, _ = on_device(BERT, memory=4)

    with pytest.raises(OutOfMemoryError, match="Failed to allocate"):
        encoder.rerank("rain", TEXTS)


@pytest.mark.parametrize(
    "message",
    [
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : BFCArena::AllocateRawInternal Failed to allocate memory for "
        "requested buffer of size 12884901888",
        "CUDA failure 2: out of memory ; GPU=0",
        "std::bad_alloc",
        "Available memory of 1073741824 is smaller than requested bytes of 2147483648",
    ],
)
def test_what_onnxruntime_says_of_too_little_memory_is_known(message: str) -> None:
    assert OUT_OF_MEMORY.search(message)
    assert not OUT_OF_MEMORY.search("Non-zero status code returned while running Gather node: indices out of bounds")

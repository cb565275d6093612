"""No test reaches beyond this machine, but those marked `hub`, which are asked for by `pytest -m hub`.

Nothing is left in the home folder. Those marked `showcase` and `soak` are asked for too: other steps of `.ci/run` do
what they do, and more.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

ASKED_FOR = {
    "hub": "needs real models from the Hugging Face hub",
    "showcase": "runs the demo or a notebook as a whole, as `.ci/run notebooks` does",
    "soak": "is the least of `make soak`, of which `.ci/run faults` does more",
}
"""Marks of tests that run only where they are named, and why."""


def pytest_configure(config: pytest.Config) -> None:
    """What is kept in the home folder goes elsewhere, before any module is imported; child processes inherit it."""
    _let_examples_take_their_time()
    folder = Path(tempfile.mkdtemp(prefix="onnx-rerank-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["ONNX_RERANK_CACHE"] = str(folder / "onnx-rerank")
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # a module of tests may import onnxruntime before the package does
    os.environ["MPLCONFIGDIR"] = str(Path(__file__).parent.parent / "build" / "matplotlib")  # fonts are listed once
    if "hub" not in config.getoption("markexpr"):
        os.environ["HF_HOME"] = str(folder / "huggingface")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked_for = config.getoption("markexpr")
    for mark, reason in ASKED_FOR.items():
        if mark in asked_for:
            continue
        for item in items:
            if mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"{reason}: pytest -m {mark}"))


def _let_examples_take_their_time() -> None:
    """Hypothesis fails an example of over 0.2 s, and a test whose examples are drawn slowly: both a busy machine's."""
    try:
        from hypothesis import HealthCheck, settings
    except ImportError:
        return  # not every environment of .ci/run has it
    settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy machine")


class NetworkError(RuntimeError):
    """A test tried to leave this machine."""


@pytest.fixture(autouse=True)
def _forget_custom_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that a test adds are gone after it, whichever test comes next in its process."""
    from onnx_rerank_integrations.core.model import registry  # not before the variables above are set

    monkeypatch.setattr(registry, "_models", dict(registry._models))


@pytest.fixture(autouse=True)
def _stay_on_this_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "hub" in request.keywords:
        return
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise NetworkError(f"a test tried to connect to {address[0]}; mark it `hub`, or keep it on this machine")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

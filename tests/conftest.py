"""No test reaches beyond this machine, but those marked `hub`, which are asked for by `pytest -m hub`.

Those marked `showcase` and `soak` are asked for too: other steps of `.ci/run` do what they do, and more.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

import pytest

ASKED_FOR = {
    "hub": "needs real models from the Hugging Face hub",
    "showcase": "runs the demo or a notebook as a whole, as `.ci/run notebooks` does",
    "soak": "is the least of `make soak`, of which `.ci/run faults` does more",
}
"""Marks of tests that run only where they are named, and why."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked_for = config.getoption("markexpr")
    for mark, reason in ASKED_FOR.items():
        if mark in asked_for:
            continue
        for item in items:
            if mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"{reason}: pytest -m {mark}"))


@pytest.fixture(autouse=True, scope="session")
def _keep_rewritten_graphs_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Not in the user's own cache; child processes inherit it."""
    os.environ["ONNX_RERANK_CACHE"] = str(tmp_path_factory.mktemp("onnx-rerank-cache"))


class NetworkError(RuntimeError):
    """A test tried to leave this machine."""


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

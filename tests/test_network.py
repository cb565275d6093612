"""The guard of tests/conftest.py."""

from __future__ import annotations

import socket

import pytest

from tests.conftest import NetworkError


def test_a_test_cannot_leave_this_machine() -> None:
    with socket.socket() as outside, pytest.raises(NetworkError, match="mark it `hub`"):
        outside.connect(("192.0.2.1", 80))  # RFC 5737: an address that nobody has


def test_a_test_can_talk_to_a_server_on_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())

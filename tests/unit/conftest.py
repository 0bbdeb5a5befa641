"""Unit tests open no socket: what they test has no business with the network."""

import socket

import pytest
from hypothesis import settings

# How long an example takes depends on what else the machine does.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


class SocketOpened(AssertionError):  # noqa: N818 - what happened
    """A unit test reached for the network."""


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch):
    def refuse(self, *address):
        raise SocketOpened(f"a unit test reached for {address}")

    for method in ("bind", "connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, method, refuse)

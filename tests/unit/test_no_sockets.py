import socket

import pytest


def test_unit_test_fails_when_it_connects():
    with socket.socket() as client, pytest.raises(AssertionError, match="a unit test reached for"):
        client.connect(("127.0.0.1", 9))


def test_unit_test_fails_when_it_listens():
    with pytest.raises(AssertionError, match="a unit test reached for"):
        socket.create_server(("127.0.0.1", 0))

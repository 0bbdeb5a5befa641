"""A relay between a client and a server on this machine that fails as networks and services do."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Self

_BUFFER_BYTES = 16 * 1024
_MAX_HEAD_BYTES = 64 * 1024
# Closing with it sends a reset, as a machine that has vanished and come back does (SO_LINGER in socket(7)).
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """What happens to connections.

    Attributes:
        refuses: nobody listens.
        stalls: they are accepted, and nothing is ever answered.
        answer: they are answered with these bytes instead of the server's.
        cut_share: so many of them, 0 to 1, are reset
        cut_within_bytes: after some of these bytes, both directions together.
        delay: seconds that every piece of an answer takes longer.
    """

    refuses: bool = False
    stalls: bool = False
    answer: bytes = b""
    cut_share: float = 0.0
    cut_within_bytes: int = 0
    delay: float = 0.0


class Relay:
    """Listens on a port of its own for as long as it is entered, and passes on what comes. Use it as a context manager.

    `hits` counts the connections that a fault befell.
    """

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self._server = ("127.0.0.1", port)
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._fault = Fault()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.hits = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_listening()
        self._reset_all()

    @contextlib.contextmanager
    def failing(self, fault: Fault):
        """Fail this way, beginning with the open connections, and recover."""
        self._begin(fault)
        try:
            yield
        finally:
            self._begin(Fault())

    def _begin(self, fault: Fault) -> None:
        self._fault = fault
        if fault.refuses:
            self._stop_listening()
        elif self._listener is None:
            self._listen()
        self._reset_all()

    def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)  # which wakes who accepts
            listener.close()

    def _reset_all(self) -> None:
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with self._lock:
                    self._open.add(client)
                threading.Thread(target=self._serve, args=(client, self._fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        with contextlib.suppress(OSError), client:
            if fault.stalls:
                self.hits += 1
                while client.recv(_BUFFER_BYTES):
                    pass
            elif fault.answer:
                self.hits += 1
                _read_request(client)
                client.sendall(fault.answer)
                client.shutdown(socket.SHUT_WR)
                while client.recv(_BUFFER_BYTES):  # so that what is still sent does not reset the answer
                    pass
            else:
                self._pass_on(client, fault)
        with self._lock:
            self._open.discard(client)

    def _pass_on(self, client: socket.socket, fault: Fault) -> None:
        left = None
        if self._random.random() < fault.cut_share:
            left = self._random.randint(0, fault.cut_within_bytes)
        self.hits += bool(fault.delay)
        with socket.create_connection(self._server) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for source in ready:
                    piece = source.recv(_BUFFER_BYTES)
                    if not piece:
                        return
                    if left is not None and len(piece) > left:
                        self.hits += 1
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        return
                    left = None if left is None else left - len(piece)
                    if source is server:
                        time.sleep(fault.delay)
                    (client if source is server else server).sendall(piece)


def _read_request(client: socket.socket) -> None:
    """Read the head of an HTTP request."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD_BYTES:
        piece = client.recv(_BUFFER_BYTES)
        if not piece:
            return
        head += piece

"""A server between a device and the download API that answers as an attacker would."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import requests

# What a request waits for to be told what to answer; longer than any test takes.
_PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Seen:
    """A request, with the names of its headers in lower case."""

    path: str
    headers: dict[str, str]


Answer = Callable[["Exchange"], None]


class Exchange:
    """One request, and the means to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, seen: Seen, api_url: str) -> None:
        self._handler = handler
        self._api_url = api_url
        self.seen = seen

    def honest(self) -> requests.Response:
        """What the API answers to it."""
        passed_on = {"Accept", "Range", "x-api-key"}
        headers = {name: self.seen.headers[name.lower()] for name in passed_on if name.lower() in self.seen.headers}
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{self._api_url}{self.seen.path}", headers=headers, timeout=60, allow_redirects=False)

    def send(self, status: int, body: bytes = b"", **headers: str | None) -> None:
        """Answer; a header's name has underscores for dashes, and Content-Length is that of the body unless given."""
        self._handler.send_response(status)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({} if status == 204 else {"Content-Length": str(len(body))} | given).items():
            if value is not None:
                self._handler.send_header(name, value)
        self._handler.end_headers()
        self.drip(body)

    def drip(self, body: bytes) -> None:
        """Send bytes of the body, or what the device takes for them."""
        self._handler.wfile.write(body)
        self._handler.wfile.flush()

    def hang_up(self) -> None:
        """End the connection, however much was announced."""
        self._handler.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A device that breaks a connection off is no news."""


class HostileServer:
    """Answers requests for images one after the other as told, and lets those wait that it was told nothing about.

    Check-ins are answered by `check_in`, which is replaced at will. Use it as a context manager.
    """

    def __init__(self, api_url: str) -> None:
        self.seen: list[Seen] = []
        self.check_in: Answer = lambda exchange: exchange.send(204)
        self._script: deque[Answer] = deque()
        self._changed = threading.Condition()
        self._latest: Seen | None = None
        hostile = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                seen = Seen(self.path, {name.lower(): value for name, value in self.headers.items()})
                hostile.seen.append(seen)
                exchange = Exchange(self, seen, api_url)
                with contextlib.suppress(OSError):  # the device may have had enough
                    if "/update?" in self.path:
                        hostile.check_in(exchange)
                    else:
                        hostile._next_answer(seen)(exchange)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, *answers: Answer) -> None:
        """Answer the next requests for images so."""
        with self._changed:
            self._script.extend(answers)
            self._changed.notify_all()

    def _next_answer(self, request: Seen) -> Answer:
        """The next answer, as soon as there is one; none for a request that the device has given up for another."""
        with self._changed:
            self._latest = request
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._script or self._latest is not request, _PATIENCE_SECONDS)
            return self._script.popleft() if self._latest is request and self._script else Exchange.hang_up


def pass_on(exchange: Exchange) -> None:
    """Answer what the API answers."""
    response = exchange.honest()
    headers: dict[str, Any] = {
        name.replace("-", "_"): response.headers[name]
        for name in ("Content-Type", "Content-Range", "ETag", "Accept-Ranges")
        if name in response.headers
    }
    exchange.send(response.status_code, response.content, **headers)

"""Publishing to devices through AWS IoT Core's data endpoint.

Source: https://docs.aws.amazon.com/iot/latest/apireference/API_iotdata_Publish.html. A request is small, and there is
one per device, so they are written here: urllib3 takes three times the CPU (docs/adr/0013-publishing-over-http.md).
"""

from __future__ import annotations

import functools
import os
import queue
import random
import re
import socket
import ssl
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import SplitResult, quote, urlsplit

import boto3

from ota_core.errors import ConfigurationError, OtaError
from ota_core.runtime.sigv4 import PostSigner

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_CONNECTIONS = 16
# How far behind schedule a batch may be before it gets another connection, and how often to look.
_LATE_SECONDS = 0.02
_TIMEOUT_SECONDS = 10.0
_MAX_ATTEMPTS = 8
_MAX_BACKOFF_SECONDS = 20.0
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d)[ \r]")
_MAX_LINE_BYTES = 16 * 1024
_MAX_HEADER_LINES = 100


class MessageNotPublished(OtaError):  # noqa: N818 - a state of the world
    """AWS IoT Core refused a message for good, or did not accept it at the last attempt."""


class DeviceNotifier:
    """Publishes one payload to many topics, no faster than allowed."""

    def __init__(self, messages_per_second: float) -> None:
        self._interval = 1 / messages_per_second
        session = boto3.Session()
        credentials = session.get_credentials()
        if credentials is None:
            raise ConfigurationError("credentials_missing", "There are no AWS credentials; Lambda sets them.")
        self._credentials = credentials
        self._region = session.region_name
        self._endpoint = urlsplit(_endpoint_url())

    def publish(self, topics: Sequence[str], payload: bytes, *, retain: bool) -> None:
        """Publish with QoS 1; throttling and transient errors are retried.

        Raises:
            MessageNotPublished: a message was refused for good, or at the last attempt. No more were started.
        """
        # Frozen for one batch only: a warm function outlives credentials.
        credentials = self._credentials.get_frozen_credentials()
        signer = PostSigner(
            credentials.access_key or "",
            credentials.secret_key or "",
            credentials.token,
            region=self._region,
            service="iotdata",
            host=self._endpoint.netloc,
            body=payload,
        )
        _Batch(_Publisher(self._endpoint, signer, payload, retain=retain), topics, self._interval).publish()


@functools.cache
def _tls_context() -> ssl.SSLContext:
    # https://docs.aws.amazon.com/sdkref/latest/guide/feature-gen-config.html: the SDKs' variable for another CA.
    return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))


def _endpoint_url() -> str:
    """The account's own data endpoint, which AWS recommends over the shared one, unless the SDKs' settings name one."""
    # https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    told = os.environ.get("AWS_ENDPOINT_URL_IOT_DATA_PLANE") or os.environ.get("AWS_ENDPOINT_URL")
    if told:
        return told
    answer = boto3.client("iot").describe_endpoint(endpointType="iot:Data-ATS")
    return f"https://{answer['endpointAddress']}"


class _Batch:
    """Waiting messages, and as many connections as it takes to send them in time."""

    def __init__(self, publisher: _Publisher, topics: Sequence[str], interval: float) -> None:
        self._publisher = publisher
        self._interval = interval
        self._count = len(topics)
        self._is_given_up = False
        self._waiting: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        for numbered_topic in enumerate(topics):
            self._waiting.put(numbered_topic)

    def publish(self) -> None:
        self._begun = time.monotonic()
        with ThreadPoolExecutor(_MAX_CONNECTIONS) as pool:
            senders = [pool.submit(self._send)]
            while self._waiting.qsize() and not self._is_given_up:
                wait(senders, timeout=_LATE_SECONDS, return_when=FIRST_COMPLETED)
                if (
                    len(senders) < _MAX_CONNECTIONS
                    and self._ahead(self._count - self._waiting.qsize()) < -_LATE_SECONDS
                ):
                    senders.append(pool.submit(self._send))
            for sender in senders:
                sender.result()

    def _ahead(self, number: int) -> float:
        """Seconds until a message is due."""
        return self._begun + number * self._interval - time.monotonic()

    def _send(self) -> None:
        with closing(_Connection(self._publisher.endpoint)) as connection:
            try:
                while not self._is_given_up:
                    number, topic = self._waiting.get_nowait()
                    if (ahead := self._ahead(number)) > 0:
                        time.sleep(ahead)
                    self._publisher.publish(connection, topic)
            except queue.Empty:
                return
            except BaseException:
                self._is_given_up = True
                raise


class _Publisher:
    """Publishes one payload over the connections that it is given."""

    def __init__(self, endpoint: SplitResult, signer: PostSigner, payload: bytes, *, retain: bool) -> None:
        self.endpoint = endpoint
        self._signer = signer
        self._payload = payload
        self._query = f"qos=1&retain={str(retain).lower()}"

    def publish(self, connection: _Connection, topic: str) -> None:
        path = f"/topics/{quote(topic, safe='')}"
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                answer = connection.exchange(self._request(path), self._payload)
            except (OSError, _NoAnswer) as error:
                failure = f"could not be reached ({error!r})"
            else:
                if answer.status < 300:
                    return
                failure = f"answered {answer.status} {answer.error_type}".rstrip()
                if answer.status < 500 and answer.status != 429:
                    break
            if attempt < _MAX_ATTEMPTS:
                # Exponential, with full jitter.
                time.sleep(random.random() * min(2 ** (attempt - 1), _MAX_BACKOFF_SECONDS))  # noqa: S311 # nosec B311
        raise MessageNotPublished(
            "message_not_published",
            f"AWS IoT Core {failure} while publishing a message to {topic}; expected 200. "
            "Fix the cause, then redrive the execution.",
        )

    def _request(self, path: str) -> bytes:
        """The request's head (RFC 9112 sections 3 and 5)."""
        headers = self._signer.headers(path, self._query, time.time())
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {path}?{self._query} HTTP/1.1\r\n{lines}Content-Length: {len(self._payload)}\r\n\r\n".encode()


class _NoAnswer(Exception):  # noqa: N818 - a state of the world, which passes
    """The server sent no answer, or only the beginning of one."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    error_type: str


class _Connection:
    """A connection that is opened when needed, and kept as long as the server keeps it."""

    def __init__(self, endpoint: SplitResult) -> None:
        self._endpoint = endpoint
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._stream.close()
            self._socket.close()
            self._socket = None

    def exchange(self, head: bytes, content: bytes) -> _Answer:
        """Send a request, and wait for its answer.

        Raises:
            OSError, _NoAnswer: none came.
        """
        try:
            if self._socket is None:
                self._socket = self._open()
                self._stream: BinaryIO = self._socket.makefile("rb")
            self._socket.sendall(head + content)
            return self._read_answer()
        except BaseException:
            self.close()
            raise

    def _open(self) -> socket.socket:
        host = self._endpoint.hostname or ""
        is_tls = self._endpoint.scheme == "https"
        opened = socket.create_connection((host, self._endpoint.port or (443 if is_tls else 80)), _TIMEOUT_SECONDS)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not is_tls:
            return opened
        return _tls_context().wrap_socket(opened, server_hostname=host)

    def _read_answer(self) -> _Answer:
        """Read a response (RFC 9112 sections 4 to 6). One without a length ends the connection, unread."""
        status_line = self._stream.readline(_MAX_LINE_BYTES)
        match = _STATUS_LINE.match(status_line)
        if match is None:
            raise _NoAnswer(f"the answer begins with {status_line[:80]!r}")
        size, error_type, is_last = None, "", False
        for _ in range(_MAX_HEADER_LINES):
            line = self._stream.readline(_MAX_LINE_BYTES)
            if line == b"\r\n":
                break
            name, _, value = line.partition(b":")
            name, value = name.lower(), value.strip()
            if name == b"content-length" and value.isdigit():
                size = int(value)
            elif name == b"x-amzn-errortype":
                error_type = value.decode("latin-1")
            elif name == b"transfer-encoding" or (name == b"connection" and value.lower() == b"close"):
                is_last = True
        else:
            raise _NoAnswer("the answer's headers do not end")
        if size is None or is_last:
            self.close()
        elif len(self._stream.read(size)) < size:
            raise _NoAnswer("the answer is cut off")
        return _Answer(int(match[1]), error_type)

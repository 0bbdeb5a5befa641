"""Publishing: one batch of the size that the pipeline uses, to a sink that costs next to nothing."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import boto3
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from harness import RUNS, Figure, median_cost, medians, report
from lab import CONTEXT, load_handler
from local_cloud.postgresql import issue_server_certificate
from local_cloud.processes import free_port

_MESSAGES = 1000
_PAYLOAD = "x" * 3000  # The size of a notification with a key of 3,072 bits.
_TOKEN = "t" * 800  # A role's credentials have one, and it is most of a request's head.


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        authority, certificate, key = (Path(folder) / name for name in ("ca.pem", "server.pem", "server.key"))
        authority.write_bytes(issue_server_certificate(certificate, key, None))
        port = free_port()
        sink = subprocess.Popen([sys.executable, Path(__file__).with_name("null_sink.py"), str(port), certificate, key])
        try:
            _await(port)
            os.environ |= {
                "AWS_CA_BUNDLE": str(authority),
                "AWS_ENDPOINT_URL_IOT_DATA_PLANE": f"https://127.0.0.1:{port}",
            }
            report(_measure(port, authority))
        finally:
            sink.terminate()
            sink.wait()


def _measure(port: int, authority: Path) -> Figure:
    handler = load_handler("publish_mqtt")
    with _session_token():
        handler.NOTIFIER = type(handler.NOTIFIER)(20_000 / 20)
        session = boto3.Session()
        credentials = session.get_credentials().get_frozen_credentials()
    topics = [f"/firmware_update/02:00:00:00:{n >> 8:02X}:{n & 255:02X}" for n in range(_MESSAGES)]
    batches = _write_batches(topics, RUNS + 1)

    def ours() -> None:
        assert handler.lambda_handler({"batch": next(batches)}, CONTEXT) == {"published": _MESSAGES}

    def floor() -> None:
        _sign_write_read(port, authority, topics, credentials)

    sdk = session.client("iot-data", config=Config(retries={"mode": "standard"}))

    def peer() -> None:
        for topic in topics:
            sdk.publish(topic=topic, qos=1, payload=_PAYLOAD, retain=False)

    found = medians(ours, floor, operations=_MESSAGES)
    boto = median_cost(peer, operations=_MESSAGES)
    return Figure(
        row="publish",
        what="messages per CPU-second",
        ours=1 / found.ours,
        floor=1 / found.floor,
        ratio=found.ratio,
        goal="≤ 3 × floor, ≥ 4 × boto3",
        is_met=found.ratio <= 3 and boto / found.ours >= 4,
        peer=f"boto3 loop {1 / boto:,.0f}; ours is {boto / found.ours:.1f} ×",
        more={"boto3": 1 / boto},
    )


@contextlib.contextmanager
def _session_token() -> Iterator[None]:
    os.environ["AWS_SESSION_TOKEN"] = _TOKEN
    yield
    del os.environ["AWS_SESSION_TOKEN"]


def _write_batches(topics: list[str], count: int) -> Iterator[str]:
    """Write `count` equal batches, because a published one is not published again."""
    s3 = boto3.client("s3")
    names = [f"batches/bench/{number}-{os.getpid()}.json" for number in range(count)]
    batch = json.dumps({"topics": topics, "retain": False, "payload": _PAYLOAD}).encode()
    for name in names:
        s3.put_object(Bucket=os.environ["BUCKET"], Key=name, Body=batch)
    return iter(names)


def _sign_write_read(port: int, authority: Path, topics: list[str], credentials: ReadOnlyCredentials) -> None:
    """The minimum: sign each message with Signature Version 4, write it, and read the answer that confirms it.

    Without the read the socket would accept a thousand messages while the sink sleeps, and no message would pay for
    waking the other side.
    """
    host = f"127.0.0.1:{port}"
    body = _PAYLOAD.encode()
    scope = f"{time.strftime('%Y%m%d', time.gmtime())}/us-east-1/iotdata/aws4_request"
    key = b"AWS4" + credentials.secret_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    body_sha256 = hashlib.sha256(body).hexdigest()
    names = "host;x-amz-date;x-amz-security-token"
    tls = ssl.create_default_context(cafile=authority)
    with tls.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as connection:
        for topic in topics:
            path = quote(topic, safe="")
            moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            canonical = (
                f"POST\n/topics/{quote(path)}\nqos=1&retain=false\nhost:{host}\nx-amz-date:{moment}\n"
                f"x-amz-security-token:{credentials.token}\n\n{names}\n{body_sha256}"
            )
            digest = hashlib.sha256(canonical.encode()).hexdigest()
            signature = hmac.digest(key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}".encode(), "sha256").hex()
            connection.sendall(
                f"POST /topics/{path}?qos=1&retain=false HTTP/1.1\r\nHost: {host}\r\nX-Amz-Date: {moment}\r\n"
                f"X-Amz-Security-Token: {credentials.token}\r\nAuthorization: AWS4-HMAC-SHA256 "
                f"Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def _await(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    main()

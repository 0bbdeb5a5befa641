import re
import socket
import threading
import time

import pytest
from ota_core.runtime import device_notifier
from ota_core.runtime.device_notifier import DeviceNotifier, MessageNotPublished

OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"message":"OK"}'


def refusal(status, error_type):
    return b"HTTP/1.1 %d x\r\nx-amzn-ErrorType: %b\r\nContent-Length: 2\r\n\r\n{}" % (status, error_type.encode())


class Broker:
    """Stands for AWS IoT Core's data endpoint: answers each request with the next answer, then with 200.

    It ends the connection after an answer of None, and after one that says so.
    """

    def __init__(self, monkeypatch):
        self.requests = []
        self.answers = []
        self.connections = 0
        self.lock = threading.Lock()
        self.threads = []
        monkeypatch.setattr(device_notifier._Connection, "_open", lambda _: self.connect())

    def connect(self):
        ours, theirs = socket.socketpair()
        self.connections += 1
        self.threads.append(threading.Thread(target=self.serve, args=(ours,), daemon=True))
        self.threads[-1].start()
        return theirs

    def serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            while request_line := stream.readline():
                headers = {}
                while (line := stream.readline()) != b"\r\n":
                    name, value = line.decode().split(": ", 1)
                    headers[name] = value.strip()
                body = stream.read(int(headers["Content-Length"]))
                with self.lock:
                    self.requests.append((time.monotonic(), request_line.decode(), headers, body))
                    answer = self.answers.pop(0) if self.answers else OK
                if answer is None:
                    return
                connection.sendall(answer)
                if b"close" in answer:
                    return

    @property
    def topics(self):
        return [re.search("/topics/([^?]*)", line)[1] for _, line, _, _ in self.requests]


@pytest.fixture
def notifier(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://iot.example")
    return DeviceNotifier(10_000)


@pytest.fixture
def broker(monkeypatch):
    return Broker(monkeypatch)


@pytest.fixture
def instant(monkeypatch):
    """Sleeping takes no time, and is written down."""
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.mark.parametrize("retain", [True, False])
def test_every_topic_gets_the_payload_with_qos_1(notifier, broker, retain):
    notifier.publish([f"/u/{n}" for n in range(50)], b"payload", retain=retain)
    assert sorted(broker.topics) == sorted(f"%2Fu%2F{n}" for n in range(50))
    for _, line, headers, body in broker.requests:
        assert body == b"payload"
        assert line.endswith(f"?qos=1&retain={str(retain).lower()} HTTP/1.1\r\n")
        assert headers["Host"] == "iot.example"
        assert "/us-east-1/iotdata/aws4_request, " in headers["Authorization"]


def test_messages_leave_no_faster_than_allowed(notifier, broker):
    notifier._interval = 1 / 200
    begun = time.monotonic()
    notifier.publish([f"/u/{n}" for n in range(41)], b"", retain=False)
    moments = sorted(moment - begun for moment, *_ in broker.requests)
    assert len(moments) == 41
    assert all(moment >= n / 200 - 0.001 for n, moment in enumerate(moments))


def test_broker_that_answers_slowly_gets_more_connections(notifier, broker, monkeypatch):
    monkeypatch.setattr(broker, "serve", lambda connection, serve=broker.serve: time.sleep(0.05) or serve(connection))
    notifier.publish([f"/u/{n}" for n in range(2000)], b"", retain=False)
    assert sorted(broker.topics) == sorted(f"%2Fu%2F{n}" for n in range(2000))
    assert 1 < broker.connections <= 16


@pytest.mark.parametrize(
    "passing",
    [
        refusal(429, "ThrottlingException"),
        refusal(500, "InternalFailureException"),
        refusal(503, "ServiceUnavailableException"),
        None,
        b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{close",
        b"HTTP/1.1 200 OK\r\nclose",
        b"SSH-2.0 close\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"close",
    ],
)
def test_message_that_was_not_taken_is_sent_again(notifier, broker, instant, passing):
    broker.answers = [passing, passing]
    notifier.publish(["/u/1"], b"", retain=False)
    assert broker.topics == ["%2Fu%2F1"] * 3
    assert len([pause for pause in instant if pause > 0]) == 2, "it backed off"


@pytest.mark.parametrize(
    "ending",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nclose\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nclose",
    ],
)
def test_answer_that_ends_its_connection_is_taken_and_the_next_message_gets_another(notifier, broker, ending):
    broker.answers = [ending]
    notifier.publish(["/u/1", "/u/2"], b"", retain=False)
    assert broker.topics == ["%2Fu%2F1", "%2Fu%2F2"]
    assert broker.connections == 2


def test_message_that_is_refused_for_good_fails_the_batch(notifier, broker, instant):
    broker.answers = [refusal(403, "ForbiddenException")]
    with pytest.raises(MessageNotPublished, match="403 ForbiddenException while publishing a message to /u/1"):
        notifier.publish(["/u/1", "/u/2"], b"", retain=False)
    assert broker.topics == ["%2Fu%2F1"], "no more were begun"


def test_message_that_is_never_taken_fails_the_batch(notifier, broker, instant):
    broker.answers = [refusal(503, "ServiceUnavailableException")] * 8
    with pytest.raises(MessageNotPublished, match="503"):
        notifier.publish(["/u/1"], b"", retain=False)
    assert len(broker.requests) == 8


def test_accounts_own_endpoint_is_used(aws, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    host = DeviceNotifier(1)._endpoint.netloc
    assert re.fullmatch(r"[a-z0-9]+-ats\.iot\.us-east-1\.amazonaws\.com", host)


def test_endpoint_of_the_environment_is_used_where_there_is_one(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert DeviceNotifier(1)._endpoint.geturl() == "http://127.0.0.1:4566"
    monkeypatch.setenv("AWS_ENDPOINT_URL_IOT_DATA_PLANE", "https://iot.example")
    assert DeviceNotifier(1)._endpoint.geturl() == "https://iot.example"

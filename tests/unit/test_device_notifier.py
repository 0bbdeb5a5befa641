import re
import threading
import time

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from ota_core import device_notifier
from ota_core.device_notifier import DeviceNotifier

# As the API reference of Publish has them.
ERRORS = {403: "ForbiddenException", 429: "ThrottlingException", 500: "InternalFailureException"}


class Broker:
    """Stands for AWS IoT Core's data endpoint: answers each request with the next status, then with 200."""

    def __init__(self, notifier):
        self.requests = []
        self.statuses = []
        self.lock = threading.Lock()
        notifier._iot.meta.events.register_first("before-send.iot-data-plane.Publish", self.answer)

    def answer(self, request, **_):
        with self.lock:
            self.requests.append((time.monotonic(), request.url, request.body))
            status = self.statuses.pop(0) if self.statuses else 200

        class Body:
            def stream(self):
                yield b"{}"

        return AWSResponse(request.url, status, {"x-amzn-errortype": ERRORS.get(status, "")}, Body())

    @property
    def topics(self):
        return sorted(url.split("/topics/")[1].split("?")[0] for _, url, _ in self.requests)


@pytest.fixture
def notifier(aws):
    return DeviceNotifier(10_000)


@pytest.fixture
def broker(notifier):
    return Broker(notifier)


@pytest.fixture
def instant(monkeypatch):
    """Sleeping takes no time, and is written down."""
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.mark.parametrize("retain", [True, False])
def test_every_topic_gets_the_payload_with_qos_1(notifier, broker, retain):
    notifier.publish([f"/u/{n}" for n in range(50)], b"payload", retain=retain)
    assert broker.topics == sorted(f"%2Fu%2F{n}" for n in range(50))
    for _, url, body in broker.requests:
        assert body == b"payload"
        assert "qos=1" in url
        assert f"retain={str(retain).lower()}" in url


def test_messages_leave_no_faster_than_allowed(aws):
    notifier = DeviceNotifier(200)
    broker = Broker(notifier)
    notifier.publish([f"/u/{n}" for n in range(41)], b"", retain=False)
    moments = sorted(moment for moment, _, _ in broker.requests)
    assert moments[-1] - moments[0] >= 40 / 200 * 0.9


def test_throttled_message_is_sent_again(notifier, broker, instant):
    broker.statuses = [429, 500, 503]
    notifier.publish(["/u/1"], b"", retain=False)
    assert len(broker.requests) == 4
    assert instant, "it backed off"


def test_message_that_is_refused_for_good_fails_the_batch(notifier, broker, instant):
    broker.statuses = [403]
    with pytest.raises(ClientError, match="ForbiddenException"):
        notifier.publish(["/u/1", "/u/2"], b"", retain=False)


def test_accounts_own_endpoint_is_used(aws, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    url = DeviceNotifier(1)._iot.meta.endpoint_url
    assert re.fullmatch(r"https://[a-z0-9]+-ats\.iot\.us-east-1\.amazonaws\.com", url)


def test_endpoint_of_the_environment_is_used_where_there_is_one(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert device_notifier._account_endpoint() is None
    assert DeviceNotifier(1)._iot.meta.endpoint_url == "http://127.0.0.1:4566"

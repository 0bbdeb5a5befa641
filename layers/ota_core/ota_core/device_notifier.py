"""Publishing to devices through AWS IoT Core's data endpoint."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from collections.abc import Sequence

_QOS_AT_LEAST_ONCE = 1
_THREADS = 16
# Standard mode backs off exponentially with jitter, and slows down when IoT Core throttles.
_CONFIG = Config(max_pool_connections=_THREADS, retries={"mode": "standard", "max_attempts": 8})


class DeviceNotifier:
    """Publishes one payload to many topics, no faster than allowed."""

    def __init__(self, messages_per_second: float) -> None:
        self._interval = 1 / messages_per_second
        self._iot = boto3.client("iot-data", endpoint_url=_account_endpoint(), config=_CONFIG)

    def publish(self, topics: Sequence[str], payload: bytes, *, retain: bool) -> None:
        """Publish with QoS 1; throttling and passing errors are retried.

        Raises:
            botocore.exceptions.ClientError: a message was refused for good, or all retries failed.
        """
        start = time.monotonic()
        with ThreadPoolExecutor(max_workers=min(_THREADS, len(topics))) as pool:
            published = []
            for number, topic in enumerate(topics):
                ahead = start + number * self._interval - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
                published.append(
                    pool.submit(self._iot.publish, topic=topic, qos=_QOS_AT_LEAST_ONCE, payload=payload, retain=retain)
                )
            for message in published:
                message.result()


def _account_endpoint() -> str | None:
    """The account's own data endpoint, which AWS advises over the shared one; None where the SDK is told another."""
    if "AWS_ENDPOINT_URL" in os.environ:
        return None
    answer = boto3.client("iot").describe_endpoint(endpointType="iot:Data-ATS")
    return f"https://{answer['endpointAddress']}"

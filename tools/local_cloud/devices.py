"""Devices as the MQTT broker sees them: each with its own certificate, and a client that listens."""

import json
import queue
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from .errors import LocalCloudError

_CONNECT_SECONDS = 20.0
_ACKNOWLEDGEMENT_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class DeviceIdentity:
    """A registered thing: its MAC is its name and its MQTT client id."""

    mac: str
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Message:
    """A message as the subscriber received it."""

    topic: str
    payload: bytes
    retained: bool
    received_at: float = field(default_factory=time.time)

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON is of any shape
        """The payload, decoded."""
        return json.loads(self.payload)


class Subscriber:
    """A device's MQTT session over mutual TLS. Use it as a context manager."""

    def __init__(self, host: str, port: int, authority: Path, device: DeviceIdentity, topics: list[str]) -> None:
        self.messages: list[Message] = []
        self._arrivals: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._address = (host, port)
        self._topics = topics
        self._subscribed = threading.Event()
        self._refused: str | None = None
        self._ended_sessions = 0  # the client reconnects automatically
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device.mac)
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(device.certificate, device.key)
        self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_disconnect = self._on_disconnect

    def __enter__(self) -> Self:
        """Connect and subscribe.

        Raises:
            LocalCloudError: The broker refuses the session or the subscription, or does not respond.
        """
        self._client.connect(*self._address)
        self._client.loop_start()
        if not self._subscribed.wait(_CONNECT_SECONDS) or self._refused:
            self.__exit__(None, None, None)
            raise LocalCloudError(
                f"The MQTT broker did not accept a subscriber to {', '.join(self._topics)}"
                f" ({self._refused or 'no answer'}).",
                "Check the device's policy.",
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def wait_for(self, count: int, seconds: float) -> list[Message]:
        """Wait until `count` messages have arrived since the session began, or the time is up.

        Returns:
            All that have arrived.
        """
        deadline = time.monotonic() + seconds
        while len(self.messages) < count:
            try:
                self.messages.append(self._arrivals.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        while not self._arrivals.empty():
            self.messages.append(self._arrivals.get())
        return list(self.messages)

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Publish with QoS 1 and wait for the acknowledgement.

        Raises:
            RuntimeError: The session has ended, as after a publication that the policy forbids.
        """
        sessions_before = self._ended_sessions
        message = self._client.publish(topic, payload, qos=1, retain=retain)
        deadline = time.monotonic() + _CONNECT_SECONDS
        while not message.is_published():
            message.wait_for_publish(_ACKNOWLEDGEMENT_POLL_SECONDS)
            if self._ended_sessions != sessions_before or time.monotonic() > deadline:
                raise RuntimeError(f"The MQTT broker did not accept a message to {topic}.")

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._refused = str(reason)
            self._subscribed.set()
            return
        client.subscribe([(topic, 1) for topic in self._topics])

    def _on_subscribe(
        self, _client: mqtt.Client, _data: object, _id: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        self._refused = ", ".join(refused) or None
        self._subscribed.set()

    def _on_disconnect(
        self, _client: mqtt.Client, _data: object, _flags: object, _reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._ended_sessions += 1
        if not self._subscribed.is_set():  # AWS IoT ends a session that requests what its policy does not allow
            self._refused = "it ended the session"
            self._subscribed.set()

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self._arrivals.put(Message(message.topic, bytes(message.payload), bool(message.retain)))

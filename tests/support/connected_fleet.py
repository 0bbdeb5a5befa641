"""A fleet of devices in one process. Each has its own thing, MQTT client id and session, under the deployed IoT policy.

The devices share one certificate, to which all their things are attached: AWS IoT allows it, and the policy goes by the
thing that has the client's id. So to the broker they are as separate as devices with certificates of their own, and two
thousand are registered in seconds. Like the firmware, a device believes a notification when its manifest is signed by
the key that the device trusts and is for its product; finds out by itself whether it is in the cohort; and starts a
release once.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from local_cloud import LocalCloud
from ota_core.errors import DropRejected
from ota_core.formats.envelope import open_envelope
from ota_core.formats.manifest import parse_manifest
from ota_core.rules.rollout import in_cohort
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from .drops import Key
from .pipeline import TOPIC_PREFIX

INSTALLS = ("downloading", "verifying", "rebooting", "installed")
ROLLS_BACK = ("downloading", "verifying", "rebooting", "rolled_back")

_OWNER_MAC = "02:F1:EE:70:00:00"  # whose certificate it is
_KEEP_ALIVE_SECONDS = 1200  # the longest that AWS IoT allows
_REGISTRATIONS_AT_A_TIME = 8


@dataclass(frozen=True)
class Start:
    """A device began with a release when it was told that this share of the devices should."""

    release_id: str
    percent: float


class FleetDevice:
    """One device: what it heard, what it does, and what it says. Belongs to the fleet's thread.

    Attributes:
        reports: the states that it goes through, and reports at once, when it starts a release.
        starts: the releases that it started.
        retained: by topic, the release of the retained message that it got when it subscribed.
    """

    def __init__(self, fleet: Fleet, mac: str) -> None:
        self.mac = mac
        self.running_version = "0.1.0"
        self.reports: tuple[str, ...] = INSTALLS
        self.starts: list[Start] = []
        self.retained: dict[str, str] = {}
        self.is_subscribed = False
        self._fleet = fleet
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=mac)
        self._client.tls_set_context(fleet.tls)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_disconnect = self._on_disconnect
        self._client.on_socket_open = self._on_socket_open
        self._client.on_socket_close = self._on_socket_close
        self._client.on_socket_register_write = self._on_socket_register_write
        self._client.on_socket_unregister_write = self._on_socket_unregister_write

    def connect(self) -> None:
        self.retained.clear()
        self._client.connect("127.0.0.1", self._fleet.port, _KEEP_ALIVE_SECONDS)

    def disconnect(self) -> None:
        self._client.disconnect()

    def report(self, release_id: str, version: str, state: str) -> None:
        if state == "installed":
            self.running_version = version
        status = {"release_id": release_id, "version": version, "state": state, "running_version": self.running_version}
        if state == "rolled_back":
            status["reason"] = "self_test_failed"
        self._client.publish(f"{TOPIC_PREFIX}/{self.mac}/status", json.dumps(status), qos=1)
        self._fleet.reports += 1

    def serve(self, events: int) -> None:
        """Write and read what is due."""
        if events & selectors.EVENT_WRITE:
            self._client.loop_write()
        if events & selectors.EVENT_READ:
            self._client.loop_read()
            # TLS may have taken more from the socket than it gave so far, and the socket does not show it.
            while (connection := self._client.socket()) is not None and connection.pending():
                self._client.loop_read()

    def _on_connect(self, client, _data, _flags, reason, _properties) -> None:
        if reason.is_failure:
            self._fleet.problems.append(f"{self.mac} was refused: {reason}")
            return
        topics = [TOPIC_PREFIX, f"{TOPIC_PREFIX}/product/{self._fleet.product}", f"{TOPIC_PREFIX}/{self.mac}"]
        client.subscribe([(topic, 1) for topic in topics])

    def _on_subscribe(self, _client, _data, _id, reasons, _properties) -> None:
        if any(reason.is_failure for reason in reasons):
            self._fleet.problems.append(f"{self.mac} may not subscribe: {reasons}")
        self.is_subscribed = True

    def _on_disconnect(self, _client, _data, _flags, reason, _properties) -> None:
        self.is_subscribed = False
        if reason.is_failure:
            self._fleet.problems.append(f"{self.mac} lost its session: {reason}")

    def _on_publish(self, _client, _data, _id, _reason, _properties) -> None:
        self._fleet.acknowledged += 1

    def _on_message(self, _client, _data, message) -> None:
        if not message.payload:  # a retained message is gone
            return
        notification = json.loads(message.payload)
        release_id = notification["release_id"]
        if message.retain:
            self.retained[message.topic] = release_id
        if "withdrawn" in notification or any(start.release_id == release_id for start in self.starts):
            return
        cohort = notification.get("cohort", {"salt": "", "percent": 100})
        if in_cohort(cohort["salt"], self.mac, cohort["percent"]) and self._fleet.believes(notification["manifest"]):
            self.starts.append(Start(release_id, cohort["percent"]))
            for state in self.reports:
                self.report(release_id, notification["version"], state)

    def _on_socket_open(self, _client, _data, connection) -> None:
        self._fleet.selector.register(connection, selectors.EVENT_READ, self)

    def _on_socket_close(self, _client, _data, connection) -> None:
        self._fleet.selector.unregister(connection)

    def _on_socket_register_write(self, _client, _data, connection) -> None:
        self._fleet.selector.modify(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def _on_socket_unregister_write(self, _client, _data, connection) -> None:
        self._fleet.selector.modify(connection, selectors.EVENT_READ, self)


class Fleet:
    """The devices of one product. Use it as a context manager: within, all are connected and act on what they are told.

    Attributes:
        reports, acknowledged: how many statuses they published, and the broker took.
    """

    def __init__(self, cloud: LocalCloud, product: str, macs: Iterable[str], key: Key) -> None:
        self.product = product
        self.port = cloud.emulator.mqtt_port
        self.reports = 0
        self.acknowledged = 0
        self.problems: list[str] = []
        self.selector = selectors.DefaultSelector()
        self._iot = cloud.client("iot")
        self._key = key
        owner = cloud.device(_OWNER_MAC)
        self.tls = ssl.create_default_context(cafile=cloud.mqtt_ca)
        self.tls.load_cert_chain(owner.certificate, owner.key)
        self.devices = {mac: FleetDevice(self, mac) for mac in macs}
        self._versions = itertools.count(1)
        self._calls: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._bell, self._listener = socket.socketpair()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._register(self.devices)
        self.selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        self.connect(self.devices)
        return self

    def __exit__(self, *_: object) -> None:
        self._do(lambda: [device.disconnect() for device in self.devices.values() if device.is_subscribed])
        self._is_stopped = True
        self._bell.send(b"!")
        self._thread.join()
        for end in (self._bell, self._listener, self.selector):
            end.close()

    def next_version(self) -> str:
        """A version that no release of the fleet had."""
        return f"1.{next(self._versions)}.0"

    def add(self, macs: Collection[str]) -> None:
        """Let new devices join, registered and not yet connected."""
        self._register(macs)
        self.devices |= {mac: FleetDevice(self, mac) for mac in macs}

    def connect(self, macs: Collection[str]) -> None:
        """Switch devices on, and wait until all have subscribed."""
        for mac in macs:
            self._do(self.devices[mac].connect)
        self.wait_until(lambda: all(self.devices[mac].is_subscribed for mac in macs), 120)

    def disconnect(self, macs: Collection[str]) -> None:
        """Switch devices off."""
        self._do(lambda: [self.devices[mac].disconnect() for mac in macs])
        self.wait_until(lambda: not any(self.devices[mac].is_subscribed for mac in macs), 60)

    def behave(self, macs: Iterable[str], reports: tuple[str, ...]) -> None:
        """Say what devices report of the releases that they will start."""
        for mac in macs:
            self.devices[mac].reports = reports

    def report(self, macs: Iterable[str], release_id: str, version: str, *states: str) -> None:
        """Let devices report."""
        self._do(
            lambda: [
                self.devices[mac].report(release_id, version, state) for mac, state in itertools.product(macs, states)
            ]
        )

    def started(self, release_id: str) -> dict[str, float]:
        """The devices that started a release, each with the percentage that it was told then."""
        return {
            mac: start.percent
            for mac, device in self.devices.items()
            for start in device.starts
            if start.release_id == release_id
        }

    def wait_until(self, condition: Callable[[], bool], seconds: float = 180) -> None:
        """Wait for a condition, or fail with what went wrong."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert not self.problems, self.problems[:5]
            assert time.monotonic() < deadline, f"still not so after {seconds} s"
            time.sleep(0.05)

    def believes(self, envelope: object) -> bool:
        """Whether a manifest is signed by the key that the devices trust, and for their product."""
        try:
            opened = open_envelope(json.dumps(envelope).encode(), {self._key.keyid: self._key.public}.get)
            return parse_manifest(opened.payload).product == self.product
        except DropRejected:
            return False

    def _register(self, macs: Collection[str]) -> None:
        [certificate] = self._iot.list_thing_principals(thingName=_OWNER_MAC)["principals"]

        def register(mac: str) -> None:
            self._iot.create_thing(thingName=mac)
            self._iot.attach_thing_principal(thingName=mac, principal=certificate)

        with ThreadPoolExecutor(_REGISTRATIONS_AT_A_TIME) as pool:
            list(pool.map(register, macs))

    def _do(self, work: Callable[[], object]) -> None:
        """Run something in the fleet's thread, to which the clients belong, and wait for it."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                work()
                done.set_result(None)
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                done.set_exception(error)

        with self._lock:
            self._calls.append(run)
        self._bell.send(b"!")
        done.result(120)

    def _run(self) -> None:
        while not self._is_stopped:
            for ready, events in self.selector.select():
                if ready.data is None:
                    self._listener.recv(4096)
                else:
                    ready.data.serve(events)
            with self._lock:
                calls, self._calls = self._calls, []
            for call in calls:
                call()

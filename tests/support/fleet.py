"""A fleet in the database: devices that were seen, and what they said of a release, without anybody waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from local_cloud import LocalCloud
from ota_core.formats.device_status import DeviceState, DeviceStatus
from ota_core.rules.rollout import in_cohort
from ota_core.stores.status_store import StatusStore
from pg8000.native import Connection

_Result = TypeVar("_Result")


class _Connected:
    """What the stores know of a database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def transaction(self, work: Callable[[Connection], _Result]) -> _Result:
        self._connection.run("BEGIN")
        found = work(self._connection)
        self._connection.run("COMMIT")
        return found


def macs(count: int, group: int) -> list[str]:
    """Addresses of a group of devices; groups share none."""
    return [f"06:{group:02X}:00:{n >> 16:02X}:{n >> 8 & 255:02X}:{n & 255:02X}" for n in range(count)]


def see(cloud: LocalCloud, product: str, devices: list[str], running_version: str = "1.0.0") -> None:
    """Let devices have asked for an update just now."""
    connection = cloud.connect_database()
    connection.run(
        "INSERT INTO devices (mac, product, running_version) SELECT CAST(mac AS macaddr), :product, :version"
        " FROM unnest(CAST(:macs AS text[])) AS listed (mac)",
        macs=devices,
        product=product,
        version=running_version,
    )
    connection.close()


def told(release_id: str, devices: Iterable[str], percent: float) -> list[str]:
    """Those of the devices that a wave reaches."""
    return [mac for mac in devices if in_cohort(release_id, mac, percent)]


def report(cloud: LocalCloud, release_id: str, reports: Iterable[tuple[str, str, datetime, str | None]]) -> None:
    """Record what devices said: MAC, state, when, and a reason."""
    statuses = [
        DeviceStatus(
            mac=mac,
            release_id=release_id,
            state=DeviceState(state),
            progress=40 if state == "downloading" else None,
            reason=reason,
            running_version=None,
            received_at=at,
        )
        for mac, state, at, reason in reports
    ]
    connection = cloud.connect_database()
    StatusStore(_Connected(connection)).record(statuses)
    connection.close()


def update(
    devices: Iterable[str], begin: datetime, end: datetime, failures: dict[str, tuple[str, int]]
) -> list[tuple[str, str, datetime, str | None]]:
    """What devices say that update between two times: one in `every` of `failures` ends otherwise than installed.

    Args:
        devices: their MACs, in the order in which they begin.
        begin, end: when the first begins and the last ends.
        failures: reason -> (state, every).
    """
    listed = list(devices)
    step = (end - begin) / max(1, 2 * len(listed))
    reports = []
    for place, mac in enumerate(listed):
        at = begin + 1.4 * place * step
        ending = next(
            ((state, reason) for reason, (state, every) in failures.items() if place % every == every - 1),
            ("installed", None),
        )
        passed = {"rejected": ("downloading",), "failed": ("downloading",)}.get(
            ending[0], ("downloading", "verifying", "rebooting")
        )
        spread = len(listed) * step / 8
        for number, state in enumerate((*passed, ending[0])):
            reports.append((mac, state, at + number * spread, ending[1] if state == ending[0] else None))
    return [entry for entry in reports if entry[2] <= end]

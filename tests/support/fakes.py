"""PostgreSQL's stores and the notifier, in memory: each implements the protocol that functions and stages know.

Mypy holds them to it, and tests/unit/test_fakes.py to the signatures of the stores. A fake that has an `error` fails
with it; `asked` is what it was asked.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from ota_core.formats.byte_range import ByteRange
from ota_core.formats.device_status import DeviceStatus
from ota_core.formats.manifest import parse_manifest
from ota_core.rules.check_in import Candidate
from ota_core.rules.rollout import in_cohort
from ota_core.stages.publication import Notifier
from ota_core.stores.delivery_store import ReleasedImage, Withdrawn
from ota_core.stores.firmware_store import FirmwareStore
from ota_core.stores.image_store import StoredImage
from ota_core.stores.interfaces import (
    CheckIns,
    Deliveries,
    Images,
    Releases,
    Rollouts,
    Statuses,
    Transactions,
    Waves,
)
from ota_core.stores.release_store import AlreadyReleased, InProgress, NewRelease, Registered, ReleaseSuperseded
from ota_core.stores.rollout_store import Advance
from ota_core.stores.status_store import News, Recorded
from ota_core.stores.wave_store import StoredRelease
from pg8000.native import Connection, DatabaseError

from support.drops import make_drop

_Result = TypeVar("_Result")


class FakeTransactions(Transactions):
    """Answers every statement with `rows`."""

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []
        self.error: Exception | None = None
        self.count = 0

    def transaction(self, work: Callable[[Connection], _Result]) -> _Result:
        self.count += 1
        if self.error:
            raise self.error
        return work(self)

    def statement(self, sql: str, **parameters: Any) -> list[list[Any]]:
        return self.transaction(lambda _: self.run(sql, **parameters))

    def run(self, sql: str, stream: Any = None, **parameters: Any) -> list[list[Any]]:
        """As a connection has it."""
        return self.rows


class FakeReleases(Releases):
    """Answers with `outcome`."""

    def __init__(self) -> None:
        self.outcome: Registered | AlreadyReleased | InProgress = Registered("1.4.0")
        self.error: Exception | None = None
        self.asked: list[tuple[NewRelease, str, str | None]] = []

    def register(
        self, release: NewRelease, *, execution: str, take_over_from: str | None = None
    ) -> Registered | AlreadyReleased | InProgress:
        self.asked.append((release, execution, take_over_from))
        if self.error:
            raise self.error
        return self.outcome


class FakeWaves(Waves):
    """Keeps what it is given. The execution `owner` owns every release, and `attempts` are made of every batch."""

    def __init__(self, store: FirmwareStore) -> None:
        self.store = store
        self.owner = "first"
        self.releases: dict[str, StoredRelease] = {}
        self.tagged = {"beta": ["02:00:00:00:00:01"]}
        self.recorded: dict[str, list[str]] = {}
        self.standing: dict[str | None, StoredRelease] = {}
        self.attempts = 1

    def release(self, percent: float = 100.0, **changes: Any) -> StoredRelease:
        """Register the release of a drop."""
        drop = make_drop(**changes)
        manifest = parse_manifest(base64.b64decode(json.loads(drop.manifest)["payload"]))
        listed = None
        if isinstance(changes.get("targets"), list):
            lines = "".join(f"{mac}\n" for mac in sorted(changes["targets"])).encode()
            listed = self.store.write(f"batches/{drop.release_id}/targets.txt", lines)
        self.releases[drop.release_id] = stored = StoredRelease(
            drop.release_id,
            manifest.version,
            drop.manifest.decode(),
            manifest,
            percent,
            listed.key if listed else None,
            listed.version_id if listed else None,
        )
        return stored

    def read(self, release_id: str, execution: str) -> StoredRelease:
        if execution != self.owner:
            raise ReleaseSuperseded(release_id)
        return self.releases[release_id]

    def record_listed_devices(self, release_id: str, execution: str, chunks: Callable[[], Iterable[bytes]]) -> None:
        self.read(release_id, execution)
        self.recorded[release_id] = b"".join(chunks()).decode().split()

    def record_tagged_devices(self, release_id: str, execution: str, tags: tuple[str, ...]) -> None:
        self.read(release_id, execution)
        self.recorded[release_id] = sorted({mac for tag in tags for mac in self.tagged.get(tag, [])})

    def for_each_batch(
        self, release_id: str, *, above: float, up_to: float, size: int, write: Callable[[int, list[str]], None]
    ) -> None:
        macs = [
            mac
            for mac in self.recorded[release_id]
            if in_cohort(release_id, mac, up_to) and not in_cohort(release_id, mac, above)
        ]
        for _ in range(self.attempts):
            for number, first in enumerate(range(0, len(macs), size)):
                write(number, macs[first : first + size])

    def last_word(self, product: str | None) -> StoredRelease | None:
        return self.standing.get(product)


class FakeRollouts(Rollouts):
    """Answers with `advanced`."""

    def __init__(self) -> None:
        self.advanced: Advance | None = None
        self.error: Exception | None = None
        self.asked: list[dict[str, Any]] = []

    def advance(
        self, release_id: str, execution: str, *, now: datetime, published_wave: int | None = None, takes_over: bool
    ) -> Advance:
        self.asked.append({"published_wave": published_wave, "takes_over": takes_over})
        if self.error or self.advanced is None:
            raise self.error or ReleaseSuperseded(release_id)
        return self.advanced


class FakeStatuses(Statuses):
    """Keeps what it is given, but refuses a batch with the state `refused`, and knows no release in `unknown`."""

    def __init__(self) -> None:
        self.recorded: list[DeviceStatus] = []
        self.unknown: set[str] = set()
        self.refused: str | None = None
        self.error: Exception | None = None

    def record(self, statuses: Sequence[DeviceStatus]) -> Recorded:
        if self.error:
            raise self.error
        if any(status.state == self.refused for status in statuses):
            raise DatabaseError({"C": "22021", "M": "refused"})
        self.recorded += statuses
        known = [status for status in statuses if status.release_id not in self.unknown]
        return Recorded(self.unknown, [News("demo-sensor", status) for status in known])


class FakeCheckIns(CheckIns):
    """Has the same release, `candidate`, for every device."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.error: Exception | None = None
        self.asked: list[dict[str, str | None]] = []

    def check_in(self, *, mac: str, product: str, running_version: str | None) -> Candidate | None:
        if self.error:
            raise self.error
        self.asked.append({"mac": mac, "product": product, "running_version": running_version})
        return self.candidate


class FakeDeliveries(Deliveries):
    """Finds `released`, by product and version."""

    def __init__(self, released: dict[tuple[str, str], ReleasedImage | Withdrawn]) -> None:
        self.released = released
        self.error: Exception | None = None
        self.asked: list[tuple[str, str]] = []

    def find(self, product: str, version: str) -> ReleasedImage | Withdrawn | None:
        self.asked.append((product, version))
        if self.error:
            raise self.error
        return self.released.get((product, version))


class FakeImages(Images):
    """Has the same bytes, `content`, for every image."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.error: Exception | None = None

    def read(self, image: StoredImage, part: ByteRange) -> bytes | memoryview:
        if self.error:
            raise self.error
        return memoryview(self.content)[part.first : part.last + 1]

    def presign(self, image: StoredImage, seconds: int) -> str:
        return f"https://bucket.example/{image.key}?for={seconds}"


class FakeNotifier(Notifier):
    """Keeps what it published: topic, payload and whether it is retained. Breaks at the topic `breaks_at`."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes, bool]] = []
        self.breaks_at: str | None = None

    def publish(self, topics: Sequence[str], payload: bytes, *, retain: bool) -> None:
        for topic in topics:
            if topic == self.breaks_at:
                raise ConnectionError(topic)
            self.published.append((topic, payload, retain))

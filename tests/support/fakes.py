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
from ota_core.formats.contracts import Wake
from ota_core.formats.device_status import DeviceStatus
from ota_core.formats.manifest import parse_manifest
from ota_core.formats.operator_documents import (
    Device,
    DevicePage,
    Release,
    ReleaseDetails,
    ReleasePage,
    TaggedDevice,
    Timeline,
)
from ota_core.rules.check_in import Candidate
from ota_core.rules.operator_actions import Action
from ota_core.rules.rollout import in_cohort
from ota_core.stages.publication import Notifier
from ota_core.stores.delivery_store import NotOffered, NotStarted, ReleasedImage, Withdrawn
from ota_core.stores.firmware_store import FirmwareStore
from ota_core.stores.image_store import StoredImage
from ota_core.stores.interfaces import (
    CheckIns,
    Commands,
    Deliveries,
    Images,
    Queries,
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
        self.reached: dict[str, float] = {}
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

    def open_wave(self, release_id: str, execution: str, percent: float) -> StoredRelease:
        release = self.read(release_id, execution)
        self.reached[release_id] = percent
        return release

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
    """Keeps what it is given.

    But it refuses a batch with the state `refused`, knows no release in `unknown`, and has no room for `strangers`.
    """

    def __init__(self) -> None:
        self.recorded: list[DeviceStatus] = []
        self.unknown: set[str] = set()
        self.strangers: set[str] = set()
        self.refused: str | None = None
        self.error: Exception | None = None

    def record(self, statuses: Sequence[DeviceStatus]) -> Recorded:
        if self.error:
            raise self.error
        if any(status.state == self.refused for status in statuses):
            raise DatabaseError({"C": "22021", "M": "refused"})
        self.recorded += statuses
        known = [
            status for status in statuses if status.release_id not in self.unknown and status.mac not in self.strangers
        ]
        return Recorded(self.unknown, self.strangers, [News("demo-sensor", status) for status in known])


class FakeCheckIns(CheckIns):
    """Has the same release, `candidate`, for every device."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.error: Exception | None = None
        self.asked: list[dict[str, str | None]] = []

    def check_in(self, *, mac: str, product: str, chip: str | None, running_version: str | None) -> Candidate | None:
        if self.error:
            raise self.error
        self.asked.append({"mac": mac, "product": product, "chip": chip, "running_version": running_version})
        return self.candidate


class FakeDeliveries(Deliveries):
    """Finds `released`, by product and version."""

    def __init__(self, released: dict[tuple[str, str], ReleasedImage | Withdrawn | NotStarted | NotOffered]) -> None:
        self.released = released
        self.error: Exception | None = None
        self.asked: list[dict[str, str | None]] = []

    def find(
        self, product: str, version: str, *, release_id: str | None, mac: str | None
    ) -> ReleasedImage | Withdrawn | NotStarted | NotOffered | None:
        self.asked.append({"product": product, "version": version, "release_id": release_id, "mac": mac})
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


RELEASE: Release = {
    "release_id": "0123456789abcdef" * 2,
    "product": "demo-sensor",
    "version": "1.4.0",
    "state": "rolling_out",
    "changelog": "größer",
    "target_count": None,
    "registered_at": "2026-06-01T00:00:00Z",
    "published_at": None,
    "expires_at": "2026-07-01T00:00:00Z",
    "withdrawn_because": None,
    "is_staged": True,
    "waves_published": 1,
    "cohort_percent": 10,
    "wave_published_at": "2026-06-01T00:00:01Z",
    "is_paused": False,
    "is_promoted": False,
    "is_aborted": False,
    "allowed_actions": [{"action": "pause"}, {"action": "promote", "wave": 2}, {"action": "abort"}],
}


class FakeQueries(Queries):
    """Has one release, RELEASE, and notes what it was asked last."""

    def __init__(self) -> None:
        self.asked: tuple[Any, ...] | None = None
        self.error: Exception | None = None

    def _note(self, *asked: Any) -> None:
        if self.error:
            raise self.error
        self.asked = asked

    def list_releases(self, *, product: str | None, state: str | None, before: int | None, limit: int) -> ReleasePage:
        self._note("list_releases", {"product": product, "state": state, "before": before, "limit": limit})
        return {"releases": [RELEASE]}

    def describe_release(self, release_id: str) -> ReleaseDetails:
        self._note("describe_release", release_id, {})
        return {
            **RELEASE,
            "sequence": 1,
            "chip": "esp32s3",
            "keyid": "0" * 64,
            "image_size": 4096,
            "image_sha256": "0" * 64,
            "allow_downgrade": False,
            "warnings": [],
            "manifest": {},
            "rollout": {},
            "waves": [{"number": 1, "percent": 10, "soak": "3600s", "is_published": True}],
            "decisions": [],
            "expected": 10,
            "population": 100,
            "failing": {"count": 0, "reasons": []},
            "devices": {},
            "actions": [],
            "execution": "arn:e",
        }

    def describe_timeline(self, release_id: str) -> Timeline:
        self._note("describe_timeline", release_id, {})
        return {"points": []}

    def list_devices(self, release_id: str, *, state: str | None, after: str | None, limit: int) -> DevicePage:
        self._note("list_devices", release_id, {"state": state, "after": after, "limit": limit})
        return {"devices": []}

    def describe_device(self, mac: str, *, before: tuple[datetime, int] | None, limit: int) -> Device:
        self._note("describe_device", mac, {"before": before, "limit": limit})
        return {
            "mac": mac,
            "product": "demo-sensor",
            "running_version": "1.3.0",
            "last_seen_at": "2026-06-01T00:00:00Z",
            "tags": [],
            "history": [],
        }


class FakeCommands(Commands):
    """Does whatever is asked for, and notes what was asked last."""

    def __init__(self) -> None:
        self.asked: tuple[Any, ...] | None = None
        self.error: Exception | None = None
        self.wake: Wake | None = {"release_id": RELEASE["release_id"], "execution": "arn:e", "is_due": True}

    def act(self, release_id: str, action: Action, *, wave: int | None, caller: str) -> tuple[Release, Wake | None]:
        if self.error:
            raise self.error
        self.asked = ("act", release_id, action, {"wave": wave, "caller": caller})
        return RELEASE, self.wake

    def replace_tags(self, mac: str, tags: list[str], *, caller: str) -> TaggedDevice:
        if self.error:
            raise self.error
        self.asked = ("replace_tags", mac, tags, {"caller": caller})
        return {"mac": mac, "tags": tags}


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

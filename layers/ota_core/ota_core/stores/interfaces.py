"""What functions and stages may call on a store, and nothing else.

The stores beside this module implement these protocols over PostgreSQL and S3, and document each method; the fakes in
tests/support/fakes.py implement them in memory. Tests check both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from pg8000.native import Connection

    from ota_core.formats.byte_range import ByteRange
    from ota_core.formats.contracts import Wake
    from ota_core.formats.device_status import DeviceStatus
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
    from ota_core.stores.delivery_store import NotOffered, NotStarted, ReleasedImage, Withdrawn
    from ota_core.stores.image_store import StoredImage
    from ota_core.stores.release_store import AlreadyReleased, InProgress, NewRelease, Registered
    from ota_core.stores.rollout_store import Advance
    from ota_core.stores.status_store import Recorded
    from ota_core.stores.wave_store import StoredRelease

_Result = TypeVar("_Result")


class Transactions(Protocol):
    """`Database`."""

    def transaction(self, work: Callable[[Connection], _Result]) -> _Result: ...

    def statement(self, sql: str, **parameters: Any) -> list[list[Any]]: ...  # noqa: ANN401 - whatever columns hold


class Releases(Protocol):
    """`ReleaseStore`."""

    def register(
        self, release: NewRelease, *, execution: str, take_over_from: str | None = None
    ) -> Registered | AlreadyReleased | InProgress: ...


class Waves(Protocol):
    """`WaveStore`."""

    def read(self, release_id: str, execution: str) -> StoredRelease: ...

    def open_wave(self, release_id: str, execution: str, percent: float) -> StoredRelease: ...

    def record_listed_devices(self, release_id: str, execution: str, chunks: Callable[[], Iterable[bytes]]) -> None: ...

    def record_tagged_devices(self, release_id: str, execution: str, tags: tuple[str, ...]) -> None: ...

    def for_each_batch(
        self, release_id: str, *, above: float, up_to: float, size: int, write: Callable[[int, list[str]], None]
    ) -> None: ...

    def last_word(self, product: str | None) -> StoredRelease | None: ...


class Rollouts(Protocol):
    """`RolloutStore`."""

    def advance(
        self, release_id: str, execution: str, *, now: datetime, published_wave: int | None = None, takes_over: bool
    ) -> Advance: ...


class Statuses(Protocol):
    """`StatusStore`."""

    def record(self, statuses: Sequence[DeviceStatus]) -> Recorded: ...


class CheckIns(Protocol):
    """`CheckInStore`."""

    def check_in(
        self, *, mac: str, product: str, chip: str | None, running_version: str | None
    ) -> Candidate | None: ...


class Deliveries(Protocol):
    """`DeliveryStore`."""

    def find(
        self, product: str, version: str, *, release_id: str | None, mac: str | None
    ) -> ReleasedImage | Withdrawn | NotStarted | NotOffered | None: ...


class Images(Protocol):
    """`ImageStore`."""

    def read(self, image: StoredImage, part: ByteRange) -> bytes | memoryview: ...

    def presign(self, image: StoredImage, seconds: int) -> str: ...


class Queries(Protocol):
    """`OperatorQueries`."""

    def list_releases(
        self, *, product: str | None, state: str | None, before: int | None, limit: int
    ) -> ReleasePage: ...

    def describe_release(self, release_id: str) -> ReleaseDetails: ...

    def describe_timeline(self, release_id: str) -> Timeline: ...

    def list_devices(self, release_id: str, *, state: str | None, after: str | None, limit: int) -> DevicePage: ...

    def describe_device(self, mac: str, *, before: tuple[datetime, int] | None, limit: int) -> Device: ...


class Commands(Protocol):
    """`OperatorCommands`."""

    def act(self, release_id: str, action: Action, *, wave: int | None, caller: str) -> tuple[Release, Wake | None]: ...

    def replace_tags(self, mac: str, tags: list[str], *, caller: str) -> TaggedDevice: ...

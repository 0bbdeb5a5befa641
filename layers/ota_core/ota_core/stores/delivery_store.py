"""Which images may be downloaded, and by whom, according to PostgreSQL."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ota_core.formats.rfc3339 import parse_time
from ota_core.rules.release_state import ReleaseState
from ota_core.rules.rollout import in_cohort
from ota_core.stores.database import is_outage
from ota_core.stores.image_store import StoredImage

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pg8000.native import Connection

    from ota_core.stores.interfaces import Transactions

# How long a withdrawal may go unnoticed by a warm function.
FRESH_SECONDS = 15.0
# How long downloads continue while the database is unavailable; nobody can withdraw anything then either.
STALE_SECONDS = 600.0
# As many releases as one function sees in a while; an entry takes a KiB.
_MAX_REMEMBERED = 256
# As many listed devices as download from one function in a while; an entry takes a quarter of a KiB.
_MAX_LISTED = 4096


@dataclass(frozen=True, slots=True)
class ReleasedImage:
    """The image of a release, and when its version was first released (aware, whole seconds)."""

    image: StoredImage
    released_at: datetime


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The release was withdrawn."""


@dataclass(frozen=True, slots=True)
class NotStarted:
    """No wave of the release has begun; `starts_at` (aware) is when its signer lets it, None if that is not said."""

    starts_at: datetime | None


@dataclass(frozen=True, slots=True)
class NotOffered:
    """The release is not for this device, or its waves have not reached the device."""


@dataclass(frozen=True, slots=True)
class _Release:
    """A release that may be downloaded; `percent` of its devices are reached, all of them or those on its list."""

    release_id: str
    released: ReleasedImage
    percent: float
    has_list: bool


class _Asked(NamedTuple):
    product: str
    version: str
    release_id: str | None


class DeliveryStore:
    """Finds the image of a release. An answer is reused for `FRESH_SECONDS`, so that most chunks cost no query.

    A device is never refused for what is remembered: its wave may have begun since.
    """

    def __init__(self, database: Transactions, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._remembered: dict[_Asked, tuple[float, float, _Release]] = {}
        # Release and MAC. Who is on a release's list never changes.
        self._listed: dict[tuple[str, str], None] = {}

    def find(
        self, product: str, version: str, *, release_id: str | None, mac: str | None
    ) -> ReleasedImage | Withdrawn | NotStarted | NotOffered | None:
        """The image of a release, or why it cannot be downloaded; None if there is no such release.

        Args:
            product: of the release.
            version: of the release.
            release_id: the release. None leaves the decision to the newest release of the version: of those that have
                started or were withdrawn if there are any.
            mac: the device that asks, as `AA:BB:CC:DD:EE:FF`; None if the request names none.
        """
        now = self._clock()
        asked = _Asked(product, version, release_id)
        asked_at, checked_at, remembered = self._remembered.get(asked, (0.0, 0.0, None))
        if remembered is not None and not self._reaches(remembered, mac):
            remembered = None
        if remembered is not None and now - asked_at < FRESH_SECONDS:
            return remembered.released
        try:
            found, is_listed = self._database.transaction(lambda connection: _find(connection, asked, mac))
        except Exception as error:
            if remembered is None or now - checked_at >= STALE_SECONDS or not is_outage(error):
                raise
            # So that not every chunk of the next seconds waits for the timeout.
            self._remembered[asked] = (self._clock(), checked_at, remembered)
            return remembered.released
        self._remembered.pop(asked, None)
        if not isinstance(found, _Release):
            return found
        _make_room(self._remembered, _MAX_REMEMBERED)
        self._remembered[asked] = (now, now, found)
        if mac is not None and is_listed:
            _make_room(self._listed, _MAX_LISTED)
            self._listed[found.release_id, mac] = None
        return found.released if self._reaches(found, mac) else NotOffered()

    def _reaches(self, release: _Release, mac: str | None) -> bool:
        if mac is None:
            return True
        is_meant = not release.has_list or (release.release_id, mac) in self._listed
        return is_meant and in_cohort(release.release_id, mac, release.percent)


def _make_room(memory: dict[Any, Any], limit: int) -> None:
    while len(memory) >= limit:
        memory.pop(next(iter(memory)))  # The one that was found first.


def _find(
    connection: Connection, asked: _Asked, mac: str | None
) -> tuple[_Release | Withdrawn | NotStarted | None, bool]:
    """The release, or why it cannot be downloaded, and whether the device is on its list."""
    # All releases of a version have the same bytes, perhaps stored more than once.
    rows = connection.run(
        "SELECT release_id, image_key, image_version_id, image_size, image_sha256, state,"
        " greatest(reach_percent, cohort_percent), target_count IS NOT NULL, rollout->>'start_at',"
        " date_trunc('second', min(registered_at) OVER ()), EXISTS (SELECT FROM release_targets"
        " WHERE mac = CAST(:mac AS macaddr) AND release = releases.id) FROM releases"
        " WHERE product = :product AND version = :version"
        " ORDER BY release_id IS NOT DISTINCT FROM CAST(:release_id AS text) DESC,"
        " (state = :withdrawn OR greatest(reach_percent, cohort_percent) > 0) DESC, id DESC LIMIT 1",
        product=asked.product,
        version=asked.version,
        release_id=asked.release_id,
        mac=mac,
        withdrawn=ReleaseState.WITHDRAWN.value,
    )
    if not rows or asked.release_id not in (None, rows[0][0]):
        return None, False
    release_id, key, version_id, size, sha256, state, percent, has_list, starts_at, released_at, is_listed = rows[0]
    if state == ReleaseState.WITHDRAWN:
        return Withdrawn(), is_listed
    if percent == 0:
        return NotStarted(parse_time(starts_at) if starts_at else None), is_listed
    released = ReleasedImage(StoredImage(key, version_id, size, sha256), released_at)
    return _Release(release_id, released, percent, has_list), is_listed

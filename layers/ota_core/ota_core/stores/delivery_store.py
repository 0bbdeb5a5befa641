"""Which images may be downloaded, according to PostgreSQL."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ota_core.rules.release_state import ReleaseState
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
# As many versions as one function sees in a while; an entry takes half a KiB.
_MAX_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class ReleasedImage:
    """The image of a version, and when that version was first released (aware, whole seconds)."""

    image: StoredImage
    released_at: datetime


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Every release of the version was withdrawn."""


class DeliveryStore:
    """Finds the image of a version. An answer is reused for `FRESH_SECONDS`, so that most chunks cost no query."""

    def __init__(self, database: Transactions, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._remembered: dict[tuple[str, str], tuple[float, float, ReleasedImage]] = {}

    def find(self, product: str, version: str) -> ReleasedImage | Withdrawn | None:
        """The image of a product's version, or None if there is no such release."""
        now = self._clock()
        asked_at, checked_at, remembered = self._remembered.get((product, version), (0.0, 0.0, None))
        if remembered is not None and now - asked_at < FRESH_SECONDS:
            return remembered
        try:
            found = self._database.transaction(lambda connection: _find(connection, product, version))
        except Exception as error:
            if remembered is None or now - checked_at >= STALE_SECONDS or not is_outage(error):
                raise
            # So that not every chunk of the next seconds waits for the timeout.
            self._remembered[product, version] = (self._clock(), checked_at, remembered)
            return remembered
        self._remembered.pop((product, version), None)
        if isinstance(found, ReleasedImage):
            while len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.pop(next(iter(self._remembered)))  # The one that was found first.
            self._remembered[product, version] = (now, now, found)
        return found


def _find(connection: Connection, product: str, version: str) -> ReleasedImage | Withdrawn | None:
    # All releases of a version have the same bytes, perhaps stored more than once.
    rows = connection.run(
        "SELECT image_key, image_version_id, image_size, image_sha256, state,"
        " date_trunc('second', min(registered_at) OVER ()) FROM releases"
        " WHERE product = :product AND version = :version ORDER BY state = :withdrawn, id DESC LIMIT 1",
        product=product,
        version=version,
        withdrawn=ReleaseState.WITHDRAWN.value,
    )
    if not rows:
        return None
    key, version_id, size, sha256, state, released_at = rows[0]
    if state == ReleaseState.WITHDRAWN:
        return Withdrawn()
    return ReleasedImage(StoredImage(key, version_id, size, sha256), released_at)

"""Device check-ins in PostgreSQL, and the releases that answer them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ota_core.rules.check_in import Candidate
from ota_core.stores.known_devices import HAS_ROOM, MAX_DEVICES
from ota_core.stores.release_store import OFFERED

if TYPE_CHECKING:
    from ota_core.stores.database import Database

# Three look-ups by index, however many devices and releases there are. Within a product ids rise with sequences,
# because a product's releases are registered one after the other; so the primary key of release_targets, read
# backwards, yields a device's latest release first. A release that is rolling out is for the devices that its waves
# have reached so far.
#
# A device that was seen within the last minute is left alone before the INSERT, which would lock its row: however often
# someone asks in one device's name, nothing is written and nothing waits.
STATEMENT = f"""
WITH known AS (
    SELECT last_seen_at > now() - interval '1 minute' AS is_fresh FROM devices WHERE mac = CAST(:mac AS macaddr)
), seen AS (
    INSERT INTO devices (mac, product, chip, running_version)
    SELECT CAST(:mac AS macaddr), product, CAST(:chip AS text), CAST(:running_version AS text)
    FROM products LEFT JOIN known ON true
    WHERE product = :product AND coalesce(NOT is_fresh, {HAS_ROOM})
    ON CONFLICT (mac) DO UPDATE SET
        product = EXCLUDED.product,
        chip = CASE
            WHEN EXCLUDED.chip IS NULL AND EXCLUDED.product = devices.product THEN devices.chip ELSE EXCLUDED.chip
        END,
        running_version = coalesce(EXCLUDED.running_version, devices.running_version),
        last_seen_at = now()
)
SELECT release_id, version, envelope, allow_downgrade, expires_at FROM (
    (
        SELECT * FROM releases
        WHERE product = :product AND {OFFERED} AND target_count IS NULL AND coalesce(chip = CAST(:chip AS text), true)
            AND in_cohort(release_id, CAST(:mac AS macaddr), cohort_percent)
        ORDER BY sequence DESC LIMIT 1
    ) UNION ALL (
        SELECT releases.* FROM release_targets JOIN releases ON releases.id = release_targets.release
        WHERE mac = CAST(:mac AS macaddr) AND product = :product AND {OFFERED}
            AND coalesce(chip = CAST(:chip AS text), true)
            AND in_cohort(release_id, mac, cohort_percent)
        ORDER BY release_targets.release DESC LIMIT 1
    )
) AS candidates ORDER BY sequence DESC LIMIT 1
"""  # noqa: S608 - the condition is ours


class CheckInStore:
    """Records check-ins, and finds the releases that answer them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check_in(self, *, mac: str, product: str, chip: str | None, running_version: str | None) -> Candidate | None:
        """Record that a device was seen and what it says it is; find its latest published release, if there is one.

        Nothing is recorded if it was seen within the last minute.

        Args:
            mac: as `AA:BB:CC:DD:EE:FF`.
            product: what the device says it is.
            chip: what the device says it has; None finds releases for any chip.
            running_version: what the device says it runs; None leaves what is recorded.
        """
        rows = self._database.statement(
            STATEMENT,
            mac=mac,
            product=product,
            chip=chip,
            running_version=running_version,
            max_devices=MAX_DEVICES,
        )
        if not rows:
            return None
        release_id, version, envelope, allow_downgrade, expires_at = rows[0]
        return Candidate(
            release_id=release_id,
            version=version,
            envelope=envelope,
            allow_downgrade=allow_downgrade,
            expires_at=expires_at,
        )

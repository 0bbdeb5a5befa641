"""Device check-ins in PostgreSQL, and the releases that answer them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ota_core.rules.check_in import Candidate
from ota_core.stores.release_store import OFFERED

if TYPE_CHECKING:
    from ota_core.stores.database import Database

# Anyone with the API key can fake devices. A fake one gets an answer, but beyond this many devices (five times the
# fleet that the project is built for, half a GiB) no new one is recorded. Reading the planner's estimate costs nothing.
MAX_DEVICES = 5_000_000

# Three look-ups by index, however many devices and releases there are. Within a product ids rise with sequences,
# because a product's releases are registered one after the other; so the primary key of release_targets, read
# backwards, yields a device's latest release first. A release that is rolling out is for the devices that its waves
# have reached so far.
STATEMENT = f"""
WITH seen AS (
    INSERT INTO devices (mac, product, running_version)
    SELECT CAST(:mac AS macaddr), product, CAST(:running_version AS text) FROM products
    WHERE product = :product AND (
        (SELECT reltuples FROM pg_class WHERE oid = CAST('devices' AS regclass)) < CAST(:max_devices AS real)
        OR EXISTS (SELECT FROM devices WHERE mac = CAST(:mac AS macaddr))
    )
    ON CONFLICT (mac) DO UPDATE SET
        product = CASE
            WHEN EXISTS (SELECT FROM device_states WHERE mac = CAST(:mac AS macaddr)) THEN devices.product
            ELSE EXCLUDED.product
        END,
        running_version = coalesce(EXCLUDED.running_version, devices.running_version),
        last_seen_at = now()
)
SELECT release_id, version, envelope, allow_downgrade, expires_at FROM (
    (
        SELECT * FROM releases
        WHERE product = :product AND {OFFERED} AND target_count IS NULL
            AND in_cohort(release_id, CAST(:mac AS macaddr), cohort_percent)
        ORDER BY sequence DESC LIMIT 1
    ) UNION ALL (
        SELECT releases.* FROM release_targets JOIN releases ON releases.id = release_targets.release
        WHERE mac = CAST(:mac AS macaddr) AND product = :product AND {OFFERED}
            AND in_cohort(release_id, mac, cohort_percent)
        ORDER BY release_targets.release DESC LIMIT 1
    )
) AS candidates ORDER BY sequence DESC LIMIT 1
"""  # noqa: S608 - the condition is ours


class CheckInStore:
    """Records check-ins, and finds the releases that answer them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check_in(self, *, mac: str, product: str, running_version: str | None) -> Candidate | None:
        """Record that a device was seen and what it says it runs; find its latest published release, if there is one.

        A device that ever reported a status, which takes its certificate, keeps its recorded product.

        Args:
            mac: as `AA:BB:CC:DD:EE:FF`.
            product: what the device says it is.
            running_version: what the device says it runs; None leaves what is recorded.
        """
        rows = self._database.statement(
            STATEMENT, mac=mac, product=product, running_version=running_version, max_devices=MAX_DEVICES
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

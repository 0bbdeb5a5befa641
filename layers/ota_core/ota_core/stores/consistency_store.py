"""What PostgreSQL records about releases, for the consistency check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ota_core.formats import versions
from ota_core.rules.release_state import ReleaseState

if TYPE_CHECKING:
    from pg8000.native import Connection

    from ota_core.formats import contracts
    from ota_core.stores.database import Database

_WAVES = "CASE WHEN rollout IS NULL THEN 1 ELSE jsonb_array_length(rollout -> 'waves') END"
# Each query returns the names of what breaks its rule.
_RULES = {
    "version_has_several_images": "SELECT product || ' ' || version FROM releases GROUP BY product, version"
    " HAVING count(DISTINCT image_sha256) > 1",
    "sequence_beyond_the_products_last": "SELECT release_id FROM releases JOIN products USING (product)"
    " WHERE sequence > last_sequence",
    "more_waves_than_planned": f"SELECT release_id FROM releases WHERE waves_published > {_WAVES}",  # noqa: S608
    "published_before_its_last_wave": "SELECT release_id FROM releases"  # noqa: S608
    f" WHERE state = '{ReleaseState.PUBLISHED}' AND (waves_published < {_WAVES} OR published_at IS NULL)",
    "cohort_of_another_wave": "SELECT release_id FROM releases WHERE cohort_percent <> CASE"
    " WHEN waves_published = 0 THEN 0 WHEN rollout IS NULL THEN 100"
    " ELSE CAST(rollout -> 'waves' -> (waves_published - 1) ->> 'percent' AS double precision) END",
    "withdrawn_without_a_reason": "SELECT release_id FROM releases"  # noqa: S608
    f" WHERE state = '{ReleaseState.WITHDRAWN}' AND withdrawn_because IS NULL",
    "other_number_of_targets": "SELECT release_id FROM releases WHERE waves_published > 0"
    " AND target_count <> (SELECT count(*) FROM release_targets WHERE release = releases.id)",
    "device_state_that_nobody_reported": "SELECT release_id || ' ' || upper(mac::text)"
    " FROM device_states JOIN releases ON releases.id = release WHERE NOT EXISTS (SELECT FROM device_history"
    " WHERE (device_history.mac, device_history.release, device_history.state)"
    " = (device_states.mac, device_states.release, device_states.state))",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that is broken, and by what."""

    rule: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRelease:
    """The columns of a release that its signed manifest, its image and its drop must agree with."""

    release_id: str
    manifest_sha256: str
    product: str
    version: str
    sequence: int
    chip: str
    envelope: str
    image_key: str
    image_version_id: str
    image_size: int
    image_sha256: str
    image_signature: str
    state: ReleaseState
    drop_members: list[contracts.ObjectVersion]


class ConsistencyStore:
    """Reads every release, and finds the rows that break a rule."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read_releases(self) -> list[RecordedRelease]:
        """Every release, the oldest first."""
        return self._database.transaction(_read_releases)

    def broken_rules(self) -> list[Violation]:
        """What the rows alone show."""
        return self._database.transaction(_broken_rules)


def _read_releases(connection: Connection) -> list[RecordedRelease]:
    columns = RecordedRelease.__slots__
    rows = connection.run(f"SELECT {', '.join(columns)} FROM releases ORDER BY id")  # noqa: S608 - names of our own
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    return [RecordedRelease(**record | {"state": ReleaseState(record["state"])}) for record in records]


def _broken_rules(connection: Connection) -> list[Violation]:
    found = [Violation(rule, what) for rule, sql in _RULES.items() for (what,) in connection.run(sql)]
    products = connection.run(
        "SELECT product, latest_version, array_agg(version) FROM products JOIN releases USING (product)"
        " GROUP BY product, latest_version"
    )
    found += [
        Violation("product_has_a_higher_version", product)
        for product, latest, released in products
        if latest is None or any(versions.is_lower(latest, version) for version in released)
    ]
    return found

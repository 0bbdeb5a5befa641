"""What devices said about releases, in PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ota_core.formats.device_status import DeviceState
from ota_core.stores.known_devices import HAS_ROOM, MAX_DEVICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pg8000.native import Connection

    from ota_core.formats.device_status import DeviceStatus
    from ota_core.stores.database import Database

# The states, lowest first; the words are ours.
_ORDER = f"ARRAY[{', '.join(repr(state.value) for state in DeviceState)}]"
# A healthy device says few things about a release in one state. Anyone with its certificate must not be able to fill
# the database. One batch may exceed this, and so may what is recorded at the same moment.
_MAX_SAID = 50
# One document, sent once: pg8000 writes an array, value by value, at twenty times the cost, and reads rows as slowly.
#
# Devices first, ordered by MAC, and everything else only when all are locked (`count(*)` reads `seen` to its end): from
# then on no other transaction records these devices. ON CONFLICT finds the current row, whenever the statement began.
_RECORD = f"""
WITH sent AS (
    SELECT number, releases.release_id, releases.id AS release, releases.product, releases.chip,
        CAST(item ->> 1 AS macaddr) AS mac,
        item ->> 2 AS state, CAST(item ->> 3 AS smallint) AS progress, item ->> 4 AS reason,
        item ->> 5 AS running_version, CAST(item ->> 6 AS timestamptz) AS received_at,
        {HAS_ROOM} OR EXISTS (SELECT FROM devices WHERE mac = CAST(item ->> 1 AS macaddr)) AS is_recorded
    FROM jsonb_array_elements(CAST(:messages AS jsonb)) WITH ORDINALITY AS listed (item, number)
    JOIN releases ON releases.release_id = item ->> 0
), messages AS (
    SELECT * FROM sent WHERE is_recorded
), seen AS (
    INSERT INTO devices (mac, last_seen_at) SELECT mac, max(received_at) FROM messages GROUP BY mac ORDER BY mac
    ON CONFLICT (mac) DO UPDATE SET last_seen_at = greatest(devices.last_seen_at, EXCLUDED.last_seen_at)
    RETURNING mac, proven_product, proven_chip, proven_since
), locked AS (
    SELECT count(*) FROM seen
), raised AS (
    INSERT INTO device_states (release, mac, state, progress, reason, running_version, updated_at)
    SELECT DISTINCT ON (release, mac) release, mac, state, progress, reason, running_version, received_at
    FROM messages, locked
    ORDER BY release, mac, array_position({_ORDER}, state) DESC, received_at DESC
    ON CONFLICT (release, mac) DO UPDATE SET
        state = EXCLUDED.state, progress = EXCLUDED.progress, reason = EXCLUDED.reason,
        running_version = EXCLUDED.running_version, updated_at = EXCLUDED.updated_at
    WHERE (array_position({_ORDER}, EXCLUDED.state), EXCLUDED.updated_at)
        > (array_position({_ORDER}, device_states.state), device_states.updated_at)
), said AS (
    INSERT INTO device_history (mac, release, state, reason, running_version, reported_at, last_reported_at)
    SELECT mac, release, state, reason, running_version, min(received_at), max(received_at) FROM messages, locked
    WHERE {_MAX_SAID} > (
        SELECT count(*) FROM device_history AS earlier
        WHERE earlier.mac = messages.mac AND earlier.release = messages.release AND earlier.state = messages.state
    ) OR EXISTS (
        SELECT FROM device_history AS same
        WHERE (same.mac, same.release, same.state, coalesce(same.reason, ''), coalesce(same.running_version, ''))
        = (messages.mac, messages.release, messages.state, coalesce(messages.reason, ''),
            coalesce(messages.running_version, ''))
    )
    GROUP BY mac, release, state, reason, running_version
    ORDER BY min(received_at), array_position({_ORDER}, state)
    ON CONFLICT (mac, release, state, (coalesce(reason, '')), (coalesce(running_version, ''))) DO UPDATE SET
        reported_at = least(device_history.reported_at, EXCLUDED.reported_at),
        last_reported_at = greatest(device_history.last_reported_at, EXCLUDED.last_reported_at)
    WHERE EXCLUDED.reported_at < device_history.reported_at
        OR EXCLUDED.last_reported_at > device_history.last_reported_at
    RETURNING mac, release, state, reason, running_version, xmax = 0 AS is_new
), numbered AS (
    SELECT max(messages.number) - 1 AS number, said.is_new FROM said JOIN messages
        ON messages.mac = said.mac AND messages.release = said.release AND messages.state = said.state
        AND messages.reason IS NOT DISTINCT FROM said.reason
        AND messages.running_version IS NOT DISTINCT FROM said.running_version
    GROUP BY said.mac, said.release, said.state, said.reason, said.running_version, said.is_new
)
SELECT (SELECT coalesce(json_object_agg(DISTINCT release_id, product), '{{}}') FROM sent),
    (SELECT coalesce(json_agg(mac), '[]') FROM sent WHERE NOT is_recorded),
    coalesce(json_agg(number), '[]'), coalesce(json_agg(number) FILTER (WHERE is_new), '[]'),
    -- Not of the one line that it always spoke for.
    (SELECT coalesce(json_agg(DISTINCT mac), '[]') FROM messages JOIN seen USING (mac)
        WHERE (product, chip, '-infinity') IS DISTINCT FROM (proven_product, proven_chip, proven_since))
FROM numbered
"""  # noqa: S608 - the words are ours
# What a device runs follows from the latest release that it reported and the highest state there, and its line from all
# that it said (migration 0009), in whatever order its reports arrived. While it says nothing about another line, that
# need not be read.
_UPDATE_DEVICES = f"""
UPDATE devices SET
    running_version = coalesce((
        SELECT running_version FROM device_history
        WHERE device_history.mac = devices.mac AND running_version IS NOT NULL
        ORDER BY release DESC, array_position({_ORDER}, state) DESC, last_reported_at DESC LIMIT 1
    ), running_version),
    product = coalesce(line.product, proven_product, devices.product),
    chip = coalesce(line.chip, proven_chip, devices.chip),
    proven_product = coalesce(line.product, proven_product),
    proven_chip = coalesce(line.chip, proven_chip),
    proven_since = coalesce(line.since, proven_since)
FROM unnest(CAST(:macs AS macaddr[])) AS changed (mac)
    LEFT JOIN proven_lines(CAST(:unsettled AS macaddr[])) AS line USING (mac)
WHERE devices.mac = changed.mac
"""  # noqa: S608 - the words are ours


@dataclass(frozen=True, slots=True)
class News:
    """What a device said about a release for the first time."""

    product: str
    status: DeviceStatus


@dataclass(frozen=True, slots=True)
class Recorded:
    """The result of recording a batch.

    Attributes:
        unknown: the ids of releases that do not exist; nothing was recorded for them.
        strangers: MACs that were not known, when MAX_DEVICES are; nothing was recorded for them.
        news: what had not been said before, in no particular order.
    """

    unknown: set[str]
    strangers: set[str]
    news: list[News]


class StatusStore:
    """Records what devices say."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, statuses: Sequence[DeviceStatus]) -> Recorded:
        """Record a batch in one transaction. Repetition and order change nothing.

        Once a device has said fifty different things in one state of a release, nothing new that it says in this state
        is kept.
        """
        messages = json.dumps(
            [
                (
                    status.release_id,
                    status.mac,
                    status.state,
                    status.progress,
                    status.reason,
                    status.running_version,
                    status.received_at.isoformat(),
                )
                for status in statuses
            ]
        )

        def work(connection: Connection) -> Recorded:
            [[products, strangers, said, new, unsettled]] = connection.run(
                _RECORD, messages=messages, max_devices=MAX_DEVICES
            )
            if said:
                # In a statement of its own, which sees what the first one wrote.
                macs = {statuses[number].mac for number in said}
                connection.run(_UPDATE_DEVICES, macs=_array(macs), unsettled=_array(unsettled))
            return Recorded(
                unknown={status.release_id for status in statuses} - products.keys(),
                strangers={mac.upper() for mac in strangers},
                news=[News(products[statuses[number].release_id], statuses[number]) for number in new],
            )

        return self._database.transaction(work)


def _array(macs: Iterable[str]) -> str:
    """In PostgreSQL's own form, which costs less than a list."""
    return f"{{{','.join(macs)}}}"

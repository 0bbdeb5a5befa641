"""What devices said of releases, in PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .device_status import DeviceState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pg8000.native import Connection

    from .database import Database
    from .device_status import DeviceStatus

# The states, lowest first; the words are ours.
_ORDER = f"ARRAY[{', '.join(repr(state.value) for state in DeviceState)}]"
# One document: pg8000 writes an array, value by value, at twenty times the cost, and reads rows as slowly.
_MESSAGES = """
messages AS (
    SELECT CAST(item ->> 0 AS bigint) AS release, item ->> 1 AS product, CAST(item ->> 2 AS macaddr) AS mac,
        item ->> 3 AS state, CAST(item ->> 4 AS smallint) AS progress, item ->> 5 AS reason,
        item ->> 6 AS running_version, CAST(item ->> 7 AS timestamptz) AS received_at
    FROM jsonb_array_elements(CAST(:messages AS jsonb)) AS item
)
"""
# First of all, and in the order of MACs: from here on no other transaction records these devices.
_SEE_DEVICES = f"""
WITH {_MESSAGES}
INSERT INTO devices (mac, product, last_seen_at)
SELECT mac, (array_agg(product ORDER BY release DESC))[1], max(received_at) FROM messages GROUP BY mac ORDER BY mac
ON CONFLICT (mac) DO UPDATE SET last_seen_at = greatest(devices.last_seen_at, EXCLUDED.last_seen_at)
"""  # noqa: S608 - the words are ours
_ADD_STATES_AND_HISTORY = f"""
WITH {_MESSAGES}, raised AS (
    INSERT INTO device_states (release, mac, state, progress, reason, running_version, updated_at)
    SELECT DISTINCT ON (release, mac) release, mac, state, progress, reason, running_version, received_at FROM messages
    ORDER BY release, mac, array_position({_ORDER}, state) DESC, received_at DESC
    ON CONFLICT (release, mac) DO UPDATE SET
        state = EXCLUDED.state, progress = EXCLUDED.progress, reason = EXCLUDED.reason,
        running_version = EXCLUDED.running_version, updated_at = EXCLUDED.updated_at
    WHERE (array_position({_ORDER}, EXCLUDED.state), EXCLUDED.updated_at)
        > (array_position({_ORDER}, device_states.state), device_states.updated_at)
), said AS (
    INSERT INTO device_history (mac, release, state, reason, running_version, reported_at, last_reported_at)
    SELECT mac, release, state, reason, running_version, min(received_at), max(received_at) FROM messages
    GROUP BY mac, release, state, reason, running_version
    ORDER BY min(received_at), array_position({_ORDER}, state)
    ON CONFLICT (mac, release, state, (coalesce(reason, '')), (coalesce(running_version, ''))) DO UPDATE SET
        reported_at = least(device_history.reported_at, EXCLUDED.reported_at),
        last_reported_at = greatest(device_history.last_reported_at, EXCLUDED.last_reported_at)
    WHERE EXCLUDED.reported_at < device_history.reported_at
        OR EXCLUDED.last_reported_at > device_history.last_reported_at
    RETURNING mac, release, state, reason, running_version, xmax = 0 AS is_new
)
SELECT coalesce(json_agg(json_build_array(upper(mac::text), release, state, reason, running_version, is_new)), '[]')
FROM said
"""  # noqa: S608 - the words are ours
# What a device runs, and is, follows from the latest release that it spoke of and the highest state there, in whatever
# order it was heard. A release that it refused may be another product's.
_UPDATE_DEVICES = f"""
UPDATE devices SET
    running_version = coalesce((
        SELECT running_version FROM device_history
        WHERE device_history.mac = devices.mac AND running_version IS NOT NULL
        ORDER BY release DESC, array_position({_ORDER}, state) DESC, last_reported_at DESC LIMIT 1
    ), running_version),
    product = (
        SELECT releases.product FROM device_states JOIN releases ON releases.id = device_states.release
        WHERE device_states.mac = devices.mac ORDER BY device_states.state = 'rejected', release DESC LIMIT 1
    )
WHERE mac = ANY(ARRAY(SELECT CAST(jsonb_array_elements_text(CAST(:macs AS jsonb)) AS macaddr)))
"""  # noqa: S608 - the words are ours


@dataclass(frozen=True, slots=True)
class News:
    """What a device said of a release for the first time."""

    product: str
    status: DeviceStatus


@dataclass(frozen=True, slots=True)
class Recorded:
    """What came of a batch.

    Attributes:
        unknown: the ids of releases that do not exist; nothing was recorded of them.
        news: what had not been said before, in no order.
    """

    unknown: set[str]
    news: list[News]


class StatusStore:
    """Records what devices say."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, statuses: Sequence[DeviceStatus]) -> Recorded:
        """Record a batch in one transaction. Repetition and order change nothing."""

        def work(connection: Connection) -> Recorded:
            releases = {
                release_id: (release, product)
                for release_id, release, product in connection.run(
                    "SELECT release_id, id, product FROM releases WHERE release_id = ANY(:release_ids)",
                    release_ids=sorted({status.release_id for status in statuses}),
                )
            }
            known = [(*releases[status.release_id], status) for status in statuses if status.release_id in releases]
            unknown = {status.release_id for status in statuses} - releases.keys()
            return Recorded(unknown, _record(connection, known) if known else [])

        return self._database.transaction(work)


def _record(connection: Connection, known: list[tuple[int, str, DeviceStatus]]) -> list[News]:
    messages = json.dumps(
        [
            (
                release,
                product,
                status.mac,
                status.state,
                status.progress,
                status.reason,
                status.running_version,
                status.received_at.isoformat(),
            )
            for release, product, status in known
        ]
    )
    connection.run(_SEE_DEVICES, messages=messages)
    [[said]] = connection.run(_ADD_STATES_AND_HISTORY, messages=messages)
    if said:
        connection.run(_UPDATE_DEVICES, macs=json.dumps([mac for mac, *_ in said]))
    new = {(mac, *rest) for mac, *rest, is_new in said if is_new}
    news = {
        (status.mac, release, status.state, status.reason, status.running_version): News(product, status)
        for release, product, status in known
    }
    return [news[key] for key in new]

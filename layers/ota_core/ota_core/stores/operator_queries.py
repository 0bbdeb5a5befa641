"""What operators see about releases and devices, from PostgreSQL."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, cast

from ota_core.formats.device_status import DeviceState
from ota_core.formats.envelope import payload_of
from ota_core.formats.paging import write_cursor
from ota_core.formats.rfc3339 import format_time
from ota_core.rules.operator_actions import Situation, allowed_actions
from ota_core.rules.release_state import ReleaseState
from ota_core.stores.known_devices import IN_FLEET, votes

if TYPE_CHECKING:
    from pg8000.native import Connection

    from ota_core.formats.operator_documents import (
        Device,
        DeviceInRelease,
        DevicePage,
        Failing,
        Release,
        ReleaseDetails,
        ReleasePage,
        Timeline,
        TimelinePoint,
    )
    from ota_core.rules.operator_actions import Action
    from ota_core.stores.database import Database

# Asks for the devices that count as failed.
FAILING_DEVICES = "failing"
_MAX_DECISIONS = 100
_MAX_ACTIONS = 100
_MAX_REASONS = 20
_TIMELINE_STEPS = 60
_COUNTS_AS_FAILED = "counts_as_failed(state, reason)"
# What `situation_of` reads.
SITUATION = (
    "state, coalesce(jsonb_array_length(rollout -> 'waves'), 0) AS waves, waves_published, is_paused, is_promoted,"
    " is_aborted"
)
_SUMMARY = (
    f"{SITUATION}, release_id, product, version, changelog, target_count, registered_at, published_at, expires_at,"
    " withdrawn_because, rollout IS NOT NULL AS is_staged, cohort_percent, wave_published_at"
)
_DETAILS = (
    f"{_SUMMARY}, sequence, chip, keyid, image_size, image_sha256, allow_downgrade, warnings, rollout, envelope,"
    " execution_arn"
)
_LIST = f"""
SELECT id, {_SUMMARY} FROM releases
WHERE (CAST(:product AS text) IS NULL OR product = :product) AND (CAST(:state AS text) IS NULL OR state = :state)
    AND (CAST(:before AS bigint) IS NULL OR id < CAST(:before AS bigint))
ORDER BY id DESC LIMIT :more
"""  # noqa: S608 - the columns are this module's
# A device's state at a time is the highest that it had reported until then. So each of its reports either raises it,
# which moves the device from one state to another, or changes nothing.
_TIMELINE = """
WITH ranked AS (
    SELECT device_history.mac, reported_at, array_position(CAST(:states AS text[]), device_history.state) AS rank
    FROM {votes} AS votes JOIN device_history USING (release, mac)
), reports AS (
    SELECT reported_at, rank, max(rank) OVER (
        PARTITION BY mac ORDER BY reported_at, rank ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS earlier
    FROM ranked
), moves AS (
    SELECT reported_at, rank, earlier FROM reports WHERE rank > coalesce(earlier, 0)
), bounds AS (
    SELECT min(reported_at) AS first, max(reported_at) AS last FROM moves
), changes AS (
    SELECT reported_at, rank, 1 AS change FROM moves
    UNION ALL SELECT reported_at, earlier, -1 FROM moves WHERE earlier IS NOT NULL
)
SELECT first, last, CAST(ceil(extract(epoch FROM reported_at - first) * :steps
    / greatest(extract(epoch FROM last - first), 0.000001)) AS integer) AS step, rank, CAST(sum(change) AS bigint)
FROM changes CROSS JOIN bounds GROUP BY first, last, step, rank ORDER BY step
"""

# Read for `allowed_actions` and under other names.
_NOT_SHOWN = ("waves", "envelope", "execution_arn")

Row = dict[str, Any]


class _Next(TypedDict, total=False):
    next: str


class UnknownRelease(Exception):  # noqa: N818 - a state of the world, which the caller expects
    """There is no release of this id."""


class UnknownDevice(Exception):  # noqa: N818 - a state of the world, which the caller expects
    """This device has never reported and has no tags."""


class OperatorQueries:
    """Reads for operators."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_releases(self, *, product: str | None, state: str | None, before: int | None, limit: int) -> ReleasePage:
        """A page of releases, newest first: `releases` and, if there are more, `next`.

        Args:
            product: only of this product.
            state: only in this state.
            before: position of the page, from a `releases` cursor.
            limit: how many releases a page has.
        """

        def work(connection: Connection) -> ReleasePage:
            rows = _select(connection, _LIST, product=product, state=state, before=before, more=limit + 1)
            positions = [("releases", row.pop("id")) for row in rows]
            releases = cast("list[Release]", [_release(row) for row in rows[:limit]])
            return {"releases": releases, **_next(positions, limit)}

        return self._database.transaction(work)

    def describe_release(self, release_id: str) -> ReleaseDetails:
        """Everything about a release: what was signed, its waves, what was decided and done, and its devices by state.

        Raises:
            UnknownRelease: no release has this id.
        """

        def work(connection: Connection) -> ReleaseDetails:
            release, details = find_release(connection, release_id, _DETAILS)
            rollout = details["rollout"]
            counted = votes(is_for_whole_fleet=details["target_count"] is None)
            decisions = [
                row.pop("decision") | row
                for row in _select(
                    connection,
                    "SELECT decided_at, execution_arn AS execution, decision FROM rollout_decisions"
                    " WHERE release = :release ORDER BY id DESC LIMIT :most",
                    release=release,
                    most=_MAX_DECISIONS,
                )
            ]
            described = _release(details) | {
                "manifest": json.loads(payload_of(details["envelope"])),
                "execution": details["execution_arn"],
                "waves": [
                    {**wave, "number": number, "is_published": number <= details["waves_published"]}
                    for number, wave in enumerate(rollout["waves"] if rollout else (), start=1)
                ],
                "decisions": decisions,
                "expected": decisions[0]["numbers"]["expected"] if rollout and decisions else None,
                "population": _population(connection, release, details["target_count"]),
                "failing": _failing(connection, release, counted),
                "devices": dict(
                    connection.run(
                        f"SELECT state, count(*) FROM {counted} AS votes GROUP BY state",  # noqa: S608 - the stores' own
                        release=release,
                    )
                ),
                "actions": _select(
                    connection,
                    "SELECT at, caller, action, details FROM audit WHERE release_id = :release_id"
                    " ORDER BY id DESC LIMIT :most",
                    release_id=release_id,
                    most=_MAX_ACTIONS,
                ),
            }
            return cast("ReleaseDetails", described)

        return self._database.transaction(work)

    def describe_timeline(self, release_id: str) -> Timeline:
        """How many devices were in which state at which time: at most 61 `points`, from the first report to the last.

        Raises:
            UnknownRelease: no release has this id.
        """

        def work(connection: Connection) -> Timeline:
            release, counted = _find_votes(connection, release_id)
            timeline = _TIMELINE.format(votes=counted)
            rows = connection.run(timeline, release=release, states=list(DeviceState), steps=_TIMELINE_STEPS)
            return {"points": _accumulate(rows)}

        return self._database.transaction(work)

    def list_devices(self, release_id: str, *, state: str | None, after: str | None, limit: int) -> DevicePage:
        """A page of a release's devices whose statuses count, by MAC: `devices` and, if there are more, `next`.

        Args:
            release_id: of the release.
            state: only in this state; FAILING_DEVICES for those that count as failed.
            after: position of the page, from a `devices` cursor.
            limit: how many devices a page has.

        Raises:
            UnknownRelease: no release has this id.
        """
        is_failing = state == FAILING_DEVICES
        wanted = _COUNTS_AS_FAILED if is_failing else "state = ANY(:states)"
        values = {} if is_failing else {"states": [state] if state else list(DeviceState)}

        def work(connection: Connection) -> DevicePage:
            release, counted = _find_votes(connection, release_id)
            rows = _select(
                connection,
                "SELECT upper(mac::text) AS mac, state, progress, reason, running_version, updated_at"  # noqa: S608 - the parts are the stores'
                f" FROM {counted} AS votes WHERE {wanted}"
                " AND (CAST(:after AS macaddr) IS NULL OR mac > CAST(:after AS macaddr))"
                " ORDER BY votes.mac LIMIT :more",
                **values,
                release=release,
                after=after,
                more=limit + 1,
            )
            devices = cast("list[DeviceInRelease]", rows)
            return {"devices": devices[:limit], **_next([("devices", row["mac"]) for row in rows], limit)}

        return self._database.transaction(work)

    def describe_device(self, mac: str, *, before: tuple[datetime, int] | None, limit: int) -> Device:
        """A device: what is known about it, and a page of its `history`, newest first; `next` if there is more.

        Args:
            mac: as `AA:BB:CC:DD:EE:FF`.
            before: position of the page, from a `history` cursor.
            limit: how many entries a page has.

        Raises:
            UnknownDevice: nothing is known.
        """

        def work(connection: Connection) -> Device:
            known = _select(
                connection,
                "SELECT product, running_version, last_seen_at FROM devices WHERE mac = CAST(:mac AS macaddr)",
                mac=mac,
            )
            tags = read_tags(connection, mac)
            if not known and not tags:
                raise UnknownDevice(mac)
            moment, last = before or (None, None)
            rows = connection.run(
                "SELECT device_history.id, last_reported_at, reported_at, release_id, version, device_history.state,"
                " reason, running_version FROM device_history JOIN releases ON releases.id = release"
                " WHERE mac = CAST(:mac AS macaddr) AND (CAST(:moment AS timestamptz) IS NULL"
                " OR (last_reported_at, device_history.id) < (CAST(:moment AS timestamptz), CAST(:last AS bigint)))"
                " ORDER BY last_reported_at DESC, device_history.id DESC LIMIT :more",
                mac=mac,
                moment=moment,
                last=last,
                more=limit + 1,
            )
            names = _columns(connection)[1:]
            history = [_readable(dict(zip(names, row[1:], strict=True))) for row in rows[:limit]]
            positions = [("history", row[1].isoformat(), row[0]) for row in rows]
            seen = known[0] if known else {"product": None, "running_version": None, "last_seen_at": None}
            described = {"mac": mac, **seen, "tags": tags, "history": history, **_next(positions, limit)}
            return cast("Device", described)

        return self._database.transaction(work)


def find_release(connection: Connection, release_id: str, columns: str, lock: str = "") -> tuple[int, Row]:
    """The row id of a release, and these columns.

    Raises:
        UnknownRelease: no release has this id.
    """
    # Columns and lock come from the stores' code.
    query = f"SELECT id, {columns} FROM releases WHERE release_id = :id {lock}"  # noqa: S608
    rows = _select(connection, query, id=release_id)
    if not rows:
        raise UnknownRelease(release_id)
    return rows[0].pop("id"), rows[0]


def read_release(connection: Connection, release_id: str) -> Release:
    """A release as it appears in lists.

    Raises:
        UnknownRelease: no release has this id.
    """
    return cast("Release", _release(find_release(connection, release_id, _SUMMARY)[1]))


def situation_of(release: Row) -> Situation:
    """What actions depend on, from the columns SITUATION."""
    return Situation(
        state=ReleaseState(release["state"]),
        waves=release["waves"],
        waves_published=release["waves_published"],
        is_paused=release["is_paused"],
        is_promoted=release["is_promoted"],
        is_aborted=release["is_aborted"],
    )


def _release(row: Row) -> Row:
    """The summary that a row of _SUMMARY or _DETAILS contains, with the actions that would change the release now."""
    summary = {name: value for name, value in row.items() if name not in _NOT_SHOWN}
    return summary | {"allowed_actions": [_body(action, wave) for action, wave in allowed_actions(situation_of(row))]}


def _body(action: Action, wave: int | None) -> Row:
    """The request that asks for an action."""
    return {"action": action.value} if wave is None else {"action": action.value, "wave": wave}


def _find_votes(connection: Connection, release_id: str) -> tuple[int, str]:
    """The row id of a release, and what to select from to have the statuses that count for it.

    Raises:
        UnknownRelease: no release has this id.
    """
    release, found = find_release(connection, release_id, "target_count")
    return release, votes(is_for_whole_fleet=found["target_count"] is None)


def _population(connection: Connection, release: int, target_count: int | None) -> int:
    """How many known devices the release is for."""
    if target_count is not None:
        return target_count
    [(known,)] = connection.run(
        f"SELECT count(*) FROM releases JOIN devices ON {IN_FLEET} WHERE releases.id = :release",  # noqa: S608 - the stores' own
        release=release,
    )
    return int(known)


def _failing(connection: Connection, release: int, counted: str) -> Failing:
    """How many devices count as failed, and the reasons that they gave, the most frequent first."""
    rows = connection.run(
        f"SELECT state, reason, count(*), CAST(sum(count(*)) OVER () AS bigint) FROM {counted} AS votes"  # noqa: S608 - the stores' own
        f" WHERE {_COUNTS_AS_FAILED} GROUP BY state, reason ORDER BY 3 DESC, 1, 2 LIMIT :most",
        release=release,
        most=_MAX_REASONS,
    )
    return {
        "count": rows[0][3] if rows else 0,
        "reasons": [{"state": state, "reason": reason, "count": count} for state, reason, count, _ in rows],
    }


def _accumulate(rows: list[list[Any]]) -> list[TimelinePoint]:
    """The points of a timeline, from its changes: rows of first and last time, step, rank, change; steps rise."""
    counts = dict.fromkeys(DeviceState, 0)
    points: list[TimelinePoint] = []
    for first, last, step, rank, change in rows:
        at = format_time(first + (last - first) * step / _TIMELINE_STEPS)
        counts[list(DeviceState)[rank - 1]] += change
        point: TimelinePoint = {"at": at, "devices": {state.value: count for state, count in counts.items()}}
        if points and points[-1]["at"] == at:
            points[-1] = point
        else:
            points.append(point)
    return points


def read_tags(connection: Connection, mac: str) -> list[str]:
    """A device's tags, in the order of their bytes."""
    rows = connection.run(
        'SELECT tag FROM device_tags WHERE mac = CAST(:mac AS macaddr) ORDER BY tag COLLATE "C"', mac=mac
    )
    return [tag for (tag,) in rows]


def _select(connection: Connection, sql: str, **parameters: object) -> list[Row]:
    rows = connection.run(sql, **parameters)
    names = _columns(connection)
    return [_readable(dict(zip(names, row, strict=True))) for row in rows]


def _columns(connection: Connection) -> list[str]:
    """The names of the columns of the last query."""
    return [column["name"] for column in connection.columns or ()]


def _readable(row: Row) -> Row:
    """Times in JSON's form."""
    return {name: format_time(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _next(positions: list[tuple[Any, ...]], limit: int) -> _Next:
    """The cursor of the next page. The query asked for one row more than the page has room for."""
    return {"next": write_cursor(*positions[limit - 1])} if len(positions) > limit else {}

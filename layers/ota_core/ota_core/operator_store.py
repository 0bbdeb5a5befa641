"""What operators see of releases and devices, and what they do to them, in PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .device_status import FAILING, NOT_NEEDED, DeviceState
from .envelope import payload_of
from .operator_actions import Situation, judge
from .paging import write_cursor
from .rfc3339 import format_time

if TYPE_CHECKING:
    from pg8000.native import Connection

    from .database import Database
    from .operator_actions import Action

RELEASE_STATES = ("registered", "rolling_out", "published", "withdrawn")
# Asks for the devices that count as failed.
FAILING_DEVICES = "failing"
_MAX_DECISIONS = 100
_MAX_ACTIONS = 100
_SUMMARY = (
    "release_id, product, version, state, changelog, target_count, registered_at, published_at, expires_at,"
    " withdrawn_because, rollout IS NOT NULL AS is_staged, waves_published, cohort_percent, wave_published_at,"
    " is_paused, is_promoted, is_aborted"
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

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wake:
    """An execution that should go on with a release.

    Attributes:
        release_id: of the release.
        execution: ARN of its present execution, which ends.
        is_due: in any case; else only where the present execution broke.
    """

    release_id: str
    execution: str
    is_due: bool


class UnknownRelease(Exception):  # noqa: N818 - a state of the world, which the caller expects
    """There is no release of this id."""


class UnknownDevice(Exception):  # noqa: N818 - a state of the world, which the caller expects
    """Nothing was ever heard of this device, and it has no tags."""


class OperatorStore:
    """Reads and changes for operators. Documents are ready to be written as JSON."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_releases(self, *, product: str | None, state: str | None, before: int | None, limit: int) -> Document:
        """A page of releases, newest first: `releases` and, where there are more, `next`.

        Args:
            product: only of this product.
            state: only in this state.
            before: position of the page, from a cursor `releases`.
            limit: of the page.
        """

        def work(connection: Connection) -> Document:
            rows = _select(
                connection,
                _LIST,
                product=product,
                state=state,
                before=before,
                more=limit + 1,
            )
            positions = [("releases", row.pop("id")) for row in rows]
            return _page("releases", rows, positions, limit)

        return self._database.transaction(work)

    def describe_release(self, release_id: str) -> Document:
        """All of a release: what was signed, its waves, what was decided and done, and its devices by state.

        Raises:
            UnknownRelease: there is none.
        """

        def work(connection: Connection) -> Document:
            release, details = _find_release(connection, release_id, _DETAILS)
            rollout = details["rollout"]
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
            return details | {
                "manifest": json.loads(payload_of(details.pop("envelope"))),
                "execution": details.pop("execution_arn"),
                "waves": [
                    {**wave, "number": number, "is_published": number <= details["waves_published"]}
                    for number, wave in enumerate(rollout["waves"] if rollout else (), start=1)
                ],
                "decisions": decisions,
                "expected": decisions[0]["numbers"]["expected"] if rollout and decisions else None,
                "devices": dict(
                    connection.run(
                        "SELECT state, count(*) FROM device_states WHERE release = :release GROUP BY state",
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

        return self._database.transaction(work)

    def list_devices(self, release_id: str, *, state: str | None, after: str | None, limit: int) -> Document:
        """A page of a release's devices, by MAC: `devices` and, where there are more, `next`.

        Args:
            release_id: of the release.
            state: only in this state; FAILING_DEVICES for those that count as failed.
            after: position of the page, from a cursor `devices`.
            limit: of the page.

        Raises:
            UnknownRelease: there is none.
        """
        is_failing = state == FAILING_DEVICES

        def work(connection: Connection) -> Document:
            release, _ = _find_release(connection, release_id, "release_id")
            rows = _select(
                connection,
                "SELECT upper(mac::text) AS mac, state, progress, reason, running_version, updated_at"
                " FROM device_states WHERE release = :release AND state = ANY(:states)"
                " AND NOT (CAST(:is_failing AS boolean) AND state = 'rejected'"
                " AND coalesce(reason, '') = ANY(:not_needed))"
                " AND (CAST(:after AS macaddr) IS NULL OR mac > CAST(:after AS macaddr))"
                " ORDER BY device_states.mac LIMIT :more",
                release=release,
                states=sorted(FAILING) if is_failing else [state] if state else list(DeviceState),
                is_failing=is_failing,
                not_needed=sorted(NOT_NEEDED),
                after=after,
                more=limit + 1,
            )
            return _page("devices", rows, [("devices", row["mac"]) for row in rows], limit)

        return self._database.transaction(work)

    def describe_device(self, mac: str, *, before: tuple[datetime, int] | None, limit: int) -> Document:
        """A device: what is known of it, and a page of its `history`, newest first; `next` where there is more.

        Args:
            mac: as `AA:BB:CC:DD:EE:FF`.
            before: position of the page, from a cursor `history`.
            limit: of the page.

        Raises:
            UnknownDevice: nothing is known.
        """

        def work(connection: Connection) -> Document:
            known = _select(
                connection,
                "SELECT product, running_version, last_seen_at FROM devices WHERE mac = CAST(:mac AS macaddr)",
                mac=mac,
            )
            tags = _tags(connection, mac)
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
            names = [column["name"] for column in connection.columns or ()]
            history = [_readable(dict(zip(names, row, strict=True))) for row in rows]
            positions = [("history", row[1].isoformat(), row[0]) for row in rows]
            for entry in history:
                entry.pop("id")
            seen = known[0] if known else {"product": None, "running_version": None, "last_seen_at": None}
            return {"mac": mac, **seen, "tags": tags} | _page("history", history, positions, limit)

        return self._database.transaction(work)

    def act(self, release_id: str, action: Action, *, wave: int | None, caller: str) -> tuple[Document, Wake | None]:
        """Do what an operator wants to a release, and note who wanted it where that changes anything.

        Returns:
            The release's summary afterwards, and the execution that should go on with it, if one should.

        Raises:
            UnknownRelease: there is none.
            ActionRefused: not in the release's situation.
        """

        def work(connection: Connection) -> tuple[Document, Wake | None]:
            rows = connection.run(
                "SELECT id, state, coalesce(jsonb_array_length(rollout -> 'waves'), 0), waves_published, is_paused,"
                " is_promoted, is_aborted, execution_arn, woken_from FROM releases WHERE release_id = :release_id"
                " FOR UPDATE",
                release_id=release_id,
            )
            if not rows:
                raise UnknownRelease(release_id)
            [(release, state, waves, published, paused, promoted, aborted, execution, woken_from)] = rows
            situation = Situation(
                state=state,
                waves=waves,
                waves_published=published,
                is_paused=paused,
                is_promoted=promoted,
                is_aborted=aborted,
            )
            verdict = judge(action, wave, situation)
            if verdict.changes:
                woken_from = execution if verdict.needs_execution else woken_from
                connection.run(
                    "UPDATE releases SET is_paused = coalesce(CAST(:is_paused AS boolean), is_paused),"
                    " is_promoted = coalesce(CAST(:is_promoted AS boolean), is_promoted),"
                    " is_aborted = coalesce(CAST(:is_aborted AS boolean), is_aborted), woken_from = :woken_from"
                    " WHERE id = :id",
                    **{name: verdict.changes.get(name) for name in ("is_paused", "is_promoted", "is_aborted")},
                    woken_from=woken_from,
                    id=release,
                )
                details = {"state": state, "waves_published": published} | ({"wave": wave} if wave else {})
                _audit(connection, caller, action.value, details, release_id=release_id)
            # An execution that was to go on and never did leaves the one that it was to replace in its place.
            wake = Wake(release_id, execution, is_due=woken_from == execution) if verdict.needs_execution else None
            return _find_release(connection, release_id, _SUMMARY)[1], wake

        return self._database.transaction(work)

    def replace_tags(self, mac: str, tags: list[str], *, caller: str) -> Document:
        """Give a device these tags and no others; it need not be known yet."""

        def work(connection: Connection) -> Document:
            # Two that set the tags of one device wait for each other.
            connection.run("SELECT pg_advisory_xact_lock(hashtextextended(:mac, 0))", mac=mac)
            before = _tags(connection, mac)
            if before != tags:
                connection.run("DELETE FROM device_tags WHERE mac = CAST(:mac AS macaddr)", mac=mac)
                connection.run(
                    "INSERT INTO device_tags (tag, mac) SELECT tag, CAST(:mac AS macaddr)"
                    " FROM unnest(CAST(:tags AS text[])) AS listed (tag)",
                    mac=mac,
                    tags=tags,
                )
                _audit(connection, caller, "tag", {"before": before, "tags": tags}, mac=mac)
            return {"mac": mac, "tags": tags}

        return self._database.transaction(work)


def _find_release(connection: Connection, release_id: str, columns: str) -> tuple[int, Document]:
    # The columns are this module's.
    rows = _select(connection, f"SELECT id, {columns} FROM releases WHERE release_id = :id", id=release_id)  # noqa: S608
    if not rows:
        raise UnknownRelease(release_id)
    return rows[0].pop("id"), rows[0]


def _tags(connection: Connection, mac: str) -> list[str]:
    rows = connection.run(
        'SELECT tag FROM device_tags WHERE mac = CAST(:mac AS macaddr) ORDER BY tag COLLATE "C"', mac=mac
    )
    return [tag for (tag,) in rows]


def _audit(
    connection: Connection,
    caller: str,
    action: str,
    details: Document,
    *,
    release_id: str | None = None,
    mac: str | None = None,
) -> None:
    connection.run(
        "INSERT INTO audit (caller, action, release_id, mac, details)"
        " VALUES (:caller, :action, :release_id, CAST(:mac AS macaddr), CAST(:details AS jsonb))",
        caller=caller,
        action=action,
        release_id=release_id,
        mac=mac,
        details=json.dumps(details),
    )


def _select(connection: Connection, sql: str, **parameters: object) -> list[Document]:
    rows = connection.run(sql, **parameters)
    names = [column["name"] for column in connection.columns or ()]
    return [_readable(dict(zip(names, row, strict=True))) for row in rows]


def _readable(row: Document) -> Document:
    """Times as JSON has them."""
    return {name: format_time(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _page(name: str, rows: list[Document], positions: list[tuple[Any, ...]], limit: int) -> Document:
    """Rows that were asked for one more than the page holds."""
    more = {"next": write_cursor(*positions[limit - 1])} if len(rows) > limit else {}
    return {name: rows[:limit], **more}

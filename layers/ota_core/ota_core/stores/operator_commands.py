"""What operators do to releases and devices, in PostgreSQL."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ota_core.rules.operator_actions import judge
from ota_core.stores.operator_queries import SITUATION, find_release, read_release, read_tags, situation_of

if TYPE_CHECKING:
    from pg8000.native import Connection

    from ota_core.formats.contracts import Wake
    from ota_core.formats.operator_documents import Release, TaggedDevice
    from ota_core.rules.operator_actions import Action
    from ota_core.stores.database import Database


class OperatorCommands:
    """Changes for operators, each with an entry in the audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def act(self, release_id: str, action: Action, *, wave: int | None, caller: str) -> tuple[Release, Wake | None]:
        """Carry out an operator's action on a release, and record who asked for it if it changes anything.

        Returns:
            The release's summary afterwards, and the execution that should continue it, if any.

        Raises:
            UnknownRelease: no release has this id.
            ActionRefused: the release's situation does not allow it.
        """

        def work(connection: Connection) -> tuple[Release, Wake | None]:
            release, row = find_release(
                connection, release_id, f"{SITUATION}, execution_arn, woken_from", lock="FOR NO KEY UPDATE"
            )
            situation, execution, woken_from = situation_of(row), row["execution_arn"], row["woken_from"]
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
                details: dict[str, Any] = {"state": situation.state, "waves_published": situation.waves_published}
                if wave is not None:
                    details["wave"] = wave
                _audit(connection, caller, action.value, details, release_id=release_id)
            # If the new execution never started, the one that it should have replaced is still recorded.
            wake: Wake = {"release_id": release_id, "execution": execution, "is_due": woken_from == execution}
            return read_release(connection, release_id), wake if verdict.needs_execution else None

        return self._database.transaction(work)

    def replace_tags(self, mac: str, tags: list[str], *, caller: str) -> TaggedDevice:
        """Give a device exactly these tags; it need not be known yet."""

        def work(connection: Connection) -> TaggedDevice:
            # Concurrent changes to one device's tags wait for each other.
            connection.run("SELECT pg_advisory_xact_lock(hashtextextended(:mac, 0))", mac=mac)
            before = read_tags(connection, mac)
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


def _audit(
    connection: Connection,
    caller: str,
    action: str,
    details: dict[str, Any],
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

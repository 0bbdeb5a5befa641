"""How far along each release is, in PostgreSQL: who was told, what devices answered, and what was decided."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ota_core.formats.device_status import FAILING, DeviceState
from ota_core.formats.rollout_plan import Rollout, parse_rollout
from ota_core.rules.release_state import ReleaseState
from ota_core.rules.rollout import Abort, Complete, Progress, Step, describe_numbers, describe_step, next_step
from ota_core.stores.release_store import ReleaseSuperseded

if TYPE_CHECKING:
    from datetime import datetime

    from pg8000.native import Connection

    from ota_core.formats import contracts
    from ota_core.stores.database import Database

# A device that was not seen for this long is not part of the fleet that a wave is expected to reach.
FLEET_MEMORY_DAYS = 30
# One statement, so that all counts are of the same moment: statuses keep arriving.
_COUNT = """
SELECT * FROM (
    SELECT count(*), count(*) FILTER (WHERE {proven}), count(device_states.mac),
        count(*) FILTER (WHERE device_states.state = ANY(:ended))
    FROM {told} AS told LEFT JOIN device_states ON device_states.release = :release AND device_states.mac = told.mac
    WHERE {reached} AND in_cohort(:release_id, told.mac, :percent)
) AS of_the_reached, (
    SELECT count(*) FILTER (WHERE state = :installed), count(*) FILTER (WHERE counts_as_failed(state, reason))
    FROM device_states WHERE release = :release
) AS of_all
"""
# Anyone with the API key can check in for any MAC; a status takes the device's certificate.
_COUNT_IN_FLEET = _COUNT.format(
    told="devices",
    proven="EXISTS (SELECT FROM device_states AS proof WHERE proof.mac = told.mac)",
    reached=f"product = :product AND last_seen_at > now() - interval '{FLEET_MEMORY_DAYS:d} days'",
)
_COUNT_IN_LIST = _COUNT.format(told="release_targets", proven="true", reached="told.release = :release")
_ENDED = [state.value for state in (*FAILING, DeviceState.INSTALLED)]


@dataclass(frozen=True, slots=True)
class Advance:
    """What a release does next, and the release itself as events and the archive need it.

    Attributes:
        step: the decision.
        numbers: what it was decided from.
        product, version: of the release.
        drop_members: the object versions of its drop.
        is_end: this step, and no earlier one, published or withdrew the release.
        is_scheduled: its signer said when its waves may start.
    """

    step: Step
    numbers: Progress
    product: str
    version: str
    drop_members: list[contracts.ObjectVersion]
    is_end: bool
    is_scheduled: bool


class RolloutStore:
    """Advances releases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def advance(
        self, release_id: str, execution: str, *, now: datetime, published_wave: int | None = None, takes_over: bool
    ) -> Advance:
        """Record what was done and decide what is next. Repeating it decides the same from the same facts.

        Args:
            release_id: the release.
            execution: ARN of the execution that asks.
            now: aware.
            published_wave: the number of the wave that the execution has just published, if it did.
            takes_over: the execution continues a release after an operator's action, and owns it from now on.

        Raises:
            ReleaseSuperseded: another execution owns the release.
        """
        return self._database.transaction(
            lambda connection: _advance(connection, release_id, execution, now, published_wave, takes_over)
        )


def _advance(
    connection: Connection,
    release_id: str,
    execution: str,
    now: datetime,
    published_wave: int | None,
    takes_over: bool,
) -> Advance:
    rows = connection.run(
        "SELECT id, execution_arn, product, version, state, rollout, waves_published, wave_published_at, is_paused,"
        " is_promoted, is_aborted, cohort_percent, target_count IS NULL, drop_members FROM releases"
        " WHERE release_id = :release_id FOR NO KEY UPDATE",
        release_id=release_id,
    )
    if not rows:
        raise ReleaseSuperseded(release_id)
    (
        release,
        owner,
        product,
        version,
        state,
        plan,
        waves_published,
        published_at,
        is_paused,
        is_promoted,
        is_aborted,
        percent,
        is_for_whole_fleet,
        drop_members,
    ) = rows[0]
    if takes_over:
        connection.run("UPDATE releases SET execution_arn = :execution WHERE id = :id", execution=execution, id=release)
    elif owner != execution:
        raise ReleaseSuperseded(release_id)
    rollout = parse_rollout(plan) if plan else None
    if published_wave is not None and published_wave == waves_published + 1:
        waves_published, published_at, is_promoted = published_wave, now, False
        percent = _record_wave(connection, release, rollout, published_wave, now)
    counts = _counts(connection, release, release_id, product, percent, is_for_whole_fleet) if rollout else {}
    numbers = Progress(
        waves_published=waves_published,
        published_at=published_at,
        is_paused=is_paused,
        is_promoted=is_promoted,
        is_aborted=is_aborted or state == ReleaseState.WITHDRAWN,
        **counts,
    )
    step = next_step(rollout, numbers, now)
    _record_decision(connection, release, execution, step, numbers)
    return Advance(
        step,
        numbers,
        product,
        version,
        drop_members,
        is_end=(isinstance(step, Complete) and state != ReleaseState.PUBLISHED)
        or (isinstance(step, Abort) and state != ReleaseState.WITHDRAWN),
        is_scheduled=rollout is not None and (rollout.start_at or rollout.window) is not None,
    )


def _record_wave(connection: Connection, release: int, rollout: Rollout | None, wave: int, now: datetime) -> float:
    percent = rollout.waves[wave - 1].percent if rollout else 100.0
    connection.run(
        "UPDATE releases SET waves_published = :wave, cohort_percent = :percent, wave_published_at = :now,"
        " is_promoted = false WHERE id = :id",
        wave=wave,
        percent=percent,
        now=now,
        id=release,
    )
    return percent


def _counts(
    connection: Connection, release: int, release_id: str, product: str, percent: float, is_for_whole_fleet: bool
) -> dict[str, int]:
    [(expected, proven, reported, ended, installed, failed)] = connection.run(
        _COUNT_IN_FLEET if is_for_whole_fleet else _COUNT_IN_LIST,
        product=product,
        release=release,
        release_id=release_id,
        percent=percent,
        ended=_ENDED,
        installed=DeviceState.INSTALLED.value,
    )
    return {
        "expected": expected,
        "proven": proven,
        "reported": reported,
        "ended": ended,
        "installed": installed,
        "failed": failed,
    }


def _record_decision(connection: Connection, release: int, execution: str, step: Step, numbers: Progress) -> None:
    connection.run(
        "INSERT INTO rollout_decisions (release, execution_arn, decision)"
        " VALUES (:release, :execution, CAST(:decision AS jsonb))",
        release=release,
        execution=execution,
        decision=json.dumps({**describe_step(step), "numbers": describe_numbers(numbers)}),
    )
    match step:
        case Complete():
            connection.run(
                "UPDATE releases SET state = :state, published_at = coalesce(published_at, now()) WHERE id = :id",
                state=ReleaseState.PUBLISHED.value,
                id=release,
            )
        case Abort(why):
            connection.run(
                "UPDATE releases SET state = :state, withdrawn_because = coalesce(withdrawn_because, :why)"
                " WHERE id = :id",
                state=ReleaseState.WITHDRAWN.value,
                why=why,
                id=release,
            )
        case _:
            connection.run(
                "UPDATE releases SET state = :rolling_out WHERE id = :id AND state = :registered",
                rolling_out=ReleaseState.ROLLING_OUT.value,
                registered=ReleaseState.REGISTERED.value,
                id=release,
            )

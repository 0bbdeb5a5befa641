"""How far along each release is, in PostgreSQL: who was told, what devices answered, and what was decided."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ota_core.formats.device_status import FAILING, DeviceState
from ota_core.formats.rollout_plan import Rollout, parse_rollout
from ota_core.rules.release_state import ReleaseState
from ota_core.rules.rollout import Abort, Complete, Progress, Step, describe_numbers, describe_step, next_step
from ota_core.stores.known_devices import reached
from ota_core.stores.release_store import ReleaseSuperseded

if TYPE_CHECKING:
    from datetime import datetime

    from pg8000.native import Connection

    from ota_core.formats import contracts
    from ota_core.stores.database import Database

# One statement, so that all counts are of the same moment: statuses keep arriving.
_COUNT = """
SELECT count(*), count(*) FILTER (WHERE {proven}), count(said.mac), count(*) FILTER (WHERE said.state = ANY(:ended)),
    count(*) FILTER (WHERE said.state = :installed), count(*) FILTER (WHERE counts_as_failed(said.state, said.reason))
{reached}
"""
# Anyone with the API key can check in for any MAC; to speak for a line takes the device's certificate.
_COUNT_IN_FLEET = _COUNT.format(proven="devices.proven_product IS NOT NULL", reached=reached(is_for_whole_fleet=True))
_COUNT_IN_LIST = _COUNT.format(proven="true", reached=reached(is_for_whole_fleet=False))
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
        " is_promoted, is_aborted, target_count IS NULL, drop_members FROM releases"
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
        _record_wave(connection, release, rollout, published_wave, now)
    counts = _counts(connection, release, is_for_whole_fleet) if rollout else {}
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


def _record_wave(connection: Connection, release: int, rollout: Rollout | None, wave: int, now: datetime) -> None:
    connection.run(
        "UPDATE releases SET waves_published = :wave, cohort_percent = :percent, wave_published_at = :now,"
        " is_promoted = false WHERE id = :id",
        wave=wave,
        percent=rollout.waves[wave - 1].percent if rollout else 100.0,
        now=now,
        id=release,
    )


def _counts(connection: Connection, release: int, is_for_whole_fleet: bool) -> dict[str, int]:
    [(expected, proven, reported, ended, installed, failed)] = connection.run(
        _COUNT_IN_FLEET if is_for_whole_fleet else _COUNT_IN_LIST,
        release=release,
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

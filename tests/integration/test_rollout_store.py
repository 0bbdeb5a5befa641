"""How releases advance, on a real PostgreSQL: waves, counts, ownership, and the last word after a withdrawal."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ota_core.formats.device_status import DeviceState, DeviceStatus
from ota_core.rules.rollout import Abort, Complete, Hold, PublishWave, WaitUntil, in_cohort
from ota_core.stores.check_in_store import CheckInStore
from ota_core.stores.release_store import ReleaseSuperseded
from ota_core.stores.rollout_store import RolloutStore
from ota_core.stores.status_store import StatusStore

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
PLAN = {
    "waves": [{"percent": 50, "soak": "1h"}, {"percent": 100}],
    "abort": {"min_devices": 4, "failed_percent": 25, "silent_percent": 50, "report_timeout": "30m"},
}
MACS = [f"02:00:00:00:10:{number:02X}" for number in range(40)]


@pytest.fixture
def rollouts(database):
    return RolloutStore(database)


@pytest.fixture
def release(insert_release, database):
    """A rollout to 40 listed devices, registered by execution `e`."""
    inserted = insert_release(
        product="rollout", state="registered", cohort_percent=0.0, target_count=40, rollout=json.dumps(PLAN)
    )

    def work(connection):
        for mac in MACS:
            connection.run(
                "INSERT INTO release_targets (release, mac) VALUES (:release, CAST(:mac AS macaddr))",
                release=inserted["id"],
                mac=mac,
            )

    database.transaction(work)
    return inserted


def reached(release, percent):
    return [mac for mac in MACS if in_cohort(release["release_id"], mac, percent)]


def report(database, release, macs, state, reason=None):
    def work(connection):
        for mac in macs:
            connection.run(
                "INSERT INTO device_states (release, mac, state, reason) VALUES (:id, CAST(:mac AS macaddr), :state,"
                " :reason)",
                id=release["id"],
                mac=mac,
                state=state,
                reason=reason,
            )

    database.transaction(work)


def advance(rollouts, release, *, now=NOW, execution="e", wave=None, takes_over=False):
    return rollouts.advance(release["release_id"], execution, now=now, published_wave=wave, takes_over=takes_over)


def state_of(database, release):
    sql = "SELECT state, waves_published, execution_arn FROM releases WHERE id = :id"
    return database.transaction(lambda connection: connection.run(sql, id=release["id"])[0])


def test_waves_follow_each_other_and_the_release_is_published(rollouts, release, database):
    assert advance(rollouts, release).step == PublishWave(1, 50, 0)
    assert isinstance(advance(rollouts, release, wave=1).step, WaitUntil)
    first = reached(release, 50)
    report(database, release, first, "installed")
    later = advance(rollouts, release, now=NOW + timedelta(hours=1))
    assert (later.numbers.expected, later.numbers.ended, later.numbers.installed) == (len(first),) * 3
    assert later.step == PublishWave(2, 100, 50)
    advance(rollouts, release, now=NOW + timedelta(hours=1), wave=2)
    report(database, release, set(MACS) - set(first), "installed")
    last = advance(rollouts, release, now=NOW + timedelta(hours=2))
    assert (last.step, last.is_end, later.is_end) == (Complete(), True, False)
    assert state_of(database, release) == ["published", 2, "e"]
    again = advance(rollouts, release, now=NOW + timedelta(hours=3))
    assert (again.step, again.is_end) == (Complete(), False)


def test_repeated_record_of_a_wave_counts_once(rollouts, release, database):
    advance(rollouts, release, wave=1)
    advance(rollouts, release, wave=1)
    assert state_of(database, release)[1] == 1


def test_failing_devices_withdraw_the_release(rollouts, release, database):
    advance(rollouts, release, wave=1)
    first = reached(release, 50)
    failing = len(first) // 3
    report(database, release, first[:failing], "rolled_back", "self_test_failed")
    report(database, release, first[failing:], "installed")
    last = advance(rollouts, release, now=NOW + timedelta(minutes=5))
    step = last.step
    assert isinstance(step, Abort)
    assert last.is_end
    assert not advance(rollouts, release, now=NOW + timedelta(minutes=6)).is_end
    assert f"failed ({failing} of {len(first)})" in step.why
    assert state_of(database, release)[0] == "withdrawn"


def test_devices_that_need_no_update_are_no_failures(rollouts, release, database):
    advance(rollouts, release, wave=1)
    report(database, release, reached(release, 50), "rejected", "version_not_newer")
    later = advance(rollouts, release, now=NOW + timedelta(hours=1))
    assert later.numbers.failed == 0
    assert later.step == PublishWave(2, 100, 50)


def test_silent_devices_withdraw_the_release(rollouts, release, database):
    advance(rollouts, release, wave=1)
    assert isinstance(advance(rollouts, release, now=NOW + timedelta(minutes=29)).step, WaitUntil)
    step = advance(rollouts, release, now=NOW + timedelta(minutes=30)).step
    assert isinstance(step, Abort)
    assert "did not finish in time" in step.why


@pytest.mark.parametrize(("proven", "withdraws"), [(0, False), (5, True)])
def test_only_devices_that_once_reported_can_withdraw_a_release_by_silence(
    rollouts, insert_release, database, proven, withdraws
):
    """The API key is in every device: who has it can check in for any MAC. A status takes a device's certificate."""
    product = f"fleet-{proven}"
    earlier = insert_release(product=product)
    plan = {**PLAN, "waves": [{"percent": 100}]}
    release = insert_release(product=product, state="registered", cohort_percent=0.0, rollout=json.dumps(plan))

    def check_in(connection):
        connection.run("DELETE FROM devices")
        connection.run("DELETE FROM device_states")
        for mac in MACS:
            connection.run(
                "INSERT INTO devices (mac, product) VALUES (CAST(:mac AS macaddr), :product)", mac=mac, product=product
            )

    database.transaction(check_in)
    report(database, earlier, MACS[:proven], "installed")
    advance(rollouts, release, wave=1)
    found = advance(rollouts, release, now=NOW + timedelta(minutes=30))
    assert (found.numbers.expected, found.numbers.proven) == (len(MACS), proven)
    assert isinstance(found.step, Abort if withdraws else Complete)


def test_devices_of_another_product_cannot_be_made_silent_ones_of_this(rollouts, insert_release, database):
    """Nor the other way round: what a device is, it says with its certificate; check-ins change nothing of that."""
    earlier = insert_release(product="lamp")
    release = insert_release(product="lamp", state="registered", cohort_percent=0.0, rollout=json.dumps(PLAN))
    lamps, locks = MACS[:10], MACS[10:]

    def hear(macs, of):
        said = [
            DeviceStatus(
                mac=mac,
                release_id=of["release_id"],
                state=DeviceState.INSTALLED,
                progress=None,
                reason=None,
                running_version=None,
                received_at=datetime.now(UTC),
            )
            for mac in macs
        ]
        StatusStore(database).record(said)

    def check_in(macs, product):
        for mac in macs:
            CheckInStore(database).check_in(mac=mac, product=product, running_version="1.0.0")

    database.transaction(lambda connection: connection.run("DELETE FROM devices"))
    check_in(locks[:5], "lamp")  # Before anything was heard of them, too.
    hear(lamps, earlier)
    hear(locks, insert_release(product="lock"))
    check_in(locks, "lamp")
    check_in(lamps, "lock")
    reached = [mac for mac in lamps if in_cohort(release["release_id"], mac, 50)]
    numbers = advance(rollouts, release, wave=1).numbers
    assert (numbers.expected, numbers.proven, numbers.ended) == (len(reached), len(reached), 0)
    hear(reached, release)
    assert advance(rollouts, release, now=NOW + timedelta(hours=1)).numbers.ended == len(reached)


def test_operator_takes_over_and_the_old_execution_is_superseded(rollouts, release, database):
    advance(rollouts, release, wave=1)
    database.transaction(
        lambda connection: connection.run("UPDATE releases SET is_paused = true WHERE id = :id", id=release["id"])
    )
    assert advance(rollouts, release, execution="operator", takes_over=True).step == Hold()
    with pytest.raises(ReleaseSuperseded):
        advance(rollouts, release)


def test_statuses_are_recorded_while_a_decision_is_being_made(connect, rollouts, release):
    """Every status refers to the release's row, which a decision keeps others from changing."""
    status = DeviceStatus(MACS[0], release["release_id"], DeviceState.INSTALLED, None, None, None, NOW)

    def work(connection):
        connection.run("LOCK TABLE rollout_decisions IN EXCLUSIVE MODE")
        deciding = pool.submit(advance, rollouts, release)
        waiting = "SELECT FROM pg_locks WHERE relation = CAST('rollout_decisions' AS regclass) AND NOT granted"
        while not connection.run(waiting):
            assert not deciding.done(), deciding.result()
        recorder = connect()
        recorder.transaction(lambda other: other.run("SET lock_timeout = '10s'"))
        assert StatusStore(recorder).record([status]).news
        return deciding

    with ThreadPoolExecutor(1) as pool:
        deciding = connect().transaction(work)
        assert deciding.result().step == PublishWave(1, 50, 0)


def test_release_that_is_unknown_is_superseded(rollouts):
    with pytest.raises(ReleaseSuperseded):
        rollouts.advance("nobody", "e", now=NOW, takes_over=True)


def test_every_decision_is_recorded_with_its_numbers(rollouts, release, database):
    advance(rollouts, release, wave=1)
    rows = database.transaction(
        lambda connection: connection.run(
            "SELECT decision FROM rollout_decisions WHERE release = :id ORDER BY id", id=release["id"]
        )
    )
    assert [row[0]["step"] for row in rows] == ["wait"]
    assert rows[0][0]["numbers"]["expected"] == len(reached(release, 50))


def test_sql_python_and_the_shared_vectors_agree_on_cohorts(database):
    cases = json.loads((Path(__file__).parents[1] / "vectors" / "cohort.json").read_text())

    def work(connection):
        for case in cases:
            [(found,)] = connection.run(
                "SELECT in_cohort(:salt, CAST(:mac AS macaddr), CAST(:percent AS double precision))",
                salt=case["salt"],
                mac=case["mac"],
                percent=case["percent"],
            )
            assert found == case["in"], case

    database.transaction(work)


def test_sql_and_the_shared_vectors_agree_on_what_counts_as_failed(database):
    cases = json.loads((Path(__file__).parents[1] / "vectors" / "counts_as_failed.json").read_text())
    rows = database.transaction(
        lambda connection: connection.run(
            "SELECT counts_as_failed(item ->> 'state', item ->> 'reason')"
            " FROM jsonb_array_elements(CAST(:cases AS jsonb)) WITH ORDINALITY AS listed (item, n) ORDER BY n",
            cases=json.dumps(cases),
        )
    )
    assert [counts for (counts,) in rows] == [case["counts_as_failed"] for case in cases]

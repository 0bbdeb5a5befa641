"""How releases advance, on a real PostgreSQL: waves, counts, ownership, and the last word after a withdrawal."""

import itertools
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ota_core.formats.device_status import DeviceState, DeviceStatus
from ota_core.rules.rollout import Abort, Complete, Hold, PublishWave, WaitUntil, in_cohort
from ota_core.stores.check_in_store import CheckInStore
from ota_core.stores.operator_queries import OperatorQueries
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


def hear(database, release, macs, state, reason=None, at=None):
    """Let devices say something, each with its certificate."""
    at = at or datetime.now(UTC)
    said = [DeviceStatus(mac, release["release_id"], DeviceState(state), None, reason, None, at) for mac in macs]
    StatusStore(database).record(said)


def check_in(database, macs, product, chip=None):
    """Let anyone with the API key say what these devices are, an hour after the last time."""
    for mac in macs:
        database.statement(
            "UPDATE devices SET last_seen_at = now() - interval '1 hour' WHERE mac = CAST(:mac AS macaddr)", mac=mac
        )
        CheckInStore(database).check_in(mac=mac, product=product, chip=chip, running_version="1.0.0")


@pytest.fixture
def new_macs():
    """Makes MACs that nobody has used."""
    group = uuid.uuid4().bytes[:3].hex(":")
    numbers = itertools.count()
    return lambda count: [f"06:{group}:{n >> 8:02X}:{n & 255:02X}".upper() for n in itertools.islice(numbers, count)]


@pytest.fixture
def new_rollout(insert_release):
    """Makes a rollout to a whole fleet: to `percent` first, if that is not all."""

    def make(product, *, percent=100, **changes):
        waves = [{"percent": share, "soak": "1h"} for share in sorted({percent, 100})]
        return insert_release(
            product=product,
            state="registered",
            cohort_percent=0.0,
            rollout=json.dumps({**PLAN, "waves": waves}),
            **changes,
        )

    return make


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
    rollouts, insert_release, database, new_macs, new_rollout, proven, withdraws
):
    """The API key is in every device: who has it can check in for any MAC. A status takes a device's certificate."""
    product, macs = f"fleet-{proven}", new_macs(40)
    hear(database, insert_release(product=product), macs[:proven], "installed")
    release = new_rollout(product)
    check_in(database, macs, product)
    advance(rollouts, release, wave=1)
    found = advance(rollouts, release, now=NOW + timedelta(minutes=30))
    assert (found.numbers.expected, found.numbers.proven) == (len(macs), proven)
    assert isinstance(found.step, Abort if withdraws else WaitUntil)


def test_devices_of_another_product_cannot_be_made_silent_ones_of_this(
    rollouts, insert_release, database, new_macs, new_rollout
):
    """Whoever has the API key can say that a device is another, but its certificate says what it is."""
    lamps, locks = new_macs(10), new_macs(30)
    hear(database, insert_release(product="lamp"), lamps, "installed")
    check_in(database, locks[:5], "lamp")  # Before anything was heard of them, too.
    hear(database, insert_release(product="lock"), locks, "installed")
    check_in(database, locks, "lamp")
    release = new_rollout("lamp", percent=50)
    reached = [mac for mac in lamps if in_cohort(release["release_id"], mac, 50)]
    numbers = advance(rollouts, release, wave=1).numbers
    assert (numbers.expected, numbers.proven, numbers.ended) == (len(reached), len(reached), 0)
    hear(database, release, reached, "installed")
    assert advance(rollouts, release, now=NOW + timedelta(hours=1)).numbers.ended == len(reached)


def test_device_that_names_another_product_is_no_longer_waited_for(
    rollouts, insert_release, database, new_macs, new_rollout
):
    """It was flashed for it, by cable."""
    macs = new_macs(10)
    hear(database, insert_release(product="sensor"), macs, "installed")
    insert_release(product="switch")
    release = new_rollout("sensor")
    assert advance(rollouts, release, wave=1).numbers.expected == 10
    check_in(database, macs[:4], "switch")
    numbers = advance(rollouts, release).numbers
    assert (numbers.expected, numbers.proven) == (6, 6)


def test_check_in_in_another_products_name_silences_no_failing_device(
    rollouts, insert_release, database, new_macs, new_rollout
):
    """And no device that began to install and was never heard of again."""
    macs = new_macs(10)
    insert_release(product="shade")
    release = new_rollout("blind")
    advance(rollouts, release, wave=1)
    hear(database, release, macs[:3], "failed")
    hear(database, release, macs[3:], "rebooting")
    check_in(database, macs, "shade")
    found = advance(rollouts, release, now=NOW + timedelta(minutes=5))
    assert (found.numbers.expected, found.numbers.proven, found.numbers.failed) == (10, 10, 3)
    found = advance(rollouts, release, now=NOW + timedelta(minutes=30))
    assert isinstance(found.step, Abort)


# --- Attacks by who has identities of devices ---


@pytest.mark.parametrize("state", ["failed", "rejected", "rolled_back"])
def test_invented_devices_withdraw_no_release_to_others(rollouts, release, database, new_macs, state):
    advance(rollouts, release, wave=1)
    hear(database, release, new_macs(21), state)
    found = advance(rollouts, release, now=NOW + timedelta(minutes=5))
    assert isinstance(found.step, WaitUntil)
    assert (found.numbers.expected, found.numbers.reported, found.numbers.failed) == (len(reached(release, 50)), 0, 0)
    shown = OperatorQueries(database)
    assert shown.list_devices(release["release_id"], state=None, after=None, limit=50) == {"devices": []}
    assert shown.describe_timeline(release["release_id"]) == {"points": []}


def test_invented_devices_carry_no_bad_release_to_everybody(rollouts, release, database, new_macs):
    advance(rollouts, release, wave=1)
    hear(database, release, new_macs(800), "installed")
    first = reached(release, 50)
    hear(database, release, first[: len(first) // 2], "rolled_back")
    assert isinstance(advance(rollouts, release, now=NOW + timedelta(minutes=5)).step, Abort)


def test_listed_device_that_never_spoke_before_has_a_vote(rollouts, release, database, new_macs):
    """Even one whose first word is that the release is for another chip."""
    advance(rollouts, release, wave=1)
    hear(database, release, reached(release, 50), "rejected", "wrong_chip")
    found = advance(rollouts, release, now=NOW + timedelta(minutes=5))
    assert isinstance(found.step, Abort)
    assert found.numbers.failed == found.numbers.expected


def test_devices_that_a_wave_did_not_reach_have_no_vote(rollouts, release, database, new_macs, new_rollout):
    fleet = new_rollout("unreached", percent=1)
    advance(rollouts, fleet, wave=1)
    hear(database, fleet, [mac for mac in new_macs(200) if not in_cohort(fleet["release_id"], mac, 1)], "failed")
    numbers = advance(rollouts, fleet).numbers
    assert (numbers.reported, numbers.failed) == (0, 0)
    advance(rollouts, release, wave=1)
    hear(database, release, set(MACS) - set(reached(release, 50)), "failed")
    numbers = advance(rollouts, release).numbers
    assert (numbers.reported, numbers.failed) == (0, 0)


@pytest.mark.parametrize(("other", "chip"), [("another", "esp32"), ("same", "esp32s3")])
def test_device_that_comes_from_another_line_votes_on_what_is_registered_after_that(
    rollouts, insert_release, database, new_macs, new_rollout, other, chip
):
    macs, product = new_macs(30), f"after-{chip}"
    hear(database, insert_release(product=product if other == "same" else other, chip=chip), macs, "installed")
    first = new_rollout(product)
    advance(rollouts, first, wave=1)
    hear(database, first, macs, "failed")
    found = advance(rollouts, first, now=NOW + timedelta(minutes=5))
    assert (found.numbers.expected, found.numbers.reported) == (0, 0)
    assert isinstance(found.step, WaitUntil)
    second = new_rollout(product)
    advance(rollouts, second, wave=1)
    hear(database, second, macs, "failed")
    assert isinstance(advance(rollouts, second, now=NOW + timedelta(minutes=5)).step, Abort)


@pytest.mark.parametrize("second_word", ["downloading", "failed"])
@pytest.mark.parametrize("first_word", ["failed", "rejected"])
def test_device_votes_in_one_line_at_a_time(rollouts, database, new_macs, new_rollout, first_word, second_word):
    macs = new_macs(10)
    releases = [new_rollout(f"{first_word}-{second_word}-{number}") for number in range(2)]
    for release in releases:
        advance(rollouts, release, wave=1)
    hear(database, releases[0], macs, first_word, "flash_error")
    assert advance(rollouts, releases[0]).numbers.failed == 10
    hear(database, releases[1], macs, second_word)
    assert [advance(rollouts, release).numbers.reported for release in releases] == [0, 0]
    # What it refuses then changes nothing.
    hear(database, releases[0], macs, "rejected", "flash_error")
    assert [advance(rollouts, release).numbers.reported for release in releases] == [0, 0]


def test_device_of_another_chip_has_no_vote(rollouts, insert_release, database, new_macs, new_rollout):
    """Releases for both chips are told on the product's topic; and a check-in may name the chip."""
    c3, s3, unknown = new_macs(5), new_macs(5), new_macs(5)
    hear(database, insert_release(product="two-chips", chip="esp32s3"), s3[:2], "installed")
    release = new_rollout("two-chips", chip="esp32c3")
    check_in(database, s3, "two-chips", chip="esp32s3")
    check_in(database, c3, "two-chips", chip="esp32c3")
    check_in(database, unknown, "two-chips")
    advance(rollouts, release, wave=1)
    hear(database, release, s3, "rejected", "wrong_chip")
    hear(database, release, unknown, "rejected", "wrong_chip")
    hear(database, release, c3, "installed")
    numbers = advance(rollouts, release).numbers
    assert (numbers.expected, numbers.reported, numbers.failed) == (len(c3) + len(unknown), len(c3), 0)


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

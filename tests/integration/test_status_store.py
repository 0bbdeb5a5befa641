"""Statuses in PostgreSQL: whatever order and however often they arrive, the same is known afterwards."""

import itertools
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ota_core.formats.device_status import DeviceState, DeviceStatus
from ota_core.stores import status_store
from ota_core.stores.check_in_store import CheckInStore
from ota_core.stores.status_store import StatusStore

BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
_macs = itertools.count(1)


def new_mac():
    return ":".join(f"{byte:02X}" for byte in (0x022000000000 + next(_macs)).to_bytes(6))


@pytest.fixture(scope="module")
def releases(insert_release):
    """Three releases of one product, one of another, and one for another chip."""
    lines = [("p", "esp32")] * 3 + [("q", "esp32"), ("p", "esp32s3")]
    return [
        insert_release(release_id=f"{number:032x}", product=product, chip=chip)
        for number, (product, chip) in enumerate(lines, start=1)
    ]


@pytest.fixture(scope="module")
def store(database):
    return StatusStore(database)


@pytest.fixture(scope="module")
def known(database):
    """All that is known of a device, its MAC left out."""

    def ask(mac):
        def work(connection):
            questions = [
                "SELECT product, running_version, last_seen_at FROM devices WHERE mac = CAST(:mac AS macaddr)",
                "SELECT release, state, progress, reason, running_version, updated_at FROM device_states"  # noqa: ISC004
                " WHERE mac = CAST(:mac AS macaddr) ORDER BY 1",
                "SELECT release, state, reason, running_version, reported_at, last_reported_at"  # noqa: ISC004
                " FROM device_history WHERE mac = CAST(:mac AS macaddr) ORDER BY 1, 2, 3, 4",
            ]
            return [connection.run(question, mac=mac) for question in questions]

        return database.transaction(work)

    return ask


@pytest.fixture(scope="module")
def line(database):
    """A device's product and chip as named, and as proven with the time since."""

    def ask(mac):
        sql = (
            "SELECT product, chip, proven_product, proven_chip, proven_since FROM devices"
            " WHERE mac = CAST(:mac AS macaddr)"
        )
        [row] = database.transaction(lambda connection: connection.run(sql, mac=mac))
        return tuple(row)

    return ask


def status(mac, release, state=DeviceState.DOWNLOADING, second=0, **fields):
    fields = {"progress": None, "reason": None, "running_version": None} | fields
    return DeviceStatus(
        mac=mac, release_id=release["release_id"], state=state, received_at=BEGIN + timedelta(seconds=second), **fields
    )


def test_device_that_reports_becomes_known(store, known, releases):
    mac = new_mac()
    assert store.record([status(mac, releases[0], second=5, progress=10)]).unknown == set()
    devices, states, history = known(mac)
    assert devices == [["p", None, BEGIN + timedelta(seconds=5)]]
    assert states == [[releases[0]["id"], "downloading", 10, None, None, BEGIN + timedelta(seconds=5)]]
    assert [row[1] for row in history] == ["downloading"]


def test_late_message_moves_no_device_backwards(store, known, releases):
    mac = new_mac()
    store.record([status(mac, releases[0], DeviceState.INSTALLED, 2, running_version="1.1.0")])
    store.record([status(mac, releases[0], DeviceState.REBOOTING, 3, running_version="1.0.0")])
    devices, states, history = known(mac)
    assert devices == [["p", "1.1.0", BEGIN + timedelta(seconds=3)]]
    assert [row[1] for row in states] == ["installed"]
    assert {row[1] for row in history} == {"installed", "rebooting"}


def test_device_that_fails_and_succeeds_later_ends_as_installed(store, known, releases):
    mac = new_mac()
    store.record([status(mac, releases[0], DeviceState.FAILED, 1, reason="timeout")])
    store.record([status(mac, releases[0], DeviceState.INSTALLED, 2, running_version="1.1.0")])
    assert [row[1:4] for row in known(mac)[1]] == [["installed", None, None]]


def test_later_reason_of_the_same_state_is_the_one_that_stands(store, known, releases):
    mac = new_mac()
    store.record([status(mac, releases[0], DeviceState.FAILED, 2, reason="second")])
    store.record([status(mac, releases[0], DeviceState.FAILED, 1, reason="first")])
    assert [row[3] for row in known(mac)[1]] == ["second"]


def test_repetition_costs_no_room(store, known, releases):
    mac = new_mac()
    for second in range(50):
        store.record([status(mac, releases[0], progress=second * 2, second=second)])
    [history] = known(mac)[2]
    assert history[4:] == [BEGIN, BEGIN + timedelta(seconds=49)]


def test_device_that_says_ever_new_things_fills_no_database(store, known, releases):
    mac = new_mac()
    batches = [[status(mac, releases[0], reason=f"{batch} {number}") for number in range(30)] for batch in range(4)]
    assert [len(store.record(batch).news) for batch in batches] == [30, 30, 0, 0]
    # What it says again, and what it goes on to, is kept.
    store.record([status(mac, releases[0], second=9, reason="0 0")])
    installed = status(mac, releases[0], DeviceState.INSTALLED, 1, running_version="1.1.0")
    assert len(store.record([installed, status(mac, releases[1], second=2)]).news) == 2
    [[_, running_version, _]], states, history = known(mac)
    assert running_version == "1.1.0"
    assert [state[1] for state in states] == ["installed", "downloading"]
    assert [said[5] for said in history if said[2] == "0 0"] == [BEGIN + timedelta(seconds=9)]
    assert Counter((said[0], said[1]) for said in history) == {
        (releases[0]["id"], "downloading"): 60,
        (releases[0]["id"], "installed"): 1,
        (releases[1]["id"], "downloading"): 1,
    }


def test_only_what_was_not_said_before_is_news(store, releases):
    macs = [new_mac(), new_mac()]
    failed = status(macs[0], releases[0], DeviceState.FAILED, 1, reason="timeout", running_version="1.0.0")
    first = [status(mac, releases[0], progress=1) for mac in macs]
    assert {(item.product, item.status) for item in store.record([*first, failed]).news} == {
        ("p", item) for item in [*first, failed]
    }
    again = [status(mac, releases[0], progress=2, second=2) for mac in macs]
    elsewhere = status(macs[0], releases[1], DeviceState.FAILED, 1, reason="timeout", running_version="1.0.0")
    assert [item.status for item in store.record([*again, failed, elsewhere]).news] == [elsewhere]


def test_device_stays_what_it_is_when_it_refuses_another_products_release(store, known, releases):
    mac = new_mac()
    store.record([status(mac, releases[0], DeviceState.INSTALLED, 1, running_version="1.1.0")])
    store.record([status(mac, releases[3], DeviceState.REJECTED, 2, reason="wrong_product")])
    assert known(mac)[0][0][:2] == ["p", "1.1.0"]


# As pg8000 reads it.
ALWAYS = "-infinity"


def test_device_speaks_for_the_line_that_it_spoke_for_last(store, line, releases):
    mac = new_mac()
    store.record([status(mac, releases[0], second=1)])
    assert line(mac) == ("p", "esp32", "p", "esp32", ALWAYS)
    store.record([status(mac, releases[3], second=5), status(mac, releases[3], DeviceState.INSTALLED, 6)])
    assert line(mac) == ("q", "esp32", "q", "esp32", BEGIN + timedelta(seconds=5))
    store.record([status(mac, releases[4], second=8)])
    assert line(mac) == ("p", "esp32s3", "p", "esp32s3", BEGIN + timedelta(seconds=8))
    # A message that comes late.
    store.record([status(mac, releases[3], DeviceState.FAILED, 7)])
    assert line(mac) == ("p", "esp32s3", "p", "esp32s3", BEGIN + timedelta(seconds=8))


def test_device_that_says_again_what_it_said_before_it_spoke_for_another_line_is_new_in_its_own(store, line, releases):
    mac = new_mac()
    for second, release in ((1, releases[0]), (2, releases[3]), (3, releases[0])):
        store.record([status(mac, release, second=second)])
    assert line(mac)[2:] == ("p", "esp32", BEGIN + timedelta(seconds=3))


def test_device_that_only_refuses_speaks_for_a_line_until_it_speaks_otherwise(store, line, releases):
    mac = new_mac()
    store.record([status(mac, releases[0], DeviceState.REJECTED, 1, reason="release_expired")])
    assert line(mac)[2:] == ("p", "esp32", ALWAYS)
    store.record([status(mac, releases[3], second=2)])
    store.record([status(mac, releases[0], DeviceState.REJECTED, 3, reason="release_expired")])
    assert line(mac)[2:] == ("q", "esp32", BEGIN + timedelta(seconds=2))


@pytest.mark.parametrize("reason", ["wrong_product", "wrong_chip"])
def test_device_that_says_that_a_release_is_not_for_it_speaks_for_no_line(store, line, releases, reason):
    mac = new_mac()
    store.record([status(mac, releases[0], DeviceState.REJECTED, reason=reason)])
    assert line(mac) == (None, None, None, None, ALWAYS)


def test_flood_of_invented_devices_is_not_recorded(store, known, releases, database, monkeypatch):
    mac, stranger = new_mac(), new_mac()
    store.record([status(mac, releases[0])])
    database.transaction(lambda connection: connection.run("ANALYZE devices"))
    monkeypatch.setattr(status_store, "MAX_DEVICES", 1)
    recorded = store.record([status(stranger, releases[0]), status(mac, releases[0], DeviceState.INSTALLED, 1)])
    assert (recorded.strangers, recorded.unknown) == ({stranger}, set())
    assert [news.status.mac for news in recorded.news] == [mac]
    assert known(stranger) == [[], [], []]
    assert [state[1] for state in known(mac)[1]] == ["installed"]


def test_check_in_is_not_overruled_by_a_repetition(store, known, releases, database):
    mac = new_mac()
    installed = status(mac, releases[0], DeviceState.INSTALLED, 1, running_version="1.1.0")
    store.record([installed])
    CheckInStore(database).check_in(mac=mac, product="p", chip="esp32", running_version="1.2.0")
    store.record([installed])
    assert known(mac)[0][0][1] == "1.2.0"


def test_unknown_release_is_told_and_the_rest_is_recorded(store, known, releases):
    mac, stranger = new_mac(), new_mac()
    unknown = status(stranger, releases[0])._replace(release_id="f" * 32)
    assert store.record([unknown, status(mac, releases[0])]).unknown == {"f" * 32}
    assert known(stranger) == [[], [], []]
    assert len(known(mac)[1]) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_and_repetition_of_messages_gives_the_same(data, store, known, line, releases):
    kinds = st.tuples(
        st.integers(0, 4),
        st.sampled_from(DeviceState),
        st.sampled_from([None, 0, 50]),
        st.sampled_from([None, "x", "wrong_chip"]),
        st.sampled_from([None, "1.0.0", "1.1.0"]),
    )
    messages = data.draw(st.lists(kinds, min_size=1, max_size=8))
    seconds = data.draw(st.permutations(range(len(messages))))

    def play(order, batch_size):
        mac = new_mac()
        played = []
        for at in order:
            release, state, progress, reason, running = messages[at]
            played.append(
                status(
                    mac,
                    releases[release],
                    state,
                    seconds[at],
                    progress=progress,
                    reason=reason,
                    running_version=running,
                )
            )
        for first in range(0, len(played), batch_size):
            store.record(played[first : first + batch_size])
        return line(mac), known(mac)

    once = play(range(len(messages)), 1)
    order = data.draw(st.permutations([*range(len(messages))] * 2))
    assert play(order, data.draw(st.integers(1, 16))) == once


def test_concurrent_batches_give_what_one_after_the_other_gives(connect, releases, known):
    """Many devices in each batch, in different orders: no deadlock, and nothing is lost."""
    macs = [new_mac() for _ in range(40)]
    messages = [
        status(mac, release, state, second, running_version=f"1.{number}.0")
        for mac in macs
        for number, release in enumerate(releases[:3])
        for second, state in enumerate((DeviceState.DOWNLOADING, DeviceState.INSTALLED))
    ]
    failures = []

    def record(step):
        own = StatusStore(connect())
        try:
            for first in range(0, len(messages), 30):
                own.record(messages[first : first + 30][::step])
        except Exception as error:  # noqa: BLE001 - whatever it is
            failures.append(error)

    threads = [threading.Thread(target=record, args=(step,)) for step in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for mac in macs:
        devices, states, _ = known(mac)
        assert devices[0][1] == "1.2.0"
        assert [row[1] for row in states] == ["installed"] * 3


def test_batch_of_a_hundred_is_quick(store, releases):
    batch = [status(new_mac(), releases[0], DeviceState.INSTALLED, running_version="1.1.0") for _ in range(100)]
    store.record(batch)
    begun = datetime.now(UTC)
    store.record(batch)
    assert datetime.now(UTC) - begun < timedelta(seconds=1)

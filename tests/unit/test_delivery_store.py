from datetime import UTC, datetime

import pytest
from ota_core.rules.rollout import in_cohort
from ota_core.stores.delivery_store import (
    FRESH_SECONDS,
    STALE_SECONDS,
    DeliveryStore,
    NotOffered,
    NotStarted,
    ReleasedImage,
    Withdrawn,
)
from pg8000.native import DatabaseError
from support.fakes import FakeTransactions

RELEASED_AT = datetime(2026, 3, 7, tzinfo=UTC)
RELEASE = "0" * 32
MACS = [f"02:00:00:00:00:{number:02X}" for number in range(8)]


def row(state="published", *, percent=100, has_list=False, starts_at=None, is_listed=False):
    """What PostgreSQL answers."""
    return [RELEASE, "releases/x", "v1", 10, "ab", state, percent, has_list, starts_at, RELEASED_AT, is_listed]


@pytest.fixture
def database():
    database = FakeTransactions()
    database.rows = [row()]
    return database


@pytest.fixture
def clock():
    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def store(database, clock):
    return DeliveryStore(database, clock)


@pytest.fixture
def find(store):
    return lambda version="1.0.0", release_id=None, mac=None: store.find("p", version, release_id=release_id, mac=mac)


def test_chunks_of_a_download_cost_one_query_in_a_while(find, database, clock):
    for _ in range(30):
        assert isinstance(find(), ReleasedImage)
    assert database.count == 1
    clock.now += FRESH_SECONDS
    find()
    assert database.count == 2


def test_withdrawal_is_noticed_when_the_answer_is_no_longer_fresh(find, database, clock):
    find()
    database.rows = [row("withdrawn")]
    clock.now += FRESH_SECONDS
    assert find() == Withdrawn()
    # And what was known before does not come back with an outage.
    database.error = ConnectionRefusedError()
    with pytest.raises(ConnectionRefusedError):
        find()


def test_unknown_and_withdrawn_versions_are_asked_for_every_time(find, database):
    for rows in ([], [row("withdrawn")]):
        database.rows = rows
        find("2.0.0")
    database.rows = [row()]
    assert isinstance(find("2.0.0"), ReleasedImage)


def test_downloads_go_on_while_the_database_is_out(find, database, clock):
    find()
    database.error = DatabaseError({"C": "57P01", "M": "terminating connection"})
    for _ in range(int((STALE_SECONDS - 1) // FRESH_SECONDS)):
        clock.now += FRESH_SECONDS
        queries = database.count
        for _ in range(5):
            assert isinstance(find(), ReleasedImage)
        assert database.count == queries + 1
    clock.now += 2 * FRESH_SECONDS
    with pytest.raises(DatabaseError):
        find()


def test_statement_that_the_database_refuses_is_no_outage(find, database, clock):
    find()
    clock.now += FRESH_SECONDS
    database.error = DatabaseError({"C": "42P01", "M": "relation does not exist"})
    with pytest.raises(DatabaseError):
        find()


def test_no_more_versions_are_remembered_than_fit(store, find):
    for number in range(1000):
        find(f"1.0.{number}")
    assert len(store._remembered) == 256


def test_chunks_of_a_listed_devices_download_cost_one_query_in_a_while(find, database, clock):
    database.rows = [row(has_list=True, is_listed=True)]
    for _ in range(30):
        assert isinstance(find(release_id=RELEASE, mac=MACS[0]), ReleasedImage)
    assert database.count == 1
    find(release_id=RELEASE, mac=MACS[1])
    for _ in range(30):
        find(release_id=RELEASE, mac=MACS[0])
        find(release_id=RELEASE, mac=MACS[1])
    assert database.count == 2
    clock.now += FRESH_SECONDS
    find(release_id=RELEASE, mac=MACS[0])
    assert database.count == 3


def test_devices_of_a_cohort_cost_one_query_together(find, database):
    database.rows = [row("rolling_out", percent=50)]
    reached = [mac for mac in MACS if in_cohort(RELEASE, mac, 50)]
    assert 0 < len(reached) < len(MACS)
    for mac in reached:
        assert isinstance(find(release_id=RELEASE, mac=mac), ReleasedImage)
    assert database.count == 1


def test_device_that_is_not_reached_is_refused_by_the_database_only(find, database):
    """Its wave may have begun since the last query."""
    database.rows = [row("rolling_out", percent=50)]
    [beyond, *_] = [mac for mac in MACS if not in_cohort(RELEASE, mac, 50)]
    assert isinstance(find(release_id=RELEASE), ReleasedImage)
    for _ in range(2):
        assert find(release_id=RELEASE, mac=beyond) == NotOffered()
    assert database.count == 3
    database.rows = [row("rolling_out", percent=100)]
    assert isinstance(find(release_id=RELEASE, mac=beyond), ReleasedImage)


def test_device_that_is_not_listed_is_not_served(find, database):
    database.rows = [row(has_list=True, is_listed=True)]
    find(release_id=RELEASE, mac=MACS[0])
    database.rows = [row(has_list=True)]
    assert find(release_id=RELEASE, mac=MACS[1]) == NotOffered()
    assert isinstance(find(release_id=RELEASE, mac=MACS[0]), ReleasedImage)
    # Whoever has no MAC has the URL.
    assert isinstance(find(release_id=RELEASE), ReleasedImage)


@pytest.mark.parametrize(
    ("starts_at", "moment"), [(None, None), ("2027-01-01T00:00:00Z", datetime(2027, 1, 1, tzinfo=UTC))]
)
def test_release_without_a_wave_has_not_started(find, database, starts_at, moment):
    database.rows = [row("rolling_out", percent=0, starts_at=starts_at)]
    assert find() == NotStarted(moment)
    database.rows = [row("rolling_out", percent=10, starts_at=starts_at)]
    assert isinstance(find(), ReleasedImage)


def test_release_that_the_version_does_not_have_is_unknown(find, database):
    assert find(release_id="1" * 32) is None


def test_listed_device_goes_on_while_the_database_is_out_and_another_does_not_begin(find, database, clock):
    database.rows = [row(has_list=True, is_listed=True)]
    find(release_id=RELEASE, mac=MACS[0])
    clock.now += FRESH_SECONDS
    database.error = DatabaseError({"C": "57P01", "M": "terminating connection"})
    assert isinstance(find(release_id=RELEASE, mac=MACS[0]), ReleasedImage)
    with pytest.raises(DatabaseError):
        find(release_id=RELEASE, mac=MACS[1])


def test_no_more_listed_devices_are_remembered_than_fit(store, find, database):
    database.rows = [row(has_list=True, is_listed=True)]
    for number in range(5000):
        find(release_id=RELEASE, mac=f"02:00:00:00:{number >> 8:02X}:{number & 255:02X}")
    assert len(store._listed) == 4096

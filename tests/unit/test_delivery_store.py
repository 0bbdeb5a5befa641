from datetime import UTC, datetime

import pytest
from ota_core.stores.delivery_store import FRESH_SECONDS, STALE_SECONDS, DeliveryStore, ReleasedImage, Withdrawn
from pg8000.native import DatabaseError
from support.fakes import FakeTransactions

RELEASED_AT = datetime(2026, 3, 7, tzinfo=UTC)
ROW = ["releases/x", "v1", 10, "ab", "published", RELEASED_AT]


@pytest.fixture
def database():
    database = FakeTransactions()
    database.rows = [ROW]
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


def test_chunks_of_a_download_cost_one_query_in_a_while(store, database, clock):
    for _ in range(30):
        assert isinstance(store.find("p", "1.0.0"), ReleasedImage)
    assert database.count == 1
    clock.now += FRESH_SECONDS
    store.find("p", "1.0.0")
    assert database.count == 2


def test_withdrawal_is_noticed_when_the_answer_is_no_longer_fresh(store, database, clock):
    store.find("p", "1.0.0")
    database.rows = [[*ROW[:4], "withdrawn", RELEASED_AT]]
    clock.now += FRESH_SECONDS
    assert store.find("p", "1.0.0") == Withdrawn()
    # And what was known before does not come back with an outage.
    database.error = ConnectionRefusedError()
    with pytest.raises(ConnectionRefusedError):
        store.find("p", "1.0.0")


def test_unknown_and_withdrawn_versions_are_asked_for_every_time(store, database):
    for rows in ([], [[*ROW[:4], "withdrawn", RELEASED_AT]]):
        database.rows = rows
        store.find("p", "2.0.0")
    database.rows = [ROW]
    assert isinstance(store.find("p", "2.0.0"), ReleasedImage)


def test_downloads_go_on_while_the_database_is_out(store, database, clock):
    store.find("p", "1.0.0")
    database.error = DatabaseError({"C": "57P01", "M": "terminating connection"})
    for _ in range(int((STALE_SECONDS - 1) // FRESH_SECONDS)):
        clock.now += FRESH_SECONDS
        queries = database.count
        for _ in range(5):
            assert isinstance(store.find("p", "1.0.0"), ReleasedImage)
        assert database.count == queries + 1
    clock.now += 2 * FRESH_SECONDS
    with pytest.raises(DatabaseError):
        store.find("p", "1.0.0")


def test_statement_that_the_database_refuses_is_no_outage(store, database, clock):
    store.find("p", "1.0.0")
    clock.now += FRESH_SECONDS
    database.error = DatabaseError({"C": "42P01", "M": "relation does not exist"})
    with pytest.raises(DatabaseError):
        store.find("p", "1.0.0")


def test_no_more_versions_are_remembered_than_fit(store):
    for number in range(1000):
        store.find("p", f"1.0.{number}")
    assert len(store._remembered) == 256

import json
import re
import uuid

import pytest
from ota_core.stores import check_in_store
from ota_core.stores.check_in_store import STATEMENT, CheckInStore

MAC = "02:00:00:00:00:01"


@pytest.fixture
def product():
    return f"p-{uuid.uuid4().hex}"


@pytest.fixture
def check_in(database, product):
    def call(mac=MAC, running_version=None, of=product, chip=None):
        return CheckInStore(database).check_in(mac=mac, product=of, chip=chip, running_version=running_version)

    return call


@pytest.fixture
def target(database, insert_release):
    """Releases to some devices only."""

    def insert(*macs, **fields):
        release = insert_release(target_count=len(macs), **fields)

        def work(connection):
            for mac in macs:
                connection.run(
                    "INSERT INTO release_targets (release, mac) VALUES (:release, CAST(:mac AS macaddr))",
                    release=release["id"],
                    mac=mac,
                )

        database.transaction(work)
        return release

    return insert


def devices(database, **columns):
    [(name, value)] = columns.items()
    return database.transaction(
        lambda connection: connection.run(
            f"SELECT mac::text, product, running_version, last_seen_at FROM devices WHERE {name} = CAST(:value AS text)::{'macaddr' if name == 'mac' else 'text'}",  # noqa: E501, S608
            value=value,
        )
    )


def test_fleet_wide_release_is_for_every_device(check_in, insert_release, product):
    release = insert_release(product=product)
    assert check_in().release_id == release["release_id"]
    assert check_in(mac="02:00:00:00:00:02").release_id == release["release_id"]


def test_release_to_listed_devices_is_for_them_only(check_in, insert_release, target, product):
    everybody = insert_release(product=product)
    listed = target(MAC, "02:00:00:00:00:03", product=product)
    assert check_in().release_id == listed["release_id"]
    assert check_in(mac="02:00:00:00:00:02").release_id == everybody["release_id"]


def test_highest_sequence_decides(check_in, insert_release, target, product):
    target(MAC, product=product)
    target(MAC, product=product)
    insert_release(product=product)
    last = insert_release(product=product, version="0.0.1", allow_downgrade=True)
    assert check_in().release_id == last["release_id"]
    last = target(MAC, product=product)
    assert check_in().release_id == last["release_id"]


@pytest.mark.parametrize("state", ["registered", "withdrawn"])
def test_what_is_not_published_is_for_nobody(check_in, insert_release, target, product, state):
    assert check_in() is None
    published = insert_release(product=product)
    insert_release(product=product, state=state)
    target(MAC, product=product, state=state)
    assert check_in().release_id == published["release_id"]


def test_releases_of_other_products_are_not_for_the_device(check_in, insert_release, target, product):
    mine = insert_release(product=product)
    insert_release(product="another")
    target(MAC, product="another")
    assert check_in().release_id == mine["release_id"]


@pytest.fixture
def later(database):
    """Lets a minute pass for a device."""

    def wait(mac):
        database.statement(
            "UPDATE devices SET last_seen_at = last_seen_at - interval '1 minute' WHERE mac = CAST(:mac AS macaddr)",
            mac=mac,
        )

    return wait


def test_device_is_recorded_with_what_it_says_last(check_in, later, insert_release, database, product):
    insert_release(product=product)
    mac = "02:aa:00:00:00:01"
    check_in(mac=mac, running_version="1.0.0")
    [(_, _, version, first_seen)] = devices(database, mac=mac)
    assert version == "1.0.0"
    later(mac)
    check_in(mac=mac)
    [(_, recorded, version, last_seen)] = devices(database, mac=mac)
    assert (recorded, version) == (product, "1.0.0")
    assert last_seen > first_seen
    later(mac)
    check_in(mac=mac, running_version="esp-idf: v5.1.4")
    assert devices(database, mac=mac)[0][2] == "esp-idf: v5.1.4"


def test_chip_is_what_the_device_said_last_about_this_product(check_in, later, insert_release, database, product):
    insert_release(product=product)
    other = insert_release(product=f"{product}-2")["product"]
    mac = "02:aa:00:00:00:02"
    chips = []
    for of, chip in ((product, None), (product, "esp32c3"), (product, None), (other, None), (other, "esp32")):
        check_in(mac=mac, of=of, chip=chip)
        later(mac)
        chips += database.statement("SELECT product, chip FROM devices WHERE mac = CAST(:mac AS macaddr)", mac=mac)
    assert [chip for _, chip in chips] == [None, "esp32c3", "esp32c3", None, "esp32"]
    assert [named for named, _ in chips] == [product] * 3 + [other] * 2


def test_release_for_another_chip_is_not_for_a_device_that_names_its_own(check_in, insert_release, target, product):
    mine = insert_release(product=product, chip="esp32")
    other = insert_release(product=product, chip="esp32c3")
    assert check_in(chip="esp32").release_id == mine["release_id"]
    assert check_in().release_id == other["release_id"]
    listed = target(MAC, product=product, chip="esp32c3")
    assert check_in(chip="esp32").release_id == mine["release_id"]
    assert check_in(chip="esp32c3").release_id == listed["release_id"]


def test_device_that_was_seen_within_a_minute_is_answered_without_a_write_or_a_lock(
    check_in, insert_release, database, connect, product
):
    """Otherwise whoever checks in for one MAC all the time makes each of these wait for the one before."""
    release = insert_release(product=product)
    mac = "02:aa:00:00:00:03"
    check_in(mac=mac, running_version="1.0.0")
    [before] = devices(database, mac=mac)
    where = "SELECT ctid, xmax FROM devices WHERE mac = CAST(:mac AS macaddr)"
    row = database.statement(where, mac=mac)

    def meanwhile(connection):
        connection.run("SELECT FROM devices WHERE mac = CAST(:mac AS macaddr) FOR UPDATE", mac=mac)
        other = connect()
        other.transaction(lambda waiting: waiting.run("SET lock_timeout = '1s'"))
        asked = CheckInStore(other).check_in(mac=mac, product=product, chip="esp32", running_version="2.0.0")
        assert asked.release_id == release["release_id"]

    check_in(mac=mac, running_version="3.0.0")
    assert database.statement(where, mac=mac) == row
    database.transaction(meanwhile)
    assert devices(database, mac=mac) == [before]


def test_device_of_an_unknown_product_is_not_recorded(check_in, database):
    assert check_in(mac="02:bb:00:00:00:01", of="never-released") is None
    assert devices(database, mac="02:bb:00:00:00:01") == []


def test_flood_of_made_up_devices_is_answered_and_not_recorded(
    check_in, later, insert_release, database, product, monkeypatch
):
    release = insert_release(product=product)
    check_in(mac="02:cc:00:00:00:01", running_version="1.0.0")
    database.transaction(lambda connection: connection.run("ANALYZE devices"))
    monkeypatch.setattr(check_in_store, "MAX_DEVICES", 1)
    assert check_in(mac="02:cc:00:00:00:02").release_id == release["release_id"]
    assert devices(database, mac="02:cc:00:00:00:02") == []
    # Who is known is kept up to date.
    later("02:cc:00:00:00:01")
    check_in(mac="02:cc:00:00:00:01", running_version="1.0.1")
    assert devices(database, mac="02:cc:00:00:00:01")[0][2] == "1.0.1"


@pytest.fixture(scope="module")
def crowd(database):
    """200,000 devices, 5,000 releases to 100 of them each, 500 to the fleet; a fifth are withdrawn."""

    def work(connection):
        connection.run(
            "INSERT INTO devices (mac, product) SELECT"
            " CAST('0a:00:00' || regexp_replace(lpad(to_hex(n), 6, '0'), '(..)', ':\\1', 'g') AS macaddr), 'crowded'"
            " FROM generate_series(1, 200000) AS n"
        )
        connection.run("INSERT INTO products (product) VALUES ('crowded')")
        connection.run(
            "INSERT INTO releases (release_id, manifest_sha256, product, version, sequence, chip, changelog, envelope,"
            " keyid, image_key, image_version_id, image_size, image_sha256, image_signature, target_count,"
            " allow_downgrade, warnings, execution_arn, state, cohort_percent, expires_at)"
            " SELECT 'c' || n, 'c' || n, 'crowded', '1.0.' || n, n, 'esp32', '', repeat('x', 2000), 'k', 'k', 'v', 1,"
            " 'ab', '', CASE WHEN n % 11 = 0 THEN NULL ELSE 100 END, false, '[]', 'e',"
            " CASE WHEN n % 5 = 0 THEN 'withdrawn' ELSE 'published' END, 100, now() + interval '1 day'"
            " FROM generate_series(1, 5500) AS n"
        )
        connection.run(
            "INSERT INTO release_targets (release, mac) SELECT releases.id, CAST('0a:00:00' || regexp_replace("
            " lpad(to_hex((sequence * 37 + n * 1999) % 200000 + 1), 6, '0'), '(..)', ':\\1', 'g') AS macaddr)"
            " FROM releases, generate_series(1, 100) AS n WHERE product = 'crowded' AND target_count IS NOT NULL"
            " ON CONFLICT DO NOTHING"
        )

    database.transaction(work)
    for table in ("devices", "releases", "release_targets"):
        database.transaction(lambda connection, table=table: connection.run(f"ANALYZE {table}"))


def test_check_in_reads_a_few_rows_by_index_however_many_devices_and_releases_there_are(crowd, database):
    def work(connection):
        return connection.run(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)" + STATEMENT,
            mac="0a:00:00:00:10:00",
            product="crowded",
            chip="esp32",
            running_version="1.0.0",
            max_devices=5_000_000,
        )

    [(plan,)] = database.transaction(work)
    [plan] = plan if isinstance(plan, list) else json.loads(plan)
    text = json.dumps(plan)
    scanned = re.findall(r'"Node Type": "Seq Scan".*?"Relation Name": "(\w+)"', text)
    assert not set(scanned) & {"devices", "releases", "release_targets"}
    buffers = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    print(f"check-in: {plan['Execution Time']:.2f} ms, {buffers} buffers")  # noqa: T201 - a figure for the record
    assert buffers < 100


def test_delivery_reads_a_few_rows_by_index(crowd, database):
    def work(connection):
        return connection.run(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT image_key FROM releases"
            " WHERE product = 'crowded' AND version = '1.0.777'"
        )

    [(plan,)] = database.transaction(work)
    assert "Seq Scan" not in json.dumps(plan)

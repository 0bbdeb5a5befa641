import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from ota_core.rules.rollout import in_cohort
from ota_core.stores.delivery_store import DeliveryStore, NotOffered, NotStarted, ReleasedImage, Withdrawn
from ota_core.stores.image_store import StoredImage
from ota_core.stores.release_store import ReleaseSuperseded
from ota_core.stores.wave_store import WaveStore
from support.drops import make_drop

MACS = [f"02:00:00:00:00:{number:02X}" for number in range(32)]


@pytest.fixture
def product():
    return f"p-{uuid.uuid4().hex}"


@pytest.fixture
def find(database, product):
    return lambda version, release_id=None, mac=None: DeliveryStore(database).find(
        product, version, release_id=release_id, mac=mac
    )


@pytest.mark.parametrize("state", ["registered", "rolling_out", "published"])
def test_image_is_found_while_its_release_stands(insert_release, find, product, state):
    release = insert_release(product=product, version="1.0.0+5", state=state)
    found = find("1.0.0+5")
    assert found.image == StoredImage(release["image_key"], "v", 10, "ab")
    assert found.released_at.tzinfo is not None
    assert found.released_at.microsecond == 0
    assert timedelta(0) <= datetime.now(UTC) - found.released_at < timedelta(minutes=1)


def test_image_is_found_by_its_own_product_and_version_only(insert_release, find, product):
    insert_release(product=product, version="1.0.0")
    insert_release(product="another", version="2.0.0")
    assert isinstance(find("1.0.0"), ReleasedImage)
    assert find("2.0.0") is None
    assert find("1.0.0+5") is None


def test_release_that_is_named_decides_alone(insert_release, find, product):
    beta = insert_release(product=product, version="1.0.0")
    everywhere = insert_release(product=product, version="1.0.0", state="withdrawn")
    assert find("1.0.0", everywhere["release_id"]) == Withdrawn()
    assert find("1.0.0", beta["release_id"]).image.key == beta["image_key"]
    assert find("1.0.1", beta["release_id"]) is None
    assert find("1.0.0", "0" * 32) is None
    assert find("1.0.0", insert_release(product="another", version="1.0.0")["release_id"]) is None


def test_newest_release_that_has_started_or_was_withdrawn_decides_where_none_is_named(insert_release, find, product):
    insert_release(product=product, version="1.0.0", state="withdrawn")
    assert find("1.0.0") == Withdrawn()
    again = insert_release(product=product, version="1.0.0")
    assert find("1.0.0").image.key == again["image_key"]
    insert_release(product=product, version="1.0.0", state="rolling_out", cohort_percent=0)
    assert find("1.0.0").image.key == again["image_key"]
    insert_release(product=product, version="1.0.0", state="withdrawn", cohort_percent=0)
    assert find("1.0.0") == Withdrawn()


@pytest.mark.parametrize("state", ["registered", "rolling_out"])
def test_release_has_not_started_until_its_first_wave(insert_release, find, product, state):
    rollout = json.dumps({"start_at": "2027-01-01T00:00:00Z"})
    insert_release(product=product, version="1.0.0", state=state, cohort_percent=0, rollout=rollout)
    assert find("1.0.0") == NotStarted(datetime(2027, 1, 1, tzinfo=UTC))


def test_devices_of_a_wave_may_download_before_it_is_recorded(database, insert_release, find, product):
    envelope = make_drop(product=product).manifest.decode()
    release = insert_release(
        product=product, version="1.0.0", state="registered", cohort_percent=0, execution_arn="owner", envelope=envelope
    )
    with pytest.raises(ReleaseSuperseded):
        WaveStore(database).open_wave(release["release_id"], "another", 100)
    assert find("1.0.0") == NotStarted(None)
    opened = WaveStore(database).open_wave(release["release_id"], "owner", 50)
    assert (opened.version, opened.percent) == ("1.0.0", 0)
    reached, beyond = (
        next(mac for mac in MACS if in_cohort(release["release_id"], mac, 50) is wanted) for wanted in (True, False)
    )
    assert isinstance(find("1.0.0", release["release_id"], reached), ReleasedImage)
    assert find("1.0.0", release["release_id"], beyond) == NotOffered()
    assert find("1.0.0", None, beyond) == NotOffered()


def test_release_with_a_list_is_for_those_on_it(database, insert_release, find, product):
    release = insert_release(product=product, version="1.0.0", target_count=1)
    database.statement(
        "INSERT INTO release_targets (release, mac) VALUES (:id, CAST(:mac AS macaddr))", id=release["id"], mac=MACS[0]
    )
    assert isinstance(find("1.0.0", release["release_id"], MACS[0]), ReleasedImage)
    assert find("1.0.0", release["release_id"], MACS[1]) == NotOffered()
    assert isinstance(find("1.0.0", release["release_id"]), ReleasedImage)


def test_version_was_released_when_its_first_release_was(insert_release, find, product):
    first = datetime(2026, 3, 7, 8, 9, 10, 999999, tzinfo=UTC)
    insert_release(product=product, version="1.0.0", state="withdrawn", registered_at=first)
    insert_release(product=product, version="1.0.0")
    assert find("1.0.0").released_at == first.replace(microsecond=0)


def test_connection_that_was_cut_is_replaced(database, find, insert_release, product):
    insert_release(product=product, version="1.0.0")
    store = find("1.0.0")
    database.transaction(lambda connection: connection.run("SELECT 1"))
    database._connection._usock.close()
    assert find("1.0.0") == store

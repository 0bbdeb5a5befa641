import uuid
from datetime import UTC, datetime, timedelta

import pytest
from ota_core.stores.delivery_store import DeliveryStore, ReleasedImage, Withdrawn
from ota_core.stores.image_store import StoredImage


@pytest.fixture
def product():
    return f"p-{uuid.uuid4().hex}"


@pytest.fixture
def find(database, product):
    return lambda version: DeliveryStore(database).find(product, version)


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


def test_image_is_withdrawn_when_every_release_of_its_version_is(insert_release, find, product):
    insert_release(product=product, version="1.0.0", state="withdrawn")
    assert find("1.0.0") == Withdrawn()
    again = insert_release(product=product, version="1.0.0")
    assert find("1.0.0").image.key == again["image_key"]
    insert_release(product=product, version="1.0.0", state="withdrawn")
    assert find("1.0.0").image.key == again["image_key"]


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

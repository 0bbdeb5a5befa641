import json

import pytest
from ota_core.stages.publication import publish_batch
from support.fakes import FakeNotifier

BATCH = "batches/r/wave-01/00000.json"


@pytest.fixture
def notifier():
    return FakeNotifier()


@pytest.fixture(autouse=True)
def batch(store):
    document = {"topics": ["/u/1", "/u/2"], "retain": False, "payload": '{"changelog":"größer"}'}
    store.write(BATCH, json.dumps(document, ensure_ascii=False).encode())


def test_every_message_of_a_batch_is_published(store, notifier):
    assert publish_batch(store, notifier, BATCH) == 2
    payload = '{"changelog":"größer"}'.encode()
    assert notifier.published == [("/u/1", payload, False), ("/u/2", payload, False)]


def test_batch_that_is_done_is_not_published_again(store, notifier):
    publish_batch(store, notifier, BATCH)
    assert publish_batch(store, notifier, BATCH) == 0
    assert len(notifier.published) == 2


def test_batch_that_broke_half_way_is_repeated_whole(store, notifier):
    notifier.breaks_at = "/u/2"
    with pytest.raises(ConnectionError):
        publish_batch(store, notifier, BATCH)
    notifier.breaks_at = None
    assert publish_batch(store, notifier, BATCH) == 2
    assert [topic for topic, _, _ in notifier.published] == ["/u/1", "/u/1", "/u/2"]


def test_retained_message_stays_retained(store, notifier):
    store.write("batches/r/fleet.json", json.dumps({"topics": ["/u"], "retain": True, "payload": ""}).encode())
    publish_batch(store, notifier, "batches/r/fleet.json")
    assert notifier.published == [("/u", b"", True)]

import json

import pytest
from ota_core.rules.rollout import in_cohort
from ota_core.stages.resolution import Resolution
from ota_core.stores.release_store import ReleaseSuperseded
from support.drops import target_list
from support.fakes import FakeWaves

ALL = {"wave": 1, "percent": 100, "earlier_percent": 0}


@pytest.fixture
def waves(store):
    return FakeWaves(store)


@pytest.fixture
def resolution(store, waves):
    return Resolution(store, waves, topic_prefix="/u", api_url="https://api.example/v1")


def batches_of(store, index):
    lines = store.read_current(index["key"]).decode().splitlines()
    return [json.loads(store.read_current(json.loads(line)["batch"])) for line in lines]


def test_fleet_is_told_by_one_retained_message_on_each_of_its_topics(store, waves, resolution):
    release = waves.release()
    index = resolution.resolve_wave(release.release_id, "first", **ALL)
    assert (index["batches"], index["messages"]) == (1, 2)
    [batch] = batches_of(store, index)
    assert (batch["topics"], batch["retain"]) == (["/u", "/u/product/demo-sensor"], True)
    told = json.loads(batch["payload"])
    assert told["release_id"] == release.release_id
    assert told["url"] == f"https://api.example/v1/firmware/demo-sensor/1.4.0?release={release.release_id}"
    assert "cohort" not in told


def test_fleet_is_told_which_of_its_devices_a_wave_is_for(store, waves, resolution):
    release = waves.release()
    index = resolution.resolve_wave(release.release_id, "first", wave=2, percent=10, earlier_percent=1)
    [batch] = batches_of(store, index)
    assert json.loads(batch["payload"])["cohort"] == {"percent": 10, "salt": release.release_id}


def test_devices_of_a_wave_may_download_when_they_are_told(waves, resolution):
    release = waves.release()
    resolution.resolve_wave(release.release_id, "first", wave=2, percent=10, earlier_percent=1)
    assert waves.reached == {release.release_id: 10}
    resolution.resolve_withdrawal(release.release_id, "first")
    assert waves.reached == {release.release_id: 10}


def test_listed_devices_are_told_in_batches_of_a_thousand(store, waves, resolution):
    macs = target_list(2500)
    release = waves.release(targets=macs)
    index = resolution.resolve_wave(release.release_id, "first", **ALL)
    assert (index["batches"], index["messages"]) == (3, 2500)
    batches = batches_of(store, index)
    assert [len(batch["topics"]) for batch in batches] == [1000, 1000, 500]
    assert [topic for batch in batches for topic in batch["topics"]] == [f"/u/{mac}" for mac in macs]
    assert {batch["retain"] for batch in batches} == {False}
    assert waves.recorded[release.release_id] == macs


def test_waves_tell_every_listed_device_once(store, waves, resolution):
    macs = target_list(300)
    release = waves.release(targets=macs)
    told = []
    for wave, (earlier, percent) in enumerate([(0, 10), (10, 50), (50, 100)], 1):
        index = resolution.resolve_wave(
            release.release_id, "first", wave=wave, percent=percent, earlier_percent=earlier
        )
        topics = [topic for batch in batches_of(store, index) for topic in batch["topics"]]
        assert topics
        told += topics
    assert sorted(told) == [f"/u/{mac}" for mac in macs]


def test_devices_of_tags_are_told(store, waves, resolution):
    release = waves.release(targets={"tags": ["beta"]})
    [batch] = batches_of(store, resolution.resolve_wave(release.release_id, "first", **ALL))
    assert batch["topics"] == ["/u/02:00:00:00:00:01"]


def test_tags_of_no_device_tell_nobody(store, waves, resolution):
    release = waves.release(targets={"tags": ["nobody"]})
    index = resolution.resolve_wave(release.release_id, "first", **ALL)
    assert (index["batches"], index["messages"], batches_of(store, index)) == (0, 0, [])


def test_repeating_writes_the_same(store, waves, resolution):
    release = waves.release(targets=target_list(1500))
    first = resolution.resolve_wave(release.release_id, "first", **ALL)
    before = batches_of(store, first)
    waves.attempts = 2
    assert resolution.resolve_wave(release.release_id, "first", **ALL) == first
    assert batches_of(store, first) == before


def test_execution_that_lost_the_release_writes_nothing(s3, waves, resolution):
    release = waves.release()
    for resolve in (
        lambda: resolution.resolve_wave(release.release_id, "second", **ALL),
        lambda: resolution.resolve_withdrawal(release.release_id, "second"),
    ):
        with pytest.raises(ReleaseSuperseded):
            resolve()
    assert "Versions" not in s3.list_object_versions(Bucket="bucket", Prefix="batches/")


def test_withdrawal_restores_what_the_topics_said_before(store, waves, resolution):
    bad, good, other = waves.release(), waves.release(version="1.3.0"), waves.release(product="other")
    waves.standing = {None: other, "demo-sensor": good}
    withdrawn, everybody, of_product = batches_of(store, resolution.resolve_withdrawal(bad.release_id, "first"))
    assert (withdrawn["topics"], withdrawn["retain"]) == (["/u", "/u/product/demo-sensor"], False)
    assert bad.release_id in withdrawn["payload"]
    assert (everybody["topics"], everybody["retain"]) == (["/u"], True)
    assert json.loads(everybody["payload"])["release_id"] == other.release_id
    assert (of_product["topics"], of_product["retain"]) == (["/u/product/demo-sensor"], True)
    assert json.loads(of_product["payload"])["release_id"] == good.release_id


def test_withdrawal_of_the_only_release_removes_the_retained_messages(store, waves, resolution):
    release = waves.release()
    batches = batches_of(store, resolution.resolve_withdrawal(release.release_id, "first"))
    assert [(batch["payload"], batch["retain"]) for batch in batches[1:]] == [("", True), ("", True)]


def test_withdrawal_tells_the_devices_that_were_told_and_no_others(store, waves, resolution):
    release = waves.release(percent=50, targets=target_list(200))
    waves.recorded[release.release_id] = target_list(200)
    index = resolution.resolve_withdrawal(release.release_id, "first")
    [batch] = batches_of(store, index)
    told = [f"/u/{mac}" for mac in target_list(200) if in_cohort(release.release_id, mac, 50)]
    assert (batch["topics"], batch["retain"]) == (told, False)

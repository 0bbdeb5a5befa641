"""Releases to a fleet of 2,000 devices: real MQTT sessions, real statuses, the deployed pipeline."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from local_cloud import LocalCloud
from ota_core.rules.rollout import fraction, in_cohort
from support.connected_fleet import INSTALLS, ROLLS_BACK, Fleet
from support.drops import key, make_drop, target_list
from support.pipeline import TOPIC_PREFIX, Pipeline

SIZE = 2000
FIRST_DEVICE = 0xF00000


def rollout(*percents, soak="6s", report_timeout="96s", **abort):
    """A plan whose waves are looked at after 6 seconds, and wait for statuses that the queue has to repeat (60 s)."""
    return {
        "waves": [{"percent": percent, "soak": soak} for percent in percents[:-1]] + [{"percent": percents[-1]}],
        # Nobody is silent here but for the machine's sake.
        "abort": {"silent_percent": 100, "report_timeout": report_timeout} | abort,
    }


@dataclass(frozen=True)
class FirstRelease:
    """The release that went to the whole fleet at once, and the seconds that it took."""

    release_id: str
    version: str
    until_published: float
    until_recorded: float


@pytest.fixture(scope="module")
def fleet(cloud: LocalCloud, pipeline: Pipeline, new_product) -> Iterator[Fleet]:
    with Fleet(cloud, new_product("fleet"), target_list(SIZE, first=FIRST_DEVICE), key()) as connected:
        yield connected


@pytest.fixture(scope="module")
def first_release(fleet: Fleet, pipeline: Pipeline) -> FirstRelease:
    """Without waves, so that the whole fleet reports all its states at once; from then on its devices are known."""
    version = fleet.next_version()
    drop = make_drop(product=fleet.product, version=version)
    pipeline.drop(f"{fleet.product}/{version}", drop)
    fleet.wait_until(lambda: bool(fleet.started(drop.release_id)))
    began = time.monotonic()
    fleet.wait_until(lambda: fleet.acknowledged == SIZE * len(INSTALLS))
    published = time.monotonic()
    wait_until_recorded(pipeline, fleet, drop.release_id, SIZE * len(INSTALLS))
    return FirstRelease(drop.release_id, version, published - began, time.monotonic() - began)


def count(pipeline, table, release_id):
    [row] = pipeline.rows(
        f"SELECT count(*) AS rows FROM {table} WHERE release = (SELECT id FROM releases WHERE release_id = :id)",  # noqa: S608 - a table of this file
        id=release_id,
    )
    return row["rows"]


def wait_until_recorded(pipeline, fleet, release_id, things_said):
    """Wait until the history has so many different things that devices said of a release, and no message is left."""
    fleet.wait_until(
        lambda: fleet.acknowledged == fleet.reports and count(pipeline, "device_history", release_id) >= things_said
    )
    assert count(pipeline, "device_history", release_id) == things_said


def states(pipeline, release_id):
    """By state, how many devices of the release have it."""
    rows = pipeline.rows(
        "SELECT device_states.state, count(*) AS devices FROM device_states"
        " JOIN releases ON releases.id = device_states.release WHERE release_id = :id GROUP BY device_states.state",
        id=release_id,
    )
    return {row["state"]: row["devices"] for row in rows}


def decisions(pipeline, release_id):
    rows = pipeline.rows(
        "SELECT decision FROM rollout_decisions WHERE release = (SELECT id FROM releases WHERE release_id = :id)"
        " ORDER BY id",
        id=release_id,
    )
    return [row["decision"] for row in rows]


def release(pipeline, release_id):
    [row] = pipeline.rows("SELECT * FROM releases WHERE release_id = :id", id=release_id)
    return row


def cohort(fleet, release_id, percent):
    return {mac for mac in fleet.devices if in_cohort(release_id, mac, percent)}


def notified(pipeline, release_id):
    """What the fleet was told, by topic: percentages in their order. QoS 1 may deliver one twice."""
    told: dict[str, list[float]] = {}
    for message in pipeline.heard(release_id):
        told.setdefault(message.topic, []).append(message.json.get("cohort", {"percent": 100})["percent"])
    return {topic: [percent for percent, _ in itertools.groupby(percents)] for topic, percents in told.items()}


def assert_waves_reached_their_cohorts(fleet, release_id, percents):
    """Every device started with the first wave that it is in, and only devices of these waves did."""
    expected = {
        mac: next(percent for percent in percents if in_cohort(release_id, mac, percent))
        for mac in cohort(fleet, release_id, percents[-1])
    }
    assert fleet.started(release_id) == expected


def assert_every_wave_was_decided_once_from_its_own_devices(fleet, pipeline, release_id, percents):
    """Wave by wave, and at the end: all devices of the waves so far, each counted once."""
    made = decisions(pipeline, release_id)
    published = [decision for decision in made if decision["step"] == "publish"]
    assert [(decision["wave"], decision["percent"]) for decision in published] == list(enumerate(percents, 1))
    # Of one moment, however many statuses come in.
    assert all(of["ended"] == of["installed"] + of["failed"] for of in (decision["numbers"] for decision in made))
    ends = [decision["numbers"] for decision in [*published[1:], made[-1]]]
    for percent, numbers in zip(percents, ends, strict=True):
        reached = len(cohort(fleet, release_id, percent))
        assert {name: numbers[name] for name in ("expected", "reported", "ended", "installed", "failed")} == {
            "expected": reached,
            "reported": reached,
            "ended": reached,
            "installed": reached,
            "failed": 0,
        }


def test_statuses_of_the_whole_fleet_at_once_are_recorded_each_once(pipeline, fleet, first_release, capsys):
    assert states(pipeline, first_release.release_id) == {"installed": SIZE}
    said = pipeline.rows(
        "SELECT state, count(*) AS devices FROM device_history"
        " WHERE release = (SELECT id FROM releases WHERE release_id = :id) GROUP BY state",
        id=first_release.release_id,
    )
    assert {row["state"]: row["devices"] for row in said} == dict.fromkeys(INSTALLS, SIZE)
    [known] = pipeline.rows(
        "SELECT count(*) AS devices FROM devices WHERE product = :product AND running_version = :version",
        product=fleet.product,
        version=first_release.version,
    )
    assert known["devices"] == SIZE
    messages = SIZE * len(INSTALLS)
    with capsys.disabled():
        print(  # noqa: T201 - a measurement
            f"\n{messages} statuses: published in {first_release.until_published:.1f} s"
            f" ({messages / first_release.until_published:.0f}/s),"
            f" recorded {first_release.until_recorded - first_release.until_published:.1f} s later"
        )


def test_release_in_three_waves_reaches_the_whole_fleet_wave_by_wave(pipeline, fleet, first_release):
    percents = [5, 30, 100]
    fleet.behave(fleet.devices, INSTALLS)
    version = fleet.next_version()
    drop = make_drop(product=fleet.product, version=version, rollout=rollout(*percents))
    uploads = pipeline.drop(f"{fleet.product}/{version}", drop)
    executions = pipeline.settle(uploads, seconds=400)
    assert {execution.status for execution in executions} == {"SUCCEEDED"}

    assert release(pipeline, drop.release_id)["state"] == "published"
    assert_waves_reached_their_cohorts(fleet, drop.release_id, percents)
    assert_every_wave_was_decided_once_from_its_own_devices(fleet, pipeline, drop.release_id, percents)
    assert {device.running_version for device in fleet.devices.values()} == {version}


def test_release_that_fails_on_eight_percent_stops_in_the_wave_that_shows_it(cloud, pipeline, fleet, first_release):
    earlier = pipeline.releases(fleet.product)[-1]
    version = fleet.next_version()
    drop = make_drop(product=fleet.product, version=version, rollout=rollout(10, 40, 100, failed_percent=5))
    first_wave, second_wave = cohort(fleet, drop.release_id, 10), cohort(fleet, drop.release_id, 40)
    # Evenly over those that the first wave spares, so that the second has to show it.
    spared = sorted(fleet.devices.keys() - first_wave, key=lambda mac: fraction(drop.release_id, mac))
    failing = set(spared[:: len(spared) * 100 // (SIZE * 8)])
    assert len(failing) >= SIZE * 8 // 100
    assert len(failing & second_wave) > len(second_wave) * 5 // 100
    absent = sorted(fleet.devices.keys() - second_wave)[:50]
    fleet.behave(fleet.devices, INSTALLS)
    fleet.behave(failing, ROLLS_BACK)
    fleet.disconnect(absent)

    uploads = pipeline.drop(f"{fleet.product}/{version}", drop)
    executions = pipeline.settle(uploads, seconds=400)
    assert {execution.status for execution in executions} == {"SUCCEEDED"}
    stopped = release(pipeline, drop.release_id)
    assert (stopped["state"], stopped["waves_published"]) == ("withdrawn", 2)
    numbers = decisions(pipeline, drop.release_id)[-1]["numbers"]
    assert numbers["failed"] * 100 > 5 * (numbers["installed"] + numbers["failed"])
    assert f"failed ({numbers['failed']} of " in stopped["withdrawn_because"]
    assert pipeline.event("ReleaseWithdrawn", lambda detail: detail["release_id"] == drop.release_id)
    assert_waves_reached_their_cohorts(fleet, drop.release_id, [10, 40])

    # Whoever comes now, known or new, finds the release before it, and no way to this one.
    newcomers = target_list(10, first=FIRST_DEVICE + SIZE)
    fleet.add(newcomers)
    fleet.connect([*absent, *newcomers])
    of_product = f"{TOPIC_PREFIX}/product/{fleet.product}"
    fleet.wait_until(lambda: all(of_product in fleet.devices[mac].retained for mac in [*absent, *newcomers]))
    heard = {release_id for mac in [*absent, *newcomers] for release_id in fleet.devices[mac].retained.values()}
    assert heard == {earlier["release_id"]}
    assert {fleet.devices[mac].running_version for mac in newcomers} == {earlier["version"]}
    api = {"x-api-key": cloud.api_key}
    base = cloud.environment["OTA_API_URL"]
    told = requests.get(f"{base}/devices/{newcomers[0]}/update?product={fleet.product}", headers=api, timeout=60)
    assert told.json()["release_id"] == earlier["release_id"]
    assert requests.get(f"{base}/firmware/{fleet.product}/{version}", headers=api, timeout=60).status_code == 410

    # Every message that any device sent is recorded by now, and none of them is of a device beyond the second wave.
    wait_until_recorded(pipeline, fleet, drop.release_id, len(second_wave) * len(INSTALLS))
    assert set(fleet.started(drop.release_id)) == second_wave
    assert states(pipeline, drop.release_id) == {
        "installed": len(second_wave - failing),
        "rolled_back": len(second_wave & failing),
    }


def test_rollout_survives_redeployment_restart_of_the_database_and_messages_twice_and_late(
    cloud, pipeline, fleet, first_release
):
    percents = [10, 50, 100]
    version = fleet.next_version()
    drop = make_drop(product=fleet.product, version=version, rollout=rollout(*percents, report_timeout="256s"))
    first_wave = cohort(fleet, drop.release_id, 10)
    # These keep the first wave open until they are let go.
    slow = sorted(first_wave)[:3]
    fleet.behave(fleet.devices, ("downloading", "rebooting", "installed", "installed", "verifying"))
    fleet.behave(slow, ("downloading",))

    uploads = pipeline.drop(f"{fleet.product}/{version}", drop)
    wait_until_recorded(pipeline, fleet, drop.release_id, (len(first_wave) - len(slow)) * 4 + len(slow))
    pipeline.redeploy(version)
    assert release(pipeline, drop.release_id)["waves_published"] == 1

    with pipeline.decisions_held() as is_decision_held:
        fleet.report(slow, drop.release_id, version, "rebooting", "installed", "installed", "verifying")
        wait_until_recorded(pipeline, fleet, drop.release_id, len(first_wave) * 4)
        fleet.wait_until(is_decision_held)
        pipeline.restart_database()
    executions = pipeline.settle(uploads, seconds=500)
    assert {execution.status for execution in executions} == {"SUCCEEDED"}

    wait_until_recorded(pipeline, fleet, drop.release_id, len(fleet.devices) * 4)
    assert states(pipeline, drop.release_id) == {"installed": len(fleet.devices)}
    assert_waves_reached_their_cohorts(fleet, drop.release_id, percents)
    assert_every_wave_was_decided_once_from_its_own_devices(fleet, pipeline, drop.release_id, percents)
    of_product = f"{TOPIC_PREFIX}/product/{fleet.product}"
    assert notified(pipeline, drop.release_id) == {TOPIC_PREFIX: percents, of_product: percents}

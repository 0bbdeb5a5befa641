"""What the pipeline, the API and the devices do while something that they need is away, and when it is back.

Functions reach PostgreSQL, S3 and AWS IoT Core through relays that fail as told (tests/support/relay.py). Nobody acts:
when an outage ends, every release that it met comes to its end by itself. `make prove` lets outages last a minute.
"""

import contextlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass

import pytest
import requests
from support.drops import Drop, make_drop, target_list
from support.esp_images import app_image
from support.pipeline import Upload
from support.relay import Fault, Relay

MACS = target_list(6, first=0x0E00)
DEVICE = "02:0E:00:00:00:01"
BEHIND_DATABASE = ("RegisterMetadata", "ResolveTargets", "AdvanceRollout", "CheckForUpdate", "RecordStatus")
BEHIND_AWS = ("ValidateSignature", "RegisterMetadata", "ResolveTargets", "PublishMqtt", "AdvanceRollout", "SettleDrop")
AWS_ENDPOINTS = tuple(f"AWS_ENDPOINT_URL_{name}" for name in ("S3", "SSM", "SECRETS_MANAGER", "IOT_DATA_PLANE"))
REFUSED = Fault(refuses=True)
THROTTLED = Fault(
    answer=b"HTTP/1.1 429 Too Many Requests\r\nx-amzn-ErrorType: ThrottlingException\r\n"
    b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
)
SLOW_DOWN = Fault(
    answer=b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 79\r\nConnection: close\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>"
)
STAGED = {
    "waves": [{"percent": 50, "soak": "1s"}, {"percent": 100, "soak": "0s"}],
    "abort": {"report_timeout": "1s"},  # Nobody reports.
}
IN_STORM = 8  # Each takes a function of its own, whose start takes the machine's time.
# Longer than what API Gateway waits for a function.
PATIENCE_SECONDS = 29


@dataclass(frozen=True)
class Release:
    """A release that is under way."""

    product: str
    drop: Drop
    uploads: list[Upload]


@pytest.fixture
def seconds(proving):
    """How long an outage lasts."""
    return 60 if proving else 4


@pytest.fixture
def begin(pipeline, new_product):
    """Drops a staged release to listed devices."""

    def drop():
        product = new_product("outage")
        made = make_drop(product=product, targets_file=json.dumps(MACS).encode(), rollout=STAGED)
        return Release(product, made, pipeline.drop(f"{product}/app", made))

    return drop


@pytest.fixture
def finish(pipeline, proof):
    """Waits for releases, and says what of each is not as it must be."""

    def settle(outage, releases):
        wrongs = [list(_wrongs(pipeline, release)) for release in releases]
        proof("outages", outage, tried=len(wrongs), withstood=wrongs.count([]))
        assert [wrong for found in wrongs for wrong in found] == []

    return settle


def _wrongs(pipeline, release):
    ends = pipeline.settle(release.uploads, seconds=400)
    if broken := [end for end in ends if end.status != "SUCCEEDED"]:
        yield f"{release.product}: executions broke: {broken}"
    states = [(row["release_id"], row["state"]) for row in pipeline.releases(release.product)]
    if states != [(release.drop.release_id, "published")]:
        yield f"{release.product}: releases are {states}"
    told = {message.topic.rsplit("/", 1)[1] for message in pipeline.heard(release.drop.release_id)}
    if told != set(MACS):
        yield f"{release.product}: told were {told}"
    dropped = {(upload.key.removeprefix("inbox/"), upload.version_id) for upload in release.uploads}
    if pipeline.origins(f"archive/{release.product}/") != dropped:
        yield f"{release.product}: not everything that was dropped is archived"


@contextlib.contextmanager
def behind(pipeline, functions, variables):
    """Deploy functions with variables of their environment changed, and put them back."""
    with contextlib.ExitStack() as stack:
        for name in functions:
            stack.enter_context(pipeline.function_with(f"{name}Function", **variables))
        yield


@pytest.fixture
def database(cloud, pipeline):
    """A relay between functions and PostgreSQL."""
    with (
        Relay(cloud.database.port) as relay,
        behind(pipeline, BEHIND_DATABASE, {"DATABASE_PORT": str(relay.port)}),
    ):
        yield relay


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ask(cloud, path):
    return requests.get(
        f"{cloud.environment['OTA_API_URL']}{path}",
        headers={"x-api-key": cloud.environment["OTA_API_KEY"]},
        timeout=PATIENCE_SECONDS,
    )


class Storm:
    """Devices that check in again and again, whatever they are told. Use it as a context manager."""

    def __init__(self, cloud, product):
        self._cloud = cloud
        self._path = f"/devices/{MACS[0]}/update?product={product}&version=1.0.0"
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._check_in) for _ in range(IN_STORM)]
        self.answers = []

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _check_in(self):
        while not self._ended.wait(0.2):
            answer = ask(self._cloud, self._path)
            self.answers.append((answer.status_code, answer.headers.get("Retry-After")))


def assert_turned_away(answers):
    """Each was told when to come back."""
    assert answers
    assert {status for status, _ in answers} <= {429, 503}, Counter(answers)
    assert any(status == 503 for status, _ in answers)
    assert all(int(retry_after) > 0 for _, retry_after in answers)


def test_releases_and_check_ins_survive_that_the_database_is_away(cloud, pipeline, database, begin, finish, seconds):
    first = begin()
    wait_until(lambda: pipeline.heard(first.drop.release_id))
    with database.failing(REFUSED), Storm(cloud, first.product) as storm:
        second = begin()
        time.sleep(seconds)
        wait_until(lambda: len(storm.answers) >= IN_STORM)
        in_outage = list(storm.answers)
    assert_turned_away(in_outage)
    finish("PostgreSQL away, with releases under way and devices that check in", [first, second])
    answer = ask(cloud, f"/devices/{MACS[0]}/update?product={second.product}&version=1.0.0")
    assert answer.json()["release_id"] == second.drop.release_id


def test_check_in_is_answered_in_time_while_the_database_says_nothing(cloud, database, new_product, proof):
    with database.failing(Fault(stalls=True)):
        answer = ask(cloud, f"/devices/{DEVICE}/update?product={new_product('stalled')}")
        assert_turned_away([(answer.status_code, answer.headers["Retry-After"])])
    assert database.hits
    answer = ask(cloud, f"/devices/{DEVICE}/update?product={new_product('stalled')}")
    proof(
        "outages",
        "PostgreSQL that takes connections and says nothing",
        tried=1,
        withstood=int(answer.status_code == 204),
    )
    assert answer.status_code == 204


def test_releases_survive_connections_that_are_cut_at_random(cloud, pipeline, begin, finish, proving):
    cut = Fault(cut_share=0.4, cut_within_bytes=20_000)
    with (
        Relay(cloud.database.port, seed=1) as database,
        Relay(cloud.emulator.port, seed=2) as services,
        behind(pipeline, BEHIND_DATABASE, {"DATABASE_PORT": str(database.port)}),
        behind(pipeline, BEHIND_AWS, dict.fromkeys(AWS_ENDPOINTS, f"http://127.0.0.1:{services.port}")),
        database.failing(cut),
        services.failing(cut),
    ):
        finish("connections to PostgreSQL and to AWS cut at random", [begin() for _ in range(20 if proving else 2)])
        assert services.hits
        assert database.hits or not proving


def test_release_survives_throttling_by_iot_core(cloud, pipeline, begin, finish, seconds):
    with (
        Relay(cloud.emulator.port) as iot,
        behind(pipeline, ["PublishMqtt"], {"AWS_ENDPOINT_URL_IOT_DATA_PLANE": f"http://127.0.0.1:{iot.port}"}),
    ):
        with iot.failing(THROTTLED):
            release = begin()
            wait_until(lambda: iot.hits)
            time.sleep(seconds)
            assert pipeline.heard(release.drop.release_id) == []
        finish("AWS IoT Core throttles", [release])


def test_releases_and_downloads_survive_that_s3_is_slow_and_fails(cloud, pipeline, begin, finish, seconds):
    before = begin()
    pipeline.settle(before.uploads)
    [row] = pipeline.releases(before.product)
    image = f"/firmware/{before.product}/{row['version']}"
    with (
        Relay(cloud.emulator.port) as s3,
        behind(
            pipeline,
            ["ValidateSignature", "ResolveTargets", "PublishMqtt", "SettleDrop", "DeliverFirmware"],
            {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{s3.port}"},
        ),
    ):
        with s3.failing(SLOW_DOWN):
            while_failing = begin()
            answer = ask(cloud, image)
            assert_turned_away([(answer.status_code, answer.headers.get("Retry-After"))])
            time.sleep(seconds)
            assert pipeline.heard(while_failing.drop.release_id) == []
        with s3.failing(Fault(delay=0.1)):
            finish("S3 fails, then is slow", [before, while_failing, begin()])
            assert ask(cloud, image).content == before.drop.image
        assert s3.hits > 1


def test_device_finds_what_it_missed_while_broker_and_api_were_away(
    cloud, pipeline, fleet, new_product, seconds, proof
):
    """Its broker is away: to the device, a broker that restarts is nothing else."""
    product = new_product("outage-device")
    drop = make_drop(product=product, version="2.0.0", image=app_image(version="2.0.0"), targets=[DEVICE])
    with (
        Relay(cloud.emulator.mqtt_port) as broker,
        Relay(cloud.database.port) as database,
        behind(pipeline, ["CheckForUpdate"], {"DATABASE_PORT": str(database.port)}),
        fleet(DEVICE, product, mqtt_port=str(broker.port)) as device,
    ):
        device.wait_for_event("checked_in")
        with broker.failing(REFUSED), database.failing(REFUSED):
            pipeline.release(f"{product}/app", drop)
            time.sleep(seconds)
            assert device.running_version == "1.0.0"
        device.wait_for_event("installed")
        proof(
            "outages",
            "MQTT broker and API away for a device",
            tried=1,
            withstood=int(device.running_version == "2.0.0"),
        )
        assert device.running_version == "2.0.0"

"""Whoever writes to the inbox, publishes MQTT, sits before the API or has its key: a device runs what is signed for it.

A device runs throughout, and a snapshot before and after each attack shows that it, the releases, the stored images
and what the topics say are as they were. A download that was tampered with in every way ends with the genuine release,
which shows that the way was open all the time.
"""

import base64
import contextlib
import dataclasses
import functools
import hashlib
import json
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import requests
from local_cloud.simulated_device import SimulatedDevice
from ota_core.errors import RejectionCode
from support.bad_drops import edited
from support.drops import Drop, key, make_drop, seal
from support.esp_images import app_image
from support.hostile_server import Exchange, HostileServer, pass_on
from support.operators import eventually, hire
from support.pipeline import TOPIC_PREFIX

MAC, OTHER_MAC, SLOW_MAC, DOWNLOADING_MAC, CAPTURED_MAC = (f"02:A7:7A:00:00:0{number}" for number in range(1, 6))
# partitions.csv, and esp_ota_select_entry_t of ESP-IDF's esp_flash_partitions.h: number, label, state, CRC.
OTADATA_ENTRIES, SLOTS, SLOT_BYTES = (0xE000, 0xF000), (0x10000, 0x1F0000), 0x1E0000
OTADATA_ENTRY = struct.Struct("<I20xII")
CHUNK_BYTES = 8192
INSTALLED, NEXT = "2.1.0", "3.0.0"
PATIENCE_SECONDS = 240  # for what ought to take a few


@dataclass(frozen=True)
class Snapshot:
    """What no attack may change.

    Attributes:
        slot: digest of the slot that the device runs.
        boot: the entry of otadata that says what it boots next; none in a device that never installed anything.
        other_slot: digest of the slot that the next image goes to.
        version: what the device says it runs.
        tables: releases, their targets and the products' latest.
        images: object versions that devices download.
        retained: what a device hears when it subscribes.
        told: what was published but by the attacker.
    """

    slot: str
    boot: tuple[int, ...]
    other_slot: str
    version: str
    tables: list
    images: list
    retained: list
    told: set


def digest(content):
    return hashlib.sha256(content).hexdigest()


@dataclass
class World:
    """A device, what was released to it, and an attacker's means."""

    pipeline: object
    product: str
    device: SimulatedDevice
    server: HostileServer
    flash: object
    older: dict | None = None
    installed: Drop | None = None
    said: set = field(default_factory=set)
    before: Snapshot | None = None

    @property
    def topics(self):
        return [TOPIC_PREFIX, f"{TOPIC_PREFIX}/product/{self.product}", f"{TOPIC_PREFIX}/{self.device.mac}"]

    def snapshot(self):
        flash = self.flash.read_bytes()
        running = next(event["slot"] for event in reversed(self.device.events) if event["event"] == "booted")
        entries = [OTADATA_ENTRY.unpack_from(flash, start) for start in OTADATA_ENTRIES]
        slots = [digest(flash[start : start + SLOT_BYTES]) for start in SLOTS]
        pipeline, iot = self.pipeline, self.pipeline.cloud.client("iot-data")
        return Snapshot(
            slot=slots[running],
            boot=max((entry for entry in entries if entry[0] != 0xFFFFFFFF), default=()),
            other_slot=slots[1 - running],
            version=self.device.running_version,
            tables=[
                pipeline.releases(self.product),
                pipeline.rows("SELECT release_id FROM releases ORDER BY id"),
                pipeline.rows("SELECT release, count(*) FROM release_targets GROUP BY release ORDER BY release"),
                pipeline.rows("SELECT * FROM products ORDER BY product"),
            ],
            images=pipeline.objects("releases/"),
            retained=[iot.get_retained_message(topic=topic)["payload"] for topic in self.topics[:2]],
            told={message.payload for message in pipeline.heard_of_product(self.product)} - self.said,
        )

    def assert_unchanged(self, *, but_for=()):
        """Compare with how it was after the attack before, which had to change nothing either."""
        after = self.snapshot()
        self.before, before = after, self.before
        assert dataclasses.replace(after, **dict.fromkeys(but_for)) == dataclasses.replace(
            before, **dict.fromkeys(but_for)
        )

    def publish(self, topic, payload, *, retain=False):
        self.said.add(payload)
        self.pipeline.cloud.client("iot-data").publish(topic=topic, qos=1, payload=payload, retain=retain)

    def events_after(self, act):
        """What the device did with what `act` sent, up to a message that came after it."""
        start = len(self.device.events)
        act()
        mark = make_drop(product=self.product, signer=key("stranger"))
        self.publish(TOPIC_PREFIX, notification(mark))
        self.device.wait_for(lambda event: event.get("release_id") == mark.release_id, PATIENCE_SECONDS)
        return [event for event in self.device.events[start:] if event.get("release_id") != mark.release_id]

    def next_event(self, start, name, **fields):
        """The first event of this name, and with these fields, since the device's history was `start` long."""
        wanted = {"event": name, **fields}
        return self.device.wait_for(lambda event: wanted.items() <= event.items(), PATIENCE_SECONDS, since=start)


def notification(drop, **changes):
    """What the pipeline would say of a drop."""
    manifest = json.loads(base64.b64decode(json.loads(drop.manifest)["payload"]))
    version = manifest["version"]
    said = {
        "release_id": drop.release_id,
        "product": manifest["product"],
        "version": version,
        "url": f"http://127.0.0.1:9/firmware/{manifest['product']}/{version}",
        **manifest["firmware"],
        "changelog": manifest["changelog"],
        "manifest": json.loads(drop.manifest),
    }
    return json.dumps(said | changes).encode()


@pytest.fixture(scope="module")
def attacked(pipeline, program, tmp_path_factory):
    """Makes devices of a product that find a hostile server before the API."""
    folder = tmp_path_factory.mktemp("devices")
    (folder / "release.pem").write_text(key().public_pem)

    @contextlib.contextmanager
    def make(mac, product, *answers, **options):
        with HostileServer(pipeline.cloud.environment["OTA_API_URL"]) as server:
            server.check_in = pass_on
            server.answer(*answers)
            trusted_key = folder / "release.pem"
            options |= {"api_url": server.url, "version": "1.0.0", "back_off": "1"}
            with SimulatedDevice(
                program, pipeline.cloud, folder, mac=mac, product=product, trusted_key=trusted_key, **options
            ) as device:
                flash = folder / f"{mac.replace(':', '-')}.img"
                yield World(pipeline=pipeline, product=product, device=device, server=server, flash=flash)

    return make


@pytest.fixture(scope="module")
def slow_download(pipeline, attacked, new_product):
    """A device whose server sends a byte a second. It takes its time, so it begins before the others."""
    product = new_product("slow")
    drop = make_drop(product=product, version="2.0.0", image=app_image(version="2.0.0"))
    pipeline.settle(pipeline.drop(f"{product}/app", drop), PATIENCE_SECONDS)

    def drip(exchange):
        body = exchange.honest().content
        exchange.send(206, Content_Range=f"bytes 0-{len(body) - 1}/{len(body)}", Content_Length=str(len(body)))
        for byte in body:
            exchange.drip(bytes([byte]))
            time.sleep(1)

    with attacked(SLOW_MAC, product, *[drip] * 8) as world:
        yield world.device


@pytest.fixture(scope="module")
def races(pipeline, new_product):
    """Drops whose image an attacker replaces at one moment or another after the last member arrived."""
    found = {}
    for number in range(3):
        product = new_product("race")
        drop = make_drop(product=product)
        uploads = pipeline.drop(f"{product}/app", drop)
        time.sleep(number * 0.1)
        found[product] = (drop, [*uploads, pipeline.put(f"inbox/{product}/app.bin", app_image(seed=666))])
    return found


@pytest.fixture(scope="module")
def world(pipeline, attacked, new_product, slow_download, races):
    """A device that runs INSTALLED, and an older release."""
    product = new_product("attacked")
    older = make_drop(product=product, version="2.0.0", image=app_image(version="2.0.0"))
    installed = make_drop(product=product, version=INSTALLED, image=app_image(version=INSTALLED, size=65_536))
    for drop in (older, installed):
        pipeline.settle(pipeline.drop(f"{product}/app", drop), PATIENCE_SECONDS)
    with attacked(MAC, product, *[pass_on] * 8, chunk=str(CHUNK_BYTES), check_in="1") as world:
        world.device.wait_for_event("report_delivered", PATIENCE_SECONDS)
        assert world.device.running_version == INSTALLED
        pipeline.settle([upload for _, uploads in races.values() for upload in uploads], PATIENCE_SECONDS)
        world.server.check_in = lambda exchange: exchange.send(204)
        world.older, world.installed = pipeline.heard(older.release_id)[0].json, installed
        yield world


@pytest.fixture
def unharmed(world, proof, request):
    """Nothing changes while the test runs; the attack counts as stopped when the test did not fail either."""
    world.before = world.before or world.snapshot()
    failed = request.session.testsfailed
    yield
    world.assert_unchanged()
    if request.session.testsfailed == failed:
        proof("attacks", request.node.name.removeprefix("test_").replace("_", " "), tried=1, withstood=1)


# --- who writes to the inbox ------------------------------------------------------------------------------------------


def with_payload(drop, **changes):
    """The drop's signature over another payload."""
    fields = json.loads(base64.b64decode(json.loads(drop.manifest)["payload"]))
    return edited(drop.manifest, payload=base64.b64encode(json.dumps(fields | changes).encode()).decode())


def by_stranger(product):
    return make_drop(product=product, version=NEXT, signer=key("stranger"))


def by_stranger_in_a_trusted_name(product):
    drop = by_stranger(product)
    document = json.loads(drop.manifest)
    signatures = [{**signature, "keyid": key().keyid} for signature in document["signatures"]]
    return dataclasses.replace(drop, manifest=edited(drop.manifest, signatures=signatures))


def swapped_image(product):
    return dataclasses.replace(make_drop(product=product, version=NEXT), image=app_image(version=NEXT, seed=666))


def targets_of_another_drop(product):
    drop = make_drop(product=product, version=NEXT, targets_file=json.dumps([MAC]).encode())
    other = make_drop(product=product, version=NEXT, targets_file=json.dumps([OTHER_MAC, SLOW_MAC]).encode())
    return dataclasses.replace(drop, targets=other.targets)


def of_another_product(product):
    drop = make_drop(product="somebody-elses", version=NEXT)
    return dataclasses.replace(drop, manifest=with_payload(drop, product=product))


def kept_back(product):
    """Signed before what was released since."""
    return make_drop(product=product, version=NEXT, sequence=1000)


def older_version_again(product):
    return make_drop(product=product, version="2.0.0", image=app_image(version="2.0.0"))


def unsigned(product):
    drop = make_drop(product=product, version=NEXT)
    return dataclasses.replace(drop, manifest=edited(drop.manifest, signatures=[]))


def of_another_type(product):
    drop = make_drop(product=product, version=NEXT)
    payload = base64.b64decode(json.loads(drop.manifest)["payload"])
    return dataclasses.replace(drop, manifest=seal(payload, key(), payload_type="application/vnd.in-toto+json"))


def endless_manifest(product):
    drop = make_drop(product=product, version=NEXT)
    return dataclasses.replace(drop, manifest=drop.manifest.ljust(8 * 1024**2))


def endless_image(product):
    drop = make_drop(product=product, version=NEXT)
    return dataclasses.replace(drop, image=drop.image.ljust(8 * 1024**2, b"\xff"))


def expired(product):
    return make_drop(product=product, version=NEXT, expires="2020-01-01T00:00:00Z")


Code = RejectionCode
DROPS = {
    by_stranger: Code.KEY_UNKNOWN,
    by_stranger_in_a_trusted_name: Code.SIGNATURE_INVALID,
    of_another_product: Code.SIGNATURE_INVALID,
    unsigned: Code.SIGNATURE_MISSING,
    of_another_type: Code.PAYLOAD_TYPE_UNKNOWN,
    swapped_image: Code.IMAGE_SHA256_MISMATCH,
    targets_of_another_drop: Code.TARGETS_FILE_CHANGED,
    kept_back: Code.SEQUENCE_REPLAYED,
    older_version_again: Code.VERSION_DOWNGRADE,
    expired: Code.MANIFEST_EXPIRED,
    endless_manifest: Code.ENVELOPE_TOO_LARGE,
    endless_image: Code.IMAGE_SIZE_MISMATCH,
}


@pytest.fixture(scope="module")
def attacked_inbox(world):
    """All of these drops at once, each under a name of its own, and one that was released before."""
    world.before = before = world.snapshot()
    stems = {make: f"{world.product}/{make.__name__}" for make in DROPS}
    drops = [(stem, make(world.product)) for make, stem in stems.items()]
    drops.append((f"{world.product}/again", world.installed))
    uploads = world.pipeline.drop_at_once(drops)
    ended = world.pipeline.settle(uploads, PATIENCE_SECONDS)
    return stems, {execution.status for execution in ended}, before, world.snapshot()


@pytest.mark.parametrize("make", DROPS, ids=lambda make: make.__name__)
def test_drop_is_rejected(world, attacked_inbox, proof, make):
    stems, statuses, before, after = attacked_inbox
    assert statuses == {"SUCCEEDED"}
    reason = json.loads(world.pipeline.read(f"rejected/{stems[make]}.reason.json"))
    assert reason["code"] == DROPS[make]
    assert after == before
    proof("attacks", f"drop: {make.__name__}".replace("_", " "), tried=1, withstood=1)


def test_drop_of_a_past_release_is_archived_and_nobody_is_told(world, attacked_inbox, proof):
    _, _, before, after = attacked_inbox
    assert f"archive/{world.product}/again.bin" in {stored.key for stored in world.pipeline.objects("archive/")}
    assert after == before
    proof("attacks", "drop: of a past release", tried=1, withstood=1)


def test_image_that_is_swapped_while_the_drop_is_checked_is_never_released(world, pipeline, races, proof):
    """Whichever image wins: it is the signed one, or none. And all that was dropped is still there."""
    for product, (drop, uploads) in races.items():
        stored = pipeline.objects(f"releases/{product}/")
        assert len(stored) == len(pipeline.releases(product)) <= 1
        assert [pipeline.read(image.key) for image in stored] == [drop.image] * len(stored)
        kept = {
            version_id
            for folder in ("inbox", "archive", "rejected")
            for version_id in versions_of(pipeline, f"{folder}/{product}/")
        }
        assert {upload.version_id for upload in uploads} <= kept
    proof("attacks", "drop: image swapped during the checks", tried=len(races), withstood=len(races))


def versions_of(pipeline, prefix):
    """The inbox's version ids of what lies under a prefix."""
    if prefix.startswith("inbox/"):
        return {stored.version_id for stored in pipeline.objects(prefix)}
    return {version_id for _, version_id in pipeline.origins(prefix)}


# --- who publishes MQTT, or answers a check-in ------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """What the attacker says, given the world, and why the device refuses it; None where it takes no notice."""

    payload: Callable[[World], bytes]
    reason: str | None


def about(**changes):
    """A notification of a genuine manifest that was never released, newer than what runs."""

    def make(world):
        fields = {"product": world.product, "version": NEXT} | changes
        return notification(make_drop(**fields))

    return make


def saying(**changes):
    """A notification of such a manifest with other words beside it."""
    return lambda world: notification(make_drop(product=world.product, version=NEXT), **changes)


MESSAGES = {
    "release by his own key": Message(lambda world: notification(by_stranger(world.product)), "envelope_untrusted_key"),
    "release by his own key in a trusted name": Message(
        lambda world: notification(by_stranger_in_a_trusted_name(world.product)), "envelope_bad_signature"
    ),
    "signature over another payload": Message(
        lambda world: notification(of_another_product(world.product)), "envelope_bad_signature"
    ),
    "document of another type": Message(
        lambda world: notification(of_another_type(world.product)), "envelope_unknown_type"
    ),
    "older release again": Message(lambda world: json.dumps(world.older).encode(), "sequence_not_newer"),
    "older version under a new sequence": Message(about(version="1.9.0"), "version_not_newer"),
    "release for another device": Message(about(targets=[OTHER_MAC]), "not_targeted"),
    "release for another product": Message(about(product="somebody-elses"), "wrong_product"),
    "release for another chip": Message(about(chip="esp32c3", image=app_image(chip="esp32c3")), "wrong_chip"),
    "release that has expired": Message(about(expires="2020-01-01T00:00:00Z"), "release_expired"),
    "release that fits no slot": Message(about(image=app_image(size=SLOT_BYTES + 16)), "image_too_large"),
    "id changed": Message(saying(release_id="0" * 32), "notification_mismatch"),
    "id of no release": Message(saying(release_id="release"), "notification_malformed"),
    "version changed": Message(saying(version="9.9.9"), "notification_mismatch"),
    "size changed": Message(saying(size=1), "notification_mismatch"),
    "sha256 changed": Message(saying(sha256="00" * 32), "notification_mismatch"),
    "product changed": Message(saying(product="somebody-elses"), "notification_mismatch"),
    "endless message": Message(saying(padding="x" * 100_000), "notification_too_large"),
    "no notification": Message(lambda _: b'{"release_id": 7}', "notification_malformed"),
    "no JSON": Message(lambda _: b"\xff" * 4000, "notification_malformed"),
    "nested without end": Message(lambda _: b"[" * 16_000, "notification_malformed"),
    "withdrawal of what runs": Message(
        lambda world: json.dumps({"release_id": world.installed.release_id, "withdrawn": True}).encode(), None
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message_is_refused_on_every_topic(world, unharmed, name):
    message = MESSAGES[name]
    payload = message.payload(world)

    def act():
        for topic in world.topics:
            world.publish(topic, payload)

    events = world.events_after(act)
    refusals = [event["reason"] for event in events if event["event"] == "refused"]
    assert set(refusals) == ({message.reason} if message.reason else set())
    assert len(refusals) >= (len(world.topics) if message.reason else 0)  # QoS 1 may bring one twice
    assert not [event for event in events if event["event"] in {"accepted", "download_started"}]


def test_answer_to_a_check_in_is_refused(world, unharmed, proving):
    """They take a second each, so the quick form tries a few; a message is judged alike wherever it comes from."""
    tried = [(name, message) for name, message in MESSAGES.items() if message.reason]
    for name, message in tried if proving else tried[::5]:
        payload = message.payload(world)
        start = len(world.device.events)
        world.server.check_in = functools.partial(Exchange.send, status=200, body=payload)
        world.device.wait_for(
            lambda event, reason=message.reason: (
                event["event"] in {"refused", "check_in_failed"} and event["reason"] == reason
            ),
            PATIENCE_SECONDS,
            since=start,
        )
        assert not [event for event in world.device.events[start:] if event["event"] == "accepted"], name
    world.server.check_in = lambda exchange: exchange.send(204)


def test_release_for_tags_is_not_taken_from_the_fleets_topics(world, unharmed):
    payload = about(targets={"tags": ["beta"]})(world)
    fleet = world.topics[:2]
    events = world.events_after(lambda: [world.publish(topic, payload) for topic in fleet])
    assert {event["reason"] for event in events if event["event"] == "refused"} == {"targets_not_verifiable"}
    assert not [event for event in events if event["event"] == "accepted"]


def test_url_of_a_notification_leads_nobody_astray(world, unharmed):
    """A genuine release, told by an attacker: neither a request nor the API key goes to his server."""
    drop = make_drop(product=world.product, version=NEXT)
    with HostileServer("http://127.0.0.1:9") as his:
        start = len(world.device.events)
        world.publish(world.topics[2], notification(drop, url=f"{his.url}/firmware/{world.product}/{NEXT}"))
        world.next_event(start, "accepted")
        asked = len(world.server.seen)
        world.server.answer(pass_on)  # Who says that it was never released.
        world.next_event(start, "dropped", reason="http_not_found")
        assert his.seen == []
    query = f"release={drop.release_id}&mac={world.device.mac.replace(':', '').lower()}"
    assert [seen.path for seen in world.server.seen[asked:] if "/firmware/" in seen.path] in (
        [],
        [f"/firmware/{world.product}/{NEXT}?{query}"],
    )


def test_retained_forgery_reaches_newcomers_and_is_refused(world, unharmed):
    topic = world.topics[1]
    retained = world.pipeline.cloud.client("iot-data").get_retained_message(topic=topic)["payload"]
    try:
        forgery = by_stranger(world.product)
        world.publish(topic, notification(forgery), retain=True)
        with world.pipeline.cloud.subscriber(OTHER_MAC, [topic]) as newcomer:
            assert newcomer.wait_for(1, 20)[0].json["release_id"] == forgery.release_id
        world.device.wait_for(lambda event: event.get("release_id") == forgery.release_id, PATIENCE_SECONDS)
    finally:
        world.pipeline.cloud.client("iot-data").publish(topic=topic, qos=1, payload=retained, retain=True)


def test_reports_in_other_names_change_no_release(world, unharmed):
    """Anyone who may publish anything may report anything, and nothing comes of it."""
    for release_id in (world.installed.release_id, "0" * 32):
        for state in ("failed", "rolled_back", "installed"):
            report = {"release_id": release_id, "version": INSTALLED, "state": state, "progress": 100}
            world.publish(f"{TOPIC_PREFIX}/{OTHER_MAC}/status", json.dumps(report).encode())
    query = "SELECT 1 FROM devices WHERE mac = CAST(:mac AS macaddr)"
    deadline = time.monotonic() + 60
    while not world.pipeline.rows(query, mac=OTHER_MAC) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert world.pipeline.rows(query, mac=OTHER_MAC)


# --- who has the API key ----------------------------------------------------------------------------------------------


def test_api_key_reads_and_changes_nothing(world, unharmed):
    cloud = world.pipeline.cloud
    api = cloud.environment["OTA_API_URL"]
    image = f"/firmware/{world.product}/{INSTALLED}"
    tried = [
        *((method, image) for method in ("PUT", "POST", "DELETE", "PATCH")),
        *(("GET", f"/firmware/{path}") for path in ("..%2f..%2finbox/x", f"{world.product}/..%2f2.0.0", "%00/1.0.0")),
        ("GET", f"/devices/{MAC}/update?product={world.product}'%3B%20DROP%20TABLE%20releases--&version=1.0.0"),
        ("GET", f"/devices/{MAC}'--/update?product={world.product}"),
        ("POST", f"/devices/{MAC}/update?product={world.product}"),
    ]
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update({"x-api-key": cloud.api_key, "Accept": "*/*"})
        for method, path in tried:
            assert session.request(method, api + path, data=b"x", timeout=60).status_code in {400, 403, 404}, path
        # In another's name: an answer that is no secret, and hearsay about a device.
        for version, status in (("9.9.9", 204), ("1.0.0'%20OR%20'1'='1", 200)):
            query = f"product={world.product}&version={version}"
            assert session.get(f"{api}/devices/{OTHER_MAC}/update?{query}", timeout=60).status_code == status
        for path in (f"releases/{world.product}", "inbox/", "keys/"):
            url = f"{cloud.endpoint}/{cloud.bucket}/{path}"
            assert session.get(url, timeout=60).status_code == 403
            assert session.put(f"{url}x.bin", data=b"x", timeout=60).status_code == 403


# --- who sits before the API ------------------------------------------------------------------------------------------


def asked_range(exchange):
    first, last = exchange.seen.headers["range"].removeprefix("bytes=").split("-")
    return int(first), int(last)


def truncated(exchange):
    body = exchange.honest().content
    first, last = asked_range(exchange)
    exchange.send(206, body[:1000], Content_Range=f"bytes {first}-{last}/131072", Content_Length=str(len(body)))
    exchange.hang_up()


def another_range(exchange):
    body = exchange.honest().content
    exchange.send(206, body, Content_Range=f"bytes 0-{len(body) - 1}/131072")


def another_size(exchange):
    first, last = asked_range(exchange)
    exchange.send(206, exchange.honest().content, Content_Range=f"bytes {first}-{last}/{2**31}")


def larger_than_asked(exchange):
    first, last = asked_range(exchange)
    exchange.send(206, b"", Content_Range=f"bytes {first}-{last}/131072", Content_Length=str(1 << 40))
    exchange.hang_up()


def endless(exchange):
    first, last = asked_range(exchange)
    body = exchange.honest().content
    exchange.send(206, Content_Range=f"bytes {first}-{last}/131072", Content_Length=None, Connection="close")
    exchange.hang_up()
    while True:  # until the device has had enough
        exchange.drip(body)


def another_tag(exchange):
    first, last = asked_range(exchange)
    exchange.send(206, bytes(last - first + 1), Content_Range=f"bytes {first}-{last}/131072", ETag='"other"')


def whole_image_for_a_range(exchange):
    exchange.send(200, app_image(version=NEXT, size=131_072, seed=666))


def no_http(exchange):
    exchange.drip(b"SSH-2.0-OpenSSH_9.2\r\n" * 100)
    exchange.hang_up()


def redirect_to_no_web(exchange):
    exchange.send(307, Location="ftp://127.0.0.1/image")


def forbidden(exchange):
    exchange.send(403)


def server_error(exchange):
    exchange.send(503, Retry_After="-1")


def wrong_bytes(exchange):
    first, last = asked_range(exchange)
    content = app_image(version=NEXT, size=131_072, seed=666)[first : last + 1]
    exchange.send(206, content, Content_Range=f"bytes {first}-{last}/131072")


TAMPERING = {
    truncated: "connection_lost",
    another_range: "content_range_mismatch",
    another_size: "content_range_mismatch",
    larger_than_asked: "too_many_bytes",
    endless: "too_many_bytes",
    another_tag: "etag_mismatch",
    no_http: "connection_lost",
    redirect_to_no_web: "http_redirect_refused",
    forbidden: "http_forbidden",
    server_error: "http_server_error",
    whole_image_for_a_range: "range_ignored",
}


def test_download_that_is_tampered_with_in_every_way_ends_with_the_genuine_release(
    world, attacked, pipeline, new_product, proof
):
    """One download, step by step: each attack begins where the device was after the one before."""
    world.before = None  # as the other tests know it: a release comes that it does not have

    @contextlib.contextmanager
    def step(what):
        start = len(downloading.device.events)
        try:
            yield start
            # All but the slot that the download goes to.
            downloading.assert_unchanged(but_for=["other_slot"])
        except Exception as error:
            error.add_note(f"The attack on the download was: {what}.")
            raise
        proof("attacks", f"download: {what}", tried=1, withstood=1)

    product = new_product("tampered")
    drop = make_drop(product=product, version=NEXT, image=app_image(version=NEXT, size=131_072))
    with attacked(DOWNLOADING_MAC, product, chunk=str(CHUNK_BYTES)) as downloading:
        downloading.device.wait_for_event("checked_in", PATIENCE_SECONDS)
        pipeline.settle(pipeline.drop(f"{product}/app", drop), PATIENCE_SECONDS)
        downloading.next_event(0, "download_started")
        downloading.before = downloading.snapshot()
        for tamper, reason in TAMPERING.items():
            with step(tamper.__name__.replace("_", " ")) as start:
                # After a piece that is right, for which the device does not back off.
                downloading.server.answer(pass_on, tamper)
                downloading.next_event(start, "download_failed", reason=reason)
        with step("wrong bytes from another server") as start, HostileServer("http://127.0.0.1:9") as his:
            his.answer(*[wrong_bytes] * 16)
            downloading.server.answer(lambda exchange: exchange.send(307, Location=f"{his.url}/image"))
            downloading.next_event(start, "download_failed", reason="image_sha256_mismatch")
            assert his.seen
            assert not [seen for seen in his.seen if "x-api-key" in seen.headers]
        start = len(downloading.device.events)
        downloading.server.answer(*[pass_on] * 40)
        assert downloading.next_event(start, "installed")["release_id"] == drop.release_id
        assert downloading.device.running_version == NEXT


def test_download_of_a_byte_a_second_is_broken_off(slow_download, proof):
    slow_download.wait_for(lambda event: event.get("reason") == "download_too_slow", PATIENCE_SECONDS)
    assert slow_download.running_version == "1.0.0"
    proof("attacks", "slow retrieval", tried=1, withstood=1)


# --- who publishes what was captured ----------------------------------------------------------------------------------


@pytest.fixture
def replay(pipeline, fleet):
    """Publishes a message to a device of a product, and waits until the device is done with it; gives how it ended."""

    def publish(product, topic, payload):
        with fleet(CAPTURED_MAC, product, back_off="1") as device:
            device.wait_for_event("checked_in", PATIENCE_SECONDS)
            pipeline.cloud.client("iot-data").publish(topic=topic, qos=1, payload=payload)
            device.wait_for_event("accepted", PATIENCE_SECONDS)
            ended = device.wait_for(lambda event: event["event"] in {"dropped", "activated"}, PATIENCE_SECONDS)
            assert device.running_version == "1.0.0"
            return ended["event"], ended.get("reason")

    return publish


@pytest.fixture
def download(pipeline):
    """Asks the API for an image; gives status and code."""

    def get(url):
        headers = {"x-api-key": pipeline.cloud.api_key, "Accept": "*/*"}
        answer = requests.get(url, headers=headers, timeout=60)
        return answer.status_code, answer.json()["code"] if answer.status_code >= 400 else None

    return get


def url_of(pipeline, product, release_id):
    return f"{pipeline.cloud.environment['OTA_API_URL']}/firmware/{product}/{NEXT}?release={release_id}"


def test_withdrawn_release_is_not_installed_although_a_beta_of_its_version_stands(
    pipeline, replay, download, new_product, proof
):
    product, image = new_product("captured"), app_image(version=NEXT)
    beta = make_drop(product=product, version=NEXT, image=image, targets=[OTHER_MAC])
    everywhere = make_drop(product=product, version=NEXT, image=image)
    for stem, drop in (("beta", beta), ("everywhere", everywhere)):
        pipeline.release(f"{product}/{stem}", drop)
    captured = pipeline.heard(everywhere.release_id)[0].json
    assert hire(pipeline.cloud, "aborter").act(everywhere.release_id, "abort").status_code == 200
    eventually(lambda: pipeline.alerts(everywhere.release_id), "withdrawal that every device was told of")

    without_release = captured | {"url": captured["url"].split("?")[0]}
    for said in (captured, without_release):
        assert replay(product, TOPIC_PREFIX, json.dumps(said).encode()) == ("dropped", "release_withdrawn")
        assert download(said["url"]) == (410, "release_withdrawn")
    assert download(url_of(pipeline, product, everywhere.release_id)) == (410, "release_withdrawn")
    assert download(url_of(pipeline, product, beta.release_id)) == (200, None)
    proof("attacks", "captured notification of a withdrawn release", tried=2, withstood=2)


def test_release_that_has_not_started_is_not_installed(pipeline, replay, download, new_product, proof):
    """Its manifest is no secret: whoever reads the archive can tell devices of it."""
    product = new_product("scheduled")
    start = (datetime.now(UTC) + timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    expires = (datetime.now(UTC) + timedelta(days=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    plan = {"waves": [{"percent": 100, "soak": "1h"}], "start_at": start}
    drop = make_drop(product=product, version=NEXT, expires=expires, rollout=plan)
    pipeline.drop(f"{product}/app", drop)
    eventually(lambda: [row["state"] for row in pipeline.releases(product)] == ["rolling_out"], "rollout")

    assert replay(product, TOPIC_PREFIX, notification(drop)) == ("dropped", "http_not_found")
    for url in (url_of(pipeline, product, drop.release_id), url_of(pipeline, product, drop.release_id).split("?")[0]):
        assert download(url) == (404, "firmware_not_started")
    proof("attacks", "release that has not started", tried=1, withstood=1)


def test_release_for_others_is_not_installed_although_its_notification_says_otherwise(
    pipeline, replay, download, new_product, proof
):
    """A list that only the pipeline knows, handed to a device that is not on it, and a wave that did not reach it."""
    product = new_product("elsewhere")
    listed = make_drop(product=product, version=NEXT, targets_file=json.dumps([OTHER_MAC]).encode())
    pipeline.release(f"{product}/listed", listed)
    plan = {"waves": [{"percent": 0.0001, "soak": "2h"}, {"percent": 100, "soak": "2h"}]}
    staged = make_drop(product=product, version="3.0.1", image=app_image(version="3.0.1"), rollout=plan)
    pipeline.drop(f"{product}/staged", staged)
    eventually(lambda: pipeline.releases(product)[-1]["waves_published"] == 1, "first wave")

    own_topic = f"{TOPIC_PREFIX}/{CAPTURED_MAC}"
    for drop in (listed, staged):
        assert replay(product, own_topic, notification(drop)) == ("dropped", "http_not_found")
    mac = CAPTURED_MAC.replace(":", "")
    assert download(f"{url_of(pipeline, product, listed.release_id)}&mac={mac}") == (404, "firmware_not_offered")
    mac = OTHER_MAC.replace(":", "")
    assert download(f"{url_of(pipeline, product, listed.release_id)}&mac={mac}") == (200, None)
    proof("attacks", "release for other devices", tried=2, withstood=2)


# --- attacks that leave releases behind -------------------------------------------------------------------------------


def test_versions_that_cannot_be_read_do_not_stop_a_staged_drop(pipeline, new_product, proof):
    """Planted under a drop's name: the bucket's policy forbids this today, but not what came before it."""
    product = new_product("planted")
    stem = f"{product}/app"
    planted = {
        "GLACIER": {"StorageClass": "GLACIER"},
        "SSE-C": {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32},
    }
    pipeline.settle(
        pipeline.put(f"inbox/{stem}{suffix}", b"planted", **how)
        for suffix in (".bin", ".manifest.json")
        for how in planted.values()
    )
    drop = make_drop(product=product, rollout={"waves": [{"percent": 100}]})
    executions = pipeline.settle(pipeline.drop(stem, drop))
    assert {execution.status for execution in executions} == {"SUCCEEDED"}
    status = json.loads(pipeline.read(f"status/{stem}.json"))
    assert (status["state"], status["release_id"]) == ("published", drop.release_id)
    assert len(pipeline.objects(f"inbox/{stem}")) == 4, "nothing is lost"
    archived = {stored.key for stored in pipeline.objects("archive/")}
    assert {f"archive/{stem}.bin", f"archive/{stem}.manifest.json"} <= archived
    proof("attacks", "drop: unreadable versions planted under its name", tried=1, withstood=1)


def test_drop_that_cannot_be_read_is_rejected(pipeline, new_product, proof):
    product = new_product("unreadable")
    stem, drop = f"{product}/app", make_drop(product=product)
    [manifest] = pipeline.drop(stem, drop, "manifest")
    pipeline.settle([manifest, pipeline.put(f"inbox/{stem}.bin", drop.image, StorageClass="DEEP_ARCHIVE")])
    reason = json.loads(pipeline.read(f"rejected/{stem}.reason.json"))
    assert reason["code"] == Code.INBOX_FILE_UNREADABLE
    proof("attacks", "drop: in an archive storage class", tried=1, withstood=1)


@pytest.mark.parametrize("state", ["failed", "installed"])
def test_invented_devices_decide_no_rollout(pipeline, new_product, proof, state):
    """Identities by the dozen, for devices that do not exist: nobody was told, or they were another product's."""
    plan = {"waves": [{"percent": 100, "soak": "16s"}], "abort": {"min_devices": 1, "report_timeout": "16s"}}
    invented = [f"02:A7:7A:0{'1' if state == 'failed' else '2'}:00:{number:02X}" for number in range(21)]
    genuine = [f"02:A7:7A:03:{'01' if state == 'failed' else '02'}:{number:02X}" for number in range(2)]

    def say(release_id, macs, what):
        for mac in macs:
            report = {"release_id": release_id, "version": NEXT, "state": what, "reason": "flash_error"}
            topic = f"{TOPIC_PREFIX}/{mac}/status"
            pipeline.cloud.client("iot-data").publish(topic=topic, qos=1, payload=json.dumps(report).encode())

    def is_heard(release_id, macs):
        query = "SELECT 1 FROM device_states JOIN releases ON releases.id = release WHERE release_id = :id"
        return len(pipeline.rows(query, id=release_id)) == len(macs)

    def wait(until, what):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until():
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    earlier = make_drop(product=new_product("elsewhere"), version="1.0.0")
    pipeline.release(f"{state}/earlier", earlier)
    fleet = make_drop(product=new_product("all"), version=NEXT, rollout=plan)
    listed = make_drop(product=new_product("listed"), version=NEXT, rollout=plan, targets=genuine)
    say(earlier.release_id, invented, "installed")
    wait(lambda: is_heard(earlier.release_id, invented), "statuses were not recorded")
    uploads = [
        upload
        for name, drop in (("fleet", fleet), ("listed", listed))
        for upload in pipeline.drop(f"{state}/{name}", drop)
    ]
    for drop in (fleet, listed):
        wait(lambda drop=drop: pipeline.heard(drop.release_id), "the release was not published")
        say(drop.release_id, invented, state)
    # Those that the release names say the opposite.
    say(listed.release_id, genuine, "installed" if state == "failed" else "failed")
    pipeline.settle(uploads, PATIENCE_SECONDS)
    found = {}
    for drop in (fleet, listed):
        query = (
            "SELECT state, withdrawn_because, decision -> 'numbers' ->> 'reported' AS reported FROM releases JOIN"
            " rollout_decisions ON release = releases.id WHERE release_id = :id ORDER BY rollout_decisions.id DESC"
        )
        found[drop.release_id] = pipeline.rows(query, id=drop.release_id)[0]
    assert found[fleet.release_id] == {"state": "published", "withdrawn_because": None, "reported": "0"}
    decided = found[listed.release_id]
    assert decided["state"] == ("published" if state == "failed" else "withdrawn"), decided
    assert decided["reported"] == str(len(genuine))
    proof("attacks", f"rollout decided by invented devices that say {state}", tried=2, withstood=2)

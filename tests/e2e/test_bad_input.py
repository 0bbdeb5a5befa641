"""What is wrong with a drop is said, in the bucket, to people and to programs; and nothing else changes.

Every case is dropped through S3, on the deployed stack.
"""

import dataclasses
import hashlib
import json
import re
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ota_core.errors import RejectionCode
from support.drops import Drop, Key, key, make_drop, manifest_fields, seal, target_list
from support.esp_images import app_image, with_byte, with_hash
from support.pipeline import TOPIC_PREFIX, Pipeline, Stored, Upload

SLOT_BYTES = 0x1E0000
GRACE_SECONDS = 10
ONE_MAC = b'["02:00:00:00:00:01"]'


@dataclass(frozen=True)
class Case:
    """Files that must be rejected.

    Attributes:
        code: the reason.
        seen: what the message must say was seen.
        files: their contents by name under the product's folder, given the product.
        stage: that finds it.
        earlier: what was released of the product before.
        trusts: keys that were trusted before that.
        distrusts: keys that were revoked after it.
    """

    code: RejectionCode
    seen: str
    files: Callable[[str], dict[str, bytes]]
    stage: str = "ValidateSignature"
    earlier: Callable[[str], Drop] | None = None
    trusts: Sequence[Key] = ()
    distrusts: Sequence[Key] = ()


@dataclass(frozen=True)
class Dropped:
    """A case that was dropped, after all its executions have ended; `statuses` are theirs."""

    product: str
    earlier: Drop | None
    uploads: list[Upload]
    statuses: set[str]

    @property
    def version_ids(self) -> set[str]:
        return {upload.version_id for upload in self.uploads}

    def inbox(self, pipeline: Pipeline) -> list[Stored]:
        return pipeline.objects(f"inbox/{self.product}/")

    def reason_keys(self, pipeline: Pipeline) -> list[str]:
        rejected = pipeline.objects(f"rejected/{self.product}/")
        return [stored.key for stored in rejected if stored.key.endswith(".reason.json")]

    def is_about(self, detail: dict[str, Any]) -> bool:
        """Whether an event is about this drop."""
        return bool(self.version_ids & {member["version_id"] for member in detail.get("members", [])})


def drop_of(**changes):
    return lambda product: make_drop(product=product, **changes).members("app")


def drop_with(**files):
    """A good drop, but for what it has instead of its `image`, `manifest` or `targets`, given the good one."""

    def make(product):
        drop = make_drop(product=product)
        return dataclasses.replace(drop, **{name: change(drop) for name, change in files.items()}).members("app")

    return make


def edited(manifest, **members):
    """The envelope with members replaced, and signed by nobody again."""
    return json.dumps(json.loads(manifest) | members).encode()


def payload_of(manifest):
    return json.loads(manifest)["payload"]


def image_signed_by_another(product):
    image = app_image()
    firmware = manifest_fields(image, key("other"))["firmware"]
    return make_drop(product=product, image=image, firmware=firmware).members("app")


def listing(raw, count):
    """What makes a drop whose manifest names this targets file."""
    return {"targets_file": raw, "targets": {"file_sha256": hashlib.sha256(raw).hexdigest(), "count": count}}


def too_many_targets(product):
    raw = json.dumps(target_list(1_000_001)).encode()
    return make_drop(product=product, **listing(raw, 1_000_000)).members("app")


def other_targets_file(raw):
    """A drop whose manifest names the file ONE_MAC, with another one in its place, or none."""

    def make(product):
        return dataclasses.replace(make_drop(product=product, targets_file=ONE_MAC), targets=raw).members("app")

    return make


def image_named(name):
    return lambda _: {name: app_image()}


def release_of(**changes):
    return lambda product: make_drop(product=product, **changes)


def after(earlier, code, seen, files):
    """What only the product's earlier releases make wrong."""
    return Case(code, seen, files, stage="RegisterMetadata", earlier=earlier)


Code = RejectionCode
FLIPPED = app_image()[400] ^ 1
CASES = {
    "envelope not json": Case(Code.ENVELOPE_NOT_JSON, "not JSON", drop_with(manifest=lambda _: b"-----BEGIN")),
    "envelope too large": Case(
        Code.ENVELOPE_TOO_LARGE, "1048577 bytes", drop_with(manifest=lambda drop: drop.manifest.ljust(1024**2 + 1))
    ),
    "envelope a list": Case(Code.ENVELOPE_MALFORMED, "a list", drop_with(manifest=lambda _: b"[]")),
    "envelope of other types": Case(
        Code.ENVELOPE_MALFORMED,
        "'payload' is an integer",
        drop_with(manifest=lambda drop: edited(drop.manifest, payload=7)),
    ),
    "payload type wrong": Case(
        Code.PAYLOAD_TYPE_UNKNOWN,
        "text/plain",
        drop_with(manifest=lambda drop: seal(b64decode(payload_of(drop.manifest)), key(), payload_type="text/plain")),
    ),
    "signature missing": Case(
        Code.SIGNATURE_MISSING, "no signature", drop_with(manifest=lambda drop: edited(drop.manifest, signatures=[]))
    ),
    "key unknown": Case(Code.KEY_UNKNOWN, key("stranger").keyid, drop_of(signer=key("stranger"))),
    "key revoked": Case(
        Code.KEY_REVOKED,
        key("revoked").keyid,
        drop_of(signer=key("revoked"), version="1.5.0"),
        earlier=release_of(signer=key("revoked")),
        trusts=[key("revoked")],
        distrusts=[key("revoked")],
    ),
    "key too small": Case(
        Code.KEY_TOO_SMALL, "1024 bits", drop_of(signer=key("small", 1024)), trusts=[key("small", 1024)]
    ),
    "key too large": Case(
        Code.KEY_TOO_LARGE, "4104 bits", drop_of(signer=key("large", 4104)), trusts=[key("large", 4104)]
    ),
    "payload changed": Case(
        Code.SIGNATURE_INVALID,
        key().keyid,
        drop_with(manifest=lambda drop: edited(drop.manifest, payload=payload_of(make_drop().manifest))),
    ),
    "field of another type": Case(Code.MANIFEST_MALFORMED, "'changelog' is an integer", drop_of(changelog=7)),
    "field unknown": Case(Code.MANIFEST_MALFORMED, "'colour'", drop_of(colour="red")),
    "schema unknown": Case(Code.SCHEMA_UNSUPPORTED, "schema 2", drop_of(schema=2)),
    "version not semver": Case(Code.VERSION_INVALID, "'1.4'", drop_of(version="1.4")),
    "expired": Case(Code.MANIFEST_EXPIRED, "2020-01-01T00:00:00Z", drop_of(expires="2020-01-01T00:00:00Z")),
    "image size wrong": Case(
        Code.IMAGE_SIZE_MISMATCH, "4097 bytes", drop_with(image=lambda drop: drop.image + bytes(1))
    ),
    "image sha256 wrong": Case(
        Code.IMAGE_SHA256_MISMATCH, "SHA-256", drop_with(image=lambda drop: with_byte(drop.image, 400, FLIPPED))
    ),
    "image signature wrong": Case(Code.IMAGE_SIGNATURE_INVALID, "does not fit the image", image_signed_by_another),
    "image not esp": Case(Code.IMAGE_NOT_ESP, "0x7F", drop_of(image=b"\x7fELF" + bytes(400))),
    "image no app": Case(Code.IMAGE_NOT_APP, "no app descriptor", drop_of(image=app_image(descriptor=False))),
    "image for another chip": Case(Code.IMAGE_WRONG_CHIP, "esp32c6", drop_of(image=app_image(chip="esp32c6"))),
    "segment truncated": Case(Code.IMAGE_TRUNCATED, "after 2000 bytes", drop_of(image=app_image()[:2000])),
    "image checksum wrong": Case(
        Code.IMAGE_CHECKSUM_WRONG, "checksum byte", drop_of(image=with_hash(with_byte(app_image(), 400, FLIPPED)))
    ),
    "image hash wrong": Case(Code.IMAGE_APPENDED_HASH_WRONG, "00" * 32, drop_of(image=app_image()[:-32] + bytes(32))),
    "image too large": Case(Code.IMAGE_TOO_LARGE, "1966096 bytes", drop_of(image=app_image(size=SLOT_BYTES + 16))),
    "app version differs": Case(
        Code.APP_VERSION_MISMATCH, "'1.3.0'", drop_of(image=app_image(version="1.3.0"), strict_app_version=True)
    ),
    "mac invalid": Case(Code.TARGET_MAC_INVALID, "02:00:00:00:00:0G", drop_of(targets=["02:00:00:00:00:0G"])),
    "mac invalid in file": Case(
        Code.TARGET_MAC_INVALID, "'0200' (line 3)", drop_of(**listing(b'[\n"02:00:00:00:00:01",\n"0200"\n]', 2))
    ),
    "tag invalid": Case(Code.TARGET_TAG_INVALID, "'Beta'", drop_of(targets={"tags": ["Beta"]})),
    "targets empty": Case(Code.TARGETS_EMPTY, "empty", drop_of(targets=[])),
    "targets file empty": Case(Code.TARGETS_EMPTY, "empty", drop_of(**listing(b"[]", 1))),
    "targets file malformed": Case(Code.TARGETS_MALFORMED, "an object", drop_of(**listing(b"{}", 1))),
    "targets too many": Case(Code.TARGETS_TOO_MANY, "1000001 devices", too_many_targets),
    "targets file missing": Case(Code.TARGETS_FILE_MISSING, "app.targets.json is not there", other_targets_file(None)),
    "targets file changed": Case(Code.TARGETS_FILE_CHANGED, "SHA-256", other_targets_file(ONE_MAC + b"\n")),
    "targets count wrong": Case(Code.TARGETS_COUNT_MISMATCH, "lists 1 devices", drop_of(**listing(ONE_MAC, 2))),
    "rollout invalid": Case(Code.ROLLOUT_INVALID, "50", drop_of(rollout={"waves": [{"percent": 50}]})),
    "notification too large": Case(Code.NOTIFICATION_TOO_LARGE, "bytes", drop_of(changelog="ä" * 4096)),
    "name with dots": Case(Code.INBOX_KEY_INVALID, "'..'", image_named("a..b.bin")),
    "folder above": Case(Code.INBOX_KEY_INVALID, "'..'", image_named("x/../app.bin")),
    "name with control character": Case(Code.INBOX_KEY_INVALID, "control character", image_named("a\x07b.bin")),
    "name not ascii": Case(Code.INBOX_KEY_INVALID, "non-ASCII", image_named("größer.bin")),
    "file of no drop": Case(Code.INBOX_FILE_UNKNOWN, "app.elf", image_named("app.elf")),
    "sequence replayed": after(
        release_of(sequence=1000), Code.SEQUENCE_REPLAYED, "sequence 1000", drop_of(sequence=1000, version="1.5.0")
    ),
    "version conflict": after(release_of(), Code.VERSION_CONFLICT, "1.4.0", drop_of(image=app_image(seed=1))),
    "downgrade": after(release_of(version="2.0.0-rc.1"), Code.VERSION_DOWNGRADE, "1.9.9", drop_of(version="1.9.9")),
}


def test_every_code_has_a_case():
    assert {case.code for case in CASES.values()} == set(RejectionCode)


@pytest.fixture(scope="module")
def dropped(pipeline, new_product):
    """Every case, dropped; several at a time, because some wait for a member that never comes."""

    def drop(name):
        case = CASES[name]
        product = new_product(name.replace(" ", "-"))
        for signer in case.trusts:
            pipeline.trust(signer)
        before = case.earlier and case.earlier(product)
        if before:
            pipeline.release(f"{product}/earlier", before)
        for signer in case.distrusts:
            pipeline.cloud.distrust(signer.keyid)
        uploads = [pipeline.put(f"inbox/{product}/{file}", content) for file, content in case.files(product).items()]
        executions = pipeline.settle(uploads, 120)
        return Dropped(product, before, uploads, {execution.status for execution in executions})

    with ThreadPoolExecutor(6) as pool:
        running = {name: pool.submit(drop, name) for name in CASES}
        yield lambda name: running[name].result()


@pytest.mark.parametrize("name", CASES)
def test_bad_drop_is_rejected_with_a_reason(pipeline, dropped, name):
    case, drop = CASES[name], dropped(name)
    assert drop.statuses == {"SUCCEEDED"}
    assert drop.inbox(pipeline) == []
    # Nothing is lost: the very versions that were dropped lie there, beside the reason.
    assert {origin[1] for origin in pipeline.origins(f"rejected/{drop.product}/")} == drop.version_ids
    [reason_key] = drop.reason_keys(pipeline)
    reason = json.loads(pipeline.read(reason_key))
    assert reason.keys() == {"code", "message", "stage", "at", "execution", "versions"}
    assert (reason["code"], reason["stage"]) == (case.code, case.stage)
    assert case.seen in reason["message"]
    assert re.search(r"; expected .+\. .+\.$", reason["message"], re.DOTALL)
    age = datetime.now(UTC) - datetime.strptime(reason["at"], "%Y-%m-%dT%H:%M:%S%z")
    assert timedelta(0) <= age < timedelta(minutes=10)
    assert {(version["key"], version["version_id"]) for version in reason["versions"]} == {
        (upload.key, upload.version_id) for upload in drop.uploads
    }


@pytest.mark.parametrize("name", CASES)
def test_bad_drop_is_announced_once_to_people_and_once_to_programs(pipeline, dropped, name):
    case, drop = CASES[name], dropped(name)
    [reason_key] = drop.reason_keys(pipeline)
    alert = pipeline.alert(reason_key)
    assert case.code in alert
    assert case.seen in alert
    event = pipeline.event("ReleaseRejected", lambda detail: detail.get("reason_key") == reason_key)
    assert event["code"] == case.code
    assert len(pipeline.alerts(f"/{drop.product}/")) == 1
    assert pipeline.events(drop.is_about) == ["ReleaseRejected"]


@pytest.mark.parametrize("name", CASES)
def test_bad_drop_leaves_no_trace_in_releases(pipeline, dropped, name):
    drop = dropped(name)
    earlier = [drop.earlier.release_id] if drop.earlier else []
    assert [row["release_id"] for row in pipeline.releases(drop.product)] == earlier
    lines = pipeline.rows(
        "SELECT latest_version, last_sequence FROM products WHERE product = :product", product=drop.product
    )
    assert lines == [
        {"latest_version": row["version"], "last_sequence": row["sequence"]} for row in pipeline.releases(drop.product)
    ]
    assert [stored.version_id for stored in pipeline.objects(f"releases/{drop.product}/")] == [
        row["image_version_id"] for row in pipeline.releases(drop.product)
    ]
    assert {message.json["release_id"] for message in pipeline.heard_of_product(drop.product)} == set(earlier)


def test_corrected_drop_is_released_under_the_same_name(pipeline, product):
    pipeline.release(f"{product}/app", make_drop(product=product, targets=["02:00:00:00:00:0G"]))
    corrected = make_drop(product=product, targets=["02:00:00:00:00:01"])
    pipeline.release(f"{product}/app", corrected)
    assert [row["release_id"] for row in pipeline.releases(product)] == [corrected.release_id]


# --- what is no error -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "missing"),
    [("image", [".manifest.json"]), ("manifest", [".bin"]), ("targets", [".bin", ".manifest.json"])],
)
def test_lone_member_waits_and_nobody_is_alarmed(pipeline, product, member, missing):
    uploads = pipeline.drop(f"{product}/app", make_drop(product=product, targets_file=ONE_MAC), member)
    [execution] = pipeline.settle(uploads)
    assert execution.status == "SUCCEEDED"
    assert execution.output == {"outcome": "waiting", "missing": [f"inbox/{product}/app{suffix}" for suffix in missing]}
    assert [stored.version_id for stored in pipeline.objects(f"inbox/{product}/")] == [uploads[0].version_id]
    assert pipeline.alerts(product) == []
    assert pipeline.events(lambda detail: product in json.dumps(detail)) == []


def test_folder_made_in_a_console_is_left_alone(pipeline, product):
    uploads = [pipeline.put(f"inbox/{product}/", b"")]
    [execution] = pipeline.settle(uploads)
    assert execution.output["outcome"] == "nothing_to_do"
    assert len(pipeline.objects(f"inbox/{product}/")) == 1
    assert pipeline.alerts(product) == []


def test_targets_file_may_come_within_the_grace_period(pipeline, product):
    drop = make_drop(product=product, targets_file=ONE_MAC)
    uploads = pipeline.drop(f"{product}/app", drop, "image", "manifest")
    time.sleep(GRACE_SECONDS / 3)  # The pipeline has found that it is missing.
    uploads += pipeline.drop(f"{product}/app", drop, "targets")
    assert_released(pipeline, product, drop, uploads, [f"{TOPIC_PREFIX}/02:00:00:00:00:01"])


def test_stale_manifest_under_the_same_name_does_not_spoil_the_next_drop(pipeline, product):
    stale, drop = make_drop(product=product, version="1.3.0"), make_drop(product=product)
    uploads = pipeline.drop(f"{product}/app", stale, "manifest")
    uploads += pipeline.drop(f"{product}/app", drop, "image")
    time.sleep(GRACE_SECONDS / 3)  # The pipeline has found that the two do not fit together.
    uploads += pipeline.drop(f"{product}/app", drop, "manifest")
    assert_released(pipeline, product, drop, uploads, [TOPIC_PREFIX, f"{TOPIC_PREFIX}/product/{product}"])


def assert_released(pipeline, product, drop, uploads, topics):
    pipeline.settle(uploads)
    assert [row["release_id"] for row in pipeline.releases(product)] == [drop.release_id]
    assert sorted(message.topic for message in pipeline.heard(drop.release_id)) == topics
    assert {version_id for _, version_id in pipeline.origins(f"archive/{product}/")} == {
        upload.version_id for upload in uploads
    }
    assert pipeline.objects(f"inbox/{product}/") == []
    assert pipeline.objects(f"rejected/{product}/") == []
    assert pipeline.alerts(product) == []

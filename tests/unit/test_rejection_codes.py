"""Every reason for a rejection has a case that meets it, and a message for a person."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from ota_core.errors import RejectionCode
from ota_core.formats import envelope, esp_image, notification, targets
from ota_core.formats.manifest import parse_manifest
from ota_core.rules import admission, inbox
from ota_core.rules.admission import ProductLine
from ota_sign import drop as drop_files
from support.drops import key, make_drop, manifest_fields, seal
from support.esp_images import app_image, with_byte, with_hash
from support.rejections import rejected

SLOT = esp_image.DEFAULT_SLOT_BYTES


def check(drop, trusted=None, now=None, slot_bytes=SLOT):
    trusted = {key().keyid: key().public} if trusted is None else trusted
    now = now or datetime.now(UTC)
    drop_files.check(drop.manifest, drop.image, drop.targets, trusted.get, now=now, slot_bytes=slot_bytes)


def check_envelope(raw):
    envelope.open_envelope(raw, {key().keyid: key().public}.get)


def check_with_manifest(**changes):
    check(make_drop(**changes))


def check_revoked():
    envelope.open_envelope(make_drop().manifest, lambda _: None, lambda _: True)


def check_changed_payload():
    sealed = json.loads(make_drop().manifest)
    other = json.loads(make_drop(version="9.9.9").manifest)
    check_envelope(json.dumps(sealed | {"payload": other["payload"]}).encode())


def check_other_image(change):
    drop = make_drop()
    check(dataclasses.replace(drop, image=change(drop.image)))


def check_key_of(name, bits):
    odd = key(name, bits)
    check(make_drop(signer=odd), {odd.keyid: odd.public})


def check_unreadable():
    raise inbox.unreadable("inbox/app.bin")


def check_image_signed_by_another():
    image = app_image()
    firmware = manifest_fields(image, key("other"))["firmware"]
    check(make_drop(image=image, firmware=firmware))


def check_targets_file(signed_as, raw):
    drop = make_drop(targets_file=signed_as)
    check(dataclasses.replace(drop, targets=raw))


def check_line(latest, **changes):
    manifest = parse_manifest(json.dumps(manifest_fields(app_image(), key(), **changes)).encode())
    admission.assign_version(manifest, latest)


def check_conflict():
    raise admission.version_conflict("demo-sensor", "1.4.0", "aa", "bb")


def check_notification():
    drop = make_drop(changelog="ä" * 4096)
    manifest = parse_manifest(envelope.parse(drop.manifest)[0])
    notification.check_fits_device(manifest, drop.manifest)


CASES = {
    RejectionCode.ENVELOPE_TOO_LARGE: lambda: check_envelope(b" " * (1024 * 1024 + 1)),
    RejectionCode.ENVELOPE_NOT_JSON: lambda: check_envelope(b"not JSON"),
    RejectionCode.ENVELOPE_MALFORMED: lambda: check_envelope(b"[]"),
    RejectionCode.PAYLOAD_TYPE_UNKNOWN: lambda: check_envelope(seal(b"{}", key(), payload_type="text/plain")),
    RejectionCode.SIGNATURE_MISSING: lambda: check_envelope(seal(b"{}")),
    RejectionCode.KEY_UNKNOWN: lambda: check_envelope(seal(b"{}", key("stranger"))),
    RejectionCode.KEY_REVOKED: check_revoked,
    RejectionCode.KEY_TOO_SMALL: lambda: check_key_of("small", 1024),
    RejectionCode.KEY_TOO_LARGE: lambda: check_key_of("large", 4104),
    RejectionCode.SIGNATURE_INVALID: check_changed_payload,
    RejectionCode.MANIFEST_MALFORMED: lambda: check_with_manifest(changelog=7),
    RejectionCode.SCHEMA_UNSUPPORTED: lambda: check_with_manifest(schema=2),
    RejectionCode.VERSION_INVALID: lambda: check_with_manifest(version="1.4"),
    RejectionCode.MANIFEST_EXPIRED: lambda: check(make_drop(), now=datetime.now(UTC) + timedelta(days=31)),
    RejectionCode.SEQUENCE_REPLAYED: lambda: check_line(ProductLine("1.0.0", 5), sequence=5),
    RejectionCode.IMAGE_SIZE_MISMATCH: lambda: check_other_image(lambda image: image + b"\0"),
    RejectionCode.IMAGE_SHA256_MISMATCH: lambda: check_other_image(lambda image: with_byte(image, 400, 0)),
    RejectionCode.IMAGE_SIGNATURE_INVALID: check_image_signed_by_another,
    RejectionCode.IMAGE_NOT_ESP: lambda: check_with_manifest(image=b"\x7fELF" + bytes(400)),
    RejectionCode.IMAGE_NOT_APP: lambda: check_with_manifest(image=app_image(descriptor=False)),
    RejectionCode.IMAGE_WRONG_CHIP: lambda: check_with_manifest(image=app_image(chip="esp32c6")),
    RejectionCode.IMAGE_CHIP_UNKNOWN: lambda: check_with_manifest(image=app_image(chip=3)),
    RejectionCode.IMAGE_TRUNCATED: lambda: check_with_manifest(image=app_image()[:-1]),
    RejectionCode.IMAGE_CHECKSUM_WRONG: lambda: check_with_manifest(
        image=with_hash(with_byte(app_image(), 400, app_image()[400] ^ 1))
    ),
    RejectionCode.IMAGE_APPENDED_HASH_WRONG: lambda: check_with_manifest(image=app_image()[:-32] + bytes(32)),
    RejectionCode.IMAGE_TOO_LARGE: lambda: check(make_drop(), slot_bytes=4095),
    RejectionCode.APP_VERSION_MISMATCH: lambda: check_with_manifest(
        image=app_image(version="1.3.0"), strict_app_version=True
    ),
    RejectionCode.VERSION_CONFLICT: check_conflict,
    RejectionCode.VERSION_DOWNGRADE: lambda: check_line(ProductLine("1.4.1", 0)),
    RejectionCode.TARGET_MAC_INVALID: lambda: check_with_manifest(targets=["02:00:00:00:00:0G"]),
    RejectionCode.TARGET_TAG_INVALID: lambda: check_with_manifest(targets={"tags": ["Beta"]}),
    RejectionCode.TARGETS_EMPTY: lambda: check_with_manifest(targets=[]),
    RejectionCode.TARGETS_MALFORMED: lambda: targets.parse_targets_document(b"{}"),
    RejectionCode.TARGETS_TOO_MANY: lambda: targets.parse_mac_list(["x"] * 1_000_001),
    RejectionCode.TARGETS_FILE_MISSING: lambda: check_targets_file(b'["020000000001"]', None),
    RejectionCode.TARGETS_FILE_CHANGED: lambda: check_targets_file(b'["020000000001"]', b'["020000000002"]'),
    RejectionCode.TARGETS_COUNT_MISMATCH: lambda: check_targets_file(*[b'["020000000001", "02:00:00:00:00:01"]'] * 2),
    RejectionCode.ROLLOUT_INVALID: lambda: check_with_manifest(rollout={"waves": [{"percent": 50}]}),
    RejectionCode.NOTIFICATION_TOO_LARGE: check_notification,
    RejectionCode.INBOX_KEY_INVALID: lambda: inbox.locate("inbox/../app.bin"),
    RejectionCode.INBOX_FILE_UNREADABLE: check_unreadable,
    RejectionCode.INBOX_FILE_UNKNOWN: lambda: inbox.locate("inbox/app.elf"),
}


def test_every_code_has_a_case():
    assert set(CASES) == set(RejectionCode)


@pytest.mark.parametrize("code", RejectionCode, ids=str)
def test_drop_is_rejected_with_code_and_a_message_for_a_person(code):
    with rejected(code):
        CASES[code]()


def test_good_drop_passes_the_same_checks():
    check(make_drop())
    check(make_drop(targets_file=b'{"devices": ["02-00-00-00-00-01"]}'))

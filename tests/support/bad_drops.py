"""A bad drop for every code of rejection, and for every way to earn it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ota_core.errors import RejectionCode

from .drops import Drop, Key, key, make_drop, manifest_fields, seal, target_list
from .esp_images import app_image, with_byte, with_hash

SLOT_BYTES = 0x1E0000
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
    "private key in the changelog": Case(
        Code.MANIFEST_MALFORMED, "'changelog' contains a private key", drop_of(changelog=key("stranger").private_pem)
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
    "image signature wrong": Case(Code.IMAGE_SIGNATURE_INVALID, "does not match the image", image_signed_by_another),
    "image not esp": Case(Code.IMAGE_NOT_ESP, "an ELF file", drop_of(image=b"\x7fELF" + bytes(400))),
    "image no app": Case(Code.IMAGE_NOT_APP, "without an app descriptor", drop_of(image=app_image(descriptor=False))),
    "image for another chip": Case(Code.IMAGE_WRONG_CHIP, "esp32c6", drop_of(image=app_image(chip="esp32c6"))),
    "image for an unknown chip": Case(
        Code.IMAGE_CHIP_UNKNOWN, "chip id 0x0003", drop_of(image=app_image(chip=3), chip="esp32s3")
    ),
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

"""The signed manifest: what a release is, as its signer describes it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from datetime import datetime

from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats import strict_json
from ota_core.formats.esp_image import CHIP_IDS
from ota_core.formats.fields import Fields
from ota_core.formats.rfc3339 import format_time, parse_time
from ota_core.formats.rollout_plan import Rollout, parse_rollout, write_rollout
from ota_core.formats.targets import (
    MAX_TARGETS,
    AllDevices,
    ListedDevices,
    TaggedDevices,
    Targets,
    TargetsFile,
    parse_mac_list,
    parse_target_tags,
)
from ota_core.formats.versions import AUTO, MAX_VERSION_CHARS, is_version

SCHEMA = 1
MAX_CHANGELOG_CHARS = 4096
# The largest integer that every JSON reader keeps exactly (RFC 8259 section 6).
MAX_SEQUENCE = 2**53 - 1

PRODUCT_RULE = "lower-case letters, digits and dashes, at most 63; not 'status'"
# Not "status": <prefix>/product/status would be a status topic.
_PRODUCT = re.compile(r"(?!status$)[a-z0-9][a-z0-9-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# RFC 7468, RFC 5915, PKCS #1, OpenSSH's and PGP's, encrypted or not.
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY")
_REQUIRED = ("schema", "product", "version", "sequence", "expires", "changelog", "chip", "firmware", "targets")
_OPTIONAL = ("allow_downgrade", "strict_app_version", "rollout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest whose every field has the right type and range.

    Attributes:
        product: which product line the firmware is for.
        version: SemVer 2.0.0, or `auto` for the next patch.
        sequence: rises with every manifest of a product.
        expires: aware; from then on the manifest is refused.
        changelog: at most `MAX_CHANGELOG_CHARS` characters.
        chip: a key of `esp_image.CHIP_IDS`.
        image_size: bytes.
        image_sha256: hex.
        image_signature: RSASSA-PKCS1-v1_5 with SHA-256 over the image's bytes.
        targets: which devices the release is for.
        allow_downgrade: whether the version may be lower than the latest.
        strict_app_version: whether the image's own version must equal `version`.
        rollout: the waves in which devices are told; None: all at once.
    """

    product: str
    version: str
    sequence: int
    expires: datetime
    changelog: str
    chip: str
    image_size: int
    image_sha256: str
    image_signature: bytes
    targets: Targets
    allow_downgrade: bool = False
    strict_app_version: bool = False
    rollout: Rollout | None = None


def is_product(text: str) -> bool:
    """Whether the text may name a product: it becomes part of topics, object keys and URLs."""
    return _PRODUCT.fullmatch(text) is not None


def contains_private_key(text: str) -> bool:
    """Whether the text has the beginning of a private key in PEM: what is signed goes to every device."""
    return _PRIVATE_KEY.search(text) is not None


def parse_manifest(payload: bytes) -> Manifest:
    """Read the payload of an opened envelope.

    Unknown fields are refused: a field that the pipeline does not know may be one that the signer relies on.

    Raises:
        DropRejected: SCHEMA_UNSUPPORTED, MANIFEST_MALFORMED, VERSION_INVALID or what the targets rules raise.
    """
    try:
        document = strict_json.loads(payload)
    except ValueError as error:
        raise _malformed(f"the payload is not JSON ({error})", "a JSON object") from error
    fields = Fields(document, "the manifest", _malformed)
    schema = fields.take("schema", int)
    if schema != SCHEMA:
        raise DropRejected(
            RejectionCode.SCHEMA_UNSUPPORTED,
            seen=f"the manifest has schema {schema}"[:80],
            expected=f"schema {SCHEMA}",
            remedy="Upgrade the stack, or sign with the stack's version of ota-sign.",
        )
    fields.allow_only(_REQUIRED, _OPTIONAL)
    firmware = Fields(fields.take("firmware", dict), "'firmware'", _malformed)
    firmware.allow_only(("size", "sha256", "signature"))
    manifest = Manifest(
        product=fields.matching("product", _PRODUCT, PRODUCT_RULE),
        version=_version(fields.take("version", str)),
        sequence=fields.integer("sequence", 1, MAX_SEQUENCE),
        expires=_time(fields.take("expires", str)),
        changelog=_changelog(fields.take("changelog", str)),
        chip=_chip(fields.take("chip", str)),
        image_size=firmware.integer("size", 1, 2**31 - 1),
        image_sha256=firmware.matching("sha256", _SHA256, "64 lower-case hex digits"),
        image_signature=_signature(firmware.take("signature", str)),
        targets=_targets(fields.value("targets")),
        allow_downgrade=fields.take("allow_downgrade", bool, default=False),
        strict_app_version=fields.take("strict_app_version", bool, default=False),
        rollout=parse_rollout(fields.value("rollout")) if "rollout" in fields else None,
    )
    if manifest.strict_app_version and manifest.version == AUTO:
        # The signer relies on a comparison that cannot be made.
        raise _malformed(
            f"'strict_app_version' is set for the version {AUTO!r}", "a version to compare with the image's"
        )
    return manifest


def write_manifest(manifest: Manifest) -> bytes:
    """The payload for a manifest; `parse_manifest` reverses it."""
    targets: object
    match manifest.targets:
        case AllDevices():
            targets = "all"
        case ListedDevices(macs):
            targets = list(macs)
        case TargetsFile(sha256, count):
            targets = {"file_sha256": sha256, "count": count}
        case TaggedDevices(tags):
            targets = {"tags": list(tags)}
    document: dict[str, object] = {
        "schema": SCHEMA,
        "product": manifest.product,
        "version": manifest.version,
        "sequence": manifest.sequence,
        "expires": format_time(manifest.expires),
        "changelog": manifest.changelog,
        "chip": manifest.chip,
        "firmware": {
            "size": manifest.image_size,
            "sha256": manifest.image_sha256,
            "signature": base64.b64encode(manifest.image_signature).decode(),
        },
        "targets": targets,
    }
    if manifest.allow_downgrade:
        document["allow_downgrade"] = True
    if manifest.strict_app_version:
        document["strict_app_version"] = True
    if manifest.rollout:
        document["rollout"] = write_rollout(manifest.rollout)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _version(text: str) -> str:
    if text != AUTO and not is_version(text):
        raise DropRejected(
            RejectionCode.VERSION_INVALID,
            seen=f"the version is {text[:80]!r}",
            expected=f"SemVer 2.0.0 such as 1.4.0, at most {MAX_VERSION_CHARS} characters, or {AUTO!r}",
            remedy="Sign again with --version.",
        )
    return text


def _time(text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError as error:
        raise _malformed(f"'expires' is {text[:40]!r}", "an RFC 3339 time such as 2026-01-31T12:00:00Z") from error


def _changelog(text: str) -> str:
    if len(text) > MAX_CHANGELOG_CHARS:
        raise _malformed(f"'changelog' has {len(text)} characters", f"at most {MAX_CHANGELOG_CHARS}")
    # PostgreSQL cannot store it, and would fail far from here.
    if "\0" in text:
        raise _malformed("'changelog' contains a NUL character", "text without any")
    if contains_private_key(text):
        raise _malformed("'changelog' contains a private key", "text for people to read")
    return text


def _chip(text: str) -> str:
    if text not in CHIP_IDS:
        raise _malformed(f"'chip' is {text[:40]!r}", f"one of {', '.join(CHIP_IDS)}")
    return text


def _signature(text: str) -> bytes:
    try:
        return strict_json.decode_base64(text)
    except ValueError as error:
        raise _malformed(f"'firmware.signature' is not base64 ({error})", "base64 (RFC 4648 section 4)") from error


def _targets(value: object) -> Targets:
    if value == "all":
        return AllDevices()
    if isinstance(value, list):
        return ListedDevices(tuple(parse_mac_list(value)))
    if isinstance(value, dict):
        fields = Fields(value, "'targets'", _malformed)
        if "tags" in value:
            fields.allow_only(("tags",))
            return parse_target_tags(value["tags"])
        fields.allow_only(("file_sha256", "count"))
        return TargetsFile(
            fields.matching("file_sha256", _SHA256, "64 lower-case hex digits"),
            fields.integer("count", 1, MAX_TARGETS),
        )
    seen = repr(value[:40]) if isinstance(value, str) else strict_json.kind_of(value)
    raise _malformed(
        f"'targets' is {seen}", '"all", a list of MACs, {"tags": [...]}, or {"file_sha256": ..., "count": ...}'
    )


def _malformed(seen: str, expected: str) -> DropRejected:
    return DropRejected(
        RejectionCode.MANIFEST_MALFORMED,
        seen=seen,
        expected=expected,
        remedy="Sign again with `ota-sign sign`.",
    )

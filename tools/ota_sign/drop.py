"""The files of a drop: how they are named, how they are made, and the pipeline's checks offline."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from ota_core.errors import DropRejected, OtaError, RejectionCode
from ota_core.formats.envelope import (
    MAX_ENVELOPE_BYTES,
    PAYLOAD_TYPE,
    keyid_of,
    open_envelope,
    parse,
    pre_authentication_encoding,
    seal,
)
from ota_core.formats.esp_image import check_fits_slot, inspect
from ota_core.formats.manifest import PRODUCT_RULE, Manifest, is_product, parse_manifest, write_manifest
from ota_core.formats.notification import check_fits_device
from ota_core.formats.release_id import release_id_of
from ota_core.formats.rollout_plan import Rollout
from ota_core.formats.targets import (
    MAX_TARGETS_FILE_BYTES,
    AllDevices,
    ListedDevices,
    TaggedDevices,
    Targets,
    TargetsFile,
    check_targets_file,
    parse_targets_document,
)
from ota_core.formats.versions import AUTO, of_app
from ota_core.rules import admission, inbox
from ota_core.rules.inbox import INBOX, Member

from . import files
from .errors import SigningError
from .signing_keys import SigningKey

# Up to here a manifest stays small enough for the devices; longer lists go into a file.
MAX_INLINE_TARGETS = 100


@dataclass(frozen=True, slots=True)
class DropPaths:
    """Where the files of a drop are: `<stem>.bin`, and beside it `<stem>.manifest.json` and `<stem>.targets.json`."""

    image: Path
    manifest: Path
    targets: Path

    @classmethod
    def of(cls, image: Path) -> DropPaths:
        """The paths that belong to an image.

        Raises:
            SigningError: image_misnamed.
        """
        stem = image.name.removesuffix(Member.IMAGE.value)
        if stem in {image.name, ""}:
            raise SigningError(
                "image_misnamed",
                f"The image is named {str(image)!r}; expected <name>.bin. Rename it: the inbox accepts nothing else.",
            )
        return cls(image, image.with_name(stem + Member.MANIFEST.value), image.with_name(stem + Member.TARGETS.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOptions:
    """What the signer says about a release; None leaves it to the image."""

    product: str | None
    version: str | None
    sequence: int
    expires: datetime
    changelog: str
    allow_downgrade: bool
    strict_app_version: bool
    rollout: Rollout | None


@dataclass(frozen=True, slots=True)
class CheckedDrop:
    """A drop that the pipeline would accept, as far as this can be told without knowing earlier releases."""

    manifest: Manifest
    release_id: str
    keyid: str
    warnings: list[str]


def describe(image: bytes, targets: Targets, options: ReleaseOptions) -> Manifest:
    """The manifest of an image, without its signature.

    Raises:
        DropRejected: the pipeline would refuse it.
        SigningError: product_unknown or text_not_utf8.
    """
    described = inspect(image)
    version = options.version or of_app(described.app_version) or AUTO
    product = options.product
    if product is None:
        product = described.project_name
        if not is_product(product):
            raise SigningError(
                "product_unknown",
                f"The image's project {product!r} is not a product name ({PRODUCT_RULE}). Name one with --product.",
            )
    manifest = Manifest(
        product=product,
        version=version,
        sequence=options.sequence,
        expires=options.expires,
        changelog=options.changelog,
        chip=described.chip,
        image_size=len(image),
        image_sha256=hashlib.sha256(image).hexdigest(),
        image_signature=b"",
        targets=targets,
        allow_downgrade=options.allow_downgrade,
        strict_app_version=options.strict_app_version,
        rollout=options.rollout,
    )
    try:
        payload = write_manifest(manifest)
    except UnicodeEncodeError as error:
        raise SigningError(
            "text_not_utf8", "An option contains bytes that are not UTF-8. Check the terminal's locale."
        ) from error
    admission.compare_with_manifest(parse_manifest(payload), described)
    return manifest


def sign(manifest: Manifest, image: bytes, key: SigningKey) -> bytes:
    """The signed envelope of an image and its manifest.

    Raises:
        SigningError: the key did not sign.
    """
    payload = write_manifest(dataclasses.replace(manifest, image_signature=key.sign(image)))
    signature = key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload))
    return seal(payload, [(keyid_of(key.public_key), signature)])


def list_targets(raw: bytes) -> tuple[Targets, bytes | None]:
    """The targets for a list of MACs, and the targets file to write for them: None if the manifest lists them.

    Args:
        raw: a JSON list, or `{"devices": [...]}`.

    Raises:
        DropRejected: the list is at fault.
    """
    macs = parse_targets_document(raw)
    if len(macs) <= MAX_INLINE_TARGETS:
        return ListedDevices(tuple(macs)), None
    # One per line, so that an error's line number leads to it.
    written = ("[\n" + ",\n".join(f'"{mac}"' for mac in macs) + "\n]\n").encode()
    return TargetsFile(hashlib.sha256(written).hexdigest(), len(macs)), written


def name_targets_file(raw: bytes) -> TargetsFile:
    """The targets for a list that will be dropped unchanged.

    Raises:
        DropRejected: the list is at fault.
    """
    return TargetsFile(hashlib.sha256(raw).hexdigest(), len(parse_targets_document(raw)))


def check(
    envelope: bytes,
    image: bytes,
    targets_file: bytes | None,
    trusted_key: Callable[[str], RSAPublicKey | None],
    *,
    now: datetime,
    slot_bytes: int,
) -> CheckedDrop:
    """Check a drop as the pipeline does, except for version and sequence, which depend on earlier releases.

    Raises:
        DropRejected: the first thing that is wrong.
    """
    opened = open_envelope(envelope, trusted_key)
    manifest = parse_manifest(opened.payload)
    named = manifest.targets if isinstance(manifest.targets, TargetsFile) else None
    if named and targets_file is None:
        raise DropRejected(
            RejectionCode.TARGETS_FILE_MISSING,
            seen="there is no targets file",
            expected="the one that the manifest names",
            remedy="Put it beside the image, or sign again.",
        )
    admission.check_not_expired(manifest, now)
    check_fits_device(manifest, envelope)
    check_fits_slot(manifest.image_size, slot_bytes)
    warnings = admission.check_image(manifest, image, opened.public_key)
    if named and targets_file is not None:
        check_targets_file(named, targets_file)
    return CheckedDrop(manifest, release_id_of(opened.payload), opened.keyid, warnings)


def check_targets_path(paths: DropPaths) -> None:
    """Refuse to replace or remove a targets file that an earlier signing of this image did not name.

    Somebody put it there, and ignoring it by mistake would release to the whole fleet.

    Raises:
        SigningError: targets_file_foreign.
    """
    if not paths.targets.exists():
        return
    try:
        payload, _ = parse(files.read(paths.manifest, MAX_ENVELOPE_BYTES))
        named = parse_manifest(payload).targets
    except OtaError:
        named = None
    content = files.read(paths.targets, MAX_TARGETS_FILE_BYTES)
    if not isinstance(named, TargetsFile) or named.sha256 != hashlib.sha256(content).hexdigest():
        raise SigningError(
            "targets_file_foreign",
            f"{paths.targets} is beside the image, but the manifest would not name it. Pass it with --target, "
            "or move it away.",
        )


def inbox_folder(product: str, image_name: str) -> str:
    """The inbox folder for a product's drops.

    Raises:
        DropRejected: INBOX_KEY_INVALID for a file name that the inbox refuses.
    """
    folder = f"{INBOX}{product}/"
    inbox.locate(folder + image_name)
    return folder


def whom(targets: Targets) -> str:
    """Which devices a release is for, in words."""
    match targets:
        case AllDevices():
            return "the whole fleet"
        case TaggedDevices(tags):
            return f"devices tagged {' or '.join(tags)}"
        case ListedDevices(macs):
            count = len(macs)
        case TargetsFile(_, count):
            pass
    return "1 device" if count == 1 else f"{count} devices"

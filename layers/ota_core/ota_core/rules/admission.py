"""Whether a drop may become a release: the checks after the envelope's, in the order that the contract sets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats import versions
from ota_core.formats.envelope import verify_digest
from ota_core.formats.esp_image import EspImage, inspect
from ota_core.formats.manifest import Manifest
from ota_core.formats.rfc3339 import format_time

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey


@dataclass(frozen=True, slots=True)
class ProductLine:
    """What has been released for a product.

    Attributes:
        latest_version: highest by SemVer precedence; None before the first release.
        last_sequence: highest accepted; 0 before the first release.
    """

    latest_version: str | None
    last_sequence: int


def check_not_expired(manifest: Manifest, now: datetime) -> None:
    """Refuse an expired manifest, so that an old one cannot be held back and used later (freeze attack)."""
    if now >= manifest.expires:
        raise DropRejected(
            RejectionCode.MANIFEST_EXPIRED,
            seen=f"the manifest expired at {format_time(manifest.expires)} (now: {format_time(now)})",
            expected="one that has not expired",
            remedy="Sign the image again; --expires sets how long the manifest is valid.",
        )


def check_image_size(manifest: Manifest, size: int) -> None:
    """Refuse an image whose size is not the signed one, before any of it is read."""
    if size != manifest.image_size:
        raise DropRejected(
            RejectionCode.IMAGE_SIZE_MISMATCH,
            seen=f"the image has {size} bytes",
            expected=f"{manifest.image_size}, as the manifest says",
            remedy="Upload the exact .bin that was signed, or sign this one.",
        )


def check_image(manifest: Manifest, image: bytes, public_key: RSAPublicKey) -> list[str]:
    """Check an image's digest, signature and structure against its manifest.

    Returns:
        Warnings for the release's record.

    Raises:
        DropRejected: the first thing that is wrong.
    """
    check_image_size(manifest, len(image))
    digest = hashlib.sha256(image).digest()
    if digest.hex() != manifest.image_sha256:
        raise DropRejected(
            RejectionCode.IMAGE_SHA256_MISMATCH,
            seen=f"the image's SHA-256 is {digest.hex()}",
            expected=f"{manifest.image_sha256}, as the manifest says",
            remedy="Upload the exact .bin that was signed, or sign this one.",
        )
    if not verify_digest(public_key, manifest.image_signature, digest):
        raise DropRejected(
            RejectionCode.IMAGE_SIGNATURE_INVALID,
            seen="the image signature in the manifest does not match the image",
            expected="an RSASSA-PKCS1-v1_5 SHA-256 signature over the image by the key that signed the manifest",
            remedy="Sign the image again with `ota-sign sign`.",
        )
    return compare_with_manifest(manifest, inspect(image))


def compare_with_manifest(manifest: Manifest, image: EspImage) -> list[str]:
    """Compare what an image says about itself with what its manifest says.

    Returns:
        Warnings: an Arduino-built image carries its core's version, so a different version alone is not an error.

    Raises:
        DropRejected: IMAGE_WRONG_CHIP, or APP_VERSION_MISMATCH if the manifest is strict.
    """
    if image.chip != manifest.chip:
        raise DropRejected(
            RejectionCode.IMAGE_WRONG_CHIP,
            seen=f"the image is for {image.chip}",
            expected=f"{manifest.chip}, as the manifest says",
            remedy="Sign the image that was built for the product's chip.",
        )
    if manifest.version in {versions.AUTO, image.app_version, versions.of_app(image.app_version)}:
        return []
    if manifest.strict_app_version:
        raise DropRejected(
            RejectionCode.APP_VERSION_MISMATCH,
            seen=f"the image's own version is {image.app_version!r}",
            expected=f"{manifest.version!r}, because the manifest sets 'strict_app_version'",
            remedy="Set the version in the build, or sign without --strict-app-version.",
        )
    return [f"The image's own version is {image.app_version!r}, the release's {manifest.version!r}."]


def assign_version(manifest: Manifest, line: ProductLine) -> str:
    """Check sequence and version against earlier releases, and return the version that the release gets.

    Raises:
        DropRejected: SEQUENCE_REPLAYED or VERSION_DOWNGRADE.
    """
    if manifest.sequence <= line.last_sequence:
        raise DropRejected(
            RejectionCode.SEQUENCE_REPLAYED,
            seen=f"the manifest has sequence {manifest.sequence}",
            expected=f"more than {line.last_sequence}, the last one accepted for {manifest.product}",
            remedy="Sign again: the sequence defaults to the current time.",
        )
    if manifest.version == versions.AUTO:
        return versions.next_patch(line.latest_version)
    if (
        line.latest_version is not None
        and versions.is_lower(manifest.version, line.latest_version)
        and not manifest.allow_downgrade
    ):
        raise DropRejected(
            RejectionCode.VERSION_DOWNGRADE,
            seen=f"the version is {manifest.version}",
            expected=f"{line.latest_version} or higher, the latest of {manifest.product}",
            remedy="Raise the version, or sign with --allow-downgrade if you mean to go back.",
        )
    return manifest.version


def higher_version(version: str, line: ProductLine) -> str:
    """The product's latest version after a release of `version`."""
    if line.latest_version is not None and versions.is_lower(version, line.latest_version):
        return line.latest_version
    return version


def version_conflict(product: str, version: str, released_sha256: str, sha256: str) -> DropRejected:
    """The rejection of a version that was released before with different bytes."""
    return DropRejected(
        RejectionCode.VERSION_CONFLICT,
        seen=f"{product} {version} with image SHA-256 {sha256}",
        expected=f"{released_sha256}, which this version was released with before",
        remedy="A version never changes its bytes: raise the version and sign again.",
    )

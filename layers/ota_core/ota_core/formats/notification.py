"""The notification: what devices are told, and on which topics."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats import envelope as dsse

if TYPE_CHECKING:
    from ota_core.formats.manifest import Manifest

# What a device holds in memory while it decides; far below AWS IoT Core's 128 KB.
MAX_NOTIFICATION_BYTES = 16 * 1024
# Everything in a notification except envelope, changelog and image signature: names, version, URL, digest, cohort.
_ROOM_FOR_THE_REST = 1024


def write_notification(
    *, release_id: str, manifest: Manifest, version: str, envelope: bytes, api_url: str, percent: float = 100
) -> bytes:
    """The notification's JSON.

    Args:
        release_id: the release.
        manifest: the release's.
        version: the release's: the one in the manifest, or the one that `auto` became.
        envelope: the signed manifest.
        api_url: base URL of the download API, without a trailing slash.
        percent: the share of devices that the waves so far reach; each device works out whether it belongs to it.
    """
    cohort = {} if percent >= 100 else {"cohort": {"percent": percent, "salt": release_id}}
    return json.dumps(
        {
            "release_id": release_id,
            "product": manifest.product,
            "version": version,
            "url": download_url(api_url, manifest.product, version, release_id),
            "size": manifest.image_size,
            "sha256": manifest.image_sha256,
            "signature": base64.b64encode(manifest.image_signature).decode(),
            "changelog": manifest.changelog,
            "manifest": json.loads(dsse.compact(envelope)),
            **cohort,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def write_withdrawal(release_id: str) -> bytes:
    """The message that tells devices that are still waiting or downloading that a release was withdrawn."""
    return json.dumps({"release_id": release_id, "withdrawn": True}, separators=(",", ":")).encode()


def check_fits_device(manifest: Manifest, envelope: bytes) -> None:
    """Refuse a manifest whose notification a device could not hold.

    Raises:
        DropRejected: NOTIFICATION_TOO_LARGE.
    """
    changelog = json.dumps(manifest.changelog, ensure_ascii=False).encode()
    signature = len(manifest.image_signature) * 4 // 3
    size = len(dsse.compact(envelope)) + len(changelog) + signature + _ROOM_FOR_THE_REST
    if size > MAX_NOTIFICATION_BYTES:
        raise DropRejected(
            RejectionCode.NOTIFICATION_TOO_LARGE,
            seen=f"the notification would have about {size} bytes",
            expected=f"at most {MAX_NOTIFICATION_BYTES}, which is what a device can hold",
            remedy="Shorten the changelog, or list the devices in a targets file (--target writes one).",
        )


def download_url(api_url: str, product: str, version: str, release_id: str) -> str:
    """The URL of a release's image; the `+` of build metadata is encoded.

    It names the release, because two releases may have one version, and only one of them may be withdrawn.
    """
    return f"{api_url}/firmware/{quote(product)}/{quote(version, safe='')}?release={release_id}"


def fleet_topics(prefix: str, product: str) -> list[str]:
    """The retained topics of a fleet-wide release: the shared one, and the product's, which no other overwrites."""
    return [prefix, f"{prefix}/product/{product}"]


def device_topic(prefix: str, mac: str) -> str:
    """The topic of one device."""
    return f"{prefix}/{mac}"

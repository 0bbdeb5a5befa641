"""Whether the records agree: releases in PostgreSQL, their signatures, and the objects that they name."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ota_core.errors import DropRejected
from ota_core.formats.envelope import open_envelope
from ota_core.formats.manifest import parse_manifest
from ota_core.formats.release_id import release_id_of
from ota_core.formats.versions import AUTO
from ota_core.rules.inbox import ARCHIVE, INBOX, REASON_SUFFIX, REJECTED, Member
from ota_core.stores.consistency_store import Violation
from ota_core.stores.firmware_store import KEYS, ObjectGone, ObjectVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ota_core.stores.consistency_store import ConsistencyStore, RecordedRelease
    from ota_core.stores.firmware_store import FirmwareStore

_THREADS = 8  # Each holds an image.


@dataclass(slots=True)
class Report:
    """What was checked, and what does not agree.

    Attributes:
        releases: whose records, signature and image were checked.
        archived, rejected, waiting: versions of dropped objects, by where they lie now.
    """

    releases: int = 0
    archived: int = 0
    rejected: int = 0
    waiting: int = 0
    violations: list[Violation] = field(default_factory=list)


def check_consistency(records: ConsistencyStore, store: FirmwareStore) -> Report:
    """Check every release. One that is under way may look wrong for a moment: only what persists is wrong."""
    releases = records.read_releases()
    rejected = store.list_versions(REJECTED)
    report = Report(
        releases=len(releases),
        archived=len(store.list_versions(ARCHIVE)),
        rejected=sum(not key.endswith(REASON_SUFFIX) for key in rejected),
        waiting=len(store.list_versions(INBOX)),
        violations=[*records.broken_rules(), *_rejected_without_reason(rejected)],
    )

    @cache
    def key_of(keyid: str) -> RSAPublicKey | None:
        key = load_pem_public_key(store.read_current(f"{KEYS}{keyid}.pem")) if store.remembers_key(keyid) else None
        return key if isinstance(key, RSAPublicKey) else None

    with ThreadPoolExecutor(_THREADS) as pool:
        for violations in pool.map(lambda release: list(_check_release(release, store, key_of)), releases):
            report.violations += violations
    return report


def _check_release(
    release: RecordedRelease, store: FirmwareStore, key_of: Callable[[str], RSAPublicKey | None]
) -> Iterator[Violation]:
    name = release.release_id
    try:
        payload = open_envelope(release.envelope.encode(), key_of).payload
    except DropRejected as error:
        yield Violation("signature_does_not_hold", f"{name}: {error.rejection_code}")
        return
    manifest = parse_manifest(payload)
    digest = hashlib.sha256(payload).hexdigest()
    signed = {
        "release_id": release_id_of(payload),
        "manifest_sha256": digest,
        "product": manifest.product,
        "version": release.version if manifest.version == AUTO else manifest.version,
        "sequence": manifest.sequence,
        "chip": manifest.chip,
        "image_size": manifest.image_size,
        "image_sha256": manifest.image_sha256,
        "image_signature": base64.b64encode(manifest.image_signature).decode(),
    }
    for column, value in signed.items():
        recorded = getattr(release, column)
        if recorded != value:
            yield Violation("record_differs_from_what_was_signed", f"{name}: {column} is {recorded!r}")
    image = ObjectVersion(release.image_key, release.image_version_id, release.image_size)
    try:
        if hashlib.sha256(store.read(image)).hexdigest() != manifest.image_sha256:
            yield Violation("image_differs_from_what_was_signed", name)
    except ObjectGone:
        yield Violation("image_is_gone", name)
    if not release.state.is_under_way:
        for member in release.drop_members:
            if member["version_id"] not in store.archived_versions(member["key"]):
                yield Violation("drop_is_not_archived", f"{name}: {member['key']} {member['version_id']}")


def _rejected_without_reason(keys: list[str]) -> Iterator[Violation]:
    reasons = {key for key in keys if key.endswith(REASON_SUFFIX)}
    for key in keys:
        stem = next((key.removesuffix(member.value) for member in Member if key.endswith(member.value)), key)
        if key not in reasons and stem + REASON_SUFFIX not in reasons:
            yield Violation("rejected_without_a_reason", key)

"""Whether what is recorded fits together: releases in PostgreSQL, their signatures, and the objects that they name."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from . import versions
from .envelope import open_envelope
from .errors import DropRejected
from .firmware_store import KEYS, ObjectGone, ObjectVersion
from .inbox import ARCHIVE, INBOX, REASON_SUFFIX, REJECTED, Member
from .manifest import parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pg8000.native import Connection

    from .database import Database
    from .firmware_store import FirmwareStore

_THREADS = 8  # Each holds an image.
_WAVES = "CASE WHEN rollout IS NULL THEN 1 ELSE jsonb_array_length(rollout -> 'waves') END"
# Each gives the names of what breaks it.
_RULES = {
    "version_has_several_images": "SELECT product || ' ' || version FROM releases GROUP BY product, version"
    " HAVING count(DISTINCT image_sha256) > 1",
    "sequence_beyond_the_products_last": "SELECT release_id FROM releases JOIN products USING (product)"
    " WHERE sequence > last_sequence",
    "more_waves_than_planned": f"SELECT release_id FROM releases WHERE waves_published > {_WAVES}",  # noqa: S608
    "published_before_its_last_wave": "SELECT release_id FROM releases"  # noqa: S608
    f" WHERE state = 'published' AND (waves_published < {_WAVES} OR published_at IS NULL)",
    "cohort_of_another_wave": "SELECT release_id FROM releases WHERE cohort_percent <> CASE"
    " WHEN waves_published = 0 THEN 0 WHEN rollout IS NULL THEN 100"
    " ELSE CAST(rollout -> 'waves' -> (waves_published - 1) ->> 'percent' AS double precision) END",
    "withdrawn_without_a_reason": "SELECT release_id FROM releases"
    " WHERE state = 'withdrawn' AND withdrawn_because IS NULL",
    "other_number_of_targets": "SELECT release_id FROM releases WHERE waves_published > 0"
    " AND target_count <> (SELECT count(*) FROM release_targets WHERE release = releases.id)",
    "device_state_that_nobody_reported": "SELECT release_id || ' ' || upper(mac::text)"
    " FROM device_states JOIN releases ON releases.id = release WHERE NOT EXISTS (SELECT FROM device_history"
    " WHERE (device_history.mac, device_history.release, device_history.state)"
    " = (device_states.mac, device_states.release, device_states.state))",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that is broken, and by what."""

    rule: str
    what: str


@dataclass(slots=True)
class Report:
    """What was looked at, and what does not fit together.

    Attributes:
        releases: whose records, signature and image were checked.
        archived, rejected, waiting: versions of dropped objects, by where they lie now.
    """

    releases: int = 0
    archived: int = 0
    rejected: int = 0
    waiting: int = 0
    violations: list[Violation] = field(default_factory=list)


def check_consistency(database: Database, store: FirmwareStore) -> Report:
    """Check every release. One that is under way may look wrong for a moment: what stays on a second look is wrong."""
    releases = database.transaction(_read_releases)
    rejected = store.list_versions(REJECTED)
    report = Report(
        releases=len(releases),
        archived=len(store.list_versions(ARCHIVE)),
        rejected=sum(not key.endswith(REASON_SUFFIX) for key in rejected),
        waiting=len(store.list_versions(INBOX)),
        violations=[*database.transaction(_broken_rules), *_rejected_without_reason(rejected)],
    )

    @cache
    def key_of(keyid: str) -> RSAPublicKey | None:
        key = load_pem_public_key(store.read_current(f"{KEYS}{keyid}.pem")) if store.remembers_key(keyid) else None
        return key if isinstance(key, RSAPublicKey) else None

    with ThreadPoolExecutor(_THREADS) as pool:
        for violations in pool.map(lambda release: list(_check_release(release, store, key_of)), releases):
            report.violations += violations
    return report


def _read_releases(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.run(
        "SELECT release_id, manifest_sha256, product, version, sequence, chip, envelope, image_key, image_version_id,"
        " image_size, image_sha256, image_signature, state, drop_members FROM releases ORDER BY id"
    )
    names = [column["name"] for column in connection.columns or []]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _broken_rules(connection: Connection) -> list[Violation]:
    found = [Violation(rule, what) for rule, sql in _RULES.items() for (what,) in connection.run(sql)]
    products = connection.run(
        "SELECT product, latest_version, array_agg(version) FROM products JOIN releases USING (product)"
        " GROUP BY product, latest_version"
    )
    found += [
        Violation("product_has_a_higher_version", product)
        for product, latest, released in products
        if latest is None or any(versions.is_lower(latest, version) for version in released)
    ]
    return found


def _check_release(
    release: dict[str, Any], store: FirmwareStore, key_of: Callable[[str], RSAPublicKey | None]
) -> Iterator[Violation]:
    name = release["release_id"]
    try:
        payload = open_envelope(release["envelope"].encode(), key_of).payload
    except DropRejected as error:
        yield Violation("signature_does_not_hold", f"{name}: {error.rejection_code}")
        return
    manifest = parse_manifest(payload)
    digest = hashlib.sha256(payload).hexdigest()
    signed = {
        "release_id": digest[:32],
        "manifest_sha256": digest,
        "product": manifest.product,
        "version": release["version"] if manifest.version == versions.AUTO else manifest.version,
        "sequence": manifest.sequence,
        "chip": manifest.chip,
        "image_size": manifest.image_size,
        "image_sha256": manifest.image_sha256,
        "image_signature": base64.b64encode(manifest.image_signature).decode(),
    }
    for column, value in signed.items():
        if release[column] != value:
            yield Violation("record_differs_from_what_was_signed", f"{name}: {column} is {release[column]!r}")
    image = ObjectVersion(release["image_key"], release["image_version_id"], release["image_size"])
    try:
        if hashlib.sha256(store.read(image)).hexdigest() != manifest.image_sha256:
            yield Violation("image_differs_from_what_was_signed", name)
    except ObjectGone:
        yield Violation("image_is_gone", name)
    if release["state"] in ("published", "withdrawn"):
        for member in release["drop_members"]:
            if member["version_id"] not in store.archived_versions(member["key"]):
                yield Violation("drop_is_not_archived", f"{name}: {member['key']} {member['version_id']}")


def _rejected_without_reason(keys: list[str]) -> Iterator[Violation]:
    reasons = {key for key in keys if key.endswith(REASON_SUFFIX)}
    for key in keys:
        stem = next((key.removesuffix(member.value) for member in Member if key.endswith(member.value)), key)
        if key not in reasons and stem + REASON_SUFFIX not in reasons:
            yield Violation("rejected_without_a_reason", key)

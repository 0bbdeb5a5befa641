"""Releases in PostgreSQL: how a drop becomes one, and which execution owns it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ota_core.errors import DropRejected
from ota_core.formats.rollout_plan import write_rollout
from ota_core.rules import admission
from ota_core.rules.release_state import ReleaseState

if TYPE_CHECKING:
    from pg8000.native import Connection

    from ota_core.formats import contracts
    from ota_core.formats.manifest import Manifest
    from ota_core.stores.database import Database

# Devices are offered releases in these states. An index has the same condition.
OFFERED = f"state IN ('{ReleaseState.PUBLISHED}', '{ReleaseState.ROLLING_OUT}')"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRelease:
    """A validated drop, on its way to becoming a release.

    Attributes:
        envelope: the signed manifest's JSON, without anything unsigned.
        keyid: of the signer.
        image_key, image_version_id: the stored image.
        targets_key, targets_version_id: the stored list of devices; None if the manifest lists none.
        target_count: listed devices; None for the whole fleet.
        drop_members: the object versions of the drop.
    """

    release_id: str
    manifest_sha256: str
    manifest: Manifest
    envelope: str
    keyid: str
    image_key: str
    image_version_id: str
    targets_key: str | None
    targets_version_id: str | None
    target_count: int | None
    warnings: list[str]
    drop_members: list[contracts.ObjectVersion]


@dataclass(frozen=True, slots=True)
class Registered:
    """The release exists and this execution owns it; `version` is the one it got."""

    version: str


@dataclass(frozen=True, slots=True)
class AlreadyReleased:
    """This exact manifest was released before."""

    version: str


@dataclass(frozen=True, slots=True)
class InProgress:
    """This exact manifest is owned by another execution, which may be running or have failed."""

    execution: str


class ReleaseSuperseded(Exception):  # noqa: N818 - a state of the world, which the caller expects
    """Another execution took the release over."""


class ReleaseStore:
    """Registers releases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(
        self, release: NewRelease, *, execution: str, take_over_from: str | None = None
    ) -> Registered | AlreadyReleased | InProgress:
        """Make a drop a release, exactly once per signed manifest.

        Drops of one product are serialised by a lock on the product's row, so that versions have no gap and no
        duplicate.

        Args:
            release: the validated drop.
            execution: ARN of the execution that asks.
            take_over_from: ARN of an execution that had this release and failed.

        Raises:
            DropRejected: sequence, downgrade or version conflict. Nothing is left behind.
        """
        return self._database.transaction(lambda connection: _register(connection, release, execution, take_over_from))


def _register(
    connection: Connection, release: NewRelease, execution: str, take_over_from: str | None
) -> Registered | AlreadyReleased | InProgress:
    manifest = release.manifest
    [(latest_version, last_sequence)] = connection.run(
        "INSERT INTO products (product) VALUES (:product) "
        "ON CONFLICT (product) DO UPDATE SET product = EXCLUDED.product "  # Locks the row, and returns it.
        "RETURNING latest_version, last_sequence",
        product=manifest.product,
    )
    line = admission.ProductLine(latest_version, last_sequence)
    try:
        version = admission.assign_version(manifest, line)
    except DropRejected:
        # A manifest that was registered before ends up here too: its own sequence was accepted then.
        earlier = _find_earlier(connection, release)
        if not earlier:
            raise
    else:
        if _insert(connection, release, version, admission.higher_version(version, line), execution):
            return Registered(version)
        # Only possible after an operator has put the product's numbers back.
        earlier = _find_earlier(connection, release)
    return _register_again(connection, release, earlier[0], execution, take_over_from)


def _find_earlier(connection: Connection, release: NewRelease) -> list[tuple[str, str, str]]:
    """Version, state and owner of the release of the same manifest, if there is one."""
    rows: list[tuple[str, str, str]] = connection.run(
        "SELECT version, state, execution_arn FROM releases WHERE manifest_sha256 = :manifest_sha256",
        manifest_sha256=release.manifest_sha256,
    )
    return rows


def _register_again(
    connection: Connection,
    release: NewRelease,
    earlier: tuple[str, str, str],
    execution: str,
    take_over_from: str | None,
) -> Registered | AlreadyReleased | InProgress:
    """What an earlier registration of the same manifest means for this one."""
    version, state, owner = earlier
    if owner == execution:
        return Registered(version)
    if not ReleaseState(state).is_under_way:
        return AlreadyReleased(version)
    if owner != take_over_from:
        return InProgress(owner)
    connection.run(
        # The broken execution left its own members in the inbox, perhaps under other names.
        "UPDATE releases SET execution_arn = :execution, drop_members = drop_members || CAST(:members AS jsonb) "
        "WHERE manifest_sha256 = :manifest_sha256",
        execution=execution,
        members=json.dumps(release.drop_members),
        manifest_sha256=release.manifest_sha256,
    )
    return Registered(version)


def _insert(connection: Connection, release: NewRelease, version: str, latest_version: str, execution: str) -> bool:
    """Record a release, and find in the same round trip whether its version conflicts with another's.

    Returns:
        Whether it was recorded: False if its manifest was recorded before.

    Raises:
        DropRejected: the version was released with different bytes. Rolling back the transaction removes the release.
    """
    manifest = release.manifest
    [(is_new, conflicting_sha256)] = connection.run(
        "WITH new_release AS ("
        " INSERT INTO releases (release_id, manifest_sha256, product, version, sequence, chip, changelog, envelope,"
        " keyid, image_key, image_version_id, image_size, image_sha256, image_signature, target_count,"
        " allow_downgrade, rollout, targets_key, targets_version_id, warnings, drop_members, expires_at,"
        " execution_arn) VALUES (:release_id, :manifest_sha256, :product, :version, :sequence, :chip, :changelog,"
        " :envelope, :keyid, :image_key, :image_version_id, :image_size, :image_sha256, :image_signature,"
        " :target_count, :allow_downgrade, CAST(:rollout AS jsonb), :targets_key, :targets_version_id,"
        " CAST(:warnings AS jsonb), CAST(:drop_members AS jsonb), :expires_at, :execution)"
        " ON CONFLICT (manifest_sha256) DO NOTHING RETURNING product"
        "), product_line AS ("
        " UPDATE products SET latest_version = :latest_version, last_sequence = :sequence"
        " FROM new_release WHERE products.product = new_release.product"
        # Sees the releases as they were before the new one.
        ") SELECT EXISTS (SELECT FROM new_release), (SELECT image_sha256 FROM releases"
        " WHERE product = :product AND version = :version AND image_sha256 <> :image_sha256 LIMIT 1)",
        latest_version=latest_version,
        release_id=release.release_id,
        manifest_sha256=release.manifest_sha256,
        product=manifest.product,
        version=version,
        sequence=manifest.sequence,
        chip=manifest.chip,
        changelog=manifest.changelog,
        envelope=release.envelope,
        keyid=release.keyid,
        image_key=release.image_key,
        image_version_id=release.image_version_id,
        image_size=manifest.image_size,
        image_sha256=manifest.image_sha256,
        image_signature=base64.b64encode(manifest.image_signature).decode(),
        target_count=release.target_count,
        allow_downgrade=manifest.allow_downgrade,
        rollout=json.dumps(write_rollout(manifest.rollout)) if manifest.rollout else None,
        targets_key=release.targets_key,
        targets_version_id=release.targets_version_id,
        drop_members=json.dumps(release.drop_members),
        warnings=json.dumps(release.warnings),
        expires_at=manifest.expires,
        execution=execution,
    )
    if is_new and conflicting_sha256 is not None:
        raise admission.version_conflict(manifest.product, version, conflicting_sha256, manifest.image_sha256)
    return bool(is_new)


def lock_owned_release(connection: Connection, release_id: str, execution: str) -> int:
    """The row id of a release that this execution owns, locked until the transaction ends.

    Raises:
        ReleaseSuperseded: it does not own the release, or no longer does.
    """
    rows = connection.run(
        "SELECT id, execution_arn FROM releases WHERE release_id = :release_id FOR NO KEY UPDATE", release_id=release_id
    )
    if not rows or rows[0][1] != execution:
        raise ReleaseSuperseded(release_id)
    release: int = rows[0][0]
    return release

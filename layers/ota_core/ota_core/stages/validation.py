"""The first stage: from an object that arrived in the inbox to a drop that may be released, or the reason why not."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats.envelope import MAX_ENVELOPE_BYTES, OpenedEnvelope, compact, envelope_too_large, open_envelope
from ota_core.formats.esp_image import check_fits_slot
from ota_core.formats.manifest import Manifest, parse_manifest
from ota_core.formats.notification import check_fits_device
from ota_core.formats.release_id import release_id_of
from ota_core.formats.targets import (
    AllDevices,
    ListedDevices,
    Targets,
    TargetsFile,
    check_targets_file,
    check_targets_file_size,
)
from ota_core.formats.versions import AUTO
from ota_core.rules import admission, inbox
from ota_core.rules.inbox import Drop, Member
from ota_core.stores.firmware_store import BATCHES, RELEASES, FirmwareStore, ObjectGone, ObjectUnreadable, ObjectVersion

if TYPE_CHECKING:
    from datetime import datetime

    from ota_core.stores.trusted_keys import TrustedKeys

# A file of another build under the same name looks like this: the right one may still be on its way.
_MAY_RESOLVE_ITSELF = {
    RejectionCode.IMAGE_SIZE_MISMATCH,
    RejectionCode.IMAGE_SHA256_MISMATCH,
    RejectionCode.TARGETS_FILE_MISSING,
    RejectionCode.TARGETS_FILE_CHANGED,
    RejectionCode.INBOX_FILE_UNREADABLE,
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """A drop that passed every check that needs no database.

    Attributes:
        members: the object versions that were checked.
        release_id: of the release that it is to become.
        manifest_sha256: hex, of the signed payload.
        envelope: the signed part and its signatures, without anything else in the file.
        keyid: of the signer.
        image: the stored copy of the exact bytes that were checked.
        targets: the normalised list of MACs, one per line; None for the whole fleet.
        target_count: how many devices are listed, 0 if tags select them; None for the whole fleet.
        warnings: for the release's record.
    """

    members: list[ObjectVersion]
    release_id: str
    manifest_sha256: str
    envelope: bytes
    keyid: str
    image: ObjectVersion
    targets: ObjectVersion | None
    target_count: int | None
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A drop at fault. `pending`: it may still be completed or corrected within the grace period."""

    members: list[ObjectVersion]
    reason: DropRejected
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """A drop that lacks members, which is not an error."""

    missing: list[str]


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """Another execution has this drop, or it is no longer there."""

    why: str


@dataclass(frozen=True, slots=True)
class _Sound:
    """What the checks of a good drop found. `macs` are the listed devices, None if none are listed."""

    opened: OpenedEnvelope
    manifest: Manifest
    envelope: bytes
    image: bytes
    macs: list[str] | None
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Judged:
    """The object versions that were looked at, and the verdict on them."""

    members: list[ObjectVersion]
    verdict: _Sound | DropRejected


class Validation:
    """Validates drops of one bucket against one set of trusted keys."""

    def __init__(self, store: FirmwareStore, trusted_keys: TrustedKeys, slot_bytes: int) -> None:
        self._store = store
        self._trusted_keys = trusted_keys
        self._slot_bytes = slot_bytes

    def validate(
        self, key: str, *, execution: str, now: datetime, pending: list[ObjectVersion] | None = None
    ) -> Accepted | Rejected | Waiting | NothingToDo:
        """Judge the drop that an object belongs to, claim it for the execution, and answer.

        Args:
            key: of the object whose arrival started the execution. Which version it was does not matter: the drop is
                what is there now, and a later version has its own execution.
            execution: the execution's ARN, which claims the drop.
            now: aware.
            pending: after a grace period, the members that failed before it.
        """
        judged = self._judge(key, now)
        if not isinstance(judged, _Judged):
            return judged
        members, verdict = judged.members, judged.verdict
        if pending is not None and set(members) != set(pending):
            return NothingToDo("a newer member arrived; its own execution handles the drop")
        # Whatever the verdict: only the execution that claimed the drop may act on it.
        if not self._store.claim(members, execution):
            return NothingToDo("another execution has this drop")
        if isinstance(verdict, DropRejected):
            is_first_look = pending is None
            return Rejected(members, verdict, pending=is_first_look and verdict.rejection_code in _MAY_RESOLVE_ITSELF)
        return self._accept(members, verdict)

    def _judge(self, key: str, now: datetime) -> _Judged | Waiting | NothingToDo:
        """Look at the drop without changing anything. A drop at fault is a verdict, not an error."""
        try:
            drop = inbox.locate(key)
        except DropRejected as reason:
            return self._judge_stranger(key, reason)
        # In parallel, because a drop spends its time waiting for S3, not for us.
        with ThreadPoolExecutor() as pool:
            finding = pool.submit(self._store.find, drop.key(Member.IMAGE))
            fetched = self._store.fetch(drop.key(Member.MANIFEST), MAX_ENVELOPE_BYTES)
            image = finding.result()
        if image is None or fetched is None:
            found = {Member.IMAGE: image, Member.MANIFEST: fetched}
            return Waiting([drop.key(member) for member, version in found.items() if version is None])
        manifest_file, envelope = fetched
        members = [image, manifest_file]
        try:
            if envelope is None:
                is_too_large = manifest_file.size > MAX_ENVELOPE_BYTES
                raise envelope_too_large(manifest_file.size) if is_too_large else inbox.unreadable(manifest_file.key)
            opened = open_envelope(envelope, self._trusted_keys.find, self._store.remembers_key)
            manifest = parse_manifest(opened.payload)
            targets_file = self._find_targets(drop) if isinstance(manifest.targets, TargetsFile) else None
            members += [targets_file] if targets_file else []
            verdict: _Sound | DropRejected = self._check(image, targets_file, compact(envelope), opened, manifest, now)
        except ObjectGone as gone:
            return NothingToDo(f"{gone} has been moved")
        except ObjectUnreadable as unreadable:
            verdict = inbox.unreadable(str(unreadable))
        except DropRejected as reason:
            verdict = reason
        return _Judged(members, verdict)

    def _judge_stranger(self, key: str, reason: DropRejected) -> _Judged | NothingToDo:
        stranger = self._store.find(key)
        if stranger is None:
            return NothingToDo(f"{key} has been moved")
        if key.endswith("/") and stranger.size == 0:
            return NothingToDo("a folder marker, such as the AWS console creates")
        return _Judged([stranger], reason)

    def _find_targets(self, drop: Drop) -> ObjectVersion:
        key = drop.key(Member.TARGETS)
        targets_file = self._store.find(key)
        if targets_file is None:
            raise DropRejected(
                RejectionCode.TARGETS_FILE_MISSING,
                seen=f"{key} is not there",
                expected="the targets file that the manifest names",
                remedy="Drop it too; `ota-sign sign` printed the command.",
            )
        return targets_file

    def _check(
        self,
        image: ObjectVersion,
        targets_file: ObjectVersion | None,
        envelope: bytes,
        opened: OpenedEnvelope,
        manifest: Manifest,
        now: datetime,
    ) -> _Sound:
        admission.check_not_expired(manifest, now)
        check_fits_device(manifest, envelope)
        check_fits_slot(manifest.image_size, self._slot_bytes)
        admission.check_image_size(manifest, image.size)
        image_bytes = self._store.read(image)
        warnings = admission.check_image(manifest, image_bytes, opened.public_key)
        macs = self._listed_devices(manifest.targets, targets_file)
        return _Sound(opened, manifest, envelope, image_bytes, macs, warnings)

    def _listed_devices(self, targets: Targets, file: ObjectVersion | None) -> list[str] | None:
        match targets:
            case ListedDevices(macs):
                return list(macs)
            case TargetsFile() if file is not None:
                check_targets_file_size(file.size)
                return check_targets_file(targets, self._store.read(file))
            case _:
                return None

    def _accept(self, members: list[ObjectVersion], drop: _Sound) -> Accepted:
        """Store what the release needs beyond the inbox."""
        manifest, opened, macs = drop.manifest, drop.opened, drop.macs
        release_id = release_id_of(opened.payload)
        # An `auto` version is not known yet.
        release = manifest.sequence if manifest.version == AUTO else manifest.version
        image_key = f"{RELEASES}{manifest.product}/{release}/{manifest.image_sha256}.bin"
        pem = opened.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        stored_targets = None
        with ThreadPoolExecutor() as pool:
            storing = pool.submit(self._store.write, image_key, drop.image)
            remembering = pool.submit(self._store.remember_key, opened.keyid, pem)
            if macs is not None:
                lines = "".join(f"{mac}\n" for mac in macs).encode()
                stored_targets = self._store.write(f"{BATCHES}{release_id}/targets.txt", lines)
            stored_image = storing.result()
            remembering.result()
        return Accepted(
            members=members,
            release_id=release_id,
            manifest_sha256=hashlib.sha256(opened.payload).hexdigest(),
            envelope=drop.envelope,
            keyid=opened.keyid,
            image=stored_image,
            targets=stored_targets,
            target_count=None if isinstance(manifest.targets, AllDevices) else len(macs or ()),
            warnings=drop.warnings,
        )

"""The bucket: the inbox, the archive of drops, the released images, and the pipeline's working files."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from itertools import dropwhile, islice
from typing import TYPE_CHECKING
from urllib.parse import quote

from botocore.exceptions import ClientError

from ota_core.rules.inbox import ARCHIVE, REJECTED, moved_key, reason_key, status_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mypy_boto3_s3 import S3Client

    from ota_core.formats import contracts

RELEASES = "releases/"
BATCHES = "batches/"
KEYS = "keys/"
CLAIMS = "claims/"

_GONE = {"404", "NoSuchKey", "NoSuchVersion"}
# Of an object in an archive storage class, and of one that the writer encrypted with a key of their own (HEAD has no
# body, so only the status tells).
_UNREADABLE = {"InvalidObjectState", "ObjectNotInActiveTierError", "InvalidRequest", "400"}
_CHUNK_BYTES = 1024 * 1024
# What anyone may put into the inbox under a drop's name must not keep the drop from leaving it. Older versions beyond
# these limits stay where they are, until the bucket's lifecycle deletes them.
_MAX_MOVED_BYTES = 1024 * 1024 * 1024
_MAX_OLDER_BYTES = 64 * 1024 * 1024
_MAX_OLDER_VERSIONS = 100


class ObjectGone(Exception):  # noqa: N818 - a state of the world, which the caller expects
    """The object version is no longer there."""


class ObjectUnreadable(Exception):  # noqa: N818 - a state of the world, which the caller expects
    """The object version is there, but its writer stored it so that the pipeline cannot read it."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One immutable version of an object; size in bytes."""

    key: str
    version_id: str
    size: int

    def as_json(self) -> contracts.ObjectVersion:
        """As functions hand it on."""
        return {"key": self.key, "version_id": self.version_id, "size": self.size}


class FirmwareStore:
    """What the pipeline does with the bucket, by exact object versions."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    def find(self, key: str) -> ObjectVersion | None:
        """The current version of an object, readable or not, or None."""
        try:
            head = self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _code(error) in _GONE:
                return None
            if _is_unreadable(error):
                return next(self._versions_of(key), None)
            raise
        return ObjectVersion(key, head["VersionId"], head["ContentLength"])

    def fetch(self, key: str, max_bytes: int) -> tuple[ObjectVersion, bytes | None] | None:
        """The current version of an object and its bytes, in one call; None if there is no object.

        The bytes are None if the object is larger than `max_bytes`, or unreadable.
        """
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _code(error) in _GONE:
                return None
            if _is_unreadable(error):
                unreadable = next(self._versions_of(key), None)
                return (unreadable, None) if unreadable else None
            raise
        version = ObjectVersion(key, answer["VersionId"], answer["ContentLength"])
        if version.size > max_bytes:
            answer["Body"].close()
            return version, None
        return version, answer["Body"].read(version.size)

    def read(self, version: ObjectVersion) -> bytes:
        """All bytes of an object version, at most `version.size` of them.

        Raises:
            ObjectGone: it has been moved.
            ObjectUnreadable: its writer stored it in an archive, or encrypted it with another key.
        """
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=version.key, VersionId=version.version_id)
        except ClientError as error:
            if _code(error) in _GONE:
                raise ObjectGone(version.key) from error
            if _is_unreadable(error):
                raise ObjectUnreadable(version.key) from error
            raise
        return answer["Body"].read(version.size)

    def read_chunks(self, key: str, version_id: str) -> Iterator[bytes]:
        """The bytes of an object version, a MiB at a time."""
        body = self._s3.get_object(Bucket=self._bucket, Key=key, VersionId=version_id)["Body"]
        return body.iter_chunks(_CHUNK_BYTES)

    def read_current(self, key: str) -> bytes:
        """All bytes of an object that the pipeline wrote itself."""
        return self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def write(self, key: str, body: bytes) -> ObjectVersion:
        """Write an object; S3 refuses bytes that were damaged in transit."""
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        answer = self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, ChecksumSHA256=checksum)
        return ObjectVersion(key, answer["VersionId"], len(body))

    def write_once(self, key: str, body: bytes) -> bytes:
        """Write an object unless the key exists; return what is there now."""
        return body if self._create(key, body) else self.read_current(key)

    def _create(self, key: str, body: bytes) -> bool:
        """Write an object and return True, or return False if the key exists."""
        try:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) != "PreconditionFailed":
                raise
            return False
        return True

    def claim(self, members: list[ObjectVersion], execution: str) -> bool:
        """Claim this exact set of object versions for an execution; False if another one has it.

        Each member's upload starts an execution, and EventBridge delivers at least once: the first to claim a
        complete drop acts on it, the others end.
        """
        names = "\n".join(sorted(f"{member.key}\t{member.version_id}" for member in members))
        key = CLAIMS + hashlib.sha256(names.encode()).hexdigest()
        return self.write_once(key, execution.encode()) == execution.encode()

    def remember_key(self, keyid: str, pem: bytes) -> None:
        """Keep the public key of a release, so that its signature can be checked after the key is revoked."""
        self._create(f"{KEYS}{keyid}.pem", pem)

    def remembers_key(self, keyid: str) -> bool:
        """Whether a release was ever signed by this key."""
        return self.find(f"{KEYS}{keyid}.pem") is not None

    def archive(self, members: list[ObjectVersion]) -> list[ObjectVersion]:
        """Move a drop's members out of the inbox into the archive; return what had to stay."""
        return [left for member in members for left in self._move(member, ARCHIVE)]

    def reject(self, members: list[ObjectVersion], reason: Mapping[str, object]) -> tuple[str, list[ObjectVersion]]:
        """Move a drop's members to `rejected/`, beside the reason; return the reason's key, and what had to stay."""
        key = reason_key(members[0].key)
        self._write_json(key, reason)
        return key, [left for member in members for left in self._move(member, REJECTED)]

    def write_status(self, members: list[ObjectVersion], status: Mapping[str, object]) -> None:
        """Write the result of a drop where its build server looks."""
        self._write_json(status_key(members[0].key), status)

    def _write_json(self, key: str, document: Mapping[str, object]) -> None:
        # One field per line, for shells without a JSON parser.
        self.write(key, json.dumps(document, indent=2).encode() + b"\n")

    def discard(self, key: str, version_id: str) -> None:
        """Delete an object version that the pipeline wrote and that nothing refers to."""
        self._s3.delete_object(Bucket=self._bucket, Key=key, VersionId=version_id)

    def is_there(self, key: str) -> bool:
        """Whether an object of this key exists."""
        return self.find(key) is not None

    def list_versions(self, prefix: str) -> list[str]:
        """The key of every version of every object under a prefix."""
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix)
        return [version["Key"] for page in pages for version in page.get("Versions", [])]

    def archived_versions(self, inbox_key: str) -> set[str]:
        """The version ids that the archived versions of an object had in the inbox."""
        key = moved_key(inbox_key, ARCHIVE)
        found = set()
        for version in self._versions_of(key):
            head = self._s3.head_object(Bucket=self._bucket, Key=key, VersionId=version.version_id)
            found.add(head["Metadata"]["inbox-version-id"])
        return found

    def _move(self, member: ObjectVersion, destination: str) -> list[ObjectVersion]:
        """Move a version, and the older ones that it covers, so that none of them becomes current again.

        The oldest goes first: an attempt that breaks leaves the version itself for the next one to find.

        Returns:
            Those that cannot be read or are too large. They stay where they are: someone may have planted them to
            stop the drop.
        """
        left = []
        for version in reversed(self._this_and_older(member)):
            is_member = version.version_id == member.version_id
            if version.size > (_MAX_MOVED_BYTES if is_member else _MAX_OLDER_BYTES):
                left.append(version)
                continue
            try:
                self._s3.copy_object(
                    CopySource={"Bucket": self._bucket, "Key": version.key, "VersionId": version.version_id},
                    Bucket=self._bucket,
                    Key=moved_key(member.key, destination),
                    MetadataDirective="REPLACE",
                    TaggingDirective="REPLACE",
                    # S3 takes 2 KB of metadata, and an encoded key may be longer.
                    Metadata={"inbox-key": quote(member.key)[:1500], "inbox-version-id": version.version_id},
                )
            except ClientError as error:
                if _code(error) in _GONE:
                    continue  # Moved by an earlier attempt.
                if _is_unreadable(error):
                    left.append(version)
                    continue
                raise
            self._s3.delete_object(Bucket=self._bucket, Key=version.key, VersionId=version.version_id)
        return left

    def _this_and_older(self, member: ObjectVersion) -> list[ObjectVersion]:
        """`member` and the versions that it covers, newest first; empty if it is no longer there."""
        older = dropwhile(lambda version: version.version_id != member.version_id, self._versions_of(member.key))
        return list(islice(older, 1 + _MAX_OLDER_VERSIONS))

    def _versions_of(self, key: str) -> Iterator[ObjectVersion]:
        """The versions of an object, newest first, as S3 lists them."""
        for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=key):
            for version in page.get("Versions", []):
                # Keys are in order, so longer ones with this prefix follow.
                if version["Key"] != key:
                    return
                yield ObjectVersion(key, version["VersionId"], version["Size"])


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def _is_unreadable(error: ClientError) -> bool:
    """Whether S3 cannot read an object for the pipeline because of how its writer stored it.

    A key in AWS KMS that the role may not use is refused like a missing permission; only the message tells.
    """
    code = _code(error)
    return (
        code in _UNREADABLE
        or code.startswith("KMS.")
        or (code == "AccessDenied" and "kms:" in error.response["Error"].get("Message", ""))
    )

"""The bucket: the inbox, the archive of drops, the released images, and the pipeline's working files."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
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
_CHUNK_BYTES = 1024 * 1024


class ObjectGone(Exception):  # noqa: N818 - a state of the world, which the caller expects
    """The object version is no longer there."""


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
        """The current version of an object, or None."""
        try:
            head = self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _code(error) in _GONE:
                return None
            raise
        return ObjectVersion(key, head["VersionId"], head["ContentLength"])

    def fetch(self, key: str, max_bytes: int) -> tuple[ObjectVersion, bytes | None] | None:
        """The current version of an object and its bytes, in one call; None if there is no object.

        One that is larger than `max_bytes` is not read, and its bytes are None.
        """
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _code(error) in _GONE:
                return None
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
        """
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=version.key, VersionId=version.version_id)
        except ClientError as error:
            if _code(error) in _GONE:
                raise ObjectGone(version.key) from error
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

    def archive(self, members: list[ObjectVersion]) -> None:
        """Move a drop's members out of the inbox into the archive."""
        for member in members:
            self._move(member, ARCHIVE)

    def reject(self, members: list[ObjectVersion], reason: Mapping[str, object]) -> str:
        """Move a drop's members to `rejected/`, beside the reason; return the reason's key."""
        key = reason_key(members[0].key)
        self._write_json(key, reason)
        for member in members:
            self._move(member, REJECTED)
        return key

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
        for version_id in self._versions_of(key):
            head = self._s3.head_object(Bucket=self._bucket, Key=key, VersionId=version_id)
            found.add(head["Metadata"]["inbox-version-id"])
        return found

    def _move(self, member: ObjectVersion, destination: str) -> None:
        """Move a version, and the older ones that it covers, so that none of them becomes current again.

        The oldest goes first: an attempt that breaks leaves the version itself for the next one to find.
        """
        for version_id in reversed(self._this_and_older(member)):
            try:
                # The managed copy: an object may be larger than the 5 GiB of a single CopyObject.
                self._s3.copy(
                    {"Bucket": self._bucket, "Key": member.key, "VersionId": version_id},
                    self._bucket,
                    moved_key(member.key, destination),
                    ExtraArgs={
                        "MetadataDirective": "REPLACE",
                        "TaggingDirective": "REPLACE",
                        # S3 takes 2 KB of metadata, and an encoded key may be longer.
                        "Metadata": {"inbox-key": quote(member.key)[:1500], "inbox-version-id": version_id},
                    },
                )
            except ClientError as error:
                if _code(error) in _GONE:
                    continue  # Moved by an earlier attempt.
                raise
            self._s3.delete_object(Bucket=self._bucket, Key=member.key, VersionId=version_id)

    def _this_and_older(self, member: ObjectVersion) -> list[str]:
        """Version ids from `member` down to the oldest."""
        version_ids = self._versions_of(member.key)
        if member.version_id not in version_ids:
            return []
        return version_ids[version_ids.index(member.version_id) :]

    def _versions_of(self, key: str) -> list[str]:
        """The version ids of an object, newest first, as S3 lists them."""
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=key)
        return [version["VersionId"] for page in pages for version in page.get("Versions", []) if version["Key"] == key]


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]

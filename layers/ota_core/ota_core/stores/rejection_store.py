"""Rejected drops in S3."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ota_core.formats import strict_json
from ota_core.formats.paging import write_cursor
from ota_core.rules.inbox import REASON_SUFFIX, REJECTED

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

# S3 lists by name, so the latest rejections are known only after listing all. 20 requests take about 2 seconds; the
# bucket deletes rejected drops after 90 days.
MAX_OBJECTS = 20_000
_PARALLEL_READS = 10
# Far more than a reason needs. Anyone else who can write there must not fill our memory.
_MAX_REASON_BYTES = 64 * 1024

Position = tuple[int, str]


class RejectionStore:
    """Reads why drops were rejected."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    def list_rejected(self, *, before: Position | None, limit: int) -> dict[str, Any]:
        """A page of rejected drops, the latest first: `drops`, `next` where there are more, and `is_complete`.

        Args:
            before: position of the page, from a `rejected` cursor.
            limit: how many drops a page has.
        """
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=REJECTED, PaginationConfig={"MaxItems": MAX_OBJECTS}
        )
        seen, found = 0, []
        for page in pages:
            objects = page.get("Contents", [])
            seen += len(objects)
            found += [(_position(entry), entry["Key"]) for entry in objects if entry["Key"].endswith(REASON_SUFFIX)]
        found = sorted(((at, key) for at, key in found if before is None or at < before), reverse=True)
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            drops = list(pool.map(self._describe, [key for _, key in found[:limit]]))
        more = {"next": write_cursor("rejected", *found[limit - 1][0])} if len(found) > limit else {}
        return {"drops": drops, "is_complete": seen < MAX_OBJECTS, **more}

    def _describe(self, key: str) -> dict[str, Any]:
        stem = key.removeprefix(REJECTED).removesuffix(REASON_SUFFIX)
        body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read(_MAX_REASON_BYTES)
        try:
            reason = strict_json.loads(body)
            return {"stem": stem} | {name: reason[name] for name in ("code", "message", "stage", "at", "versions")}
        except (ValueError, KeyError, TypeError):  # Not written by the pipeline.
            message = f"s3://{self._bucket}/{key} is not a reason that the pipeline wrote."
            return {"stem": stem, "code": "reason_unreadable", "message": message} | dict.fromkeys(
                ("stage", "at", "versions")
            )


def _position(entry: ObjectTypeDef) -> Position:
    # A key may be longer than a cursor.
    return int(entry["LastModified"].timestamp() * 1000), hashlib.sha256(entry["Key"].encode()).hexdigest()[:16]

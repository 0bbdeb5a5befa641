"""SettleDrop: the drop leaves the inbox, for the archive or, with its reason, for `rejected/`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, overload

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.formats.rfc3339 import format_time
from ota_core.runtime import metrics
from ota_core.runtime.environment import read_environment
from ota_core.stores.firmware_store import FirmwareStore, ObjectVersion

if TYPE_CHECKING:
    from ota_core.formats import contracts


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str


STORE = FirmwareStore(boto3.client("s3"), read_environment(Settings).bucket)
logger = Logger()


@overload
def lambda_handler(event: contracts.ArchiveDrop, context: LambdaContext) -> contracts.DropArchived: ...
@overload
def lambda_handler(event: contracts.RejectDrop, context: LambdaContext) -> contracts.DropMovedToRejected: ...
@logger.inject_lambda_context
def lambda_handler(
    event: contracts.ArchiveDrop | contracts.RejectDrop, context: LambdaContext
) -> contracts.DropArchived | contracts.DropMovedToRejected:
    """Move a drop's members to `rejected/` if there is a reason, else to the archive; write the drop's status."""
    members = [ObjectVersion(**member) for member in event["members"]]
    drop = {"key": members[0].key, "execution": event["execution"], "members": event["members"]}
    circumstances = {
        "at": format_time(datetime.now(UTC)),
        "execution": event["execution"],
        "versions": event["members"],
    }
    if "discard" in event:
        STORE.discard(event["discard"]["key"], event["discard"]["version_id"])
    if "reason" not in event:
        stayed = _stayed(STORE.archive(members))
        STORE.write_status(members, {**event["outcome"], **circumstances, **stayed})
        logger.info("archived", extra={**drop, "outcome": event["outcome"], **stayed})
        return {"settled": "archived"}
    reason = event["reason"]
    key, left = STORE.reject(members, {**reason, **circumstances})
    stayed = _stayed(left)
    STORE.write_status(members, {"state": "rejected", **reason, **circumstances, **stayed})
    metrics.emit(metrics.DROPS_REJECTED, 1, reason=reason["code"])
    logger.info("rejected", extra={**drop, "reason": reason, **stayed})
    return {"settled": "rejected", "reason_key": key, "code": reason["code"], "message": reason["message"]}


def _stayed(left: list[ObjectVersion]) -> dict[str, list[contracts.ObjectVersion]]:
    """What a person has to look at: object versions that could not leave the inbox."""
    return {"left_in_inbox": [version.as_json() for version in left]} if left else {}

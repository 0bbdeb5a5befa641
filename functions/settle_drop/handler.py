"""SettleDrop: the drop leaves the inbox, for the archive or, with its reason, for `rejected/`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.formats.rfc3339 import format_time
from ota_core.runtime import metrics
from ota_core.runtime.environment import read_environment
from ota_core.stores.firmware_store import FirmwareStore, ObjectVersion


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str


STORE = FirmwareStore(boto3.client("s3"), read_environment(Settings).bucket)
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, str]:
    """Move `event["members"]`: to `rejected/` where there is a `reason`, else to the archive; write the drop's status.

    `outcome` is what an archived drop became: `state` and the release. `discard` is the stored image of a drop that
    became no release.
    """
    members = [ObjectVersion(**member) for member in event["members"]]
    reason = event.get("reason")
    drop = {"key": members[0].key, "execution": event["execution"], "members": event["members"]}
    circumstances = {
        "at": format_time(datetime.now(UTC)),
        "execution": event["execution"],
        "versions": event["members"],
    }
    if image := event.get("discard"):
        STORE.discard(image["key"], image["version_id"])
    if not reason:
        STORE.archive(members)
        STORE.write_status(members, {**event["outcome"], **circumstances})
        logger.info("archived", extra={**drop, "outcome": event["outcome"]})
        return {"settled": "archived"}
    key = STORE.reject(members, {**reason, **circumstances})
    STORE.write_status(members, {"state": "rejected", **reason, **circumstances})
    metrics.emit(metrics.DROPS_REJECTED, 1, reason=reason["code"])
    logger.info("rejected", extra={**drop, "reason": reason})
    return {"settled": "rejected", "reason_key": key, "code": reason["code"], "message": reason["message"]}

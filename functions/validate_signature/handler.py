"""ValidateSignature: whether the drop is complete, signed by a trusted key, and what its manifest says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.runtime.environment import read_environment
from ota_core.stages.validation import Accepted, NothingToDo, Rejected, Validation, Waiting
from ota_core.stores.firmware_store import FirmwareStore, ObjectVersion
from ota_core.stores.trusted_keys import TrustedKeys


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str
    trusted_keys_prefix: str
    slot_bytes: int
    drop_grace_period: int


SETTINGS = read_environment(Settings)
VALIDATION = Validation(
    FirmwareStore(boto3.client("s3"), SETTINGS.bucket),
    TrustedKeys(boto3.client("ssm"), SETTINGS.trusted_keys_prefix),
    SETTINGS.slot_bytes,
)
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Validate the drop that `event["object"]` (of EventBridge's S3 event) belongs to."""
    key = event["object"]["key"]  # As it is: this event does not encode it.
    verdict = VALIDATION.validate(
        key,
        execution=event["execution"],
        now=datetime.now(UTC),
        pending=[ObjectVersion(**member) for member in event["pending"]] if event.get("pending") else None,
    )
    answer = shape(verdict)
    logger.info(
        "validated",
        extra={
            "key": key,
            "execution": event["execution"],
            "release_id": answer.get("release", {}).get("release_id"),
            "verdict": {k: v for k, v in answer.items() if k != "release"},
        },
    )
    return answer


def shape(verdict: Accepted | Rejected | Waiting | NothingToDo) -> dict[str, Any]:
    """The verdict as the state machine reads it."""
    match verdict:
        case Accepted():
            release = asdict(verdict)
            members = release.pop("members")
            release["envelope"] = verdict.envelope.decode()
            return {"outcome": "accepted", "members": members, "release": release}
        case Rejected(members, reason, pending):
            return {
                "outcome": "pending" if pending else "rejected",
                "members": [asdict(member) for member in members],
                "code": reason.code,
                "message": reason.message,
                "grace_seconds": SETTINGS.drop_grace_period,
            }
        case Waiting(missing):
            return {"outcome": "waiting", "missing": missing}
        case NothingToDo(why):
            return {"outcome": "nothing_to_do", "why": why}

"""ValidateSignature: whether the drop is complete, signed by a trusted key, and what its manifest says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.runtime.environment import read_environment
from ota_core.stages.validation import Accepted, NothingToDo, Rejected, Validation, Waiting
from ota_core.stores.firmware_store import FirmwareStore, ObjectVersion
from ota_core.stores.trusted_keys import TrustedKeys

if TYPE_CHECKING:
    from ota_core.formats import contracts


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
def lambda_handler(event: contracts.ValidateDrop, context: LambdaContext) -> contracts.Validation:
    """Validate the drop that the object belongs to."""
    key = event["object"]["key"]  # Used unchanged: this event does not encode it.
    verdict = VALIDATION.validate(
        key,
        execution=event["execution"],
        now=datetime.now(UTC),
        pending=[ObjectVersion(**member) for member in event["pending"]] if "pending" in event else None,
    )
    answer = shape(verdict)
    logger.info(
        "validated",
        extra={
            "key": key,
            "execution": event["execution"],
            "release_id": answer["release"]["release_id"] if answer["outcome"] == "accepted" else None,
            "verdict": {k: v for k, v in answer.items() if k != "release"},
        },
    )
    return answer


def shape(verdict: Accepted | Rejected | Waiting | NothingToDo) -> contracts.Validation:
    """The verdict in the form that the state machine reads."""
    match verdict:
        case Accepted():
            return {
                "outcome": "accepted",
                "members": [member.as_json() for member in verdict.members],
                "release": {
                    "release_id": verdict.release_id,
                    "manifest_sha256": verdict.manifest_sha256,
                    "envelope": verdict.envelope.decode(),
                    "keyid": verdict.keyid,
                    "image": verdict.image.as_json(),
                    "targets": verdict.targets.as_json() if verdict.targets else None,
                    "target_count": verdict.target_count,
                    "warnings": verdict.warnings,
                },
            }
        case Rejected(members, reason, pending):
            rejection: contracts.DropRejected = {
                "outcome": "rejected",
                "members": [member.as_json() for member in members],
                "code": reason.code,
                "message": reason.message,
            }
            if pending:
                return {**rejection, "outcome": "pending", "grace_seconds": SETTINGS.drop_grace_period}
            return rejection
        case Waiting(missing):
            return {"outcome": "waiting", "missing": missing}
        case NothingToDo(why):
            return {"outcome": "nothing_to_do", "why": why}

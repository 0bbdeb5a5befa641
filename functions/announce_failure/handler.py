"""AnnounceFailure: an execution of the release pipeline broke; say so to people and programs.

It listens to the executions' status instead of catching errors within the state machine, because an execution that
catches an error ends in another state than the one that broke, and then a redrive cannot continue there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.environment import read_environment

# An SNS subject has at most 100 characters, and an e-mail need not carry a whole stack trace.
_MAX_CAUSE_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    alerts_topic_arn: str
    event_source: str


SETTINGS = read_environment(Settings)
EVENTS = boto3.client("events")
SNS = boto3.client("sns")
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Announce EventBridge's "Step Functions Execution Status Change" of a broken execution."""
    execution = event["detail"]
    started_by = json.loads(execution.get("input") or "{}")
    failure = {
        "execution": execution["executionArn"],
        "status": execution["status"],
        "key": started_by.get("detail", {}).get("object", {}).get("key"),
        "error": execution.get("error"),
        "cause": (execution.get("cause") or "")[:_MAX_CAUSE_CHARS],
        "next_step": "Redrive the execution when the cause is gone, or drop the same files again.",
    }
    logger.error("pipeline failed", extra=failure)
    SNS.publish(
        TopicArn=SETTINGS.alerts_topic_arn,
        Subject="A firmware release failed half-way",
        Message=json.dumps(failure, indent=2),
    )
    answer = EVENTS.put_events(
        Entries=[{"Source": SETTINGS.event_source, "DetailType": "ReleaseFailed", "Detail": json.dumps(failure)}]
    )
    # PutEvents succeeds as a call even where it took no event. Lambda tries again, and then keeps it as a dead letter.
    if answer["FailedEntryCount"]:
        raise RuntimeError(f"EventBridge did not take the event: {answer['Entries']}")

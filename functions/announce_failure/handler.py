"""AnnounceFailure: tells people and programs that an execution of the release pipeline broke.

It listens to the executions' status instead of catching errors within the state machine, because an execution that
catches an error ends in another state than the one that broke, and then a redrive cannot continue there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.runtime.environment import read_environment

if TYPE_CHECKING:
    from ota_core.formats import contracts

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
def lambda_handler(event: contracts.ExecutionStatusChange, context: LambdaContext) -> None:
    """Announce EventBridge's "Step Functions Execution Status Change" of a broken execution."""
    execution = event["detail"]
    started_by = json.loads(execution.get("input") or "{}")
    key = started_by.get("detail", {}).get("object", {}).get("key")
    failure: contracts.Failure = {
        "execution": execution["executionArn"],
        "status": execution["status"],
        "key": key,
        "release_id": started_by.get("registration", {}).get("release_id"),
        "error": execution.get("error"),
        "cause": (execution.get("cause") or "")[:_MAX_CAUSE_CHARS],
        # An execution that an operator's action started has no object.
        "next_step": "Redrive the execution when the cause is gone, or "
        + ("drop the same files again." if key else "repeat the operator's action."),
    }
    logger.error("pipeline failed", extra=failure)
    SNS.publish(
        TopicArn=SETTINGS.alerts_topic_arn,
        Subject="A firmware release failed half-way",
        Message=describe(failure, execution.get("cause") or ""),
    )
    answer = EVENTS.put_events(
        Entries=[{"Source": SETTINGS.event_source, "DetailType": "ReleaseFailed", "Detail": json.dumps(failure)}]
    )
    # The call PutEvents succeeds even if it accepts no event. Lambda retries, and then keeps it as a dead letter.
    if answer["FailedEntryCount"]:
        raise RuntimeError(f"EventBridge did not accept the event: {answer['Entries']}")


def describe(failure: contracts.Failure, cause: str) -> str:
    """What happened, to what, and what to do, for a person."""
    # Anyone who writes to the inbox chooses the key; a JSON string keeps it on its line and within its quotes.
    what = f"the drop of {json.dumps(failure['key'])}" if failure["key"] else f"release {failure['release_id']}"
    return f"""The release pipeline failed while it worked on {what}.

{failure["error"] or failure["status"]}: {message_of(cause)}

Devices keep what they have been told. Nothing more happens until you act, and no dropped file is lost.
{failure["next_step"]} To redrive it, within 14 days:

aws stepfunctions redrive-execution --execution-arn {failure["execution"]}

The execution's history has every step, and so has the query "What did this release's execution do", saved in CloudWatch
Logs Insights."""


def message_of(cause: str) -> str:
    """What a function's error says: Step Functions wraps it in JSON, with a stack trace that people need not read."""
    try:
        message = json.loads(cause)["errorMessage"]
    except (ValueError, KeyError, TypeError):
        message = cause
    return str(message)[:_MAX_CAUSE_CHARS]

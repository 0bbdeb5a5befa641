"""AuthorizeOperator: whether an operator may make a request; passes it on to OperateReleases, and wakes executions.

OperateReleases reaches PostgreSQL and nothing else; this function reaches everything but PostgreSQL. Two APIs call it:
one authorised by IAM, and the console's, authorised by Cognito, whose users' groups are checked here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from ota_core.errors import OtaError
from ota_core.http.api_gateway import answer, answer_json
from ota_core.http.operator_identity import identify, refuse_who_may_not
from ota_core.http.operator_requests import page_limit, page_position, refuse_unknown_query
from ota_core.runtime.aws_errors import is_aws_error
from ota_core.runtime.continuation import Continuation
from ota_core.runtime.environment import read_environment
from ota_core.stores.rejection_store import RejectionStore

if TYPE_CHECKING:
    from ota_core.formats import contracts


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str
    operate_releases_function: str
    state_machine_arn: str
    api_secret: str


SETTINGS = read_environment(Settings)
# API Gateway waits 29 seconds.
CONFIG = Config(connect_timeout=3, read_timeout=25, retries={"mode": "standard", "max_attempts": 1})
LAMBDA = boto3.client("lambda", config=CONFIG)
CONTINUATION = Continuation(boto3.client("stepfunctions", config=CONFIG), SETTINGS.state_machine_arn)
REJECTIONS = RejectionStore(boto3.client("s3", config=CONFIG), SETTINGS.bucket)
# The console's API has the paths of the operators' API under this one.
CONSOLE_PREFIX = "/api"
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.ApiRequest, context: LambdaContext) -> contracts.ApiAnswer:
    """Answer an operator's request."""
    answered = answer(event, operate, logger, is_aws_error)
    logger.info(
        "operator asked",
        extra={
            "caller": identify(event, SETTINGS.api_secret).name,
            "method": event["httpMethod"],
            "path": event["path"],
            "status": answered["statusCode"],
        },
    )
    return answered


def operate(event: contracts.ApiRequest) -> contracts.ApiAnswer:
    """Answer the request in the caller's name, and wake an execution for the release if one should continue."""
    caller = identify(event, SETTINGS.api_secret)
    refuse_who_may_not(caller, event["httpMethod"])
    resource = event["resource"].removeprefix(CONSOLE_PREFIX)
    if (event["httpMethod"], resource) == ("GET", "/rejected-drops"):
        return list_rejected_drops(event)
    return pass_on(
        {
            "httpMethod": event["httpMethod"],
            "resource": resource,
            "pathParameters": event["pathParameters"],
            "queryStringParameters": event["queryStringParameters"],
            "body": event["body"],
            "isBase64Encoded": event["isBase64Encoded"],
            "stageVariables": event["stageVariables"],
            "caller": caller.name,
        }
    )


def list_rejected_drops(event: contracts.ApiRequest) -> contracts.ApiAnswer:
    """`GET /rejected-drops`, the latest first."""
    refuse_unknown_query(event, ("limit", "after"))
    listed = REJECTIONS.list_rejected(
        before=page_position(event, "rejected", _moment_and_name), limit=page_limit(event)
    )
    return answer_json(200, json.dumps(listed, ensure_ascii=False).encode(), {"Cache-Control": "no-store"})


def pass_on(request: contracts.OperatorRequest) -> contracts.ApiAnswer:
    """What OperateReleases answers."""
    reply = LAMBDA.invoke(
        FunctionName=SETTINGS.operate_releases_function,
        Payload=json.dumps(request).encode(),
    )
    document = json.load(reply["Payload"])
    if "FunctionError" in reply:
        raise OtaError("operation_failed", f"OperateReleases failed: {document.get('errorMessage')}")
    answered: contracts.OperatorAnswer = document
    if "wake" not in answered:
        return answered
    CONTINUATION.wake(**answered["wake"])
    return {
        "statusCode": answered["statusCode"],
        "headers": answered["headers"],
        "body": answered["body"],
        "isBase64Encoded": answered["isBase64Encoded"],
    }


def _moment_and_name(milliseconds: int, name: str) -> tuple[int, str] | None:
    return (milliseconds, name) if type(milliseconds) is int and isinstance(name, str) else None

"""OperatorApi: what operators ask for over HTTP, passed on to OperateReleases, and what follows from it.

OperateReleases reaches PostgreSQL and nothing else; this one reaches everything but PostgreSQL. Who may call is API
Gateway's to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from ota_core.api_gateway import Answer, answer
from ota_core.continuation import Continuation
from ota_core.environment import read_environment
from ota_core.errors import OtaError


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    operate_releases_function: str
    state_machine_arn: str


SETTINGS = read_environment(Settings)
# API Gateway waits 29 seconds.
CONFIG = Config(connect_timeout=3, read_timeout=25, retries={"mode": "standard", "max_attempts": 1})
LAMBDA = boto3.client("lambda", config=CONFIG)
CONTINUATION = Continuation(boto3.client("stepfunctions", config=CONFIG), SETTINGS.state_machine_arn)
PASSED_ON = ("httpMethod", "resource", "pathParameters", "queryStringParameters", "body", "isBase64Encoded")
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> Answer:
    """Answer an operator's request."""
    answered = answer(event, operate, logger)
    logger.info(
        "operator asked",
        extra={
            "caller": event["requestContext"]["identity"]["userArn"],
            "method": event["httpMethod"],
            "path": event["path"],
            "status": answered["statusCode"],
        },
    )
    return answered


def operate(event: Mapping[str, Any]) -> Answer:
    """Pass the request on in the caller's name, and let an execution go on with the release where one should."""
    caller = event["requestContext"]["identity"]["userArn"]
    reply = LAMBDA.invoke(
        FunctionName=SETTINGS.operate_releases_function,
        Payload=json.dumps({name: event.get(name) for name in PASSED_ON} | {"caller": caller}).encode(),
    )
    answered: Answer = json.load(reply["Payload"])
    if "FunctionError" in reply:
        raise OtaError("operation_failed", f"OperateReleases failed: {answered.get('errorMessage')}")
    wake = answered.pop("wake", None)
    if wake:
        CONTINUATION.wake(wake["release_id"], wake["execution"], is_due=wake["is_due"])
    return answered

"""The API's requests and answers in the format of API Gateway's Lambda proxy integration (payload format 1.0).

https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

from ota_core.errors import OtaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aws_lambda_powertools import Logger

    from ota_core.formats import contracts

_RETRY_AFTER_SECONDS = 10

_Answered = TypeVar("_Answered", bound="contracts.ApiAnswer")
_Event = TypeVar("_Event", bound="contracts.Request")


class RequestRefused(OtaError):  # noqa: N818 - what happens to the request
    """The error that answers the request; `fields` go beside code and message."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None, **fields: str
    ) -> None:
        super().__init__(code, message)
        self.status = status
        self.headers = headers or {}
        self.fields = fields


def path_parameter(event: contracts.Request, name: str) -> str:
    """A segment of the path, decoded: not every gateway does it, and none of our names contains a percent sign."""
    return unquote((event.get("pathParameters") or {}).get(name) or "")


def query_parameter(event: contracts.Request, name: str) -> str | None:
    """A query parameter; if it is repeated, the last one."""
    value: str | None = (event.get("queryStringParameters") or {}).get(name)
    return value


def header(event: contracts.ApiRequest, name: str) -> str | None:
    """A header field; lines of the same name are joined (RFC 9110 section 5.3)."""
    lines = [
        line
        for key, values in (event.get("multiValueHeaders") or {}).items()
        if key.lower() == name.lower()
        for line in values
    ]
    return ", ".join(lines) if lines else None


def answer_json(status: int, document: bytes, headers: Mapping[str, str] | None = None) -> contracts.ApiAnswer:
    """An answer with a JSON document."""
    return {
        "statusCode": status,
        "headers": {"Content-Type": "application/json", **(headers or {})},
        "body": document.decode(),
        "isBase64Encoded": False,
    }


def answer_bytes(status: int, content: bytes | memoryview, headers: Mapping[str, str]) -> contracts.ApiAnswer:
    """An answer with bytes."""
    return {
        "statusCode": status,
        "headers": dict(headers),
        "body": base64.b64encode(content).decode(),
        "isBase64Encoded": True,
    }


def answer_nothing(status: int, headers: Mapping[str, str] | None = None) -> contracts.ApiAnswer:
    """An answer without content."""
    return {"statusCode": status, "headers": dict(headers or {}), "body": "", "isBase64Encoded": False}


def answer(
    event: _Event,
    work: Callable[[_Event], _Answered],
    logger: Logger,
    *outages: Callable[[Exception], bool],
) -> _Answered | contracts.ApiAnswer:
    """Do the work for a request, and turn whatever goes wrong into an answer.

    Every error is JSON with a `code` for programs and a `message` for people. An error that the caller did not cause
    is logged; one that any of `outages` calls temporary becomes a 503 with Retry-After.
    """
    try:
        return work(event)
    except RequestRefused as refusal:
        return answer_error(refusal.status, refusal.code, refusal.message, refusal.headers, **refusal.fields)
    except Exception as error:
        logger.exception("request failed")
        if any(is_outage(error) for is_outage in outages):
            return answer_error(
                503,
                "temporarily_unavailable",
                f"A service behind the API is not responding; try again in {_RETRY_AFTER_SECONDS} seconds.",
                {"Retry-After": str(_RETRY_AFTER_SECONDS)},
            )
        code = error.code if isinstance(error, OtaError) else "internal_error"
        return answer_error(
            500, code, "The API cannot answer this request; its operator can find the reason in the log."
        )


def answer_error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None, **fields: str
) -> contracts.ApiAnswer:
    """An error in the form that every client of the API expects."""
    return answer_json(
        status,
        json.dumps({"code": code, "message": message, **fields}).encode(),
        {"Cache-Control": "no-store", **(headers or {})},
    )

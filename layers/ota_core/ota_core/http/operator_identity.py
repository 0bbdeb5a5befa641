"""Who an operator is and what they may do, from what API Gateway knows about the caller."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ota_core.http.api_gateway import RequestRefused

if TYPE_CHECKING:
    from ota_core.formats import contracts

VIEWER = "viewer"
OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request, according to API Gateway.

    Attributes:
        name: for the audit log; an ARN, or `cognito:<user name>:<sub>`. A user name can be reused, a `sub` cannot.
        may_look: whether they may view anything.
        may_act: whether they may also act.
    """

    name: str
    may_look: bool
    may_act: bool


NOBODY = Caller("nobody", may_look=False, may_act=False)


def came_through_api(event: contracts.Request, secret: str) -> bool:
    """Whether API Gateway sent the event, which alone adds the secret to it.

    Anyone who may invoke a function chooses the whole event, its `requestContext` too, and Lambda does not say who did.
    """
    told = (event["stageVariables"] or {}).get("apiSecret", "")
    return hmac.compare_digest(told.encode(), secret.encode())


def identify(event: contracts.ApiRequest, secret: str) -> Caller:
    """Read the caller from an event's `requestContext`; `NOBODY` if it did not come through the API.

    With IAM authorisation, IAM policies have already allowed this request. With a user pool, API Gateway has checked
    the token and passes on its claims; the user's groups decide what they may do.
    """
    if not came_through_api(event, secret):
        return NOBODY
    context = event["requestContext"]
    claims = (context.get("authorizer") or {}).get("claims")
    if claims is None:
        arn = context["identity"].get("userArn")
        return Caller(arn, may_look=True, may_act=True) if arn else NOBODY
    # API Gateway passes a list on as text: `viewer,operator`, or `[viewer operator]`.
    groups = set(re.split(r"[\[\], ]+", claims.get("cognito:groups") or ""))
    name = f"cognito:{claims['username']}:{claims['sub']}"
    return Caller(name, may_look=bool(groups & {VIEWER, OPERATOR}), may_act=OPERATOR in groups)


def not_through_api() -> RequestRefused:
    """The refusal of an event that did not come through the API."""
    return RequestRefused(
        403,
        "not_through_the_api",
        "The request did not come through API Gateway, which says who makes it. Send it to the API; if you did, "
        "deploy the stack again: the API's secret and the function's differ.",
    )


def refuse_who_may_not(caller: Caller, method: str) -> None:
    """Refuse a request that the caller may not make.

    Raises:
        RequestRefused: 403.
    """
    if caller == NOBODY:
        raise not_through_api()
    if not caller.may_look:
        raise RequestRefused(
            403,
            "not_in_group",
            f"{caller.name} is in neither group, `{VIEWER}` or `{OPERATOR}`; "
            "ask whoever runs this stack to add the user to one of them.",
        )
    if method != "GET" and not caller.may_act:
        raise RequestRefused(
            403, "not_an_operator", f"{caller.name} may view but not act; acting requires the group `{OPERATOR}`."
        )

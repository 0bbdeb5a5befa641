"""Who an operator is, and whether he may act, from what API Gateway says of the caller."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .api_gateway import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

VIEWER = "viewer"
OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller.

    Attributes:
        name: for the record of what was done; an ARN, or `cognito:<user name>:<sub>`. A user name can be given anew,
            a `sub` cannot.
        may_act: whether more than looking is allowed.
    """

    name: str
    may_act: bool


def identify(context: Mapping[str, Any]) -> Caller:
    """Read the caller from an event's `requestContext`.

    With IAM authorisation, IAM's policies have said that this caller may send this request. With a user pool,
    API Gateway has checked the token and says what it claims; what the user may do is told by his groups.

    Raises:
        RequestRefused: nobody that may look.
    """
    claims = (context.get("authorizer") or {}).get("claims")
    if claims is None:
        arn = context["identity"].get("userArn")
        if not arn:
            raise RequestRefused(403, "not_signed", "API Gateway names no caller.")
        return Caller(arn, may_act=True)
    # API Gateway hands a list on as a text: `viewer,operator`, or `[viewer operator]`.
    groups = set(re.split(r"[\[\], ]+", claims.get("cognito:groups") or ""))
    if not groups & {VIEWER, OPERATOR}:
        raise RequestRefused(
            403,
            "not_in_group",
            f"{claims['username']} is in neither of the groups `{VIEWER}` and `{OPERATOR}`; "
            "who runs this stack can add the user to one.",
        )
    return Caller(f"cognito:{claims['username']}:{claims['sub']}", may_act=OPERATOR in groups)

"""Who an operator is, and what he may do, from what API Gateway says of the caller."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ota_core.http.api_gateway import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

VIEWER = "viewer"
OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever API Gateway says that asks.

    Attributes:
        name: for the record of what was done; an ARN, or `cognito:<user name>:<sub>`. A user name can be given anew,
            a `sub` cannot.
        may_look: whether anything is allowed.
        may_act: whether more than looking is allowed.
    """

    name: str
    may_look: bool
    may_act: bool


def identify(context: Mapping[str, Any]) -> Caller:
    """Read the caller from an event's `requestContext`.

    With IAM authorisation, IAM's policies have said that this caller may send this request. With a user pool,
    API Gateway has checked the token and says what it claims; what the user may do is told by his groups.
    """
    claims = (context.get("authorizer") or {}).get("claims")
    if claims is None:
        arn = context["identity"].get("userArn")
        return Caller(arn or "nobody", may_look=bool(arn), may_act=bool(arn))
    # API Gateway hands a list on as a text: `viewer,operator`, or `[viewer operator]`.
    groups = set(re.split(r"[\[\], ]+", claims.get("cognito:groups") or ""))
    name = f"cognito:{claims['username']}:{claims['sub']}"
    return Caller(name, may_look=bool(groups & {VIEWER, OPERATOR}), may_act=OPERATOR in groups)


def refuse_who_may_not(caller: Caller, method: str) -> None:
    """Refuse a request that the caller may not make.

    Raises:
        RequestRefused: 403.
    """
    if not caller.may_look:
        raise RequestRefused(
            403,
            "not_in_group",
            f"{caller.name} is in neither of the groups `{VIEWER}` and `{OPERATOR}`; "
            "who runs this stack can add the user to one.",
        )
    if method != "GET" and not caller.may_act:
        raise RequestRefused(
            403, "not_an_operator", f"{caller.name} may look and not act; acting takes the group `{OPERATOR}`."
        )

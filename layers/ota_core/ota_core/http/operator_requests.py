"""Query parameters that requests to the operators' API share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ota_core.formats.paging import read_cursor
from ota_core.http.api_gateway import RequestRefused, query_parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ota_core.formats import contracts

MAX_LIMIT = 200
DEFAULT_LIMIT = 50
_Position = TypeVar("_Position")


def refuse_unknown_query(event: contracts.Request, known: Collection[str]) -> None:
    """Refuse a query with any other parameter: a misspelled filter would list everything.

    Raises:
        RequestRefused: there is one.
    """
    unknown = sorted(set(event.get("queryStringParameters") or {}) - set(known))
    if unknown:
        raise RequestRefused(
            400,
            "query_unknown",
            f"{unknown[0]!r:.60} is not a query parameter here; expected {', '.join(known) or 'none'}.",
        )


def page_limit(event: contracts.Request) -> int:
    """The size of the page.

    Raises:
        RequestRefused: not a number from 1 to 200.
    """
    text = query_parameter(event, "limit")
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and 1 <= int(text) <= MAX_LIMIT):
        raise RequestRefused(400, "limit_invalid", f"{text!r:.60} is not a valid limit; expected 1 to {MAX_LIMIT}.")
    return int(text)


def page_position(event: contracts.Request, listed: str, read: Callable[..., _Position | None]) -> _Position | None:
    """What `read` makes of the cursor; None for the first page.

    Raises:
        RequestRefused: not a cursor of this list.
    """
    text = query_parameter(event, "after")
    if text is None:
        return None
    try:
        position = read(*read_cursor(text, listed))
    except (TypeError, ValueError, AttributeError, OverflowError):
        position = None
    if position is None:
        raise RequestRefused(
            400, "cursor_invalid", "`after` is not a cursor of this list; pass `next` of the previous page."
        )
    return position

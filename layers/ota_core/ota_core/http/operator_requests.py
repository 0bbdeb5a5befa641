"""What requests to the operators' API have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ota_core.formats.paging import read_cursor
from ota_core.http.api_gateway import RequestRefused, query_parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

MAX_LIMIT = 200
DEFAULT_LIMIT = 50
_Position = TypeVar("_Position")


def refuse_unknown_query(event: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a query with another parameter: a filter with a slip of the pen would list what nobody asked for.

    Raises:
        RequestRefused: there is one.
    """
    unknown = sorted(set(event.get("queryStringParameters") or {}) - set(known))
    if unknown:
        raise RequestRefused(
            400,
            "query_unknown",
            f"The query has {unknown[0]!r:.60}; here it takes {', '.join(known) or 'nothing'}.",
        )


def page_limit(event: Mapping[str, Any]) -> int:
    """How many items a page is to have.

    Raises:
        RequestRefused: no number from 1 to 200.
    """
    text = query_parameter(event, "limit")
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and 1 <= int(text) <= MAX_LIMIT):
        raise RequestRefused(400, "limit_invalid", f"The query's limit is none; expected 1 to {MAX_LIMIT}.")
    return int(text)


def page_position(event: Mapping[str, Any], listed: str, read: Callable[..., _Position | None]) -> _Position | None:
    """What `read` makes of the cursor; None where the first page is asked for.

    Raises:
        RequestRefused: no cursor of this list.
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
            400, "cursor_invalid", "The query's after is no cursor of this list; pass on `next` of the page before."
        )
    return position

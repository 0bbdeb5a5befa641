"""Cursors: where a list's next page begins, in an opaque form that callers pass back."""

from __future__ import annotations

import base64
import json
from typing import Any

from ota_core.formats import strict_json

_MAX_CURSOR_CHARS = 200


def write_cursor(listed: str, *position: str | int) -> str:
    """A cursor for a list.

    Args:
        listed: which list, so that a cursor for another one is refused.
        position: the sort key of the last item of a page.
    """
    return (
        base64.urlsafe_b64encode(json.dumps([listed, *position], separators=(",", ":")).encode()).decode().rstrip("=")
    )


def read_cursor(text: str, listed: str) -> list[Any]:
    """The position that a cursor for this list holds.

    Raises:
        ValueError: not a cursor, or one for another list.
    """
    if len(text) > _MAX_CURSOR_CHARS:
        raise ValueError("too long")
    document = strict_json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    if not isinstance(document, list) or document[:1] != [listed]:
        raise ValueError("a cursor for another list")
    return document[1:]

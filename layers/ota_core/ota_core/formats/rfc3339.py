"""RFC 3339 times (section 5.6)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# fromisoformat alone also accepts ISO forms that other parsers do not.
_FORM = re.compile(r"\d{4}-\d\d-\d\d[Tt](?!24)\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(text: object) -> datetime:
    """Read a time, in UTC.

    Raises:
        ValueError: not an RFC 3339 time.
    """
    if not isinstance(text, str) or _FORM.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 time")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("out of range") from error


def format_time(moment: datetime) -> str:
    """Write a time in UTC and whole seconds: `2026-01-31T12:00:00Z`."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"

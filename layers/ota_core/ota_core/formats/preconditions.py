"""Conditional requests: whether to send the image at all, and whether a range still applies (RFC 9110 section 13)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

# Section 8.8.3. A tag may contain a comma, so lists of tags cannot be split at commas.
_ENTITY_TAG = re.compile(r'(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\xff]*)"')
# Section 5.6.1: commas separate the elements, and empty ones are ignored.
_ENTITY_TAGS = re.compile(
    r"[ \t,]*TAG(?:[ \t]*,[ \t,]*TAG)*[ \t,]*".replace("TAG", r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
)
# Section 5.6.7: the form to send, and the two old ones that must still be accepted.
_DATE_FORMS = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one state of an image from another (section 8.8).

    Attributes:
        etag: strong, with its quotes.
        last_modified: aware, without a fraction of a second.
    """

    etag: str
    last_modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The fields of a request that make it conditional; None for a missing one."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None
    if_range: str | None = None


class Verdict(Enum):
    """The outcome of the preconditions of a GET or HEAD."""

    PROCEED = auto()
    NOT_MODIFIED = auto()
    FAILED = auto()


def evaluate(conditions: Conditions, validators: Validators) -> Verdict:
    """Evaluate the preconditions of a GET or HEAD in their order (section 13.2.2), If-Range apart."""
    if conditions.if_match is not None:
        if not _lists(conditions.if_match, validators.etag, strongly=True):
            return Verdict.FAILED
    elif (date := _date(conditions.if_unmodified_since)) is not None and validators.last_modified > date:
        return Verdict.FAILED
    if conditions.if_none_match is not None:
        if _lists(conditions.if_none_match, validators.etag, strongly=False):
            return Verdict.NOT_MODIFIED
    elif (date := _date(conditions.if_modified_since)) is not None and validators.last_modified <= date:
        return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def range_applies(conditions: Conditions, validators: Validators, now: datetime) -> bool:
    """Whether If-Range lets a Range be honoured (section 13.1.5).

    Args:
        conditions: of the request.
        validators: of the current image.
        now: aware; the Date of the answer.
    """
    if conditions.if_range is None:
        return True
    text = conditions.if_range.strip(" \t")
    if _ENTITY_TAG.fullmatch(text):
        return text == validators.etag  # A strong comparison: our tag is never weak.
    # A date is a strong validator only when the image cannot have changed twice in its second (section 8.8.2.2).
    return _date(text) == validators.last_modified and now - validators.last_modified >= timedelta(seconds=1)


def format_http_date(time: datetime) -> str:
    """An IMF-fixdate (section 5.6.7), whatever the locale."""
    utc = time.astimezone(UTC)
    return f"{_DAYS[utc.weekday()]}, {utc:%d} {_MONTHS[utc.month - 1]} {utc:%Y %H:%M:%S} GMT"


def _lists(field: str, etag: str, *, strongly: bool) -> bool:
    """Whether If-Match or If-None-Match names the tag. A malformed field names none."""
    if field.strip(" \t") == "*":
        return True
    if _ENTITY_TAGS.fullmatch(field) is None:
        return False
    opaque = etag.strip('"')
    return any(tag["opaque"] == opaque and not (strongly and tag["weak"]) for tag in _ENTITY_TAG.finditer(field))


def _date(text: str | None) -> datetime | None:
    """An HTTP-date, or None if the field is missing or invalid and must be ignored."""
    if text is None:
        return None
    for form in _DATE_FORMS:
        try:
            return datetime.strptime(text.strip(" \t"), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None

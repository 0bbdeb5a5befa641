"""Byte ranges: which part of an image a request asks for (RFC 9110 section 14).

If a header asks for several ranges, only the first that can be satisfied is sent: a 206 describes itself, and a server
may send a subset of what was requested (section 15.3.7). Multipart answers are not needed; no device reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Section 14.1.1: range units are case-insensitive.
_RANGES_SPECIFIER = re.compile(r"bytes=(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)
# Section 14.1.2: an int-range or a suffix-range. Digits are ASCII.
_RANGE_SPEC = re.compile(r"(?P<first>[0-9]+)-(?P<last>[0-9]*)|-(?P<suffix>[0-9]+)")
# A server may ignore any Range (section 14.2). No client needs a longer one, and the limit bounds the cost of parsing.
MAX_HEADER_CHARS = 1024


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Part of an image: the offsets of its first and last byte."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.last - self.first + 1

    def content_range(self, complete_length: int) -> str:
        """The value of Content-Range (section 14.4)."""
        return f"bytes {self.first}-{self.last}/{complete_length}"


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """All requested ranges lie outside the image: 416 (section 15.5.17)."""


def requested_range(header: str | None, complete_length: int) -> ByteRange | Unsatisfiable | None:
    """The part of an image that a Range header asks for.

    Args:
        header: the field's value, if there is one.
        complete_length: the image's size in bytes, at least 1.

    Returns:
        The part, cut at the image's end; None if the header is missing, malformed or in another unit, and must be
        ignored (section 14.2).
    """
    if header is None or len(header) > MAX_HEADER_CHARS:
        return None
    specifier = _RANGES_SPECIFIER.fullmatch(header.strip(" \t"))
    if specifier is None:
        return None
    # Section 5.6.1.2: empty list elements are ignored.
    specs = [spec for element in specifier[1].split(",") if (spec := element.strip(" \t"))]
    if not specs:
        return None
    answer: ByteRange | None = None
    for spec in specs:
        match = _RANGE_SPEC.fullmatch(spec)
        if match is None:
            return None
        if match["suffix"] is not None:
            first, last = complete_length - min(int(match["suffix"]), complete_length), complete_length - 1
        else:
            first = int(match["first"])
            last = int(match["last"]) if match["last"] else max(first, complete_length - 1)
            if last < first:  # This makes the whole header invalid (section 14.1.1).
                return None
        if answer is None and first < complete_length:
            answer = ByteRange(first, min(last, complete_length - 1))
    return answer or Unsatisfiable()

"""The list of the devices that may register themselves: a MAC or the beginning of one on each line."""

from __future__ import annotations

import re

from ota_core.errors import OtaError

# About 200,000 MACs. A hook has five seconds, and larger batches have a common beginning.
MAX_ALLOW_LIST_BYTES = 4 * 1024 * 1024

# At least the three bytes that name a manufacturer (IEEE 802), in any of the spellings of a MAC.
_LINE = re.compile(r"([0-9A-Fa-f]{2})([:-]?)(?:[0-9A-Fa-f]{2}\2){1,4}[0-9A-Fa-f]{2}")
_MAX_SHOWN = 40


class AllowListMalformed(OtaError):  # noqa: N818 - the state of the list
    """A line is neither a MAC, nor the beginning of one, nor a comment."""

    def __init__(self, seen: str) -> None:
        super().__init__(
            "allow_list_malformed",
            f"{seen}; expected a MAC or its first bytes (24:6F:28) on each line, and comments after #. "
            "Correct the list and upload it again.",
        )


def parse_allow_list(raw: bytes) -> frozenset[str]:
    """The entries of a list, as hex digits in upper case without separators, six to twelve of them.

    Raises:
        AllowListMalformed: with the number of the line.
    """
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AllowListMalformed("the list is not UTF-8 text") from error
    entries = set()
    for number, line in enumerate(lines, 1):
        entry = line.split("#", 1)[0].strip()
        if not entry:
            continue
        if _LINE.fullmatch(entry) is None:
            raise AllowListMalformed(f"line {number} is {entry[:_MAX_SHOWN]!r}")
        entries.add(entry.replace(":", "").replace("-", "").upper())
    return frozenset(entries)


def is_listed(mac: str, entries: frozenset[str]) -> bool:
    """Whether a list has a MAC (`AA:BB:CC:DD:EE:FF`) or a beginning of it."""
    digits = mac.replace(":", "")
    return any(digits[:length] in entries for length in range(6, 13, 2))

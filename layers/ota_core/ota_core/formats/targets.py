"""Which devices a release is for: MAC addresses, tags and the targets file."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TARGETS = 1_000_000
# A MAC on a line of its own, with quotes, comma and indent, takes 24 bytes; no honest list needs twice that.
MAX_TARGETS_FILE_BYTES = 48 * MAX_TARGETS
# A device can still hold a manifest with this many.
MAX_TARGET_TAGS = 20

_TAG = re.compile(r"[a-z0-9][a-z0-9_.=-]{0,62}")
_NORMAL_MAC = re.compile(r"(?:[0-9A-F]{2}:){5}[0-9A-F]{2}")
_MAC = re.compile(r"([0-9A-Fa-f]{2})([:-]?)(?:[0-9A-Fa-f]{2}\2){4}[0-9A-Fa-f]{2}")
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_MAX_REPORTED = 10


@dataclass(frozen=True, slots=True)
class AllDevices:
    """The whole fleet of the product."""


@dataclass(frozen=True, slots=True)
class ListedDevices:
    """Devices named in the manifest itself: MACs as `AA:BB:CC:DD:EE:FF`, sorted, without duplicates."""

    macs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TargetsFile:
    """Devices named in `<stem>.targets.json`.

    Attributes:
        sha256: of the file's bytes, hex.
        count: of distinct devices in it.
    """

    sha256: str
    count: int


@dataclass(frozen=True, slots=True)
class TaggedDevices:
    """Devices that have any of these tags when the release is published; sorted, without duplicates."""

    tags: tuple[str, ...]


Targets = AllDevices | ListedDevices | TargetsFile | TaggedDevices


def normalise_mac(text: str) -> str | None:
    """`AA:BB:CC:DD:EE:FF` for a MAC in any of the accepted spellings (colons, dashes, none; any case), else None."""
    if _NORMAL_MAC.fullmatch(text):
        return text  # Nearly all are normal, and the rest of this takes twice as long.
    if _MAC.fullmatch(text) is None:
        return None
    digits = text.replace(":", "").replace("-", "").upper()
    return f"{digits[:2]}:{digits[2:4]}:{digits[4:6]}:{digits[6:8]}:{digits[8:10]}:{digits[10:]}"


def is_unicast(mac: str) -> bool:
    """Whether a normalised MAC can be one device's: neither a group's, as broadcast is, nor zero (IEEE 802)."""
    return int(mac[1], 16) % 2 == 0 and mac != "00:00:00:00:00:00"


def is_tag(text: str) -> bool:
    """Whether the text may be a device's tag, such as `beta` or `site=berlin`."""
    return _TAG.fullmatch(text) is not None


def parse_target_tags(items: Any) -> TaggedDevices:  # noqa: ANN401 - any JSON value
    """Check the list of tags that select a release's devices.

    Raises:
        DropRejected: TARGET_TAG_INVALID, or TARGETS_EMPTY for an empty list.
    """
    if not isinstance(items, list):
        raise _wrong_tag(f"'tags' is {strict_json.kind_of(items)}")
    if not items:
        raise DropRejected(
            RejectionCode.TARGETS_EMPTY,
            seen="the list of tags is empty",
            expected="at least one tag",
            remedy="Name tags with --target-tag, or leave it out to release to the whole fleet.",
        )
    wrong = [item for item in items if not isinstance(item, str) or not is_tag(item)]
    if wrong:
        raise _wrong_tag(f"a tag is {wrong[0]!r:.80}")
    tags = tuple(sorted(set(items)))
    if len(tags) > MAX_TARGET_TAGS:
        raise _wrong_tag(f"{len(tags)} tags are named")
    return TaggedDevices(tags)


def parse_targets_document(raw: bytes) -> list[str]:
    """Read a targets file: a JSON list of MACs, or `{"devices": [...]}`.

    Returns:
        MACs as `AA:BB:CC:DD:EE:FF`, sorted, without duplicates; 1 to `MAX_TARGETS` of them.

    Raises:
        DropRejected: not such a document, too many MACs, none, or invalid ones (with line numbers).
    """
    check_targets_file_size(len(raw))
    try:
        document = strict_json.loads(raw)
    except ValueError as error:
        raise _malformed(f"the targets file is not JSON ({error})", "a JSON list of MACs") from error
    names_before_list = 0
    if isinstance(document, dict) and list(document) == ["devices"]:
        document, names_before_list = document["devices"], 1
    if not isinstance(document, list):
        raise _malformed(
            f"the targets file is {strict_json.kind_of(document)}",
            'a JSON list of MACs, or {"devices": [...]} with nothing else in it',
        )
    return parse_mac_list(document, lambda indexes: _lines_of_strings(raw, indexes, names_before_list))


def check_targets_file_size(size: int) -> None:
    """Refuse a targets file that is too large to be read.

    Raises:
        DropRejected: TARGETS_MALFORMED.
    """
    if size > MAX_TARGETS_FILE_BYTES:
        raise _malformed(f"the targets file has {size} bytes", f"at most {MAX_TARGETS_FILE_BYTES}")


def check_targets_file(signed: TargetsFile, raw: bytes) -> list[str]:
    """Check a targets file against what the manifest says about it.

    Returns:
        Its MACs, like `parse_targets_document`.

    Raises:
        DropRejected: TARGETS_FILE_CHANGED, TARGETS_COUNT_MISMATCH, or what `parse_targets_document` raises.
    """
    digest = hashlib.sha256(raw).hexdigest()
    if digest != signed.sha256:
        raise DropRejected(
            RejectionCode.TARGETS_FILE_CHANGED,
            seen=f"the targets file's SHA-256 is {digest}",
            expected=f"{signed.sha256}, as the manifest says",
            remedy="Upload the exact .targets.json that `ota-sign sign` wrote, or sign again.",
        )
    macs = parse_targets_document(raw)
    if len(macs) != signed.count:
        raise DropRejected(
            RejectionCode.TARGETS_COUNT_MISMATCH,
            seen=f"the targets file lists {len(macs)} devices",
            expected=f"{signed.count}, as the manifest says",
            remedy="Sign again with `ota-sign sign --target`.",
        )
    return macs


def parse_mac_list(items: list[Any], lines_of: Callable[[list[int]], list[int]] | None = None) -> list[str]:
    """Check and normalise a list that should hold MACs.

    Args:
        items: as read from JSON.
        lines_of: returns the line numbers of items, given their ascending indexes; None if there are no lines.

    Returns and raises: like `parse_targets_document`.
    """
    if len(items) > MAX_TARGETS:
        raise DropRejected(
            RejectionCode.TARGETS_TOO_MANY,
            seen=f"{len(items)} devices are listed",
            expected=f"at most {MAX_TARGETS}",
            remedy="Split the list into several releases, or release to the whole fleet.",
        )
    if not items:
        raise DropRejected(
            RejectionCode.TARGETS_EMPTY,
            seen="the list of devices is empty",
            expected="at least one MAC",
            remedy="List devices, or leave --target out to release to the whole fleet.",
        )
    macs = set()
    invalid = []
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise _malformed(f"item {index + 1} of the list is {strict_json.kind_of(item)}", "a MAC as a string")
        mac = normalise_mac(item)
        if mac is None:
            invalid.append(index)
        else:
            macs.add(mac)
    if invalid:
        reported = invalid[:_MAX_REPORTED]
        places = (
            [f"line {line}" for line in lines_of(reported)] if lines_of else [f"item {index + 1}" for index in reported]
        )
        where = [f"{items[index][:40]!r} ({place})" for index, place in zip(reported, places, strict=True)]
        more = f" and {len(invalid) - _MAX_REPORTED} more" if len(invalid) > _MAX_REPORTED else ""
        raise DropRejected(
            RejectionCode.TARGET_MAC_INVALID,
            seen=f"not a MAC address: {', '.join(where)}{more}",
            expected="six bytes such as AA:BB:CC:DD:EE:FF (dashes, no separator and lower case are fine)",
            remedy="Correct the list and sign again.",
        )
    return sorted(macs)


def _lines_of_strings(raw: bytes, indexes: list[int], strings_before: int) -> list[int]:
    """The line numbers on which strings of a JSON text begin, not counting the first `strings_before`."""
    text = raw.decode()
    starts = (match.start() for match in _JSON_STRING.finditer(text))
    wanted = {index + strings_before for index in indexes}
    found = itertools.islice((start for at, start in enumerate(starts) if at in wanted), len(wanted))
    return [text.count("\n", 0, start) + 1 for start in found]


def _wrong_tag(seen: str) -> DropRejected:
    return DropRejected(
        RejectionCode.TARGET_TAG_INVALID,
        seen=seen,
        expected=f"up to {MAX_TARGET_TAGS} tags such as beta or site=berlin (a-z, 0-9, _ . = -; at most 63 characters)",
        remedy="Sign again with --target-tag.",
    )


def _malformed(seen: str, expected: str) -> DropRejected:
    return DropRejected(
        RejectionCode.TARGETS_MALFORMED,
        seen=seen,
        expected=expected,
        remedy="`ota-sign sign --target FILE` writes it in the right form.",
    )

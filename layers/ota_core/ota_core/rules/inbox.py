"""The inbox: which object belongs to which drop.

`inbox/<any/path>/<stem>.bin` and `inbox/<any/path>/<stem>.manifest.json` make a drop; `<stem>.targets.json` is a third
member if the manifest names it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from ota_core.errors import DropRejected, RejectionCode

INBOX = "inbox/"
REJECTED = "rejected/"
REASON_SUFFIX = ".reason.json"
ARCHIVE = "archive/"
STATUS = "status/"
# S3 allows 1,024 bytes, and a drop's files get longer names when they are archived or rejected.
MAX_KEY_CHARS = 300
_MAX_MOVED_CHARS = 900

# Printable ASCII without the backslash: every shell, log and console shows such a key unchanged.
_SEGMENT = re.compile(r"[ -\[\]-~]+")


class Member(StrEnum):
    """The files of a drop, by the end of their names."""

    IMAGE = ".bin"
    MANIFEST = ".manifest.json"
    TARGETS = ".targets.json"


@dataclass(frozen=True, slots=True)
class Drop:
    """The place of a drop in the inbox: `inbox/<any/path>/<stem>`, without a member's suffix."""

    stem_key: str

    def key(self, member: Member) -> str:
        """The object key of a member."""
        return self.stem_key + member.value


def locate(key: str) -> Drop:
    """The drop that an object of the inbox belongs to.

    Raises:
        DropRejected: a key that could mislead a person or a program, or a file that belongs to no drop.
    """
    path = key.removeprefix(INBOX)
    segments = path.split("/")
    if len(key) > MAX_KEY_CHARS:
        raise _bad_key(key, f"has {len(key)} characters", f"at most {MAX_KEY_CHARS}")
    if any(_SEGMENT.fullmatch(segment) is None for segment in segments):
        raise _bad_key(
            key, "has an empty part, a control character, a backslash or a non-ASCII character", "printable ASCII"
        )
    if not all(_is_plain(segment) for segment in segments):
        raise _bad_key(key, "contains '.' or '..' as a part, or '..' within one", "a plain path")
    for member in Member:
        if path.endswith(member.value) and segments[-1] != member.value:
            drop = Drop(key.removesuffix(member.value))
            # A member whose key is short enough would wait forever for one whose key is not.
            longest = max(len(drop.key(other)) for other in Member)
            if longest > MAX_KEY_CHARS:
                raise _bad_key(
                    key, f"gives another file of the drop a key of {longest} characters", f"at most {MAX_KEY_CHARS}"
                )
            return drop
    raise DropRejected(
        RejectionCode.INBOX_FILE_UNKNOWN,
        seen=f"{key!r} is not part of a drop",
        expected="<stem>.bin, <stem>.manifest.json or <stem>.targets.json",
        remedy="Drop the files that `ota-sign sign` lists, under the names it gives them.",
    )


def unreadable(key: str) -> DropRejected:
    """The rejection of a file that S3 does not hand out."""
    return DropRejected(
        RejectionCode.INBOX_FILE_UNREADABLE,
        seen=f"{key} is in an archive storage class, or encrypted with a key that the pipeline lacks",
        expected="the storage class STANDARD and the bucket's own encryption",
        remedy="Upload it again without --storage-class, --sse, --sse-c and --sse-kms-key-id.",
    )


def moved_key(key: str, destination: str) -> str:
    """Where an inbox object goes when it is archived or rejected: a plain key, different for every inbox key.

    Misleading characters are percent-encoded. A key that becomes too long for S3 is cut, and its SHA-256 appended. The
    result is never a reason's key, so nobody can drop a reason.
    """
    moved = destination + "/".join(_plain(segment) for segment in key.removeprefix(INBOX).split("/"))
    if moved.endswith(REASON_SUFFIX):
        moved = moved.removesuffix(REASON_SUFFIX) + REASON_SUFFIX.replace(".json", "%2Ejson")
    if len(moved) > _MAX_MOVED_CHARS:
        digest = hashlib.sha256(key.encode()).hexdigest()
        # Nothing else produces %%, so no shorter key can get the same name. There is no / before it, because the
        # beginning may end with one, or with a dot.
        return f"{moved[: _MAX_MOVED_CHARS - len(digest) - 2]}%%{digest}"
    return moved


def _is_plain(segment: str) -> bool:
    return _SEGMENT.fullmatch(segment) is not None and segment != "." and ".." not in segment


def _plain(segment: str) -> str:
    # An empty part becomes a lone %, which no encoding produces.
    if not segment:
        return "%"
    # The % itself is encoded too, so that two keys never become one.
    if _is_plain(segment) and "%" not in segment:
        return segment
    return quote(segment, safe="").replace(".", "%2E")


def reason_key(key: str) -> str:
    """Where the reason for a rejection is written: beside the members, under the stem."""
    return f"{_moved_stem(key, REJECTED)}{REASON_SUFFIX}"


def status_key(key: str) -> str:
    """Where the result of a drop is written, good or bad: under the stem of the member `key`."""
    return f"{_moved_stem(key, STATUS)}.json"


def _moved_stem(key: str, destination: str) -> str:
    moved = moved_key(key, destination)
    # One suffix at most: `app.manifest.json.bin` and `app.bin` belong to different drops.
    suffix = next((member.value for member in Member if moved.endswith(member.value)), "")
    return moved.removesuffix(suffix)


def _bad_key(key: str, seen: str, expected: str) -> DropRejected:
    return DropRejected(
        RejectionCode.INBOX_KEY_INVALID,
        seen=f"the object key {key[:MAX_KEY_CHARS]!r} {seen}",
        expected=expected,
        remedy="Drop the files again under a plain path such as inbox/my-product/app.bin.",
    )

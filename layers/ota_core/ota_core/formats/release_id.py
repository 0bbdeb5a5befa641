"""The release id: 32 hex digits of the SHA-256 of the manifest's payload. One signed manifest is one release."""

from __future__ import annotations

import hashlib
import re

_RELEASE_ID = re.compile(r"[0-9a-f]{32}")


def release_id_of(payload: bytes) -> str:
    """The id of the release that a manifest's payload becomes, however often it is dropped."""
    return hashlib.sha256(payload).hexdigest()[:32]


def is_release_id(text: str) -> bool:
    """Whether the text has the form of a release id."""
    return _RELEASE_ID.fullmatch(text) is not None

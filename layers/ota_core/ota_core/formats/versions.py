"""Versions: SemVer 2.0.0 (https://semver.org/spec/v2.0.0.html)."""

from __future__ import annotations

from functools import lru_cache

from semver import Version

AUTO = "auto"
# ESP-IDF's app descriptor holds 32 bytes; the rest is room for pre-release and build metadata in storage keys.
MAX_VERSION_CHARS = 64


def is_version(text: str) -> bool:
    """Whether the text is a SemVer 2.0.0 version that is short enough to store."""
    return len(text) <= MAX_VERSION_CHARS and Version.is_valid(text)


# A fleet runs few versions, so another device has usually reported the same one before. Parsing two versions takes a
# quarter of a check-in's own time.
_REMEMBERED = 256


@lru_cache(_REMEMBERED)
def of_app(app_version: str) -> str | None:
    """The version in an app descriptor, or None. `git describe` puts a `v` before it."""
    text = app_version.removeprefix("v")
    return text if is_version(text) else None


@lru_cache(_REMEMBERED)
def is_lower(version: str, other: str) -> bool:
    """Whether `version` has lower precedence than `other` (SemVer section 11; build metadata does not count)."""
    return Version.parse(version) < Version.parse(other)


def next_patch(latest: str | None) -> str:
    """The version that `auto` stands for: the next patch after the latest, or 0.0.1 for a product's first."""
    if latest is None:
        return "0.0.1"
    return str(Version.parse(latest).bump_patch())

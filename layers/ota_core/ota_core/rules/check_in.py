"""Whether a device that asks should act on a release: the rule behind `GET /devices/{mac}/update`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ota_core.formats import versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The latest release that targets a device and whose wave has reached it.

    Attributes:
        envelope: the signed manifest's JSON.
        expires_at: aware.
    """

    release_id: str
    version: str
    envelope: str
    allow_downgrade: bool
    expires_at: datetime


def should_act(candidate: Candidate, running_version: str | None, now: datetime) -> bool:
    """Whether a device should act on its latest release.

    Args:
        candidate: the release.
        running_version: what the device runs, from its app descriptor; None if it does not say.
        now: aware.

    Returns:
        True if the release has not expired and is newer than what runs (SemVer precedence). Being different is enough
        if the release allows a downgrade, or if what runs is not SemVer (an Arduino core's string).
    """
    if candidate.expires_at <= now:
        return False
    if running_version is None:
        return True
    running = versions.of_app(running_version)
    if running is None:
        return candidate.version != running_version
    if candidate.allow_downgrade:
        return candidate.version != running
    return versions.is_lower(running, candidate.version)

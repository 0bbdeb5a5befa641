"""How far along a release is."""

from __future__ import annotations

from enum import StrEnum


class ReleaseState(StrEnum):
    """The states of a release, in the order in which it goes through them."""

    REGISTERED = "registered"
    ROLLING_OUT = "rolling_out"
    PUBLISHED = "published"
    WITHDRAWN = "withdrawn"

    @property
    def is_under_way(self) -> bool:
        """Whether an execution is still working on it."""
        return self in (ReleaseState.REGISTERED, ReleaseState.ROLLING_OUT)

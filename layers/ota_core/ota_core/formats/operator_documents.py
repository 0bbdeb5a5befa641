"""What operators read about releases and devices: the documents of the operators' API, ready to be written as JSON.

Each has the name and the fields of its schema in `api/operator.yaml`. Times are RFC 3339 texts.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Action(TypedDict):
    """An action that would change a release now."""

    action: str
    wave: NotRequired[int]


class Release(TypedDict):
    """A release in a list."""

    release_id: str
    product: str
    version: str
    state: str
    changelog: str
    target_count: int | None
    registered_at: str
    published_at: str | None
    expires_at: str
    withdrawn_because: str | None
    is_staged: bool
    waves_published: int
    cohort_percent: float
    wave_published_at: str | None
    is_paused: bool
    is_promoted: bool
    is_aborted: bool
    allowed_actions: list[Action]


class ReleasePage(TypedDict):
    """Releases, newest first."""

    releases: list[Release]
    next: NotRequired[str]


class FailureReason(TypedDict):
    """How many devices failed in one state with one reason."""

    state: str
    reason: str | None
    count: int


class Failing(TypedDict):
    """The devices that count as failed."""

    count: int
    reasons: list[FailureReason]


class Wave(TypedDict):
    """A wave of a rollout; `soak` is a duration such as `3600s`."""

    number: int
    percent: float
    soak: str
    is_published: bool


class Audited(TypedDict):
    """What an operator did."""

    at: str
    caller: str
    action: str
    details: dict[str, Any]


class ReleaseDetails(Release):
    """Everything about a release."""

    sequence: int
    chip: str
    keyid: str
    image_size: int
    image_sha256: str
    allow_downgrade: bool
    warnings: list[str]
    manifest: dict[str, Any]
    rollout: dict[str, Any] | None
    waves: list[Wave]
    decisions: list[dict[str, Any]]
    expected: int | None
    population: int
    failing: Failing
    devices: dict[str, int]
    actions: list[Audited]
    execution: str


class TimelinePoint(TypedDict):
    """How many devices were in which state at a time."""

    at: str
    devices: dict[str, int]


class Timeline(TypedDict):
    """A release's devices over time."""

    points: list[TimelinePoint]


class DeviceInRelease(TypedDict):
    """A device's state in a release."""

    mac: str
    state: str
    progress: int | None
    reason: str | None
    running_version: str | None
    updated_at: str


class DevicePage(TypedDict):
    """A release's devices, by MAC."""

    devices: list[DeviceInRelease]
    next: NotRequired[str]


class Report(TypedDict):
    """One thing that a device reported about a release, and when it did so first and last."""

    release_id: str
    version: str
    state: str
    reason: str | None
    running_version: str | None
    reported_at: str
    last_reported_at: str


class Device(TypedDict):
    """A device and a page of its history, newest first."""

    mac: str
    product: str | None
    running_version: str | None
    last_seen_at: str | None
    tags: list[str]
    history: list[Report]
    next: NotRequired[str]


class TaggedDevice(TypedDict):
    """A device's tags."""

    mac: str
    tags: list[str]

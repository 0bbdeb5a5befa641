"""What a rollout does next, and which devices a wave reaches. Pure: time and counts are arguments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ota_core.formats.rfc3339 import format_time
from ota_core.formats.rollout_plan import AbortCriteria, Rollout

if TYPE_CHECKING:
    from ota_core.formats import contracts

# Failures come early, so a wave is looked at after a sixteenth of its time, then an eighth, and so on.
_CHECKPOINTS = 5
_BY_OPERATOR = "an operator aborted it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is known about a rollout that is under way.

    Attributes:
        waves_published: how many waves went out.
        published_at: when the last of them did.
        is_paused, is_promoted, is_aborted: what operators asked for; promoted ends the current soak.
        expected: the known devices that the waves so far reach.
        proven: of the expected, those that are certain to exist: they are listed, or once reported with a certificate.
            Anyone with the devices' API key can fake others.
        reported: of the expected, those that reported anything about this release.
        ended: of the expected, those that installed, failed, refused or rolled back.
        installed: of all that reported, those that run the release.
        failed: of all that reported, those that failed, refused or rolled back.
    """

    waves_published: int
    published_at: datetime | None
    is_paused: bool = False
    is_promoted: bool = False
    is_aborted: bool = False
    expected: int = 0
    proven: int = 0
    reported: int = 0
    ended: int = 0
    installed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class PublishWave:
    """Tell the devices of a wave (counted from 1) that earlier waves did not reach."""

    number: int
    percent: float
    earlier_percent: float


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Look again at this time."""

    moment: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Stop the release."""

    why: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Paused: nothing happens until an operator acts."""


@dataclass(frozen=True, slots=True)
class Complete:
    """Every wave went out and was watched."""


Step = PublishWave | WaitUntil | Abort | Hold | Complete


def fraction(salt: str, mac: str) -> int:
    """Where a device stands in a release's order: 0 to 2**32 - 1, the first 4 bytes of SHA-256(salt || MAC)."""
    return int.from_bytes(hashlib.sha256(f"{salt}{mac}".encode()).digest()[:4])


def in_cohort(salt: str, mac: str, percent: float) -> bool:
    """Whether a device is among the first `percent` of a release.

    Both sides are exact in IEEE 754 doubles, so that Python, C++ and SQL agree at every boundary.
    """
    return percent >= 100 or fraction(salt, mac) * 100 < percent * 2**32  # No fraction is beyond 100 percent.


def next_step(rollout: Rollout | None, progress: Progress, now: datetime) -> Step:
    """Decide what a release does now; one without a rollout goes out at once and is not watched."""
    if rollout is None:
        return _next_step_without_waves(progress)
    stop = _reason_to_abort(rollout.abort, progress, now)
    if stop is not None:
        return Abort(stop)
    if progress.is_paused:
        return Hold()
    wait = _reason_to_wait(rollout, progress, now)
    if wait is not None:
        return wait
    if progress.waves_published == len(rollout.waves):
        return Complete()
    number = progress.waves_published + 1
    earlier = rollout.waves[number - 2].percent if number > 1 else 0
    return PublishWave(number, rollout.waves[number - 1].percent, earlier)


def describe_step(step: Step) -> contracts.Step:
    """A decision in the form that the state machine and the record use."""
    match step:
        case PublishWave(number, percent, earlier_percent):
            return {"step": "publish", "wave": number, "percent": percent, "earlier_percent": earlier_percent}
        case WaitUntil(moment, why):
            # Rounded up to a whole second: a look that comes a moment too early would only wait again.
            return {"step": "wait", "until": format_time(moment + timedelta(microseconds=999_999)), "why": why}
        case Abort(why):
            return {"step": "abort", "why": why}
        case Hold():
            return {"step": "hold"}
        case Complete():
            return {"step": "complete"}


def describe_numbers(progress: Progress) -> contracts.Numbers:
    """The facts behind a decision, for the record."""
    return {
        "waves_published": progress.waves_published,
        "expected": progress.expected,
        "proven": progress.proven,
        "reported": progress.reported,
        "ended": progress.ended,
        "installed": progress.installed,
        "failed": progress.failed,
    }


def _next_step_without_waves(progress: Progress) -> Step:
    if progress.is_aborted:
        return Abort(_BY_OPERATOR)
    return Complete() if progress.waves_published else PublishWave(1, 100, 0)


def _reason_to_abort(abort: AbortCriteria, progress: Progress, now: datetime) -> str | None:
    if progress.is_aborted:
        return _BY_OPERATOR
    if progress.published_at is None:
        return None
    ended = progress.installed + progress.failed
    if ended >= abort.min_devices and progress.failed * 100 > abort.failed_percent * ended:
        return (
            f"{_share(progress.failed, ended)} failed ({progress.failed} of {ended}); limit {abort.failed_percent:g} %"
        )
    silent = progress.proven - progress.ended
    if (
        now - progress.published_at >= abort.report_timeout
        and progress.proven >= abort.min_devices
        and silent * 100 > abort.silent_percent * progress.proven
    ):
        return (
            f"{_share(silent, progress.proven)} did not finish in time ({silent} of {progress.proven});"
            f" limit {abort.silent_percent:g} %"
        )
    return None


def _share(part: int, whole: int) -> str:
    """Percent with one decimal, so that a share just above its limit is not shown as the limit."""
    return f"{100 * part / whole:.1f} %"


def _reason_to_wait(rollout: Rollout, progress: Progress, now: datetime) -> WaitUntil | None:
    if progress.published_at is None:
        if rollout.start_at is not None and now < rollout.start_at:
            return WaitUntil(rollout.start_at, "the rollout starts then")
    elif not progress.is_promoted:
        look = _next_look(rollout, progress, progress.published_at, now)
        if look is not None:
            return WaitUntil(look, f"wave {progress.waves_published} is being watched")
    if rollout.window is not None and progress.waves_published < len(rollout.waves):
        opening = rollout.window.next_opening(now)
        if opening > now:
            return WaitUntil(opening, "the window opens then")
    return None


def _next_look(rollout: Rollout, progress: Progress, published_at: datetime, now: datetime) -> datetime | None:
    """When to look at the current wave again; None when it has been watched long enough.

    A wave is over when its soak is over and every device that it reached has ended or run out of time to report.
    """
    length = rollout.waves[progress.waves_published - 1].soak
    if progress.ended < progress.expected:
        length = max(length, rollout.abort.report_timeout)
    looks = [published_at + length / 2**step for step in reversed(range(_CHECKPOINTS))]
    return next((look for look in looks if look > now), None)

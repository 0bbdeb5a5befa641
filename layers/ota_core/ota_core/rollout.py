"""Staged rollouts: which devices a wave reaches, and what happens next. Pure: time and counts are given."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from .errors import DropRejected, RejectionCode
from .rfc3339 import format_time, parse_time

MAX_WAVES = 20
MAX_DURATION = timedelta(days=90)
MAX_DEVICES = 2**31 - 1

_DURATION = re.compile(r"([0-9]{1,7})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
# Failures come early, so a wave is looked at after a sixteenth of its time, then an eighth, and so on.
_CHECKPOINTS = 5
_BY_OPERATOR = "an operator aborted it"


@dataclass(frozen=True, slots=True)
class Wave:
    """A share of the devices, and how long to watch it before the next one follows."""

    percent: float
    soak: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class AbortCriteria:
    """When a release stops itself.

    Attributes:
        failed_percent: of the devices that ended (installed or failed), more than this failed.
        silent_percent: of the devices that were told, more than this did not end within `report_timeout`, be it that
            they never reported or that they stopped on the way.
        min_devices: fewer than this prove nothing, and no criterion applies.
        report_timeout: after it a device that has not ended is silent.
    """

    failed_percent: float = 5
    silent_percent: float = 50
    min_devices: int = 20
    report_timeout: timedelta = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Window:
    """The time of day in which waves start; `closes` before `opens` spans midnight."""

    opens: time
    closes: time
    timezone: str

    def next_opening(self, now: datetime) -> datetime:
        """`now` inside the window, else when it opens next."""
        local = now.astimezone(ZoneInfo(self.timezone))
        time_of_day = local.time().replace(tzinfo=None)
        if self.opens < self.closes:
            is_open = self.opens <= time_of_day < self.closes
        else:
            is_open = time_of_day >= self.opens or time_of_day < self.closes
        if is_open:
            return now
        days = 0 if time_of_day < self.opens else 1
        opening = datetime.combine(local.date() + timedelta(days=days), self.opens, tzinfo=local.tzinfo)
        return opening.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Rollout:
    """The signer's plan: rising waves that end at 100 percent."""

    waves: tuple[Wave, ...]
    abort: AbortCriteria = AbortCriteria()
    start_at: datetime | None = None
    window: Window | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is known of a rollout that is under way.

    Attributes:
        waves_published: how many waves went out.
        published_at: when the last of them did.
        is_paused, is_promoted, is_aborted: what operators asked for; promoted ends the present soak.
        expected: devices that the waves so far reach, as far as they are known.
        proven: of the expected, those that are certain to exist: they are listed, or once reported with a certificate.
            Who has the devices' API key can make up others.
        reported: of the expected, those that reported anything of this release.
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
    """Tell the devices of a wave (counted from 1) that earlier waves did not tell."""

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
    return fraction(salt, mac) * 100 < percent * 2**32


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


def describe_step(step: Step) -> dict[str, object]:
    """A decision as the state machine and the record read it."""
    match step:
        case PublishWave(number, percent, earlier_percent):
            return {"step": "publish", "wave": number, "percent": percent, "earlier_percent": earlier_percent}
        case WaitUntil(moment, why):
            # Up to the next whole second: a look that comes a moment too early would only wait again.
            return {"step": "wait", "until": format_time(moment + timedelta(microseconds=999_999)), "why": why}
        case Abort(why):
            return {"step": "abort", "why": why}
        case Hold():
            return {"step": "hold"}
        case Complete():
            return {"step": "complete"}


def describe_numbers(progress: Progress) -> dict[str, object]:
    """The facts of a decision, for the record."""
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
        return f"{progress.failed} of {ended} devices failed; at most {abort.failed_percent:g} % may"
    silent = progress.proven - progress.ended
    if (
        now - progress.published_at >= abort.report_timeout
        and progress.proven >= abort.min_devices
        and silent * 100 > abort.silent_percent * progress.proven
    ):
        return f"{silent} of {progress.proven} devices did not finish in time; at most {abort.silent_percent:g} % may"
    return None


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
    """When to look at the present wave again; None when it has been watched long enough.

    A wave is over when its soak is, and every device that it reached has ended or had its time to report.
    """
    length = rollout.waves[progress.waves_published - 1].soak
    if progress.ended < progress.expected:
        length = max(length, rollout.abort.report_timeout)
    looks = [published_at + length / 2**step for step in reversed(range(_CHECKPOINTS))]
    return next((look for look in looks if look > now), None)


def parse_rollout(document: Any) -> Rollout:  # noqa: ANN401 - whatever JSON holds
    """Read and check the `rollout` of a manifest.

    Raises:
        DropRejected: ROLLOUT_INVALID.
    """
    fields = _object(document, "rollout", {"waves", "abort", "start_at", "window"})
    return Rollout(
        waves=_waves(fields.get("waves")),
        abort=_abort(fields.get("abort", {})),
        start_at=_start(fields["start_at"]) if "start_at" in fields else None,
        window=_window(fields["window"]) if "window" in fields else None,
    )


def write_rollout(rollout: Rollout) -> dict[str, object]:
    """The `rollout` of a manifest; `parse_rollout` reads it back to the same."""
    document: dict[str, object] = {
        "waves": [{"percent": wave.percent, "soak": _write_duration(wave.soak)} for wave in rollout.waves],
        "abort": {
            "failed_percent": rollout.abort.failed_percent,
            "silent_percent": rollout.abort.silent_percent,
            "min_devices": rollout.abort.min_devices,
            "report_timeout": _write_duration(rollout.abort.report_timeout),
        },
    }
    if rollout.start_at is not None:
        document["start_at"] = format_time(rollout.start_at)
    if rollout.window is not None:
        document["window"] = {
            "from": f"{rollout.window.opens:%H:%M}",
            "to": f"{rollout.window.closes:%H:%M}",
            "timezone": rollout.window.timezone,
        }
    return document


def _write_duration(duration: timedelta) -> str:
    return f"{int(duration.total_seconds())}s"


def _waves(listed: Any) -> tuple[Wave, ...]:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_WAVES:
        raise _invalid("'waves' is missing, empty or too long", f"a list of 1 to {MAX_WAVES} waves")
    waves = []
    for item in listed:
        fields = _object(item, "a wave", {"percent", "soak"})
        waves.append(Wave(_percent(fields.get("percent"), "percent"), _duration(fields.get("soak", "0s"))))
    percents = [wave.percent for wave in waves]
    if percents[0] <= 0 or any(later <= earlier for earlier, later in itertools.pairwise(percents)):
        raise _invalid(f"the waves' percentages are {_shown(percents)}", "rising ones above 0")
    if percents[-1] != 100:
        raise _invalid(f"the last wave reaches {percents[-1]:g} percent", "100")
    return tuple(waves)


def _abort(document: Any) -> AbortCriteria:  # noqa: ANN401 - whatever JSON holds
    fields = _object(document, "'abort'", {"failed_percent", "silent_percent", "min_devices", "report_timeout"})
    default = AbortCriteria()
    min_devices = fields.get("min_devices", default.min_devices)
    if not isinstance(min_devices, int) or isinstance(min_devices, bool) or not 1 <= min_devices <= MAX_DEVICES:
        raise _invalid(f"'min_devices' is {min_devices!r}"[:80], f"an integer from 1 to {MAX_DEVICES}")
    return AbortCriteria(
        failed_percent=_percent(fields.get("failed_percent", default.failed_percent), "failed_percent"),
        silent_percent=_percent(fields.get("silent_percent", default.silent_percent), "silent_percent"),
        min_devices=min_devices,
        report_timeout=_duration(fields["report_timeout"]) if "report_timeout" in fields else default.report_timeout,
    )


def _window(document: Any) -> Window:  # noqa: ANN401 - whatever JSON holds
    fields = _object(document, "'window'", {"from", "to", "timezone"})
    opens, closes = _time_of_day(fields.get("from")), _time_of_day(fields.get("to"))
    if opens == closes:
        raise _invalid("the window opens and closes at the same time", "two different times")
    return Window(opens, closes, _timezone(fields.get("timezone")))


def _object(document: Any, what: str, allowed: set[str]) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(document, dict):
        raise _invalid(f"{what} is no object", "a JSON object")
    unknown = sorted(set(document) - allowed)
    if unknown:
        raise _invalid(f"{what} has unknown fields {_shown(unknown)}", f"only {', '.join(sorted(allowed))}")
    return document


def _percent(value: Any, name: str) -> float:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 100:
        raise _invalid(f"{name!r} is {value!r}"[:80], "a number from 0 to 100")
    return float(value)


def _duration(value: Any) -> timedelta:  # noqa: ANN401 - whatever JSON holds
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    duration = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    if duration is None or duration > MAX_DURATION:
        raise _invalid(f"a duration is {value!r}"[:80], "such as 90s, 30m, 24h or 7d, at most 90d")
    return duration


def _time_of_day(value: Any) -> time:  # noqa: ANN401 - whatever JSON holds
    match = _TIME_OF_DAY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _invalid(f"the window has {value!r}"[:80], "times such as 01:00")
    return time(int(match[1]), int(match[2]))


def _timezone(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    try:
        return ZoneInfo(value).key
    except (TypeError, ValueError, OSError, KeyError) as error:  # What ZoneInfo raises for odd names.
        raise _invalid(f"the timezone is {value!r}"[:80], "a name of the IANA database, as Europe/Berlin") from error


def _start(value: Any) -> datetime:  # noqa: ANN401 - whatever JSON holds
    try:
        return parse_time(value)
    except ValueError as error:
        raise _invalid(f"'start_at' is {value!r}"[:80], "an RFC 3339 time such as 2026-01-31T12:00:00Z") from error


def _shown(items: list[Any]) -> str:
    return ", ".join(f"{item:g}" if isinstance(item, float) else repr(item)[:40] for item in items[:10])


def _invalid(seen: str, expected: str) -> DropRejected:
    return DropRejected(
        RejectionCode.ROLLOUT_INVALID,
        seen=f"the rollout is wrong: {seen}",
        expected=expected,
        next_step="Correct the rollout file and sign again with --rollout.",
    )

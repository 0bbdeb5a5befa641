"""The rollout that a manifest plans: its waves, what stops it, when it starts."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats.fields import Fields
from ota_core.formats.rfc3339 import format_time, parse_time

MAX_WAVES = 20
MAX_DURATION = timedelta(days=90)
MAX_DEVICES = 2**31 - 1

_DURATION = re.compile(r"([0-9]{1,7})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TIME_OF_DAY = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")


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
        silent_percent: of the devices that were told, more than this did not end within `report_timeout`: they never
            reported, or stopped on the way.
        min_devices: with fewer devices no criterion applies, because they prove nothing.
        report_timeout: a device that has not ended by then counts as silent.
    """

    failed_percent: float = 5.0
    silent_percent: float = 50.0
    min_devices: int = 20
    report_timeout: timedelta = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Window:
    """The time of day in which waves start; `closes` before `opens` spans midnight."""

    opens: time
    closes: time
    timezone: str

    def next_opening(self, now: datetime) -> datetime:
        """`now` if the window is open, otherwise when it opens next."""
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


def parse_rollout(document: Any) -> Rollout:  # noqa: ANN401 - any JSON value
    """Read and check the `rollout` of a manifest.

    Raises:
        DropRejected: ROLLOUT_INVALID.
    """
    fields = _fields(document, "it", "waves", "abort", "start_at", "window")
    return Rollout(
        waves=_waves(fields.value("waves")),
        abort=_abort(fields.value("abort")) if "abort" in fields else AbortCriteria(),
        start_at=_start(fields.value("start_at")) if "start_at" in fields else None,
        window=_window(fields.value("window")) if "window" in fields else None,
    )


def write_rollout(rollout: Rollout) -> dict[str, object]:
    """The `rollout` of a manifest; `parse_rollout` reverses it."""
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


def _waves(listed: Any) -> tuple[Wave, ...]:  # noqa: ANN401 - any JSON value
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_WAVES:
        raise _invalid("'waves' is missing, empty or too long", f"a list of 1 to {MAX_WAVES} waves")
    waves = []
    for item in listed:
        fields = _fields(item, "a wave", "percent", "soak")
        waves.append(Wave(fields.number("percent", 0, 100), _duration(fields, "soak", timedelta(0))))
    percents = [wave.percent for wave in waves]
    if percents[0] <= 0 or any(later <= earlier for earlier, later in itertools.pairwise(percents)):
        raise _invalid(f"the waves' percentages are {_shown(percents)}", "rising percentages above 0")
    if percents[-1] != 100:
        raise _invalid(f"the last wave reaches {percents[-1]:g} percent", "100")
    return tuple(waves)


def _abort(document: Any) -> AbortCriteria:  # noqa: ANN401 - any JSON value
    fields = _fields(document, "'abort'", "failed_percent", "silent_percent", "min_devices", "report_timeout")
    default = AbortCriteria()
    return AbortCriteria(
        failed_percent=fields.number("failed_percent", 0, 100, default.failed_percent),
        silent_percent=fields.number("silent_percent", 0, 100, default.silent_percent),
        min_devices=fields.integer("min_devices", 1, MAX_DEVICES, default.min_devices),
        report_timeout=_duration(fields, "report_timeout", default.report_timeout),
    )


def _window(document: Any) -> Window:  # noqa: ANN401 - any JSON value
    fields = _fields(document, "'window'", "from", "to", "timezone")
    opens, closes = _time_of_day(fields, "from"), _time_of_day(fields, "to")
    if opens == closes:
        raise _invalid("the window opens and closes at the same time", "two different times")
    return Window(opens, closes, _timezone(fields.value("timezone")))


def _fields(document: Any, where: str, *allowed: str) -> Fields:  # noqa: ANN401 - any JSON value
    fields = Fields(document, where, _invalid)
    fields.allow_only((), allowed)
    return fields


def _duration(fields: Fields, name: str, default: timedelta) -> timedelta:
    if name not in fields:
        return default
    value = fields.value(name)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    duration = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    if duration is None or duration > MAX_DURATION:
        raise _invalid(f"{name!r} is {value!r}"[:80], "a duration such as 90s, 30m, 24h or 7d, at most 90d")
    return duration


def _time_of_day(fields: Fields, name: str) -> time:
    text = fields.matching(name, _TIME_OF_DAY, "a time of day such as 01:00")
    return time.fromisoformat(text)


def _timezone(value: Any) -> str:  # noqa: ANN401 - any JSON value
    try:
        return ZoneInfo(value).key
    except (TypeError, ValueError, OSError, KeyError) as error:  # What ZoneInfo raises for odd names.
        raise _invalid(f"the timezone is {value!r}"[:80], "an IANA time zone name such as Europe/Berlin") from error


def _start(value: Any) -> datetime:  # noqa: ANN401 - any JSON value
    try:
        return parse_time(value)
    except ValueError as error:
        raise _invalid(f"'start_at' is {value!r}"[:80], "an RFC 3339 time such as 2026-01-31T12:00:00Z") from error


def _shown(items: list[Any]) -> str:
    return ", ".join(f"{item:g}" if isinstance(item, float) else repr(item)[:40] for item in items[:10])


def _invalid(seen: str, expected: str) -> DropRejected:
    return DropRejected(
        RejectionCode.ROLLOUT_INVALID,
        seen=f"the rollout is invalid: {seen}",
        expected=expected,
        remedy="Correct the rollout file and sign again with --rollout.",
    )

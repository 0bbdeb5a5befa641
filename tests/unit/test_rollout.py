"""The arithmetic of waves and the decisions of a rollout."""

import json
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.errors import DropRejected
from ota_core.formats.rfc3339 import parse_time
from ota_core.formats.rollout_plan import (
    MAX_DURATION,
    MAX_WAVES,
    AbortCriteria,
    Rollout,
    Wave,
    Window,
    parse_rollout,
    write_rollout,
)
from ota_core.rules.rollout import (
    Abort,
    Complete,
    Hold,
    Progress,
    PublishWave,
    WaitUntil,
    describe_step,
    fraction,
    in_cohort,
    next_step,
)

VECTORS = Path(__file__).parents[1] / "vectors"
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
THREE_WAVES = Rollout(
    (Wave(1, HOUR), Wave(10, HOUR), Wave(100)), AbortCriteria(min_devices=20, report_timeout=HOUR / 2)
)

macs = st.integers(0, 2**48 - 1).map(lambda number: ":".join(f"{byte:02X}" for byte in number.to_bytes(6)))
percents = st.floats(0.001, 99.999)
plans = st.builds(
    lambda rising, soaks: Rollout(tuple(Wave(percent, HOUR * soaks) for percent in [*sorted(rising), 100.0])),
    st.sets(percents, max_size=5),
    st.integers(0, 3),
)


@given(st.text(), macs, percents, percents)
def test_later_waves_contain_the_earlier_ones(salt, mac, one, other):
    low, high = sorted((one, other))
    assert not in_cohort(salt, mac, low) or in_cohort(salt, mac, high)


@given(st.text(), macs)
def test_every_device_is_in_the_whole_and_none_in_nothing(salt, mac):
    assert in_cohort(salt, mac, 100)
    assert not in_cohort(salt, mac, 0)


def test_share_of_a_large_fleet_is_the_percentage():
    fleet = [f"02:00:00:00:{number >> 8:02X}:{number & 255:02X}" for number in range(20_000)]
    for percent in (1, 10, 50):
        reached = sum(in_cohort("release", mac, percent) for mac in fleet)
        # Five standard deviations of a binomial distribution.
        spread = 5 * (len(fleet) * percent / 100 * (1 - percent / 100)) ** 0.5
        assert abs(reached - len(fleet) * percent / 100) < spread


def test_cohort_vectors_shared_with_the_device():
    cases = json.loads((VECTORS / "cohort.json").read_text())
    assert len(cases) >= 10
    for case in cases:
        if "fraction" in case:
            assert fraction(case["salt"], case["mac"]) == case["fraction"], case
        assert in_cohort(case["salt"], case["mac"], case["percent"]) == case["in"], case


def watched(plan, progress, now=NOW):
    return next_step(plan, progress, now)


def test_first_wave_is_published_at_once():
    assert watched(THREE_WAVES, Progress(waves_published=0, published_at=None)) == PublishWave(1, 1, 0)


def test_release_without_rollout_goes_out_at_once_and_is_not_watched():
    assert next_step(None, Progress(waves_published=0, published_at=None), NOW) == PublishWave(1, 100, 0)
    assert next_step(None, Progress(waves_published=1, published_at=NOW, expected=5), NOW) == Complete()
    aborted = Progress(waves_published=1, published_at=NOW, is_aborted=True)
    assert isinstance(next_step(None, aborted, NOW), Abort)


def test_rollout_waits_for_its_start():
    plan = Rollout((Wave(100),), start_at=NOW + HOUR)
    assert watched(plan, Progress(waves_published=0, published_at=None)) == WaitUntil(
        NOW + HOUR, "the rollout starts then"
    )
    assert watched(plan, Progress(waves_published=0, published_at=None), NOW + HOUR) == PublishWave(1, 100, 0)


@given(st.integers(0, 10**7))
def test_state_machine_waits_until_the_next_whole_second(microseconds):
    moment = NOW + timedelta(microseconds=microseconds)
    until = parse_time(describe_step(WaitUntil(moment, ""))["until"])
    assert moment <= until < moment + timedelta(seconds=1)
    assert until.microsecond == 0


def test_wave_is_looked_at_ever_more_rarely():
    progress = Progress(waves_published=1, published_at=NOW)
    looks, now = [], NOW
    while isinstance(step := next_step(THREE_WAVES, progress, now), WaitUntil):
        looks.append(step.moment - NOW)
        now = step.moment
    assert looks == [HOUR / 16, HOUR / 8, HOUR / 4, HOUR / 2, HOUR]
    assert step == PublishWave(2, 10, 1)


def test_wave_without_soak_waits_for_reports_but_not_for_ever():
    plan = Rollout((Wave(50), Wave(100)), AbortCriteria(report_timeout=HOUR, min_devices=1000))
    silent = Progress(waves_published=1, published_at=NOW, expected=10, reported=3, ended=3, installed=3)
    assert isinstance(next_step(plan, silent, NOW), WaitUntil)
    assert next_step(plan, silent, NOW + HOUR) == PublishWave(2, 100, 50)
    done = Progress(waves_published=1, published_at=NOW, expected=3, reported=3, ended=3, installed=3)
    assert next_step(plan, done, NOW) == PublishWave(2, 100, 50)


def test_each_wave_has_its_own_soak():
    plan = Rollout((Wave(10, HOUR), Wave(50, 3 * HOUR), Wave(100)))
    second = Progress(waves_published=2, published_at=NOW, expected=5, reported=5, ended=5, installed=5)
    assert isinstance(next_step(plan, second, NOW + 3 * HOUR - timedelta(seconds=1)), WaitUntil)
    assert next_step(plan, second, NOW + 3 * HOUR) == PublishWave(3, 100, 50)


@pytest.mark.parametrize(("soak", "report_timeout"), [(2 * HOUR, HOUR), (HOUR, 2 * HOUR)])
def test_wave_in_which_a_device_is_on_its_way_lasts_as_long_as_soak_and_timeout_both_say(soak, report_timeout):
    plan = Rollout((Wave(50, soak), Wave(100)), AbortCriteria(report_timeout=report_timeout))
    on_its_way = Progress(waves_published=1, published_at=NOW, expected=10, reported=10, ended=9, installed=9)
    assert isinstance(next_step(plan, on_its_way, NOW + 2 * HOUR - timedelta(seconds=1)), WaitUntil)
    assert next_step(plan, on_its_way, NOW + 2 * HOUR) == PublishWave(2, 100, 50)


def test_failures_are_a_share_of_the_devices_that_ended_and_not_of_those_that_were_told():
    early = Progress(waves_published=1, published_at=NOW, expected=1000, reported=200, ended=20, installed=18, failed=2)
    assert isinstance(watched(THREE_WAVES, early), Abort)


@pytest.mark.parametrize(("failed", "aborts"), [(1, False), (2, True)])
def test_release_aborts_when_more_than_the_percentage_failed(failed, aborts):
    progress = Progress(
        waves_published=1, published_at=NOW, expected=20, reported=20, installed=20 - failed, failed=failed
    )
    assert isinstance(watched(THREE_WAVES, progress), Abort) == aborts


def test_few_devices_prove_nothing():
    progress = Progress(waves_published=1, published_at=NOW, expected=19, reported=19, failed=19)
    assert not isinstance(watched(THREE_WAVES, progress), Abort)


def test_silent_devices_abort_only_after_the_timeout():
    known = {"expected": 40, "proven": 40}
    progress = Progress(waves_published=1, published_at=NOW, **known, reported=19, ended=19, installed=19)
    assert not isinstance(watched(THREE_WAVES, progress, NOW + HOUR / 2 - timedelta(seconds=1)), Abort)
    assert isinstance(watched(THREE_WAVES, progress, NOW + HOUR / 2), Abort)
    enough = Progress(waves_published=1, published_at=NOW, **known, reported=20, ended=20, installed=20)
    assert not isinstance(watched(THREE_WAVES, enough, NOW + HOUR / 2), Abort)


def test_devices_that_stop_on_the_way_are_silent_too():
    """As those that restart into the new version and never come back."""
    progress = Progress(
        waves_published=1, published_at=NOW, expected=40, proven=40, reported=40, ended=19, installed=19
    )
    assert watched(THREE_WAVES, progress, NOW + HOUR / 2) == Abort(
        "52.5 % did not finish in time (21 of 40); limit 50 %"
    )


def test_devices_that_may_be_made_up_abort_nothing():
    progress = Progress(
        waves_published=1, published_at=NOW, expected=4000, proven=37, reported=19, ended=19, installed=19
    )
    assert not isinstance(watched(THREE_WAVES, progress, NOW + HOUR / 2), Abort)


@pytest.mark.parametrize(
    ("proven", "ended", "aborts"), [(19, 0, False), (20, 9, True), (20, 10, False), (40, 19, True)]
)
def test_devices_that_may_be_made_up_neither_prove_nor_hide_silence(proven, ended, aborts):
    answers = {"reported": ended, "ended": ended, "installed": ended}
    progress = Progress(waves_published=1, published_at=NOW, expected=4000, proven=proven, **answers)
    assert isinstance(watched(THREE_WAVES, progress, NOW + HOUR / 2), Abort) == aborts


def test_paused_rollout_holds_but_still_aborts():
    paused = Progress(waves_published=1, published_at=NOW, is_paused=True)
    assert watched(THREE_WAVES, paused, NOW + 5 * HOUR) == Hold()
    failing = Progress(waves_published=1, published_at=NOW, is_paused=True, expected=20, reported=20, failed=20)
    assert isinstance(watched(THREE_WAVES, failing), Abort)


@pytest.mark.parametrize("waves_published", [0, 1, 3])
def test_operator_aborts_at_any_time(waves_published):
    progress = Progress(
        waves_published=waves_published, published_at=NOW if waves_published else None, is_paused=True, is_aborted=True
    )
    assert watched(THREE_WAVES, progress) == Abort("an operator aborted it")


def test_promotion_ends_the_soak():
    promoted = Progress(waves_published=1, published_at=NOW, is_promoted=True)
    assert watched(THREE_WAVES, promoted) == PublishWave(2, 10, 1)


def test_last_wave_is_watched_too_and_then_the_rollout_is_complete():
    last = Progress(waves_published=3, published_at=NOW, expected=50, reported=49, ended=49, installed=49)
    assert isinstance(watched(THREE_WAVES, last), WaitUntil)
    assert watched(THREE_WAVES, last, NOW + HOUR) == Complete()


@given(plans, st.booleans())
def test_every_rollout_ends_however_silent_its_devices(plan, devices_answer):
    """Walk a whole rollout: each step is taken, time passes as told, and the waves come in their order."""
    published, published_at, now = 0, None, NOW
    for _ in range(500):
        expected = 10 if published else 0
        progress = Progress(
            waves_published=published,
            published_at=published_at,
            expected=expected,
            reported=expected if devices_answer else 0,
            ended=expected if devices_answer else 0,
            installed=expected if devices_answer else 0,
        )
        step = next_step(plan, progress, now)
        if isinstance(step, Complete):
            break
        if isinstance(step, WaitUntil):
            assert step.moment > now
            now = step.moment
        else:
            earlier = plan.waves[published - 1].percent if published else 0
            assert step == PublishWave(published + 1, plan.waves[published].percent, earlier)
            published, published_at = step.number, now
    assert published == len(plan.waves)
    assert isinstance(step, Complete)


@given(
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - the strategy adds it
    st.times().map(lambda moment: moment.replace(second=0, microsecond=0)),
    st.times().map(lambda moment: moment.replace(second=0, microsecond=0)),
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Pacific/Apia", "UTC"]),
)
def test_window_opens_inside_itself_within_a_day_or_two(now, opens, closes, zone):
    if opens == closes:
        return
    opening = Window(opens, closes, zone).next_opening(now)
    assert now <= opening <= now + timedelta(days=2)
    local = opening.astimezone(ZoneInfo(zone)).time().replace(second=0, microsecond=0)
    if opening > now and local != opens:
        # The hour that summer time leaves out.
        assert abs(local.hour * 60 + local.minute - opens.hour * 60 - opens.minute) <= 60


@pytest.mark.parametrize(
    ("now", "opens", "closes", "opening"),
    [
        ("00:59", "01:00", "05:00", "01:00"),
        ("01:00", "01:00", "05:00", "01:00"),
        ("04:59", "01:00", "05:00", "04:59"),
        ("05:00", "01:00", "05:00", "25:00"),
        ("22:00", "22:00", "04:00", "22:00"),
        ("21:59", "22:00", "04:00", "22:00"),
    ],
)
def test_window_is_open_from_its_first_minute_until_before_its_last(now, opens, closes, opening):
    def since_midnight(text):
        hours, minutes = text.split(":")
        return timedelta(hours=int(hours), minutes=int(minutes))

    midnight = NOW.replace(hour=0)
    window = Window(time.fromisoformat(opens), time.fromisoformat(closes), "UTC")
    assert window.next_opening(midnight + since_midnight(now)) == midnight + since_midnight(opening)


def test_every_wave_starts_in_the_window_but_the_end_needs_none():
    plan = Rollout((Wave(10), Wave(50), Wave(100)), window=Window(time(1), time(5), "UTC"))
    opening = NOW.replace(hour=1) + 24 * HOUR
    for published in range(3):
        progress = Progress(waves_published=published, published_at=NOW if published else None)
        assert watched(plan, progress) == WaitUntil(opening, "the window opens then")
        assert isinstance(watched(plan, progress, opening), PublishWave)
    assert watched(plan, Progress(waves_published=3, published_at=NOW)) == Complete()


def test_window_over_midnight():
    window = Window(NOW.time().replace(hour=22), NOW.time().replace(hour=4), "UTC")
    assert window.next_opening(NOW.replace(hour=23)) == NOW.replace(hour=23)
    assert window.next_opening(NOW.replace(hour=3)) == NOW.replace(hour=3)
    assert window.next_opening(NOW.replace(hour=4)) == NOW.replace(hour=22)


EXAMPLE = {
    "waves": [{"percent": 1, "soak": "1h"}, {"percent": 10, "soak": "24h"}, {"percent": 100}],
    "abort": {"failed_percent": 5, "silent_percent": 50, "min_devices": 20, "report_timeout": "2h"},
    "start_at": "2026-01-31T12:00:00Z",
    "window": {"from": "01:00", "to": "05:00", "timezone": "Europe/Berlin"},
}


def test_largest_plan_is_accepted():
    waves = [{"percent": 100 * number / MAX_WAVES, "soak": "90d"} for number in range(1, MAX_WAVES + 1)]
    assert parse_rollout({"waves": waves}).waves[-1] == Wave(100, MAX_DURATION)


def test_example_is_read_and_written_back():
    plan = parse_rollout(EXAMPLE)
    assert [wave.percent for wave in plan.waves] == [1, 10, 100]
    assert plan.window.timezone == "Europe/Berlin"
    assert parse_rollout(json.loads(json.dumps(write_rollout(plan)))) == plan


@given(plans)
def test_plans_survive_the_manifest(plan):
    assert parse_rollout(json.loads(json.dumps(write_rollout(plan)))) == plan


@pytest.mark.parametrize(
    "change",
    [
        {"waves": []},
        {"waves": "all"},
        {"waves": [{"percent": 10}, {"percent": 1}, {"percent": 100}]},
        {"waves": [{"percent": 10}, {"percent": 10}, {"percent": 100}]},
        {"waves": [{"percent": 50}]},
        {"waves": [{"percent": 0}, {"percent": 100}]},
        {"waves": [{"percent": 101}]},
        {"waves": [{"percent": True}]},
        {"waves": [{"percent": float("nan")}]},
        {"waves": [{"percent": 100, "soak": "-1h"}]},
        {"waves": [{"percent": 100, "soak": "1w"}]},
        {"waves": [{"percent": 100, "soak": "91d"}]},
        {"waves": [{"percent": 100, "soak": "\N{ARABIC-INDIC DIGIT THREE}h"}]},
        {"waves": [{"percent": 100, "wait": "1h"}]},
        {"waves": [{"percent": number} for number in range(1, 101)]},
        {"abort": {"min_devices": 0}},
        {"abort": {"min_devices": 10**400}},
        {"abort": {"failed_percent": 101}},
        {"abort": {"report_timeout": 5}},
        {"abort": []},
        {"start_at": "tomorrow"},
        {"window": {"from": "01:00", "to": "05:00", "timezone": "Mars/Olympus"}},
        {"window": {"from": "01:00", "to": "05:00", "timezone": ["UTC"]}},
        {"window": {"from": "25:00", "to": "05:00", "timezone": "UTC"}},
        {"window": {"from": "01:00", "to": "01:00", "timezone": "UTC"}},
        {"speed": "fast"},
    ],
)
def test_wrong_rollout_is_refused(change):
    with pytest.raises(DropRejected) as refused:
        parse_rollout(EXAMPLE | change)
    assert refused.value.code == "rollout_invalid"

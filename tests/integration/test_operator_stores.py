"""What operators see and do, in PostgreSQL."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from ota_core.formats.device_status import DeviceState, DeviceStatus
from ota_core.formats.paging import read_cursor
from ota_core.rules.operator_actions import Action, ActionRefused
from ota_core.stores.operator_commands import OperatorCommands
from ota_core.stores.operator_queries import OperatorQueries, UnknownDevice, UnknownRelease
from ota_core.stores.rollout_store import RolloutStore
from ota_core.stores.status_store import StatusStore
from support.api_definition import assert_promised
from support.drops import make_drop

CALLER = "arn:aws:iam::123456789012:user/op"
PLAN = {"waves": [{"percent": 1, "soak": "3600s"}, {"percent": 10, "soak": "3600s"}, {"percent": 100, "soak": "0s"}]}
BEGIN = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def queries(database):
    return OperatorQueries(database)


@pytest.fixture(scope="module")
def commands(database):
    return OperatorCommands(database)


@pytest.fixture
def product():
    return f"p-{uuid.uuid4().hex}"


@pytest.fixture
def release(insert_release, product):
    """Makes a release with a real envelope: rolling out in waves, the first to all, unless told otherwise."""

    def make(**changes):
        drop = make_drop(product=product)
        fields = {
            "release_id": drop.release_id,
            "product": product,
            "envelope": drop.manifest.decode(),
            "execution_arn": "arn:execution:first",
            "state": "rolling_out",
            "rollout": json.dumps(PLAN),
            "waves_published": 1,
            "cohort_percent": 100.0,
        }
        return insert_release(**fields | changes)["release_id"]

    return make


@pytest.fixture
def act(commands):
    def call(release_id, action, wave=None):
        return commands.act(release_id, Action(action), wave=wave, caller=CALLER)

    return call


@pytest.fixture
def audited(database):
    def ask(release_id):
        rows = database.transaction(
            lambda connection: connection.run(
                "SELECT caller, action, details FROM audit WHERE release_id = :id ORDER BY id", id=release_id
            )
        )
        return [tuple(row) for row in rows]

    return ask


def report(database, release_id, mac, state="installed", second=0, reason=None):
    StatusStore(database).record(
        [
            DeviceStatus(
                mac=mac,
                release_id=release_id,
                state=DeviceState(state),
                progress=None,
                reason=reason,
                running_version="1.0.0",
                received_at=BEGIN + timedelta(seconds=second),
            )
        ]
    )


def test_releases_are_listed_newest_first_in_pages(queries, release, product):
    made = [release() for _ in range(5)]
    pages, before = [], None
    while True:
        page = queries.list_releases(product=product, state=None, before=before, limit=2)
        pages.append([listed["release_id"] for listed in page["releases"]])
        if "next" not in page:
            break
        [before] = read_cursor(page["next"], "releases")
    assert pages == [[made[4], made[3]], [made[2], made[1]], [made[0]]]


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, [{"action": "promote", "wave": 2}, {"action": "pause"}, {"action": "abort"}]),
        ({"is_paused": True}, [{"action": "resume"}, {"action": "abort"}]),
        ({"rollout": None, "state": "published"}, [{"action": "abort"}]),
        ({"state": "withdrawn"}, []),
    ],
)
def test_release_says_what_operators_may_do_to_it(queries, release, product, changes, allowed):
    release_id = release(**changes)
    page = queries.list_releases(product=product, state=None, before=None, limit=50)
    assert [listed["allowed_actions"] for listed in page["releases"]] == [allowed]
    assert queries.describe_release(release_id)["allowed_actions"] == allowed
    assert_promised(page, "ReleasePage")


def test_action_answers_what_is_allowed_after_it(release, act):
    summary, _ = act(release(), "pause")
    assert summary["allowed_actions"] == [{"action": "resume"}, {"action": "abort"}]
    assert_promised(summary, "Release")


def test_releases_are_listed_by_state(queries, release, product):
    withdrawn = release(state="withdrawn")
    release()
    page = queries.list_releases(product=product, state="withdrawn", before=None, limit=50)
    assert [listed["release_id"] for listed in page["releases"]] == [withdrawn]


def test_release_is_described_with_all_that_happened(queries, database, release, act):
    release_id = release()
    report(database, release_id, "02:10:00:00:00:01")
    report(database, release_id, "02:10:00:00:00:02", "failed", reason="timeout")
    act(release_id, "pause")
    RolloutStore(database).advance(release_id, "arn:execution:first", now=datetime.now(UTC), takes_over=False)
    described = queries.describe_release(release_id)
    json.dumps(described)
    assert_promised(described, "ReleaseDetails")
    assert described["manifest"]["product"] == described["product"]
    assert described["devices"] == {"installed": 1, "failed": 1}
    assert [(wave["number"], wave["is_published"]) for wave in described["waves"]] == [
        (1, True),
        (2, False),
        (3, False),
    ]
    assert described["decisions"][0]["step"] == "hold"
    assert described["decisions"][0]["execution"] == "arn:execution:first"
    assert described["expected"] == described["decisions"][0]["numbers"]["expected"]
    assert [(done["caller"], done["action"]) for done in described["actions"]] == [(CALLER, "pause")]
    assert described["is_paused"]


def test_release_without_a_rollout_is_described(queries, release):
    described = queries.describe_release(release(rollout=None, state="published"))
    assert (described["waves"], described["expected"], described["rollout"]) == ([], None, None)


@pytest.mark.parametrize("call", ["describe_release", "describe_timeline", "list_devices", "act"])
def test_release_that_is_not_there_is_unknown(queries, act, call):
    calls = {
        "describe_release": lambda: queries.describe_release("0" * 32),
        "describe_timeline": lambda: queries.describe_timeline("0" * 32),
        "list_devices": lambda: queries.list_devices("0" * 32, state="failed", after=None, limit=1),
        "act": lambda: act("0" * 32, "abort"),
    }
    with pytest.raises(UnknownRelease):
        calls[call]()


def test_failing_devices_are_listed_with_their_reasons_in_pages(queries, database, release):
    release_id = release()
    for number in range(1, 6):
        report(database, release_id, f"02:11:00:00:00:{number:02X}", "failed", reason=f"reason {number}")
    report(database, release_id, "02:11:00:00:00:00", "installed")
    report(database, release_id, "02:11:00:00:00:FF", "rejected", reason="version_not_newer")
    pages, after = [], None
    while True:
        page = queries.list_devices(release_id, state="failing", after=after, limit=2)
        pages.append([(device["mac"], device["reason"]) for device in page["devices"]])
        if "next" not in page:
            break
        [after] = read_cursor(page["next"], "devices")
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [device for page in pages for device in page] == [
        (f"02:11:00:00:00:{number:02X}", f"reason {number}") for number in range(1, 6)
    ]
    everything = queries.list_devices(release_id, state=None, after=None, limit=50)
    assert_promised(everything, "DevicePage")
    assert len(everything["devices"]) == 7
    assert len(queries.list_devices(release_id, state="rejected", after=None, limit=50)["devices"]) == 1


def test_reasons_of_failing_devices_are_counted(queries, database, release):
    release_id = release()
    assert queries.describe_release(release_id)["failing"] == {"count": 0, "reasons": []}
    said = ["timeout", "timeout", "battery", "version_not_newer"]
    for number, reason in enumerate(said):
        report(database, release_id, f"06:12:00:00:00:{number:02X}", "rejected", reason=reason)
    report(database, release_id, "06:12:00:00:00:10", "failed")
    assert queries.describe_release(release_id)["failing"] == {
        "count": 4,
        "reasons": [
            {"state": "rejected", "reason": "timeout", "count": 2},
            {"state": "failed", "reason": None, "count": 1},
            {"state": "rejected", "reason": "battery", "count": 1},
        ],
    }


def test_release_is_for_the_devices_of_its_product_that_were_seen_or_those_that_it_names(queries, database, release):
    release_id = release()
    # Who reports is seen, and BEGIN is long ago.
    report(database, release_id, "06:13:00:00:00:01")
    assert queries.describe_release(release_id)["population"] == 0
    late = (datetime.now(UTC) - BEGIN).total_seconds()
    for number in range(3):
        report(database, release_id, f"06:13:00:00:00:{number:02X}", second=late)
    assert queries.describe_release(release_id)["population"] == 3
    assert queries.describe_release(release(target_count=7))["population"] == 7


def test_what_operators_see_is_what_decides(queries, database, release, product):
    """Not what devices report that were not told, or that speak for another product since then."""
    fleet, left = "06:17:00:00:00:01", "06:17:00:00:00:02"
    release_id, listed = release(), release(target_count=1)
    elsewhere = release(product=f"{product}-2")
    for second, (mac, of, state) in enumerate(
        [
            (fleet, release_id, "failed"),
            (left, release_id, "failed"),
            (left, elsewhere, "installed"),
            (fleet, listed, "failed"),
        ]
    ):
        report(database, of, mac, state, second=(datetime.now(UTC) - BEGIN).total_seconds() + second)
    execution = "arn:execution:first"
    numbers = RolloutStore(database).advance(release_id, execution, now=datetime.now(UTC), takes_over=False).numbers
    described = queries.describe_release(release_id)
    assert (described["population"], described["devices"], described["failing"]["count"]) == (1, {"failed": 1}, 1)
    assert (numbers.expected, numbers.reported, numbers.failed) == (1, 1, 1)
    for state in (None, "failed", "failing"):
        page = queries.list_devices(release_id, state=state, after=None, limit=50)
        assert [device["mac"] for device in page["devices"]] == [fleet]
    assert [point["devices"]["failed"] for point in queries.describe_timeline(release_id)["points"]] == [1]
    assert queries.describe_release(listed)["devices"] == {}
    # What was said is kept.
    assert queries.describe_device(left, before=None, limit=50)["history"][-1]["release_id"] == release_id


def test_timeline_counts_each_device_in_the_highest_state_that_it_had_reported(queries, database, release):
    release_id = release()
    first, second = "06:14:00:00:00:01", "06:14:00:00:00:02"
    for mac, state, at in [
        (first, "downloading", 0),
        (second, "downloading", 30),
        (first, "failed", 60),
        (first, "verifying", 90),  # late: it had failed before
        (second, "installed", 120),
        (first, "installed", 120),
    ]:
        report(database, release_id, mac, state, second=at)
    points = queries.describe_timeline(release_id)["points"]
    shown = [
        (point["at"][11:19], {state: count for state, count in point["devices"].items() if count}) for point in points
    ]
    assert shown == [
        ("00:00:00", {"downloading": 1}),
        ("00:00:30", {"downloading": 2}),
        ("00:01:00", {"downloading": 1, "failed": 1}),
        ("00:02:00", {"installed": 2}),
    ]
    assert set(points[0]["devices"]) == set(DeviceState)


def test_timeline_has_few_points_however_many_reports_there_are(queries, database, release):
    release_id = release()
    for number in range(200):
        report(database, release_id, f"06:15:00:00:00:{number:02X}", second=number * 7)
    points = queries.describe_timeline(release_id)["points"]
    assert len(points) == 61
    assert_promised({"points": points}, "Timeline")
    assert points[-1]["devices"]["installed"] == 200
    installed = [point["devices"]["installed"] for point in points]
    assert installed == sorted(installed)
    assert queries.describe_timeline(release())["points"] == []


def test_timeline_of_a_single_moment_has_one_point(queries, database, release):
    release_id = release()
    report(database, release_id, "06:16:00:00:00:01")
    report(database, release_id, "06:16:00:00:00:02")
    [point] = queries.describe_timeline(release_id)["points"]
    assert point["devices"]["installed"] == 2


def test_device_is_described_with_its_history_newest_first_in_pages(queries, database, release):
    mac, release_id = "02:12:00:00:00:01", release()
    for second, state in enumerate(["downloading", "verifying", "rebooting", "installed"]):
        report(database, release_id, mac, state, second)
    first = queries.describe_device(mac, before=None, limit=3)
    assert [entry["state"] for entry in first["history"]] == ["installed", "rebooting", "verifying"]
    moment, row = read_cursor(first["next"], "history")
    rest = queries.describe_device(mac, before=(datetime.fromisoformat(moment), row), limit=3)
    assert [entry["state"] for entry in rest["history"]] == ["downloading"]
    assert "next" not in rest
    assert_promised(first, "Device")
    assert (first["running_version"], first["last_seen_at"]) == ("1.0.0", "2026-06-01T00:00:03Z")
    json.dumps(first)


def test_device_that_nobody_knows_is_unknown(queries):
    with pytest.raises(UnknownDevice):
        queries.describe_device("02:13:00:00:00:01", before=None, limit=1)


def test_device_may_be_tagged_before_it_is_known(queries, commands):
    commands.replace_tags("02:13:00:00:00:02", ["beta"], caller=CALLER)
    described = queries.describe_device("02:13:00:00:00:02", before=None, limit=1)
    assert (described["tags"], described["product"], described["history"]) == (["beta"], None, [])


def test_tags_are_replaced_and_each_change_is_audited_once(commands, database):
    mac = "02:13:00:00:00:03"
    for tags in (["beta", "site=berlin"], ["beta", "site=berlin"], ["alpha"], []):
        assert commands.replace_tags(mac, tags, caller=CALLER) == {"mac": mac, "tags": tags}
    rows = database.transaction(
        lambda connection: connection.run(
            "SELECT caller, action, details FROM audit WHERE mac = CAST(:mac AS macaddr) ORDER BY id", mac=mac
        )
    )
    assert [row[2] for row in rows] == [
        {"before": [], "tags": ["beta", "site=berlin"]},
        {"before": ["beta", "site=berlin"], "tags": ["alpha"]},
        {"before": ["alpha"], "tags": []},
    ]
    assert {(row[0], row[1]) for row in rows} == {(CALLER, "tag")}


def test_action_is_audited_once_however_often_it_is_repeated(release, act, audited):
    release_id = release()
    assert act(release_id, "pause")[0]["is_paused"]
    assert act(release_id, "pause")[0]["is_paused"]
    assert audited(release_id) == [(CALLER, "pause", {"state": "rolling_out", "waves_published": 1})]


def test_action_that_is_refused_leaves_no_trace(release, act, audited):
    release_id = release(state="withdrawn")
    with pytest.raises(ActionRefused):
        act(release_id, "resume")
    assert audited(release_id) == []


def wake_of(release_id, execution, *, is_due):
    return {"release_id": release_id, "execution": execution, "is_due": is_due}


def test_pause_wakes_nothing_and_resume_wakes(release, act):
    release_id = release()
    assert act(release_id, "pause")[1] is None
    assert act(release_id, "resume")[1] == wake_of(release_id, "arn:execution:first", is_due=True)


@pytest.mark.parametrize(("action", "wave"), [("abort", None), ("promote", 2)])
def test_execution_that_never_went_on_is_due_until_one_does(database, release, act, action, wave):
    release_id = release()
    for _ in range(3):
        assert act(release_id, action, wave)[1] == wake_of(release_id, "arn:execution:first", is_due=True)
    RolloutStore(database).advance(release_id, "arn:execution:second", now=datetime.now(UTC), takes_over=True)
    assert act(release_id, action, wave)[1] == wake_of(release_id, "arn:execution:second", is_due=False)


def test_release_without_a_rollout_is_aborted(database, release, act):
    release_id = release(rollout=None, state="published")
    assert act(release_id, "abort")[0]["is_aborted"]
    RolloutStore(database).advance(release_id, "arn:execution:second", now=datetime.now(UTC), takes_over=True)
    assert act(release_id, "abort")[0]["state"] == "withdrawn"


def test_wave_is_promoted_once_however_late_the_request_is_repeated(database, release, act, audited):
    release_id = release()
    act(release_id, "promote", 2)
    database.transaction(
        lambda connection: connection.run(
            "UPDATE releases SET waves_published = 2, is_promoted = false WHERE release_id = :id", id=release_id
        )
    )
    summary, wake = act(release_id, "promote", 2)
    assert (summary["is_promoted"], wake) == (False, None)
    assert len(audited(release_id)) == 1

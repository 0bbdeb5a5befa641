"""What is a status, and what is not."""

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.formats.device_status import (
    FAILING,
    MAX_STATUS_BYTES,
    DeviceState,
    StatusRefused,
    counts_as_failed,
    parse_status,
    read_queued,
)
from support.functions import PROJECT

TOPIC = "/firmware_update/AA:BB:CC:DD:EE:FF/status"
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
RELEASE_ID = "0123456789abcdef" * 2
STATUS = {
    "release_id": RELEASE_ID,
    "version": "1.4.0",
    "state": "failed",
    "progress": 40,
    "reason": "http_server_error",
    "running_version": "1.3.0",
}


def parse(topic=TOPIC, **changes):
    document = {name: value for name, value in (STATUS | changes).items() if value is not ...}
    return parse_status(topic, json.dumps(document).encode(), NOW)


def refused(code, call, *arguments, **options):
    with pytest.raises(StatusRefused) as refusal:
        call(*arguments, **options)
    assert refusal.value.code == code


def test_fields_are_read_as_the_contract_names_them():
    status = parse()
    assert (status.mac, status.release_id, status.received_at) == ("AA:BB:CC:DD:EE:FF", RELEASE_ID, NOW)
    assert (status.state, status.progress, status.reason) == (DeviceState.FAILED, 40, "http_server_error")
    assert status.running_version == "1.3.0"


def test_only_release_and_state_are_required():
    status = parse(version=..., progress=..., reason=..., running_version=...)
    assert (status.progress, status.reason, status.running_version) == (None, None, None)


def test_fields_of_later_devices_are_ignored():
    assert parse(free_heap=7) == parse()


@pytest.mark.parametrize(
    ("changes", "running"),
    [
        ({"state": "installed", "running_version": ""}, "1.4.0"),
        ({"state": "installed", "running_version": ...}, "1.4.0"),
        ({"state": "installed", "running_version": "1.4.0+7"}, "1.4.0+7"),
        ({"state": "installed", "running_version": ..., "version": ...}, None),
        ({"state": "rebooting", "running_version": ...}, None),
    ],
)
def test_installed_device_runs_the_version_that_it_installed(changes, running):
    assert parse(**changes).running_version == running


def test_success_is_the_highest_state_and_every_end_is_higher_than_what_leads_there():
    on_the_way = {DeviceState.DOWNLOADING, DeviceState.VERIFYING, DeviceState.REBOOTING, DeviceState.INTERRUPTED}
    assert max(DeviceState, key=lambda state: state.rank) is DeviceState.INSTALLED
    assert max(state.rank for state in on_the_way) < min(state.rank for state in FAILING)
    assert on_the_way | FAILING | {DeviceState.INSTALLED} == set(DeviceState)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "x",
        "/",
        "status",
        "/status",
        "/firmware_update/status",
        "/firmware_update/product/status",
        TOPIC + "/status",
        *(
            f"/firmware_update/{spelling}/status"
            for spelling in ("aabbccddeeff", "aa:bb:cc:dd:ee:ff", "AA-BB-CC-DD-EE-FF")
        ),
    ],
)
def test_topic_that_names_no_mac_in_the_one_spelling_is_refused(topic):
    refused("status_topic_invalid", parse, topic)


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b'{"state": NaN}', b'{"a": 1, "a": 2}', b"[" * 2000])
def test_what_is_no_json_is_refused(payload):
    refused("status_not_json", parse_status, TOPIC, payload, NOW)


def test_size_is_limited():
    padding = " " * (MAX_STATUS_BYTES - len(json.dumps(STATUS)))
    assert parse_status(TOPIC, (json.dumps(STATUS) + padding).encode(), NOW) == parse()
    refused("status_too_large", parse_status, TOPIC, (json.dumps(STATUS) + padding + " ").encode(), NOW)


@pytest.mark.parametrize("payload", [b"[]", b"1", b"null", b'"installed"'])
def test_what_is_no_object_is_refused(payload):
    refused("status_malformed", parse_status, TOPIC, payload, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"release_id": ...},
        {"release_id": None},
        {"release_id": RELEASE_ID.upper()},
        {"release_id": RELEASE_ID + "\n"},
        {"release_id": [RELEASE_ID]},
        {"progress": -1},
        {"progress": 101},
        {"progress": True},
        {"progress": 1.5},
        {"reason": "x" * 201},
        {"reason": "a\0b"},
        {"reason": 7},
        {"running_version": {}},
        {"state": "installed", "running_version": "", "version": 1},
    ],
)
def test_field_of_the_wrong_kind_is_refused(changes):
    refused("status_malformed", parse, **changes)


@pytest.mark.parametrize("state", ["exploded", "", None, 7, ["installed"], "INSTALLED", ...])
def test_unknown_state_is_refused(state):
    refused("status_state_unknown", parse, state=state)


def queued(**changes):
    payload = base64.b64encode(json.dumps(STATUS).encode()).decode()
    event = {"payload": payload, "topic": TOPIC, "received_at": NOW_MS} | changes
    return json.dumps({name: value for name, value in event.items() if value is not ...})


def test_event_of_the_rule_is_read():
    assert read_queued(queued(), NOW_MS + 18_000_000) == parse()


def test_event_that_aws_iot_could_not_deliver_is_read_when_it_is_redriven():
    lost = queued(payload=..., received_at=..., base64OriginalPayload=json.loads(queued())["payload"], failures=[])
    assert read_queued(lost, NOW_MS) == parse()


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": ...},
        {"payload": "%"},
        {"payload": 7},
        {"topic": ...},
        {"topic": 7},
        {"received_at": "now"},
        {"received_at": 1e300},
    ],
)
def test_event_of_nobody_is_refused(changes):
    refused("status_event_malformed", read_queued, queued(**changes), NOW_MS)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_event_is_a_status_or_refused(body):
    with pytest.raises(StatusRefused):
        read_queued(body, NOW_MS)


@given(st.text(), st.binary(max_size=100))
def test_any_message_is_a_status_or_refused(topic, payload):
    with pytest.raises(StatusRefused):
        parse_status(topic, payload, NOW)


@pytest.mark.parametrize(
    ("state", "reason", "failure"),
    [
        ("failed", "flash_error", "flash_error"),
        ("rolled_back", "self_test_failed", "self_test_failed"),
        ("rejected", "wrong_chip", "wrong_chip"),
        ("rejected", "version_not_newer", None),
        ("failed", "version_not_newer", "version_not_newer"),
        ("failed", None, "other"),
        ("failed", "made up 4711", "other"),
        ("downloading", "connection_lost", None),
        ("installed", None, None),
    ],
)
def test_failure_is_a_reason_of_a_closed_set(state, reason, failure):
    assert parse(state=state, reason=reason).failure == failure


def test_shared_vectors_say_what_counts_as_failed():
    cases = json.loads((PROJECT / "tests/vectors/counts_as_failed.json").read_text())
    assert {case["state"] for case in cases} == set(DeviceState)
    for case in cases:
        assert counts_as_failed(DeviceState(case["state"]), case["reason"]) == case["counts_as_failed"], case


def test_refusal_of_a_message_names_the_device_that_sent_it():
    with pytest.raises(StatusRefused) as refusal:
        parse_status(TOPIC, b"{", NOW)
    assert refusal.value.mac == "AA:BB:CC:DD:EE:FF"

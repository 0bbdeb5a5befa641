"""RecordStatus, run on the very events of `sam local invoke`, over a fake of PostgreSQL."""

import pytest
from pg8000.exceptions import InterfaceError
from pg8000.native import DatabaseError
from support.fakes import FakeStatuses
from support.functions import CONTEXT, load_handler, read_event
from support.observed import read_log


@pytest.fixture
def record(aws, monkeypatch, capsys, caplog):
    handler = load_handler("record_status", monkeypatch)
    statuses = FakeStatuses()
    handler.STATUSES = statuses

    def call(name):
        capsys.readouterr()
        caplog.clear()
        caplog.set_level("INFO")
        answer = handler.lambda_handler(read_event("record_status", name), CONTEXT)
        points, call.lines = read_log(capsys.readouterr().out)
        assert {point.namespace for point in points} == {"esp32-ota/test"}
        call.metrics = [(point.name, point.dimensions, point.value) for point in points]
        call.dropped = [line.code for line in caplog.records if line.getMessage() == "status dropped"]
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    call.statuses = statuses
    return call


def test_statuses_are_recorded_and_counted(record):
    assert record("reported") == []
    assert [status.state for status in record.statuses.recorded] == ["installed", "failed"]
    assert ("StatusesReceived", {}, 2) in record.metrics
    assert ("StatusesDropped", {}, 0) in record.metrics


def test_news_are_counted_by_state_and_failures_by_reason(record):
    record("reported")
    assert [point for point in record.metrics if point[0].startswith("Device")] == [
        ("DeviceStates", {"state": "installed"}, 1),
        ("DeviceStates", {"product": "demo-sensor", "state": "installed"}, 1),
        ("DeviceStates", {"state": "failed"}, 1),
        ("DeviceStates", {"product": "demo-sensor", "state": "failed"}, 1),
        ("DeviceFailures", {"reason": "http_server_error"}, 1),
    ]


def test_news_are_logged_with_the_device(record):
    record("reported")
    [_, failed] = [line for line in record.lines if line["message"] == "status recorded"]
    assert failed == {
        "level": "INFO",
        "message": "status recorded",
        "mac": "02:00:00:00:00:02",
        "product": "demo-sensor",
        "release_id": "0123456789abcdef" * 2,
        "state": "failed",
        "reason": "http_server_error",
        "running_version": "1.3.0",
    }


def test_malformed_statuses_are_dropped_each_with_its_reason_and_the_good_one_is_recorded(record):
    assert record("malformed") == []
    assert record.dropped == [
        "status_not_json",
        "status_state_unknown",
        "status_too_large",
        "status_topic_invalid",
        "status_event_malformed",
    ]
    assert len(record.statuses.recorded) == 1
    assert ("StatusesReceived", {}, 6) in record.metrics
    assert ("StatusesDropped", {}, 5) in record.metrics


def test_status_of_a_device_for_which_there_is_no_room_is_dropped(record):
    record.statuses.strangers = {"02:00:00:00:00:02"}
    assert record("reported") == []
    assert record.dropped == ["status_device_not_recorded"]
    assert ("StatusesDropped", {}, 1) in record.metrics


def test_status_of_an_unknown_release_is_dropped(record):
    record.statuses.unknown = {"0123456789abcdef" * 2}
    assert record("reported") == []
    assert record.dropped == ["status_release_unknown"] * 2
    assert ("StatusesDropped", {}, 2) in record.metrics


@pytest.mark.parametrize(
    "outage", [InterfaceError("gone"), ConnectionRefusedError(), DatabaseError({"C": "57P01", "M": "shutting down"})]
)
def test_whole_batch_comes_back_while_the_database_is_away(record, outage):
    record.statuses.error = outage
    with pytest.raises(type(outage)):
        record("reported")


def test_status_that_the_database_refuses_comes_back_alone(record):
    record.statuses.refused = "failed"
    assert record("reported") == ["00000000-0000-4000-8000-000000000002"]
    assert [status.state for status in record.statuses.recorded] == ["installed"]

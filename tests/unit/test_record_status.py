"""RecordStatus, run on the very events of `sam local invoke`, over a fake of PostgreSQL."""

import json

import pytest
from pg8000.exceptions import InterfaceError
from pg8000.native import DatabaseError
from support.functions import CONTEXT, load_handler, read_event


class FakeStatuses:
    """Refuses what holds the state `refused`, or everything with `error`."""

    def __init__(self):
        self.recorded = []
        self.unknown = set()
        self.error = None
        self.refused = None

    def record(self, statuses):
        if self.error:
            raise self.error
        if any(status.state == self.refused for status in statuses):
            raise DatabaseError({"C": "22021", "M": "refused"})
        self.recorded += statuses
        return self.unknown


@pytest.fixture
def record(aws, monkeypatch, capsys, caplog):
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "esp32-ota/test")
    handler = load_handler("record_status", monkeypatch)
    statuses = FakeStatuses()
    handler.STATUSES = statuses

    def call(name):
        capsys.readouterr()
        caplog.clear()
        caplog.set_level("INFO")
        answer = handler.lambda_handler(read_event("record_status", name), CONTEXT)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        [call.metrics] = [line for line in lines if "_aws" in line]
        call.dropped = [line.code for line in caplog.records if line.getMessage() == "status dropped"]
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    call.statuses = statuses
    return call


def test_statuses_are_recorded_and_counted(record):
    assert record("reported") == []
    assert [status.state for status in record.statuses.recorded] == ["installed", "failed"]
    assert (record.metrics["StatusesReceived"], record.metrics["StatusesDropped"]) == ([2.0], [0.0])


def test_metrics_have_no_dimension(record):
    record("reported")
    [definition] = record.metrics["_aws"]["CloudWatchMetrics"]
    assert definition["Dimensions"] == [[]]
    assert definition["Namespace"] == "esp32-ota/test"


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
    assert (record.metrics["StatusesReceived"], record.metrics["StatusesDropped"]) == ([6.0], [5.0])


def test_status_of_an_unknown_release_is_dropped(record):
    record.statuses.unknown = {"0123456789abcdef" * 2}
    assert record("reported") == []
    assert record.dropped == ["status_release_unknown"] * 2
    assert record.metrics["StatusesDropped"] == [2.0]


@pytest.mark.filterwarnings("ignore:No application metrics")
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

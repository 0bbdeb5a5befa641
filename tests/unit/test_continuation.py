"""Which executions are ended and started after an operator's action."""

import json

import boto3
import pytest
from botocore.exceptions import ClientError
from ota_core.runtime.continuation import Continuation
from support.aws_calls import NotedCalls

STARTED = (
    "StartExecution",
    {
        "stateMachineArn": "machine",
        "input": json.dumps({"registration": {"outcome": "continued", "release_id": "r"}}),
    },
)


@pytest.fixture
def wake(aws):
    """Wakes a release of the execution `e`, which has this status (None: it is forgotten); gives what was changed."""
    client = boto3.client("stepfunctions")
    step_functions = NotedCalls(client, StartExecution=dict)

    def call(status, *, is_due, stop_error=None):
        over = "ValidationException" if status else "ExecutionDoesNotExist"
        step_functions.answers |= {
            "DescribeExecution": (lambda: {"status": status}) if status else over,
            "StopExecution": stop_error or (dict if status == "RUNNING" else over),
        }
        Continuation(client, "machine").wake("r", "e", is_due=is_due)
        return call.changes()

    call.changes = lambda: [(name, asked) for name, asked in step_functions.calls if name != "DescribeExecution"]
    return call


def test_present_execution_is_ended_before_another_goes_on(wake):
    stopped, started = wake("RUNNING", is_due=True)
    assert (stopped[0], stopped[1]["executionArn"], started) == ("StopExecution", "e", STARTED)


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "ABORTED", None])
def test_another_goes_on_where_the_present_execution_is_over(wake, status):
    assert wake(status, is_due=True)[1:] == [STARTED]


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE", "SUCCEEDED", None])
def test_repeated_action_wakes_nothing(wake, status):
    assert wake(status, is_due=False) == []


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED"])
def test_repeated_action_heals_a_release_whose_execution_broke(wake, status):
    assert wake(status, is_due=False)[1:] == [STARTED]


def test_nothing_goes_on_where_the_present_execution_cannot_be_ended(wake):
    with pytest.raises(ClientError):
        wake("RUNNING", is_due=True, stop_error="ThrottlingException")
    assert [name for name, _ in wake.changes()] == ["StopExecution"]

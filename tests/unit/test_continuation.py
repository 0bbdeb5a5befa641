"""Which executions are ended and started after an operator's action."""

import json

import pytest
from botocore.exceptions import ClientError
from ota_core.runtime.continuation import Continuation


class FakeStepFunctions:
    """Knows one execution `e` and its status; None: it has forgotten it."""

    def __init__(self, status):
        self.status = status
        self.calls = []
        self.error = None

    def describe_execution(self, *, executionArn):  # noqa: ARG002, N803 - boto3's name
        if self.status is None:
            raise ClientError({"Error": {"Code": "ExecutionDoesNotExist"}}, "DescribeExecution")
        return {"status": self.status}

    def stop_execution(self, *, executionArn, cause):  # noqa: ARG002, N803
        if self.error or self.status != "RUNNING":
            code = self.error or ("ValidationException" if self.status else "ExecutionDoesNotExist")
            raise ClientError({"Error": {"Code": code}}, "StopExecution")
        self.calls.append(("stop", executionArn))

    def start_execution(self, *, stateMachineArn, input):  # noqa: A002, N803
        self.calls.append(("start", stateMachineArn, json.loads(input)))


STARTED = ("start", "machine", {"registration": {"outcome": "continued", "release_id": "r"}})


def wake(step_functions, *, is_due):
    Continuation(step_functions, "machine").wake("r", "e", is_due=is_due)
    return step_functions.calls


def test_present_execution_is_ended_before_another_goes_on():
    assert wake(FakeStepFunctions("RUNNING"), is_due=True) == [("stop", "e"), STARTED]


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "ABORTED", None])
def test_another_goes_on_where_the_present_execution_is_over(status):
    assert wake(FakeStepFunctions(status), is_due=True) == [STARTED]


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE", "SUCCEEDED", None])
def test_repeated_action_wakes_nothing(status):
    assert wake(FakeStepFunctions(status), is_due=False) == []


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED"])
def test_repeated_action_heals_a_release_whose_execution_broke(status):
    assert wake(FakeStepFunctions(status), is_due=False) == [STARTED]


def test_nothing_goes_on_where_the_present_execution_cannot_be_ended():
    step_functions = FakeStepFunctions("RUNNING")
    step_functions.error = "ThrottlingException"
    with pytest.raises(ClientError):
        wake(step_functions, is_due=True)
    assert step_functions.calls == []

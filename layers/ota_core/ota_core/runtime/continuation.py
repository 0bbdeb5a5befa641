"""Hands a release over to a new execution of the pipeline after an operator's action."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

    from ota_core.formats import contracts

# What Step Functions says about an execution that has ended, or that it has forgotten after 90 days.
_OVER = {"ExecutionDoesNotExist", "ValidationException"}
_BROKEN = {"FAILED", "TIMED_OUT", "ABORTED"}


class Continuation:
    """Starts continuations."""

    def __init__(self, step_functions: SFNClient, state_machine_arn: str) -> None:
        self._step_functions = step_functions
        self._state_machine_arn = state_machine_arn

    def wake(self, release_id: str, execution: str, *, is_due: bool) -> None:
        """Stop a release's current execution and start one that continues from what PostgreSQL knows.

        In this order, so that the current one publishes nothing after the next one has published. If this is
        interrupted in between, repeating the operator's action completes it.

        Args:
            release_id: of the release.
            execution: ARN of the current execution.
            is_due: False: only if the current execution broke.
        """
        if not is_due and not self._is_broken(execution):
            return
        self._stop(execution)
        goes_on: contracts.Continuation = {"registration": {"outcome": "continued", "release_id": release_id}}
        self._step_functions.start_execution(stateMachineArn=self._state_machine_arn, input=json.dumps(goes_on))

    def _is_broken(self, execution: str) -> bool:
        try:
            return self._step_functions.describe_execution(executionArn=execution)["status"] in _BROKEN
        except ClientError as error:
            if error.response["Error"]["Code"] in _OVER:
                return False
            raise

    def _stop(self, execution: str) -> None:
        try:
            self._step_functions.stop_execution(
                executionArn=execution, cause="An operator acted; another execution continues the release."
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in _OVER:
                raise

"""Calls to AWS services, noted and answered here instead of sent.

The client is the SDK's own, which refuses operations and parameters that the service does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.compat import HTTPHeaders
from botocore.model import OperationModel

# Fields of an answer, made anew for each call, or the code of an error.
Answer = Callable[[], dict[str, Any]] | str


class NotedCalls:
    """The calls of a client, and what they are answered with.

    Attributes:
        calls: the operations that were called, each with its parameters.
        answers: by operation; another one is not expected.
    """

    def __init__(self, client: BaseClient, **answers: Answer) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers = answers
        client.meta.events.register("provide-client-params", self._note)
        client.meta.events.register("before-call", self._answer)  # type: ignore[arg-type] # what it gives is the answer

    def _note(self, params: dict[str, Any], model: OperationModel, **_: object) -> None:
        self.calls.append((model.name, params))

    def _answer(self, model: OperationModel, **_: object) -> tuple[AWSResponse, dict[str, Any]]:
        answer = self.answers[model.name]
        if isinstance(answer, str):
            return AWSResponse("", 400, HTTPHeaders(), None), {"Error": {"Code": answer, "Message": answer}}
        fields = answer()
        unknown = fields.keys() - (model.output_shape.members.keys() if model.output_shape else set())
        if unknown:
            raise ValueError(f"{model.name} answers no {sorted(unknown)}")
        return AWSResponse("", 200, HTTPHeaders(), None), fields

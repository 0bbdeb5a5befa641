"""People who operate releases: IAM users with keys, and requests signed by them (Signature Version 4)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
from local_cloud import LocalCloud
from local_cloud.signature import Signature


@dataclass(frozen=True)
class Operator:
    """Somebody who calls the operators' API; `arn` is how IAM knows him."""

    url: str
    arn: str
    signature: Signature | None

    def call(self, method: str, path: str, body: object = None, **query: str) -> requests.Response:
        return requests.request(
            method,
            f"{self.url}{path}",
            params=query,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": "application/json"},
            auth=self.signature,
            timeout=30,
        )

    def get(self, path: str, **query: str) -> Any:
        """What a path answers, which must be there."""
        answer = self.call("GET", path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def act(self, release_id: str, action: str, **fields: object) -> requests.Response:
        return self.call("POST", f"/releases/{release_id}/actions", {"action": action, **fields})


def hire(cloud: LocalCloud, name: str) -> Operator:
    """Make an IAM user who may call everything of the operators' API."""
    iam = cloud.client("iam")
    arn = iam.create_user(UserName=name)["User"]["Arn"]
    api = f"arn:aws:execute-api:*:*:{cloud.outputs['OperatorApiId']}/*"
    statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": api}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_user_policy(UserName=name, PolicyName="operate", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return Operator(
        cloud.environment["OTA_OPERATOR_API_URL"], arn, Signature(key["AccessKeyId"], key["SecretAccessKey"])
    )


def eventually(find: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    """What `find` finds, as soon as it is something."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, f"after {seconds} s there is still no {what}"
        time.sleep(0.2)
    return found

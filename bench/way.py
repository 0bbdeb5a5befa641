"""The way of a release: from the last `aws s3 cp` to a subscriber's message, in the local cloud, everything warm.

The floor is the same way with a single function in it: the bucket's event starts a function that publishes at once.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import time
import zipfile
from pathlib import Path

import boto3
import local_cloud
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from harness import Figure, report
from lab import STATE
from local_cloud.stack import RUNTIME
from validate import make_envelope, make_image

_RUNS = 7
_MAC = "02:00:00:00:00:0B"
_FLOOR_TOPIC = f"/firmware_update/{_MAC}"
_FLOOR = f"""
import boto3
IOT = boto3.client("iot-data")
def lambda_handler(event, context):
    IOT.publish(topic={_FLOOR_TOPIC!r}, qos=1, payload=event["detail"]["object"]["key"])
"""


def main() -> None:
    cloud = local_cloud.start(Path(os.environ.get("BENCH_STATE", STATE)), print)
    key = load_pem_private_key(cloud.signing_key.read_bytes(), None)
    image = make_image(64 * 1024)
    _deploy_floor(cloud)
    topics = ["/firmware_update/product/bench", _FLOOR_TOPIC]
    pairs = []
    s3 = boto3.client("s3")

    def put(name: str, content: bytes) -> None:
        s3.put_object(Bucket=cloud.bucket, Key=name, Body=content)

    with cloud.subscriber(_MAC, topics) as subscriber:
        for number in range(_RUNS + 2):
            envelope = make_envelope(image, key, version="auto")
            stem = f"inbox/bench/{number}/app"
            put(f"{stem}.bin", image)
            ours = _until_message(subscriber, lambda k=f"{stem}.manifest.json", e=envelope: put(k, e))
            _wait_until_idle(cloud)
            floor = _until_message(subscriber, lambda k=f"bench-floor/{number}": put(k, b""))
            pairs.append((ours, floor))
    pairs = pairs[2:]  # The first two are cold.
    ratio = statistics.median(ours / floor for ours, floor in pairs)
    report(
        Figure(
            row="way",
            what="ms from the last upload to the message",
            ours=statistics.median(ours for ours, _ in pairs) * 1000,
            floor=statistics.median(floor for _, floor in pairs) * 1000,
            ratio=ratio,
            goal="≤ 4 × floor",
            is_met=ratio <= 4,
            more={"ms_in_state": _milliseconds_in_state(cloud)},
        )
    )


def _until_message(subscriber, put) -> float:
    """Seconds from the start of the upload: the emulator may start what follows before it answers."""
    before = len(subscriber.messages)
    begun = time.monotonic()
    put()
    subscriber.wait_for(before + 1, 60)
    assert len(subscriber.messages) > before, "no message arrived within a minute"
    return time.monotonic() - begun


def _wait_until_idle(cloud) -> None:
    """Wait until the drop has left the inbox too, so that the floor is measured alone."""
    deadline = time.monotonic() + 120
    while any(execution["status"] == "RUNNING" for execution in cloud.executions()):
        assert time.monotonic() < deadline, "the pipeline is still running after two minutes"
        time.sleep(0.1)


def _milliseconds_in_state(cloud) -> dict[str, float]:
    """How long a publishing execution spent in each of its states, and before them."""
    sfn = cloud.client("stepfunctions")
    # The upload of the first member starts an execution too; it only waits, so its history is short.
    histories = [
        sfn.get_execution_history(executionArn=execution["executionArn"])["events"]
        for execution in cloud.executions()[:4]
    ]
    history = max(histories, key=len)
    entered: dict[str, float] = {}
    begun, first = (
        next(event["timestamp"].timestamp() for event in history if event["type"].endswith(kind))
        for kind in ("ExecutionStarted", "StateEntered")
    )
    found = {"before the first": (first - begun) * 1000}
    for event in history:
        name = (event.get("stateEnteredEventDetails") or event.get("stateExitedEventDetails") or {}).get("name")
        if event["type"].endswith("StateEntered"):
            entered[name] = event["timestamp"].timestamp()
        elif event["type"].endswith("StateExited"):
            found[name] = (event["timestamp"].timestamp() - entered[name]) * 1000
    return found


def _deploy_floor(cloud) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("handler.py", _FLOOR)
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    may = {"Effect": "Allow", "Action": "iot:Publish", "Resource": "*"}
    iam, functions, events = (cloud.client(service) for service in ("iam", "lambda", "events"))
    role = iam.create_role(RoleName="bench-floor", AssumeRolePolicyDocument=_policy(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName="bench-floor", PolicyName="publish", PolicyDocument=_policy(may))
    function = functions.create_function(
        FunctionName="bench-floor",
        Runtime=RUNTIME,
        Role=role,
        Handler="handler.lambda_handler",
        Code={"ZipFile": archive.getvalue()},
    )["FunctionArn"]
    rule = events.put_rule(
        Name="bench-floor",
        EventPattern=json.dumps({"source": ["aws.s3"], "detail": {"object": {"key": [{"prefix": "bench-floor/"}]}}}),
    )["RuleArn"]
    functions.add_permission(
        FunctionName="bench-floor",
        StatementId="events",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule,
    )
    events.put_targets(Rule="bench-floor", Targets=[{"Id": "1", "Arn": function}])


def _policy(statement: dict[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


if __name__ == "__main__":
    main()

"""The deployed pipeline, as people and programs around it see it: S3, MQTT, PostgreSQL, EventBridge, SNS, executions.

Nothing here knows how the pipeline works inside, but for this: every object that arrives in the inbox starts one
execution, which ends, or waits for the rest of its drop.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import yaml
from local_cloud import LocalCloud, Message, Subscriber
from local_cloud.stack import ARTIFACTS_BUCKET

from .drops import Drop, Key

TOPIC_PREFIX = "/firmware_update"
_WITNESS_MAC = "02:FF:FF:FF:FF:FF"
_SENTINEL_TOPIC = f"{TOPIC_PREFIX}/sentinel"
_ENDED = {"SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT"}
_SETTLED = ("archive/", "rejected/")
_SUFFIXES = {"image": ".bin", "manifest": ".manifest.json", "targets": ".targets.json"}

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Upload:
    """An object version that was put into the inbox."""

    key: str
    version_id: str


@dataclass(frozen=True)
class Execution:
    """An execution that has ended; `output` is None unless it succeeded."""

    arn: str
    key: str
    status: str
    output: Any


@dataclass(frozen=True)
class Stored:
    """A version of an object in the bucket."""

    key: str
    version_id: str


class Pipeline:
    """A deployed pipeline and a witness of everything that it says. Use it as a context manager."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.cloud = cloud
        self.bucket = cloud.bucket
        self.s3 = cloud.client("s3")
        self._functions: dict[str, str] = {}
        self._puts: list[Upload] = []
        self._puts_lock = threading.Lock()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._database = self.cloud.connect_database()
        self._mail = self._stack.enter_context(_Mailbox(self.cloud))
        # Not with #, which the emulator, unlike MQTT, does not match with the level above it.
        topics = [TOPIC_PREFIX, f"{TOPIC_PREFIX}/+", f"{TOPIC_PREFIX}/product/+"]
        self._listener = self._stack.enter_context(self.listener(_WITNESS_MAC, topics))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._database.close()

    def trust(self, key: Key) -> None:
        self.cloud.trust(key.public_pem.encode())

    # --- dropping -------------------------------------------------------------------------------------------------

    def put(self, key: str, body: bytes, **how: str) -> Upload:
        """Put one object into the inbox; `how` as S3's PutObject has it."""
        upload = Upload(key, self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **how)["VersionId"])
        with self._puts_lock:
            self._puts.append(upload)
        return upload

    def upload(self, key: str, body: bytes) -> Upload:
        """Put one object into the inbox as `aws s3 cp` does, in parts when it is large.

        Only what stays there until its version is known: a member of a drop that is not complete.
        """
        self.s3.upload_fileobj(io.BytesIO(body), self.bucket, key)
        upload = Upload(key, self.s3.head_object(Bucket=self.bucket, Key=key)["VersionId"])
        with self._puts_lock:
            self._puts.append(upload)
        return upload

    def drop(self, stem: str, drop: Drop, *members: str) -> list[Upload]:
        """Put a drop's files into the inbox: `image`, `manifest`, `targets`, in this order unless told another."""
        members = members or tuple(name for name in _SUFFIXES if getattr(drop, name) is not None)
        return [self.put(f"inbox/{stem}{_SUFFIXES[member]}", getattr(drop, member)) for member in members]

    def drop_at_once(self, drops: Iterable[tuple[str, Drop]]) -> list[Upload]:
        """Put all files of all drops into the inbox at the same moment."""
        objects = [
            (f"inbox/{stem}{suffix}", getattr(drop, member))
            for stem, drop in drops
            for member, suffix in _SUFFIXES.items()
            if getattr(drop, member) is not None
        ]
        start = threading.Barrier(len(objects))

        def put(key: str, body: bytes) -> Upload:
            start.wait()
            return self.put(key, body)

        with ThreadPoolExecutor(len(objects)) as pool:
            return list(pool.map(put, *zip(*objects, strict=True)))

    def settle(self, uploads: Iterable[Upload], seconds: float = 180) -> list[Execution]:
        """Wait until every execution that uploads to these keys have started so far has ended; give all of them."""
        keys = {upload.key for upload in uploads}
        with self._puts_lock:
            expected = sum(upload.key in keys for upload in self._puts)

        def ended() -> list[Execution] | None:
            found = [execution for execution in self._mail.executions if execution.key in keys]
            return found if len(found) >= expected else None

        return self._mail.wait_for(ended, f"{expected} executions of {sorted(keys)}", seconds)

    def wait_until_looked_at(self, uploads: Iterable[Upload], seconds: float = 60) -> None:
        """Wait until every execution that uploads to these keys have started so far has ended, or waits itself."""
        keys = {upload.key for upload in uploads}
        with self._puts_lock:
            expected = sum(upload.key in keys for upload in self._puts)
        deadline = time.monotonic() + seconds
        # In this order: one that ends in between is missed, and not counted twice.
        while sum(execution.key in keys for execution in self._mail.executions) + self._waiting(keys) < expected:
            assert time.monotonic() < deadline, f"after {seconds} s not all of {sorted(keys)} were looked at"
            time.sleep(0.2)

    def _waiting(self, keys: set[str]) -> int:
        """How many executions that these keys have started are in a Wait state."""
        machine = self.cloud.client("stepfunctions")
        running = machine.list_executions(
            stateMachineArn=self.cloud.outputs["StateMachineArn"], statusFilter="RUNNING"
        )["executions"]
        found = 0
        for arn in (execution["executionArn"] for execution in running):
            if _key_of(machine.describe_execution(executionArn=arn)["input"]) in keys:
                events = machine.get_execution_history(executionArn=arn, reverseOrder=True)["events"]
                entered = next((event["type"] for event in events if event["type"].endswith("StateEntered")), "")
                found += entered == "WaitStateEntered"
        return found

    def release(self, stem: str, drop: Drop, *members: str) -> list[Upload]:
        """Drop files and wait until what they started has ended."""
        uploads = self.drop(stem, drop, *members)
        self.settle(uploads)
        return uploads

    # --- what came of it ------------------------------------------------------------------------------------------

    def rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        rows = self._database.run(sql, **parameters)
        return [dict(zip([column["name"] for column in self._database.columns], row, strict=True)) for row in rows]

    def releases(self, product: str) -> list[dict[str, Any]]:
        """The product's releases, in the order of their sequence."""
        return self.rows("SELECT * FROM releases WHERE product = :product ORDER BY sequence", product=product)

    def objects(self, prefix: str) -> list[Stored]:
        """Every version of every object under a prefix; no delete markers."""
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=prefix)
        return [Stored(version["Key"], version["VersionId"]) for page in pages for version in page.get("Versions", [])]

    def read(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def origins(self, prefix: str) -> set[tuple[str, str]]:
        """From which object name under the inbox, and which version of it, everything under a prefix came."""
        found = set()
        for stored in self.objects(prefix):
            head = self.s3.head_object(Bucket=self.bucket, Key=stored.key, VersionId=stored.version_id)
            if "inbox-version-id" in head["Metadata"]:
                found.add((stored.key.split("/", 1)[1], head["Metadata"]["inbox-version-id"]))
        return found

    def assert_nothing_was_lost(self, proof: Callable[..., None]) -> None:
        """Every version that was put into the inbox is archived, rejected or waiting; all records fit together."""
        waiting = {(stored.key.removeprefix("inbox/"), stored.version_id) for stored in self.objects("inbox/")}
        places = [Counter(version_id for _, version_id in names) for names in (waiting, *map(self.origins, _SETTLED))]
        found = sum(places, Counter())
        lost = [upload for upload in self._puts if found[upload.version_id] != 1]
        proof(
            "objects", "versions dropped into the inbox", tried=len(self._puts), withstood=len(self._puts) - len(lost)
        )
        assert lost == []
        answer = self.cloud.client("lambda").invoke(FunctionName=self.cloud.outputs["CheckConsistencyFunctionName"])
        report = json.load(answer["Payload"])
        assert report["is_consistent"], report
        proof("objects", "releases, their images and records", tried=report["releases"], withstood=report["releases"])

    def heard(self, release_id: str) -> list[Message]:
        """Everything that was published for a release until now, on whatever topic."""
        # After a release to thousands of devices, reading all that was ever said takes seconds.
        told = [message for message in self._heard_so_far() if release_id.encode() in message.payload]
        return [message for message in told if _fields(message).get("release_id") == release_id]

    def heard_of_product(self, product: str) -> list[Message]:
        """Everything that was published for a product until now, on whatever topic."""
        told = [message for message in self._heard_so_far() if product.encode() in message.payload]
        return [message for message in told if _fields(message).get("product") == product]

    def listener(self, mac: str, topics: list[str]) -> Subscriber:
        """An MQTT session that may hear every topic, as no device may."""
        iot = self.cloud.client("iot")
        self.cloud.device(mac)
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
        with contextlib.suppress(iot.exceptions.ResourceAlreadyExistsException):
            iot.create_policy(policyName="witness", policyDocument=json.dumps(document))
        for principal in iot.list_thing_principals(thingName=mac)["principals"]:
            iot.attach_policy(policyName="witness", target=principal)
        return self.cloud.subscriber(mac, topics)

    def heard_by(self, subscriber: Subscriber, topic: str) -> list[Message]:
        """Everything that a subscriber was told until now, but what this says to it on one of its topics."""
        # A broker keeps the order of what it delivers to one client: when this one is there, the others were.
        mark = f"{time.time_ns()}".encode()
        self.cloud.client("iot-data").publish(topic=topic, qos=1, payload=mark)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            messages = subscriber.wait_for(len(subscriber.messages) + 1, 0.05)
            if any(message.payload == mark for message in messages):
                return [message for message in messages if message.payload != mark]
        raise AssertionError(f"the subscriber heard nothing on {topic} for 20 s")

    def _heard_so_far(self) -> list[Message]:
        told = self.heard_by(self._listener, _SENTINEL_TOPIC)
        # One without a payload takes a retained one away.
        return [message for message in told if message.payload and not message.retained]

    def alert(self, text: str) -> str:
        """The alert that contains a text."""

        def found() -> str | None:
            return next((alert for alert in self._mail.alerts if text in alert), None)

        return self._mail.wait_for(found, f"an alert with {text!r}", 20)

    def alerts(self, text: str) -> list[str]:
        """The alerts until now that contain a text."""
        return [alert for alert in self._mail.alerts if text in alert]

    def event(self, kind: str, of: Callable[[Any], bool]) -> Any:
        """The detail of the pipeline's event of this kind that meets a condition."""

        def found() -> Any:
            return next((detail for name, detail in self._mail.events if name == kind and of(detail)), None)

        return self._mail.wait_for(found, f"an event {kind}", 20)

    def events(self, of: Callable[[Any], bool]) -> list[str]:
        """The kinds of the pipeline's events until now that meet a condition."""
        return [name for name, detail in self._mail.events if of(detail)]

    # --- breaking it from outside ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def function_with(self, logical_id: str, **variables: str) -> Iterator[None]:
        """Deploy a function with variables of its environment changed, and put them back."""
        functions = self.cloud.client("lambda")
        name = self.function_name(logical_id)
        before = functions.get_function_configuration(FunctionName=name)["Environment"]
        functions.update_function_configuration(
            FunctionName=name, Environment={"Variables": before["Variables"] | variables}
        )
        try:
            yield
        finally:
            functions.update_function_configuration(FunctionName=name, Environment=before)

    @contextlib.contextmanager
    def without_retries(self) -> Iterator[None]:
        """Deploy the state machine so that a Task that fails is not tried again for minutes, and put it back."""
        machine = self.cloud.client("stepfunctions")
        arn = self.cloud.outputs["StateMachineArn"]
        definition = machine.describe_state_machine(stateMachineArn=arn)["definition"]
        impatient = json.loads(
            definition, object_hook=lambda found: found | ({"Retry": []} if "Retry" in found else {})
        )
        machine.update_state_machine(stateMachineArn=arn, definition=json.dumps(impatient))
        try:
            yield
        finally:
            machine.update_state_machine(stateMachineArn=arn, definition=definition)

    def redeploy(self, generation: str) -> None:
        """Update every function through CloudFormation, by a variable in its environment."""
        stack = self.cloud.client("cloudformation")
        [deployed] = stack.describe_stacks(StackName="ota")["Stacks"]
        template = yaml.safe_load(stack.get_template(StackName="ota", TemplateStage="Original")["TemplateBody"])
        template["Globals"]["Function"]["Environment"]["Variables"]["GENERATION"] = generation
        # Larger than what UpdateStack takes by itself.
        self.s3.put_object(Bucket=ARTIFACTS_BUCKET, Key="redeployed.json", Body=json.dumps(template))
        stack.update_stack(
            StackName="ota",
            TemplateURL=f"{self.cloud.endpoint}/{ARTIFACTS_BUCKET}/redeployed.json",
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[
                {"ParameterKey": parameter["ParameterKey"], "UsePreviousValue": True}
                for parameter in deployed["Parameters"]
            ],
            Tags=deployed["Tags"],
        )
        stack.get_waiter("stack_update_complete").wait(StackName="ota", WaiterConfig={"Delay": 1, "MaxAttempts": 600})
        resources = stack.describe_stack_resources(StackName="ota")["StackResources"]
        for resource in resources:
            if resource["ResourceType"] == "AWS::Lambda::Function":
                function = self.cloud.client("lambda").get_function_configuration(
                    FunctionName=resource["PhysicalResourceId"]
                )
                assert function["Environment"]["Variables"]["GENERATION"] == generation

    def restart_database(self) -> None:
        """Restart PostgreSQL under everybody who is connected."""
        self.cloud.restart_database()
        self._database = self.cloud.connect_database()

    @contextlib.contextmanager
    def decisions_held(self) -> Iterator[Callable[[], bool]]:
        """Hold a rollout's next decision before its commit; gives the question whether one is held."""
        with contextlib.closing(self.cloud.connect_database()) as holder:
            holder.run("BEGIN")
            holder.run("LOCK TABLE rollout_decisions IN EXCLUSIVE MODE")
            waiting = "SELECT FROM pg_locks WHERE relation = CAST('rollout_decisions' AS regclass) AND NOT granted"
            yield lambda: bool(self.rows(waiting))

    def role_of(self, logical_id: str) -> str:
        """The name of a function's role."""
        configuration = self.cloud.client("lambda").get_function_configuration(
            FunctionName=self.function_name(logical_id)
        )
        return configuration["Role"].rsplit("/", 1)[1]

    def function_name(self, logical_id: str) -> str:
        """The physical name of a function."""
        stack = self.cloud.client("cloudformation")
        detail = stack.describe_stack_resource(StackName="ota", LogicalResourceId=logical_id)["StackResourceDetail"]
        return detail["PhysicalResourceId"]


def _key_of(given: str) -> str:
    """The key of the object that started an execution: none where an operator's action did."""
    key: str = json.loads(given).get("detail", {}).get("object", {}).get("key", "")
    return key


def _fields(message: Message) -> dict[str, Any]:
    """What a message says: nothing where it is not a JSON object, as an attacker's may not be."""
    try:
        said = message.json
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


class _Mailbox:
    """A queue that is subscribed to the alerts, the pipeline's events, and the ends of its executions."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.executions: list[Execution] = []
        self.events: list[tuple[str, Any]] = []
        self.alerts: list[str] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._sqs = cloud.client("sqs")
        self._queue = self._sqs.create_queue(QueueName="witness")["QueueUrl"]
        self._subscribe(cloud)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._reader.join()

    def wait_for(self, find: Callable[[], _Found | None], what: str, seconds: float) -> _Found:
        """What `find` finds in the mail, as soon as it is there."""
        with self._changed:
            deadline = time.monotonic() + seconds
            while (found := find()) is None:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"after {seconds} s there is still no {what}")
            return found

    def _subscribe(self, cloud: LocalCloud) -> None:
        arn = self._sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        services = ["events.amazonaws.com", "sns.amazonaws.com"]
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": {"Service": services}, "Action": "sqs:SendMessage", "Resource": arn}
            ],
        }
        self._sqs.set_queue_attributes(QueueUrl=self._queue, Attributes={"Policy": json.dumps(policy)})
        patterns = {
            "witness-releases": {"source": [cloud.outputs["EventSource"]]},
            "witness-executions": {
                "source": ["aws.states"],
                "detail": {"stateMachineArn": [cloud.outputs["StateMachineArn"]], "status": sorted(_ENDED)},
            },
        }
        events = cloud.client("events")
        for name, pattern in patterns.items():
            events.put_rule(Name=name, EventPattern=json.dumps(pattern))
            events.put_targets(Rule=name, Targets=[{"Id": "witness", "Arn": arn}])
        cloud.client("sns").subscribe(TopicArn=cloud.outputs["AlertsTopicArn"], Protocol="sqs", Endpoint=arn)

    def _read(self) -> None:
        while not self._stopped:
            answer = self._sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            messages = answer.get("Messages", [])
            with self._changed:
                for message in messages:
                    self._sort(json.loads(message["Body"]))
                self._changed.notify_all()
            if messages:
                read = [{"Id": message["MessageId"], "ReceiptHandle": message["ReceiptHandle"]} for message in messages]
                self._sqs.delete_message_batch(QueueUrl=self._queue, Entries=read)

    def _sort(self, mail: dict[str, Any]) -> None:
        if "TopicArn" in mail:
            self.alerts.append(f"{mail['Subject']}\n{mail['Message']}")
            return
        detail = mail["detail"]
        if mail["source"] != "aws.states":
            self.events.append((mail["detail-type"], detail))
            return
        output = json.loads(detail["output"]) if detail.get("output") else None
        self.executions.append(Execution(detail["executionArn"], _key_of(detail["input"]), detail["status"], output))

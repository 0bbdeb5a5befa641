"""What each role of the stack may do, written down a second time, and a call for everything that it could try.

Every call does no harm where it is allowed: it repeats what is so already, or names what is not there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from local_cloud import LocalCloud
from local_cloud.stack import ROOT_ACCESS_KEY_ID

FOLDERS = ("inbox", "claims", "keys", "batches", "releases", "archive", "rejected", "status", "provisioning")
ELSEWHERE = "elsewhere"
_ALL = (*FOLDERS, ELSEWHERE)
# Where the pipeline may call; what else is called by API Gateway, EventBridge or CloudFormation.
STAGES = (
    "ValidateSignatureFunction",
    "RegisterMetadataFunction",
    "ResolveTargetsFunction",
    "PublishMqttFunction",
    "AdvanceRolloutFunction",
    "SettleDropFunction",
)
# How the services call it.
_REFUSALS = {"AccessDenied", "AuthorizationError", "Forbidden"}
_LOGS: dict[str, tuple[str, ...]] = {"logs:CreateLogStream": ("own",), "logs:PutLogEvents": ("own",)}
_DATABASE: dict[str, tuple[str, ...]] = {**_LOGS, "secretsmanager:GetSecretValue": ("database",)}

# role -> action -> where. Whatever is not here must be refused.
ALLOWED: dict[str, dict[str, tuple[str, ...]]] = {
    "ValidateSignatureRole": {
        **_LOGS,
        "s3:GetObject": ("inbox", "claims", "keys"),
        "s3:GetObjectVersion": ("inbox", "claims", "keys"),
        "s3:PutObject": ("claims", "keys", "releases", "a list of devices"),
        "s3:ListBucket": FOLDERS,
        "s3:ListBucketVersions": ("inbox",),
        "ssm:GetParameter": ("trusted key",),
    },
    "RegisterMetadataRole": _DATABASE,
    "ResolveTargetsRole": {
        **_DATABASE,
        "s3:GetObject": ("batches",),
        "s3:GetObjectVersion": ("batches",),
        "s3:PutObject": ("batches", "a list of devices"),
    },
    "PublishMqttRole": {
        **_LOGS,
        "s3:GetObject": ("batches",),
        "s3:PutObject": ("batches", "a list of devices"),
        "s3:ListBucket": ("batches",),
        "iot:Publish": ("fleet", "product", "device"),
        "iot:RetainPublish": ("product",),
        "iot:DescribeEndpoint": ("account",),
    },
    "AdvanceRolloutRole": _DATABASE,
    "SettleDropRole": {
        **_LOGS,
        "s3:GetObject": ("inbox",),
        "s3:GetObjectVersion": ("inbox",),
        "s3:DeleteObjectVersion": ("inbox", "releases"),
        "s3:PutObject": ("archive", "rejected", "status"),
        "s3:ListBucketVersions": ("inbox",),
    },
    "AnnounceFailureRole": {
        **_LOGS,
        "sns:Publish": ("alerts",),
        "sqs:SendMessage": ("dead letters",),
        "events:PutEvents": ("own source",),
    },
    "MigrateDatabaseRole": _DATABASE,
    "DeliverFirmwareRole": {**_DATABASE, "s3:GetObject": ("releases",), "s3:GetObjectVersion": ("releases",)},
    "CheckForUpdateRole": _DATABASE,
    "RecordStatusRole": {
        **_DATABASE,
        "sqs:ReceiveMessage": ("statuses",),
        "sqs:DeleteMessage": ("statuses",),
    },
    "AuthorizeOperatorRole": {
        **_LOGS,
        "s3:GetObject": ("a reason",),
        "s3:ListBucket": ("rejected",),
        "lambda:InvokeFunction": ("OperateReleasesFunction",),
        "states:StartExecution": ("pipeline",),
        "states:DescribeExecution": ("pipeline",),
        "states:StopExecution": ("pipeline",),
    },
    "OperateReleasesRole": _DATABASE,
    "ServeConsoleRole": _LOGS,
    "CheckConsistencyRole": {
        **_DATABASE,
        "s3:GetObject": ("archive", "keys", "releases"),
        "s3:GetObjectVersion": ("archive", "keys", "releases"),
        "s3:ListBucketVersions": ("archive", "inbox", "rejected"),
        "s3:ListBucket": ("keys",),
    },
    "ReleasePipelineRole": {
        "lambda:InvokeFunction": STAGES,
        "s3:GetObject": ("batches",),
        "sns:Publish": ("alerts",),
        "events:PutEvents": ("own source",),
        "states:StartExecution": ("pipeline",),
        "states:DescribeExecution": ("pipeline", "batches"),
        "states:StopExecution": ("pipeline", "batches"),
        "states:RedriveExecution": ("pipeline", "batches"),
        "logs:DescribeLogGroups": ("account",),
    },
    "BuildServerRole": {
        "s3:PutObject": ("inbox",),
        "s3:GetObject": ("a status", "a reason"),
    },
    "AuthorizeDeviceRole": {
        **_LOGS,
        "s3:GetObject": ("the allow list",),
        "s3:ListBucket": ("provisioning",),
        "iot:ListThingPrincipals": ("devices",),
    },
    "DeviceProvisioningRole": {"iot:UpdateCertificate": ("devices",), "iot:ListThingPrincipals": ("devices",)},
    "InboxRuleRole": {"states:StartExecution": ("pipeline",)},
    "StatusRuleRole": {"sqs:SendMessage": ("statuses", "status dead letters")},
}


@dataclass(frozen=True)
class Probe:
    """One thing that a role could try.

    Attributes:
        action: of IAM.
        where: which resource, in the words of `ALLOWED`.
        call: does it.
    """

    action: str
    where: str
    call: Callable[[Caller], object]

    def is_allowed_to(self, role: str) -> bool:
        return self.where in ALLOWED[role].get(self.action, ())

    def is_refused(self, caller: Caller) -> bool:
        """Try it, and say whether IAM refused it.

        Whatever else the service says was said after IAM had let the call pass.
        """
        try:
            self.call(caller)
        except ClientError as error:
            is_refused = error.response["Error"]["Code"].removesuffix("Exception") in _REFUSALS
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.FORBIDDEN and not is_refused:
                raise
            return is_refused
        return False


class Caller:
    """Someone with AWS credentials."""

    def __init__(self, cloud: LocalCloud, session: boto3.Session, credentials: Mapping[str, str]) -> None:
        self.credentials = Credentials(
            credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials.get("SessionToken")
        )
        self._cloud = cloud
        self._session = session
        self._clients: dict[str, Any] = {}

    def __getitem__(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(
                service,
                endpoint_url=self._cloud.endpoint,
                region_name="us-east-1",
                aws_access_key_id=self.credentials.access_key,
                aws_secret_access_key=self.credentials.secret_key,
                aws_session_token=self.credentials.token,
            )
        return self._clients[service]

    def signed(self, method: str, url: str, body: bytes = b"") -> dict[str, str]:
        """The headers of a request that this caller signs for API Gateway."""
        request = AWSRequest(method, url, data=body)
        SigV4Auth(self.credentials, "execute-api", "us-east-1").add_auth(request)
        return dict(request.headers)


class Places:
    """The deployed stack's resources, and what is beside it."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.bucket = cloud.bucket
        self.outputs = cloud.outputs
        listed = cloud.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName="ota")
        made = [resource for page in listed for resource in page["StackResourceSummaries"]]
        self.physical = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in made}
        self.roles = {
            resource["LogicalResourceId"] for resource in made if resource["ResourceType"] == "AWS::IAM::Role"
        }
        self.functions = {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for resource in made
            if resource["ResourceType"] == "AWS::Lambda::Function"
        }
        self.machine = cloud.outputs["StateMachineArn"]
        described = cloud.client("stepfunctions").describe_state_machine(stateMachineArn=self.machine)
        self.definition = described["definition"]
        self.device_policy = cloud.outputs["DevicePolicyName"]
        self.secret = "ota/database"
        s3 = cloud.client("s3")
        self.bucket_policy = s3.get_bucket_policy(Bucket=self.bucket)["Policy"]
        s3.create_bucket(Bucket=ELSEWHERE)
        for folder in _ALL:
            bucket, key = self.object(folder)
            s3.put_object(Bucket=bucket, Key=key)
        secrets = cloud.client("secretsmanager")
        secrets.create_secret(Name=ELSEWHERE, SecretString=ELSEWHERE)
        self.login = secrets.get_secret_value(SecretId=self.secret)["SecretString"]
        self.queues = {
            "dead letters": self.physical["DeadLetters"],
            "statuses": self.physical["StatusQueue"],
            "status dead letters": self.physical["StatusDeadLetters"],
            ELSEWHERE: cloud.client("sqs").create_queue(QueueName=ELSEWHERE)["QueueUrl"],
        }
        self.topics = {
            "alerts": cloud.outputs["AlertsTopicArn"],
            ELSEWHERE: cloud.client("sns").create_topic(Name=ELSEWHERE)["TopicArn"],
        }
        logs = cloud.client("logs")
        self.log_groups = {"own": self.physical["FunctionsLogGroup"], ELSEWHERE: f"/{ELSEWHERE}"}
        logs.create_log_group(logGroupName=f"/{ELSEWHERE}")
        for group in self.log_groups.values():
            logs.create_log_stream(logGroupName=group, logStreamName="probe")
        self.parameters = {"trusted key": f"{cloud.outputs['TrustedKeysPath']}/probe", ELSEWHERE: f"/{ELSEWHERE}/probe"}
        for name in self.parameters.values():
            cloud.client("ssm").put_parameter(Name=name, Value=ELSEWHERE, Type="String")

    def tidy(self, cloud: LocalCloud) -> None:
        """Take away what would look like the pipeline's own."""
        cloud.client("ssm").delete_parameter(Name=self.parameters["trusted key"])
        bucket = boto3.resource(
            "s3",
            endpoint_url=cloud.endpoint,
            aws_access_key_id=ROOT_ACCESS_KEY_ID,
            aws_secret_access_key=cloud.emulator.secret_access_key,
        ).Bucket(self.bucket)
        for folder in FOLDERS:
            bucket.object_versions.filter(Prefix=self.object(folder)[1]).delete()

    def object(self, folder: str) -> tuple[str, str]:
        """An object that the pipeline leaves alone: an empty one whose name ends with a slash."""
        return (ELSEWHERE, "probe/") if folder == ELSEWHERE else (self.bucket, f"{folder}/probe/")


def probes(places: Places) -> list[Probe]:
    """Everything that is tried in every role."""
    found = [
        *_of_storage(places),
        *_of_devices(places),
        *_of_messages(places),
        *_of_execution(places),
        *_of_secrets(places),
    ]
    assert len({(probe.action, probe.where) for probe in found}) == len(found)
    return found


def _of_storage(places: Places) -> Iterator[Probe]:
    def on(action: str, folder: str, call: Callable[..., object], **arguments: str) -> Probe:
        bucket, key = places.object(folder)
        return Probe(action, folder, lambda by: call(by["s3"], Bucket=bucket, Key=key, **arguments))

    nothing = "00000000-0000-4000-8000-000000000000"
    for folder in _ALL:
        yield on("s3:GetObject", folder, lambda s3, **where: s3.get_object(**where))
        yield on("s3:GetObjectVersion", folder, lambda s3, **where: s3.get_object(**where), VersionId=nothing)
        yield on("s3:PutObject", folder, lambda s3, **where: s3.put_object(**where))
        yield on("s3:PutObjectAcl", folder, lambda s3, **where: s3.put_object_acl(**where), ACL="private")
        yield on("s3:DeleteObject", folder, lambda s3, **where: s3.delete_object(**where))
        yield on("s3:DeleteObjectVersion", folder, lambda s3, **where: s3.delete_object(**where), VersionId=nothing)
        bucket, _ = places.object(folder)
        prefix = f"{folder}/probe"
        yield Probe(
            "s3:ListBucket",
            folder,
            lambda by, bucket=bucket, prefix=prefix: by["s3"].list_objects_v2(Bucket=bucket, Prefix=prefix),
        )
        yield Probe(
            "s3:ListBucketVersions",
            folder,
            lambda by, bucket=bucket, prefix=prefix: by["s3"].list_object_versions(Bucket=bucket, Prefix=prefix),
        )
    # What became of a drop, as its build server asks for it.
    for where, key in {
        "a status": "status/probe.json",
        "a reason": "rejected/probe.reason.json",
        "the allow list": "provisioning/allowed.txt",
    }.items():
        yield Probe("s3:GetObject", where, lambda by, key=key: by["s3"].get_object(Bucket=places.bucket, Key=key))
    listed = {"Bucket": places.bucket, "Key": "batches/probe/targets.txt"}
    yield Probe("s3:PutObject", "a list of devices", lambda by: by["s3"].put_object(**listed))
    versioning = {"Status": "Enabled"}
    yield Probe(
        "s3:PutBucketVersioning",
        "bucket",
        lambda by: by["s3"].put_bucket_versioning(Bucket=places.bucket, VersioningConfiguration=versioning),
    )
    yield Probe(
        "s3:PutBucketPolicy",
        "bucket",
        lambda by: by["s3"].put_bucket_policy(Bucket=places.bucket, Policy=places.bucket_policy),
    )
    yield Probe("s3:DeleteBucket", "bucket", lambda by: by["s3"].delete_bucket(Bucket=places.bucket))


def _of_devices(places: Places) -> Iterator[Probe]:
    prefix, mac = "/firmware_update", "02:00:00:00:00:FE"
    topics = {
        "fleet": prefix,
        "product": f"{prefix}/product/probe",
        "device": f"{prefix}/{mac}",
        "status": f"{prefix}/{mac}/status",
        "beside the fleet": f"{prefix}s",
        "shadow": f"$aws/things/{mac}/shadow/update",
        ELSEWHERE: ELSEWHERE,
    }
    yield Probe("iot:ListThingPrincipals", "devices", lambda by: by["iot"].list_thing_principals(thingName=mac))
    message = json.dumps({"release_id": "probe", "product": "probe"}).encode()
    for where, topic in topics.items():
        yield Probe(
            "iot:Publish", where, lambda by, topic=topic: by["iot-data"].publish(topic=topic, qos=1, payload=message)
        )
        if where != "fleet":  # whose retained message this would remove
            yield Probe(
                "iot:RetainPublish",
                where,
                lambda by, topic=topic: by["iot-data"].publish(topic=topic, qos=1, retain=True, payload=b""),
            )
    yield Probe(
        "iot:GetRetainedMessage", "fleet", lambda by: by["iot-data"].get_retained_message(topic=topics["fleet"])
    )
    yield Probe("iot:DescribeEndpoint", "account", lambda by: by["iot"].describe_endpoint(endpointType="iot:Data-ATS"))
    yield Probe("iot:ListThings", "account", lambda by: by["iot"].list_things())
    yield Probe(
        "iot:CreatePolicyVersion",
        "devices",
        lambda by: by["iot"].create_policy_version(policyName=places.device_policy, policyDocument="{"),
    )
    yield Probe(
        "iot:UpdateCertificate",
        "devices",
        lambda by: by["iot"].update_certificate(certificateId="0" * 64, newStatus="INACTIVE"),
    )


def _of_messages(places: Places) -> Iterator[Probe]:
    for where, topic in places.topics.items():
        yield Probe(
            "sns:Publish",
            where,
            lambda by, topic=topic: by["sns"].publish(TopicArn=topic, Subject="probe", Message="probe"),
        )
    for where, url in places.queues.items():
        # A character that SQS refuses, so that nothing is sent.
        yield Probe(
            "sqs:SendMessage",
            where,
            lambda by, url=url: by["sqs"].send_message(QueueUrl=url, MessageBody="\0"),
        )
        yield Probe(
            "sqs:ReceiveMessage",
            where,
            lambda by, url=url: by["sqs"].receive_message(QueueUrl=url, VisibilityTimeout=0),
        )
        yield Probe(
            "sqs:DeleteMessage",
            where,
            lambda by, url=url: by["sqs"].delete_message(QueueUrl=url, ReceiptHandle="none"),
        )
    for where, source in {"own source": places.outputs["EventSource"], ELSEWHERE: ELSEWHERE}.items():
        entry = {"Source": source, "DetailType": "Probe", "Detail": "{}"}
        yield Probe("events:PutEvents", where, lambda by, entry=entry: by["events"].put_events(Entries=[entry]))
    for where, group in places.log_groups.items():
        yield Probe(
            "logs:CreateLogStream",
            where,
            lambda by, group=group: by["logs"].create_log_stream(logGroupName=group, logStreamName="probe"),
        )
        yield Probe(
            "logs:PutLogEvents",
            where,
            lambda by, group=group: by["logs"].put_log_events(
                logGroupName=group, logStreamName="none", logEvents=[{"timestamp": 0, "message": "probe"}]
            ),
        )
        yield Probe(
            "logs:GetLogEvents",
            where,
            lambda by, group=group: by["logs"].get_log_events(logGroupName=group, logStreamName="probe"),
        )
        yield Probe(
            "logs:DeleteLogStream",
            where,
            lambda by, group=group: by["logs"].delete_log_stream(logGroupName=group, logStreamName="none"),
        )
    yield Probe("logs:DescribeLogGroups", "account", lambda by: by["logs"].describe_log_groups())


def _of_execution(places: Places) -> Iterator[Probe]:
    for where, name in places.functions.items():
        yield Probe(
            "lambda:InvokeFunction",
            where,
            lambda by, name=name: by["lambda"].invoke(FunctionName=name, InvocationType="DryRun"),
        )
        yield Probe(
            "lambda:GetFunctionConfiguration",
            where,
            lambda by, name=name: by["lambda"].get_function_configuration(FunctionName=name),
        )
        yield Probe(
            "lambda:UpdateFunctionCode",
            where,
            lambda by, name=name: by["lambda"].update_function_code(FunctionName=name, S3Bucket="none", S3Key="none"),
        )
    # A file that is not there: the execution finds that a drop is incomplete, and ends.
    event = json.dumps({"detail": {"object": {"key": "inbox/probe/none.bin"}}})
    machines = {"pipeline": places.machine, "another pipeline": places.machine + "-2"}
    for where, machine in machines.items():
        yield Probe(
            "states:StartExecution",
            where,
            lambda by, machine=machine: by["stepfunctions"].start_execution(stateMachineArn=machine, input=event),
        )
        yield Probe(
            "states:UpdateStateMachine",
            where,
            lambda by, machine=machine: by["stepfunctions"].update_state_machine(
                stateMachineArn=machine, definition=places.definition
            ),
        )
    for where, machine in {**machines, "batches": f"{places.machine}/PublishBatches"}.items():
        execution = machine.replace(":stateMachine:", ":execution:") + ":none"
        for action in ("describe", "stop", "redrive"):
            yield Probe(
                f"states:{action.title()}Execution",
                where,
                lambda by, action=action, execution=execution: getattr(by["stepfunctions"], f"{action}_execution")(
                    executionArn=execution
                ),
            )


def _of_secrets(places: Places) -> Iterator[Probe]:
    for where, secret, content in (("database", places.secret, places.login), (ELSEWHERE, ELSEWHERE, ELSEWHERE)):
        yield Probe(
            "secretsmanager:GetSecretValue",
            where,
            lambda by, secret=secret: by["secretsmanager"].get_secret_value(SecretId=secret),
        )
        yield Probe(
            "secretsmanager:PutSecretValue",
            where,
            lambda by, secret=secret, content=content: by["secretsmanager"].put_secret_value(
                SecretId=secret, SecretString=content
            ),
        )
    for where, name in places.parameters.items():
        yield Probe("ssm:GetParameter", where, lambda by, name=name: by["ssm"].get_parameter(Name=name))
        yield Probe(
            "ssm:PutParameter",
            where,
            lambda by, name=name: by["ssm"].put_parameter(Name=name, Value=ELSEWHERE, Type="String", Overwrite=True),
        )
        yield Probe("ssm:DeleteParameter", where, lambda by, name=name: by["ssm"].delete_parameter(Name=f"{name}/none"))
        path = name.rsplit("/", 1)[0]
        yield Probe("ssm:GetParametersByPath", where, lambda by, path=path: by["ssm"].get_parameters_by_path(Path=path))
    yield Probe(
        "apigateway:GET",
        "devices' key",
        lambda by: by["apigateway"].get_api_key(apiKey=places.outputs["ApiKeyId"], includeValue=True),
    )
    yield Probe("iam:ListRoles", "account", lambda by: by["iam"].list_roles())
    for role in ("ValidateSignatureRole", "MigrateDatabaseRole"):
        name = places.physical[role]
        yield Probe(
            "iam:PutRolePolicy",
            role,
            lambda by, name=name: by["iam"].put_role_policy(RoleName=name, PolicyName="probe", PolicyDocument="{"),
        )
        yield Probe(
            "sts:AssumeRole",
            role,
            lambda by, name=name: by["sts"].assume_role(
                RoleArn=f"arn:aws:iam::000000000000:role/{name}", RoleSessionName="probe"
            ),
        )
    yield Probe(
        "cloudformation:DescribeStacks", "stack", lambda by: by["cloudformation"].describe_stacks(StackName="ota")
    )

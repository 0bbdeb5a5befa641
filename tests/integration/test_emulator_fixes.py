"""Every fix in `emulator_entry.py` is needed: with it the emulator does what AWS does, and without it does not.

A test that fails for the emulator as it was installed says that a new version no longer needs the fix.
"""

import ast
import base64
import hashlib
import io
import itertools
import json
import re
import socket
import ssl
import struct
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import psutil
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError
from local_cloud.emulator import Emulator, start_emulator, stop_emulator
from local_cloud.processes import ServerProcess
from local_cloud.stack import REGION, ROOT_ACCESS_KEY_ID, RUNTIME

PROJECT = Path(__file__).resolve().parents[2]
ENTRY = PROJECT / "tools" / "local_cloud" / "emulator_entry.py"
PYTHON = PROJECT / ".venv-emulator" / "bin" / "python"
numbers = itertools.count(1)


@dataclass(frozen=True)
class Aws:
    """An emulator, as its clients see it."""

    emulator: Emulator
    process: ServerProcess
    folder: Path

    def client(self, service, login=None):
        login = login or (ROOT_ACCESS_KEY_ID, self.emulator.secret_access_key)
        return boto3.client(
            service,
            REGION,
            endpoint_url=self.emulator.endpoint,
            aws_access_key_id=login[0],
            aws_secret_access_key=login[1],
            config=Config(retries={"total_max_attempts": 1}, proxies={}),
        )

    def user(self, service, **statement):
        """A client of a user who may do just that."""
        iam, name = self.client("iam"), f"user-{next(numbers)}"
        iam.create_user(UserName=name)
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}
        iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=json.dumps(document))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return self.client(service, (key["AccessKeyId"], key["SecretAccessKey"]))

    def role(self, name):
        """The ARN of a role that may do nothing."""
        return self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]

    def stack(self, name, **resources):
        """What became of a stack: its outputs `Of<resource>`, or None where it could not be made."""
        cloudformation = self.client("cloudformation")
        outputs = {f"Of{logical_id}": {"Value": resource.pop("Output")} for logical_id, resource in resources.items()}
        with suppress(ClientError, WaiterError):
            cloudformation.create_stack(
                StackName=name, TemplateBody=json.dumps({"Resources": resources, "Outputs": outputs})
            )
            waiter = cloudformation.get_waiter("stack_create_complete")
            waiter.wait(StackName=name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 100})
            [made] = cloudformation.describe_stacks(StackName=name)["Stacks"]
            return {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}
        return None


@pytest.fixture(scope="module")
def emulators(tmp_path_factory):
    """The emulator as it was installed, and with the fixes."""

    @contextmanager
    def running(name, program):
        folder = tmp_path_factory.mktemp(name)
        emulator = start_emulator(PYTHON, folder / "tmp", folder / "log", folder / "record", program)
        process = ServerProcess.load(folder / "record")
        try:
            yield Aws(emulator, process, folder)
        finally:
            stop_emulator(process)

    with running("plain", ["-m", "ministack"]) as plain, running("fixed", [ENTRY]) as fixed:
        yield plain, fixed


def allowed(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in {400, 403}:
            raise
        return False
    return True


# --- what a client sees: whether an emulator does what the fix is for -------------------------------------------------


def listens_on_loopback_only(aws):
    family = [psutil.Process(aws.process.pid), *psutil.Process(aws.process.pid).children(recursive=True)]
    listening = {
        connection.laddr
        for member in family
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {aws.emulator.port, aws.emulator.mqtt_port} <= {address.port for address in listening}
    return {address.ip for address in listening} == {"127.0.0.1"}


@dataclass(frozen=True)
class Console:
    """A user pool with a user, and a client of it that signs people in."""

    aws: Aws
    client_id: str

    def post(self, path, **form):
        common = {"client_id": self.client_id, "redirect_uri": "https://console.example/"}
        url = f"{self.aws.emulator.endpoint}/{path}"
        return requests.post(url, common | form, allow_redirects=False, timeout=60)

    def sign_in(self):
        """The tokens."""
        signed_in = self.post("login", username="ada", password="Secret-12345", response_type="code", scope="openid")
        [code] = parse_qs(urlsplit(signed_in.headers["location"]).query)["code"]
        return self.post("oauth2/token", grant_type="authorization_code", code=code).json()

    def refresh(self, tokens):
        return self.post("oauth2/token", grant_type="refresh_token", refresh_token=tokens["refresh_token"])


def console(aws):
    cognito = aws.client("cognito-idp")
    pool = cognito.create_user_pool(PoolName="probe")["UserPool"]["Id"]
    client = cognito.create_user_pool_client(
        UserPoolId=pool,
        ClientName="probe",
        AllowedOAuthFlowsUserPoolClient=True,
        AllowedOAuthFlows=["code"],
        AllowedOAuthScopes=["openid"],
        CallbackURLs=["https://console.example/"],
        SupportedIdentityProviders=["COGNITO"],
    )["UserPoolClient"]["ClientId"]
    cognito.admin_create_user(UserPoolId=pool, Username="ada")
    cognito.admin_set_user_password(UserPoolId=pool, Username="ada", Password="Secret-12345", Permanent=True)
    cognito.create_group(UserPoolId=pool, GroupName="operator")
    cognito.admin_add_user_to_group(UserPoolId=pool, Username="ada", GroupName="operator")
    return Console(aws, client)


def is_closed_to_who_does_not_sign(aws):
    def lists(login):
        return allowed(aws.client("s3", login).list_buckets)

    def status(method, path, **options):
        return requests.request(method, aws.emulator.endpoint + path, timeout=60, **options).status_code

    assert lists(None)
    return not lists(("test", "test")) and {
        status("GET", "/"),
        status("PUT", "/bucket"),
        status("POST", "/_ministack/reset"),
        status("GET", "/_ministack/health"),
        status("GET", "/", headers={"Origin": "https://page.example"}),
        status("GET", "/_ministack/ready", headers={"Host": "page.example"}),
        status("OPTIONS", "/bucket", headers={"Access-Control-Request-Method": "PUT"}),
    } == {403}


def keeps_the_credentials_of_a_functions_role_secret(aws):
    """Made here as the emulator makes them without the fix, from names that everybody knows."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as packed:
        packed.writestr("own.py", "import os\ndef handler(*_): return os.environ['AWS_SECRET_ACCESS_KEY']\n")
    functions, role = aws.client("lambda"), aws.role("own")
    arn = functions.create_function(
        FunctionName="own", Runtime=RUNTIME, Role=role, Handler="own.handler", Code={"ZipFile": code.getvalue()}
    )["FunctionArn"]
    functions.get_waiter("function_active_v2").wait(FunctionName="own", WaiterConfig={"Delay": 0.2})
    digest = hashlib.sha256(f"{arn}:{role}".encode()).hexdigest()
    found = json.load(functions.invoke(FunctionName="own")["Payload"])
    assert len(found) == len(digest)
    return found != hashlib.sha256(f"secret:{digest}".encode()).hexdigest()


def names_the_groups_in_a_refreshed_token(aws):
    def groups(tokens):
        payload = tokens["access_token"].split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "==")).get("cognito:groups")

    used = console(aws)
    tokens = used.sign_in()
    assert groups(tokens) == ["operator"]
    return groups(used.refresh(tokens).json()) == ["operator"]


def revokes_a_refresh_token(aws):
    """As https://docs.aws.amazon.com/cognito/latest/developerguide/revocation-endpoint.html says."""
    used = console(aws)
    tokens = used.sign_in()

    def revoke(**form):
        answer = used.post("oauth2/revoke", **form)
        return answer.status_code, answer.json().get("error") if answer.content.startswith(b"{") else answer.content

    refused = [
        revoke() == (400, "invalid_request"),
        revoke(token=tokens["access_token"]) == (400, "unsupported_token_type"),
        revoke(token=tokens["refresh_token"], client_id="another") == (401, "invalid_client"),
        revoke(token="never granted") == (200, b""),
        used.refresh(tokens).status_code == 200,
    ]
    revoked = revoke(token=tokens["refresh_token"]) == (200, b"")
    return all(refused) and revoked and used.refresh(tokens).json()["error"] == "invalid_grant"


def resumes_a_session_with_the_connack(aws):
    """By hand, because MQTT clients make of a message before the CONNACK what they like."""
    iot = aws.client("iot")
    identity = iot.create_keys_and_certificate(setAsActive=True)
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
    iot.create_policy(policyName="all", policyDocument=json.dumps(document))
    iot.attach_policy(policyName="all", target=identity["certificateArn"])
    pem = aws.folder / "device.pem"
    pem.write_text(identity["certificatePem"] + identity["keyPair"]["PrivateKey"])
    tls = ssl.create_default_context(cadata=aws.emulator.mqtt_authority().decode())
    tls.load_cert_chain(pem)

    def text(value):
        return struct.pack(">H", len(value)) + value

    def packet(kind, body):
        return bytes([kind, len(body)]) + body

    connect = packet(0x10, text(b"MQTT") + b"\x04\x00" + struct.pack(">H", 60) + text(b"device"))  # a lasting session
    subscribe = packet(0x82, struct.pack(">H", 1) + text(b"news") + b"\x01")

    @contextmanager
    def connected():
        with (
            socket.create_connection(("127.0.0.1", aws.emulator.mqtt_port), timeout=20) as plain,
            tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(connect)
            yield connection
            connection.sendall(packet(0xE0, b""))

    with connected() as connection:
        assert connection.recv(4) == b"\x20\x02\x00\x00"  # CONNACK, no session present
        connection.sendall(subscribe)
        assert connection.recv(5)[0] == 0x90  # SUBACK
    aws.client("iot-data").publish(topic="news", qos=1, retain=True, payload=b"{}")
    with connected() as connection:
        return connection.recv(1) == b"\x20"


def makes_the_secret_of_a_database_cluster(aws):
    properties = {"Engine": "aurora-postgresql", "MasterUsername": "ada", "ManageMasterUserPassword": True}
    outputs = aws.stack(
        "cluster",
        Cluster={
            "Type": "AWS::RDS::DBCluster",
            "Properties": properties,
            "Output": {"Fn::GetAtt": ["Cluster", "MasterUserSecret.SecretArn"]},
        },
    )
    return outputs is not None and outputs["OfCluster"].startswith("arn:aws:secretsmanager:")


def takes_statements_of_postgresql(aws):
    cluster = {"Engine": "aurora-postgresql", "MasterUsername": "ada", "EnableHttpEndpoint": True}
    instance = {"Engine": "aurora-postgresql", "DBInstanceClass": "db.serverless", "DBClusterIdentifier": {"Ref": "Pg"}}
    outputs = aws.stack(
        "pg",
        Pg={
            "Type": "AWS::RDS::DBCluster",
            "Properties": cluster | {"MasterUserPassword": "secret-1234"},
            "Output": {"Fn::GetAtt": ["Pg", "DBClusterArn"]},
        },
        Instance={"Type": "AWS::RDS::DBInstance", "Properties": instance, "Output": {"Ref": "Instance"}},
    )
    login = json.dumps({"username": "ada", "password": "secret-1234"})
    secret = aws.client("secretsmanager").create_secret(Name="pg", SecretString=login)["ARN"]
    data = aws.client("rds-data")

    def executed(sql):
        return allowed(data.execute_statement, resourceArn=outputs["OfPg"], secretArn=secret, database="pg", sql=sql)

    assert executed("CREATE DATABASE pg")
    return executed("DO $$ BEGIN NULL; END $$") and executed("GRANT CREATE ON SCHEMA public TO ada")


def gives_a_part_of_an_object_version(aws):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="parts")
    s3.put_bucket_versioning(Bucket="parts", VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket="parts", Key="image", Body=b"0123456789")["VersionId"]
    assert s3.get_object(Bucket="parts", Key="image", Range="bytes=2-4")["Body"].read() == b"234"
    found = s3.get_object(Bucket="parts", Key="image", VersionId=version, Range="bytes=2-4")
    return (found["Body"].read(), found.get("ContentRange")) == (b"234", "bytes 2-4/10")


def lists_versions_of_any_key(aws):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="keys")
    s3.put_object(Bucket="keys", Key="ä &b", Body=b"")
    [listed] = s3.list_object_versions(Bucket="keys", EncodingType="url")["Versions"]
    return listed["Key"] == "%C3%A4%20%26b"


def gives_a_rest_api_its_name_for_its_id(aws):
    return aws.client("apigateway").create_rest_api(name="probe-api")["id"] == "probe-api"


def imports_gateway_responses(aws):
    definition = {
        "openapi": "3.0.1",
        "info": {"title": "imported", "version": "1"},
        "paths": {},
        "x-amazon-apigateway-gateway-responses": {"ACCESS_DENIED": {"statusCode": 418}},
    }
    properties = {"Name": "imported", "Body": definition}
    outputs = aws.stack(
        "imported", Api={"Type": "AWS::ApiGateway::RestApi", "Properties": properties, "Output": {"Ref": "Api"}}
    )
    gateway = aws.client("apigateway")
    response = gateway.get_gateway_response(restApiId=outputs["OfApi"], responseType="ACCESS_DENIED")
    return response.get("statusCode") == "418"


def asks_for_a_permission_of_its_own_to_retain(aws):
    topic = f"arn:aws:iot:{REGION}:000000000000:topic/news"
    publisher = aws.user("iot-data", Action="iot:Publish", Resource=topic)
    assert allowed(publisher.publish, topic="news", qos=1, payload=b"{}")
    return not allowed(publisher.publish, topic="news", qos=1, payload=b"{}", retain=True)


def allows_a_log_stream_by_the_arn_of_its_group(aws):
    aws.client("logs").create_log_group(logGroupName="probe")
    group = f"arn:aws:logs:{REGION}:000000000000:log-group:probe"
    writer = aws.user("logs", Action="logs:CreateLogStream", Resource=f"{group}:*")
    return allowed(writer.create_log_stream, logGroupName="probe", logStreamName="stream")


def knows_the_source_of_events(aws):
    condition = {"StringEquals": {"events:source": "ours"}}
    sender = aws.user("events", Action="events:PutEvents", Resource="*", Condition=condition)

    def sent(source):
        return allowed(sender.put_events, Entries=[{"Source": source, "DetailType": "t", "Detail": "{}"}])

    assert not sent("theirs")
    return sent("ours")


def knows_how_an_object_is_to_be_stored(aws):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="stored")
    plain = {"Null": {"s3:x-amz-storage-class": "true", "s3:x-amz-server-side-encryption-customer-algorithm": "true"}}
    writer = aws.user("s3", Action="s3:PutObject", Resource="arn:aws:s3:::stored/*", Condition=plain)
    assert allowed(writer.put_object, Bucket="stored", Key="plain")
    customers = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    return not any(
        allowed(writer.put_object, Bucket="stored", Key="odd", **how)
        for how in ({"StorageClass": "GLACIER"}, customers)
    )


def copies_nothing_out_of_an_archive(aws):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="archive")
    s3.put_object(Bucket="archive", Key="cold", StorageClass="GLACIER")
    return not allowed(s3.copy_object, Bucket="archive", Key="warm", CopySource={"Bucket": "archive", "Key": "cold"})


def unpacks_a_functions_code_once(aws):
    """Two functions of the same code, which means two workers."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as packed:
        packed.writestr("where.py", "import os\ndef handler(*_): return os.path.realpath(__file__)\n")
    functions, role = aws.client("lambda"), aws.role("function")

    def where(name):
        functions.create_function(
            FunctionName=name, Runtime=RUNTIME, Role=role, Handler="where.handler", Code={"ZipFile": code.getvalue()}
        )
        functions.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.2})
        return json.load(functions.invoke(FunctionName=name)["Payload"])

    found = [where("one"), where("two")]
    assert [Path(file).name for file in found] == ["where.py", "where.py"]
    return found[0] == found[1]


def reads_a_state_machine_in_yaml(aws):
    outputs = aws.stack(
        "yaml",
        Machine={
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {
                "RoleArn": aws.role("yaml"),
                "DefinitionString": "StartAt: Done # a comment\nStates:\n  Done: {Type: Succeed}\n",
            },
            "Output": {"Ref": "Machine"},
        },
    )
    if outputs is None:
        return False
    described = aws.client("stepfunctions").describe_state_machine(stateMachineArn=outputs["OfMachine"])
    try:
        return json.loads(described["definition"])["StartAt"] == "Done"
    except ValueError:
        return False


def takes_a_saved_query(aws):
    properties = {"Name": "failures", "QueryString": "fields @message"}
    query = {"Type": "AWS::Logs::QueryDefinition", "Properties": properties, "Output": {"Ref": "Query"}}
    return aws.stack("query", Query=query) is not None


def seconds_of_executions(aws, retrier, count):
    """How long executions take whose only task fails until its retries are used up."""
    machines, name = aws.client("stepfunctions"), f"retries-{next(numbers)}"
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": "nobody"},
        "Retry": [{"ErrorEquals": ["States.ALL"], **retrier}],
        "End": True,
    }
    definition = json.dumps({"StartAt": "Task", "States": {"Task": task}})
    arn = machines.create_state_machine(name=name, roleArn=aws.role(name), definition=definition)["stateMachineArn"]
    executions = [machines.start_execution(stateMachineArn=arn)["executionArn"] for _ in range(count)]
    found = []
    for execution in executions:
        while (described := machines.describe_execution(executionArn=execution))["status"] == "RUNNING":
            time.sleep(0.1)
        assert described["status"] == "FAILED"
        found.append((described["stopDate"] - described["startDate"]).total_seconds())
    return found


def retries_as_the_retrier_says(aws):
    """The bounded retries would come 1 and 3 seconds later; without jitter, none of the others within 2 seconds."""
    bounded = {"IntervalSeconds": 1, "BackoffRate": 3, "MaxDelaySeconds": 1, "MaxAttempts": 2}
    jittering = {"IntervalSeconds": 2, "JitterStrategy": "FULL", "MaxAttempts": 1}
    with ThreadPoolExecutor() as pool:
        [bounded_took], jittering_took = pool.map(seconds_of_executions, [aws] * 2, [bounded, jittering], [1, 10])
    return bounded_took < 4 and min(jittering_took) < 2


# What each fix replaces. The second half is what no client sees: `support/emulator_probes.py` looks at it.
FIXES = {
    listens_on_loopback_only: ["BaseEventLoop.create_server"],
    is_closed_to_who_does_not_sign: [
        "app.app",
        "apigateway_v1._AUTHENTICATION_GATEWAY_ERRORS['MissingAuthenticationToken']",
    ],
    keeps_the_credentials_of_a_functions_role_secret: ["lambda_runtime.hashlib"],
    names_the_groups_in_a_refreshed_token: ["cognito._fake_token"],
    revokes_a_refresh_token: ["app._handle_cognito_body_request"],
    resumes_a_session_with_the_connack: ["iot.broker_subscribe"],
    makes_the_secret_of_a_database_cluster: ["provisioners._RESOURCE_HANDLERS['AWS::RDS::DBCluster']['create']"],
    takes_statements_of_postgresql: ["rds_data._stub_execute"],
    gives_a_part_of_an_object_version: ["s3._get_object"],
    lists_versions_of_any_key: ["s3._list_object_versions"],
    gives_a_rest_api_its_name_for_its_id: ["apigateway_v1._create_rest_api"],
    imports_gateway_responses: ["apigateway_v1._import_rest_api"],
    asks_for_a_permission_of_its_own_to_retain: ["iam_actions.extract_iam_action"],
    allows_a_log_stream_by_the_arn_of_its_group: ["iam_actions.extract_resource_arn"],
    knows_the_source_of_events: ["iam_actions.request_tag_context"],
    knows_how_an_object_is_to_be_stored: ["iam_actions.s3_service_context"],
    copies_nothing_out_of_an_archive: ["s3._copy_object"],
    unpacks_a_functions_code_once: ["lambda_runtime.zipfile"],
    reads_a_state_machine_in_yaml: ["provisioners._sfn_definition"],
    takes_a_saved_query: ["provisioners._RESOURCE_HANDLERS['AWS::Logs::QueryDefinition']"],
    retries_as_the_retrier_says: ["stepfunctions._find_matching_retrier"],
}
INNER_FIXES = {
    "pauses_a_connection_that_asyncio_reads": ["iot._MtlsAcceptor.connection_made"],
    "remembers_the_policies_of_thousands_of_devices": ["iot._parsed_iot_policy"],
    "matches_a_message_with_few_of_many_subscriptions": ["iot._subscriptions", "iot.broker_publish"],
    "ends_a_subscription_without_a_look_at_the_others": ["iot.broker_unsubscribe"],
    "adds_a_message_under_the_lock_of_the_queues": ["sqs._act_send_message", "sqs._HANDLERS['SendMessage']"],
    "gives_a_function_more_than_ten_messages_at_once": ["sqs._receive_messages_for_esm"],
}
NEEDED_NO_LONGER = "The emulator does this by itself now. Remove the fix from emulator_entry.py, and its test."


@pytest.mark.parametrize("probe", FIXES, ids=lambda probe: probe.__name__)
def test_fix_is_needed_and_works(emulators, probe):
    with ThreadPoolExecutor() as pool:
        plain, fixed = (pool.submit(probe, emulator) for emulator in emulators)
    assert fixed.result()
    # On Python 3.11.2 the plain emulator loses the first ClientHello, and answers nothing at all.
    assert isinstance(plain.exception(), TimeoutError) or not plain.result(), NEEDED_NO_LONGER


@pytest.fixture(scope="module")
def inner():
    """What the probes inside the emulator found, without the fixes and with them."""
    program = PROJECT / "tests" / "support" / "emulator_probes.py"
    done = subprocess.run([PYTHON, "-P", program], stdout=subprocess.PIPE, check=True, timeout=300)
    return json.loads(done.stdout)


@pytest.mark.parametrize("probe", INNER_FIXES)
def test_inner_fix_is_needed_and_works(inner, probe):
    plain, fixed = inner[probe]
    assert fixed
    assert not plain, NEEDED_NO_LONGER


def test_every_fix_names_its_version_and_has_a_test():
    before, *fixes = re.split(r"^(?=# ministack \d+\.\d+\.\d+ )", ENTRY.read_text(), flags=re.MULTILINE)
    assert replaced_in(before) == []
    assert sorted(map(replaced_in, fixes)) == sorted([*FIXES.values(), *INNER_FIXES.values()])


def replaced_in(source):
    """What a piece of `emulator_entry.py` sets in the emulator's modules."""
    assignments = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    targets = [target for assignment in assignments for target in assignment.targets]
    return [ast.unparse(target) for target in targets if not isinstance(target, ast.Name)]

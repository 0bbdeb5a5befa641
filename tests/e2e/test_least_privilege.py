"""Nobody may do more than he has to, tried out on the deployed stack: roles, devices, callers of the APIs."""

import base64
import hashlib
import io
import json
import uuid
import zipfile

import boto3
import pytest
import requests
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from local_cloud import LocalCloudError, Subscriber
from local_cloud.devices import DeviceIdentity
from local_cloud.stack import REGION, ROOT_ACCESS_KEY_ID
from support.functions import read_event
from support.logs import secrets_of
from support.privileges import ALLOWED, Caller, Places, probes
from support.secrets import leaks

ACCOUNT = "000000000000"
PREFIX = "/firmware_update"
MAC, OTHER_MAC = "02:1E:00:00:00:01", "02:1E:00:00:00:02"


@pytest.fixture(scope="module")
def places(cloud):
    found = Places(cloud)
    yield found
    found.tidy(cloud)


@pytest.fixture(scope="module")
def root(cloud):
    credentials = {"AccessKeyId": ROOT_ACCESS_KEY_ID, "SecretAccessKey": cloud.emulator.secret_access_key}
    return Caller(cloud, boto3.Session(), credentials)


@pytest.fixture(scope="module")
def user(cloud):
    """Makes users who may do what their policy says."""
    iam, session = cloud.client("iam"), boto3.Session()

    def make(name, *statements):
        iam.create_user(UserName=name)
        if statements:
            document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **what} for what in statements]}
            iam.put_user_policy(UserName=name, PolicyName="probe", PolicyDocument=json.dumps(document))
        return Caller(cloud, session, iam.create_access_key(UserName=name)["AccessKey"])

    return make


# --- roles ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def act_as(cloud, places, user):
    """Gives whoever has a role of the stack.

    The roles trust AWS's services and nobody else. For the time of these tests they trust a user too; what they allow
    is not touched.
    """
    iam, session = cloud.client("iam"), boto3.Session()
    tester = user("tester", {"Action": "sts:AssumeRole", "Resource": "*"})
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/tester"}, "Action": "sts:AssumeRole"}
    before = {}
    for role in ALLOWED:
        name = places.physical[role]
        before[name] = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        extended = {**before[name], "Statement": [*before[name]["Statement"], trust]}
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(extended))

    def assume(role):
        arn = f"arn:aws:iam::{ACCOUNT}:role/{places.physical[role]}"
        return Caller(cloud, session, tester["sts"].assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"])

    yield assume
    for name, document in before.items():
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(document))


def test_table_is_about_every_role_of_the_stack(places):
    assert places.roles == ALLOWED.keys()


@pytest.mark.parametrize("role", ALLOWED)
def test_role_may_do_what_the_table_says_and_nothing_else(places, act_as, proof, role):
    caller = act_as(role)
    wrong = {}
    forbidden = 0
    for probe in probes(places):
        is_refused, must_be = probe.is_refused(caller), not probe.is_allowed_to(role)
        forbidden += must_be
        if is_refused != must_be:
            wrong[probe.action, probe.where] = "refused" if is_refused else "allowed"
    assert wrong == {}
    proof("attacks", f"what {role} must not do", tried=forbidden, withstood=forbidden)


def test_every_probe_passes_for_who_may_do_everything(root, places):
    """So that a refusal of a role means what it seems to mean."""
    assert [(probe.action, probe.where) for probe in probes(places) if probe.is_refused(root)] == []


def test_table_allows_nothing_that_is_not_tried(places):
    tried = {(probe.action, probe.where) for probe in probes(places)}
    for role, actions in ALLOWED.items():
        assert {(action, where) for action, allowed in actions.items() for where in allowed} <= tried, role


@pytest.mark.parametrize(
    ("storage", "is_allowed"),
    [
        ({}, True),
        ({"StorageClass": "STANDARD", "ServerSideEncryption": "AES256"}, True),
        ({"StorageClass": "DEEP_ARCHIVE"}, False),
        ({"StorageClass": "GLACIER_IR"}, False),
        ({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/aws/s3"}, False),
        ({"ServerSideEncryption": "aws:kms:dsse"}, False),
        ({"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}, False),
    ],
    ids=str,
)
def test_nobody_stores_in_the_inbox_what_the_pipeline_cannot_read(places, act_as, storage, is_allowed):
    s3, where = act_as("BuildServerRole")["s3"], {"Bucket": places.bucket, "Key": "inbox/probe/"}

    for put in (s3.put_object, s3.create_multipart_upload):
        if is_allowed:
            put(**where, **storage)
        else:
            with pytest.raises(ClientError, match="AccessDenied"):
                put(**where, **storage)


def test_who_may_invoke_the_operators_functions_acts_in_no_operators_name(places, pipeline, user):
    """He chooses the whole event, and takes one that the API sent for a model."""
    invoke = user("invoker", {"Action": "lambda:InvokeFunction", "Resource": "*"})["lambda"].invoke
    change = {
        "httpMethod": "PUT",
        "resource": "/devices/{mac}/tags",
        "path": f"/devices/{MAC}/tags",
        "pathParameters": {"mac": MAC},
        "body": '{"tags": ["beta"]}',
        "caller": "arn:aws:iam::000000000000:user/boss",
    }
    for function in ("authorize_operator", "operate_releases"):
        event = read_event(function, "abort") | change
        name = places.physical[f"{function.title().replace('_', '')}Function"]
        answered = json.load(invoke(FunctionName=name, Payload=json.dumps(event))["Payload"])
        assert (answered["statusCode"], json.loads(answered["body"])["code"]) == (403, "not_through_the_api")
    assert pipeline.rows("SELECT * FROM audit WHERE mac = CAST(:mac AS macaddr)", mac=MAC) == []


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", [PREFIX, f"{PREFIX}/product/demo-sensor", f"{PREFIX}/product/+", f"{PREFIX}/{MAC}"])
def test_device_may_listen_to_its_fleet_and_to_itself(cloud, topic):
    with cloud.subscriber(MAC, [topic]):
        pass


@pytest.mark.parametrize(
    "topic",
    [
        *("#", "+", "+/+", "/#", "/+/+", f"{PREFIX}/#", f"{PREFIX}/+", f"{PREFIX}/+/status"),
        *(f"{PREFIX}/{OTHER_MAC}", f"{PREFIX}/{OTHER_MAC}/status", f"{PREFIX}/{OTHER_MAC}/#", f"{PREFIX}s"),
        *(f"{PREFIX}/{MAC}/status", f"{PREFIX}/{MAC}/#", f"$share/group/{PREFIX}/{OTHER_MAC}"),
        *("$SYS/#", f"$aws/things/{OTHER_MAC}/shadow/#", f"$aws/things/{MAC}/shadow/get/accepted"),
    ],
)
def test_device_may_listen_to_nothing_else(cloud, topic):
    with pytest.raises(LocalCloudError, match="did not accept"), cloud.subscriber(MAC, [topic]):
        pass


def publish(cloud, topic, *, retain=False):
    """Publish as the device MAC, and say whether the broker took it."""
    with cloud.subscriber(MAC, [PREFIX]) as device:
        try:
            device.publish(topic, json.dumps({"release_id": "probe", "product": "probe"}), retain=retain)
        except RuntimeError:
            return False
        return True


def test_device_may_report_its_own_status(cloud):
    assert publish(cloud, f"{PREFIX}/{MAC}/status")


@pytest.mark.parametrize(
    ("topic", "retain"),
    [
        *((PREFIX, retain) for retain in (False, True)),
        *((f"{PREFIX}/product/demo-sensor", retain) for retain in (False, True)),
        *((f"{PREFIX}/{mac}", False) for mac in (MAC, OTHER_MAC)),
        (f"{PREFIX}/{OTHER_MAC}/status", False),
        (f"{PREFIX}/{MAC}/status", True),
        (f"{PREFIX}/{MAC}/status/more", False),
        (f"$aws/things/{MAC}/shadow/update", False),
        ("elsewhere", False),
    ],
)
def test_device_may_say_nothing_else(pipeline, topic, retain):
    before = pipeline.heard("probe")
    assert not publish(pipeline.cloud, topic, retain=retain)
    assert pipeline.heard("probe") == before


def test_device_may_not_be_another(cloud):
    own, other = cloud.device(MAC), cloud.device(OTHER_MAC)
    for client_id in (other.mac, "anybody", MAC.lower()):
        claimed = DeviceIdentity(client_id, own.certificate, own.key)
        session = Subscriber("127.0.0.1", cloud.emulator.mqtt_port, cloud.mqtt_ca, claimed, [PREFIX])
        with pytest.raises(LocalCloudError, match="did not accept"), session:
            pass


@pytest.fixture
def stray_certificate(cloud, tmp_path):
    """Makes a certificate that is attached to no thing, with or without the devices' policy."""
    iot = cloud.client("iot")

    def make(*, policy):
        made = iot.create_keys_and_certificate(setAsActive=True)
        if policy:
            iot.attach_policy(policyName=cloud.outputs["DevicePolicyName"], target=made["certificateArn"])
        certificate, private = tmp_path / "stray.pem", tmp_path / "stray.key"
        certificate.write_text(made["certificatePem"])
        private.write_text(made["keyPair"]["PrivateKey"])
        return made["certificateId"], DeviceIdentity(MAC, certificate, private)

    return make


@pytest.mark.parametrize("policy", [False, True])
def test_certificate_of_no_thing_opens_nothing(cloud, stray_certificate, policy):
    _, stray = stray_certificate(policy=policy)
    session = Subscriber("127.0.0.1", cloud.emulator.mqtt_port, cloud.mqtt_ca, stray, [PREFIX])
    with pytest.raises(LocalCloudError, match="did not accept"), session:
        pass


# --- callers of the APIs ----------------------------------------------------------------------------------------------


def status_of(method, url, headers):
    body = b"{}" if method in {"POST", "PUT"} else b""
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, headers=headers, data=body, timeout=30).status_code


OPERATIONS = [
    ("GET", "/releases"),
    ("GET", "/releases/00000000000000000000000000000000"),
    ("POST", "/releases/00000000000000000000000000000000/actions"),
    ("GET", f"/devices/{MAC}"),
    ("PUT", f"/devices/{MAC}/tags"),
]


@pytest.fixture(scope="module")
def operators_url(cloud):
    return cloud.environment["OTA_OPERATOR_API_URL"]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_operators_api_is_closed_to_the_devices_key_and_to_who_does_not_sign(cloud, operators_url, method, path):
    for headers in ({}, {"x-api-key": cloud.api_key}, {"Authorization": f"Bearer {cloud.api_key}"}):
        assert status_of(method, operators_url + path, headers) == 403, headers


def test_operators_api_is_closed_to_who_may_not_invoke_it(operators_url, user, act_as):
    callers = [user("outsider", {"Action": "s3:*", "Resource": "*"}), *map(act_as, ALLOWED)]
    for caller in callers:
        url = f"{operators_url}/releases"
        assert status_of("GET", url, caller.signed("GET", url)) == 403


def test_operators_api_is_open_to_who_may_invoke_it_and_for_that_only(cloud, operators_url, user):
    arn = f"arn:aws:execute-api:us-east-1:{ACCOUNT}:{cloud.outputs['OperatorApiId']}/v1/GET/releases"
    reader = user("reader", {"Action": "execute-api:Invoke", "Resource": arn})
    url = f"{operators_url}/releases"
    assert status_of("GET", url, reader.signed("GET", url)) == 200
    for method, path in OPERATIONS[1:]:
        url = operators_url + path
        assert status_of(method, url, reader.signed(method, url, b"{}" if method in {"POST", "PUT"} else b"")) == 403


def test_request_that_was_signed_for_another_path_is_refused(operators_url, user):
    signed = user("signer", {"Action": "execute-api:Invoke", "Resource": "*"}).signed(
        "GET", f"{operators_url}/releases"
    )
    assert status_of("GET", f"{operators_url}/devices/{MAC}", signed) == 403


def test_devices_key_opens_the_devices_api_and_a_guess_does_not(cloud):
    url = f"{cloud.environment['OTA_API_URL']}/devices/{MAC}/update?product=nothing"
    assert status_of("GET", url, {"x-api-key": cloud.api_key, "Accept": "*/*"}) == 204
    for guess in ("", uuid.uuid4().hex, cloud.api_key[:-1], cloud.api_key.upper() + "x"):
        assert status_of("GET", url, {"x-api-key": guess, "Accept": "*/*"}) == 403


# --- somebody else on the developer's machine: another user, or a web page that the developer looks at ----------------

CREATE = "/2015-03-31/functions"


@pytest.fixture(scope="module")
def local(cloud, places):
    """Sends a request for the emulator as it is given: `sign` with this secret, then `change` what was signed."""

    def send(method, path, body=b"", /, secret=None, service="lambda", headers=None, **change):
        url = cloud.endpoint + path
        request = AWSRequest(method, url, data=body, headers=headers)
        if secret:
            signer = S3SigV4Auth if service == "s3" else SigV4Auth
            signer(Credentials(ROOT_ACCESS_KEY_ID, secret), service, REGION).add_auth(request)
        given = {"method": method, "url": url, "data": body, "headers": dict(request.headers)}
        given["headers"] |= change.pop("and_headers", {})
        with requests.Session() as session:
            session.trust_env = False
            return session.send(session.prepare_request(requests.Request(**given | change)), timeout=30)

    return send


def function(places):
    """Code that would run as the developer, whose signing key it could read."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as packed:
        packed.writestr("stranger.py", "def handler(*_): return open('signing-key.pem').read()\n")
    role = f"arn:aws:iam::{ACCOUNT}:role/{places.physical['ServeConsoleRole']}"
    return json.dumps(
        {
            "FunctionName": "stranger",
            "Runtime": "python3.13",
            "Handler": "stranger.handler",
            "Role": role,
            "Code": {"ZipFile": base64.b64encode(code.getvalue()).decode()},
        }
    ).encode()


@pytest.fixture
def nothing_ran(cloud):
    yield
    with pytest.raises(ClientError, match="ResourceNotFound"):
        cloud.client("lambda").get_function(FunctionName="stranger")


@pytest.mark.usefixtures("nothing_ran")
@pytest.mark.parametrize("secret", [None, "test", "guess"])
def test_code_of_a_stranger_on_this_machine_does_not_run(local, places, secret):
    answer = local("POST", CREATE, function(places), secret=secret)
    assert answer.status_code == 403, answer.text
    code = answer.headers["x-amzn-errortype"]
    assert code == ("InvalidSignatureException" if secret else "MissingAuthenticationTokenException")


@pytest.mark.usefixtures("nothing_ran")
def test_signed_request_that_was_changed_is_refused(cloud, local, places):
    secret, body = cloud.emulator.secret_access_key, function(places)
    other = b"{}" + body
    changes = [
        {"data": other},
        {"data": other, "and_headers": {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()}},
        {"method": "PUT"},
        {"url": f"{cloud.endpoint}{CREATE}/stranger"},
        {"url": f"{cloud.endpoint}{CREATE}?Qualifier=1"},
        {"and_headers": {"X-Amz-Target": "AWSEvents.ListRules"}},
        {"and_headers": {"X-Amz-Security-Token": "token"}},
        {"and_headers": {"X-Amz-Date": "20260101T000000Z"}},
    ]
    answers = [local("POST", CREATE, body, secret=secret, **change).json()["__type"] for change in changes]
    assert answers == ["InvalidSignatureException"] * len(changes)


@pytest.mark.parametrize("secret", [None, "test"])
def test_bucket_is_closed_to_who_does_not_know_the_secret(cloud, local, secret):
    for method in ("GET", "PUT", "DELETE"):
        answer = local(method, f"/{cloud.bucket}/releases/probe", b"x", secret=secret, service="s3")
        assert (answer.status_code, "AccessDenied" in answer.text or "SignatureDoesNotMatch" in answer.text) == (
            403,
            True,
        ), answer.text
    s3 = boto3.client(
        "s3",
        REGION,
        endpoint_url=cloud.endpoint,
        aws_access_key_id=ROOT_ACCESS_KEY_ID,
        aws_secret_access_key="guess",
        config=Config(signature_version="s3v4"),
    )
    where = {"Bucket": cloud.bucket, "Key": "releases/probe"}
    for operation in ("get_object", "put_object"):
        method = operation.split("_")[0].upper()
        assert requests.request(method, s3.generate_presigned_url(operation, where), timeout=30).status_code == 403


@pytest.mark.usefixtures("nothing_ran")
@pytest.mark.parametrize(
    "sent_by_a_page",
    [
        {"Host": "page.example"},  # whose name now leads to 127.0.0.1
        {"Host": "page.example:4566"},
        {"Host": "127.0.0.1.page.example"},
        {"Origin": "https://page.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
    ids=str,
)
def test_web_page_is_refused_even_if_it_knows_the_secret(cloud, local, places, sent_by_a_page):
    secret = cloud.emulator.secret_access_key
    answer = local("POST", CREATE, function(places), secret=secret, headers=sent_by_a_page)
    assert answer.status_code == 403
    assert "expected" in answer.json()["message"]
    for path in (CREATE, "/", f"/{cloud.bucket}/x", "/oauth2/token", "/_ministack/reset"):
        preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "*"}
        answer = local("OPTIONS", path, headers=sent_by_a_page | preflight)
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_no_answer_may_be_read_by_a_page_of_another_origin(cloud, local):
    secret = cloud.emulator.secret_access_key
    for answer in (local("GET", CREATE, secret=secret), local("POST", "/oauth2/token")):
        assert answer.status_code != 403
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_emulators_own_routes_are_closed_to_who_does_not_sign(local):
    routes = [
        *(("GET", path) for path in ("/_ministack/ready", "/_ministack/health", "/_localstack/health", "/health")),
        *(("POST", path) for path in ("/_ministack/reset", "/_ministack/config", "/_ministack/eks-auth/x")),
        *(("GET", path) for path in ("/_ministack/lambda-code/stranger", "/_ministack/lambda-layers/x/1/content")),
        *(("GET", path) for path in ("/latest/meta-data/iam/security-credentials/", "/v2/_catalog", "/oauth2/token")),
    ]
    assert {route: local(*route).status_code for route in routes} == dict.fromkeys(routes, 403)


def test_emulators_own_routes_are_closed_to_everybody_but_root(cloud, act_as):
    credentials = act_as("BuildServerRole").credentials
    request = AWSRequest("POST", f"{cloud.endpoint}/_ministack/reset", data=b"")
    SigV4Auth(credentials, "s3", REGION).add_auth(request)
    assert requests.post(request.url, headers=dict(request.headers), timeout=60).status_code == 403


def test_forged_token_of_a_build_server_gets_no_role(cloud):
    """Its claims are right, and the role's name can be calculated."""
    claims = {"iss": "https://token.actions.githubusercontent.com", "aud": "sts.amazonaws.com"}
    parts = ({"alg": "RS256"}, claims | {"sub": "repo:example/firmware:ref:refs/tags/v1"})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    form = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": cloud.outputs["BuildServerRoleArn"],
        "RoleSessionName": "stranger",
        "WebIdentityToken": ".".join([*encoded, "signature"]),
    }
    assert requests.post(cloud.endpoint, form, timeout=60).status_code == 403


def test_credentials_of_a_functions_role_cannot_be_made_from_its_names(cloud, places):
    """As the emulator would make them: from ARNs that everybody knows."""
    cloud.client("lambda").invoke(FunctionName=places.physical["ServeConsoleFunction"])
    role = f"arn:aws:iam::{ACCOUNT}:role/{places.physical['ServeConsoleRole']}"
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{places.physical['ServeConsoleFunction']}"
    digest = hashlib.sha256(f"{arn}:{role}".encode()).hexdigest()
    secret, token = (hashlib.sha256(f"{what}:{digest}".encode()).hexdigest() for what in ("secret", "token"))
    made = {"AccessKeyId": f"ASIA{digest[:16].upper()}", "SecretAccessKey": secret, "SessionToken": token}
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        Caller(cloud, boto3.Session(), made)["sts"].get_caller_identity()


def test_another_user_of_this_machine_reads_no_secret(cloud):
    cloud.device(MAC)
    closed = {path for path in cloud.state.rglob("*") if not path.is_symlink() and path.is_dir() and is_closed(path)}
    readable = {
        str(path): path.read_text(errors="replace")
        for path in cloud.state.rglob("*")
        if path.is_file() and path.stat().st_mode & 0o044 and not closed & set(path.parents)
    }
    assert str(cloud.mqtt_ca) in readable
    assert leaks(readable.items(), secrets_of(cloud)) == []


def is_closed(folder):
    return not folder.stat().st_mode & 0o011

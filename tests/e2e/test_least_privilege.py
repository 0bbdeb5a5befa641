"""Nobody may do more than he has to, tried out on the deployed stack: roles, devices, callers of the APIs."""

import json
import uuid

import boto3
import pytest
import requests
from botocore.exceptions import ClientError
from local_cloud import LocalCloudError, Subscriber
from local_cloud.devices import DeviceIdentity
from support.privileges import ALLOWED, Caller, Places, probes

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
    return Caller(cloud, boto3.Session(), {"AccessKeyId": "test", "SecretAccessKey": "test"})


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

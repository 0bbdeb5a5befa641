"""Which devices a provisioning claim can register: those on the list, once, and nothing else."""

import boto3
import pytest
from botocore.exceptions import ClientError
from ota_core.formats.allow_list import MAX_ALLOW_LIST_BYTES
from support.functions import CONTEXT, load_handler, read_event

MAC = "24:6F:28:00:00:01"
REFUSED = {"allowProvisioning": False}


@pytest.fixture
def upload(s3):
    return lambda content: s3.put_object(Bucket="bucket", Key="provisioning/allowed.txt", Body=content)


@pytest.fixture
def handler(s3, monkeypatch):
    return load_handler("authorize_device", monkeypatch, BUCKET="bucket")


@pytest.fixture
def register(handler, caplog):
    """Registers a device that says this about itself; gives the answer and the record in the log."""
    caplog.set_level("INFO")

    def call(**parameters):
        caplog.clear()
        event = read_event("authorize_device", "claimed") | {"parameters": parameters}
        answer = handler.lambda_handler(event, CONTEXT)
        [line] = caplog.records
        return answer, line

    return call


@pytest.mark.parametrize("spelling", [MAC, MAC.lower(), "24-6f-28-00-00-01", "246F28000001"])
def test_listed_device_is_registered_under_the_one_spelling_of_its_mac(register, upload, spelling):
    upload(b"24:6f:28:00:00:01")
    answer, line = register(MAC=spelling)
    assert answer == {"allowProvisioning": True, "parameterOverrides": {"MAC": MAC}}
    assert (line.getMessage(), line.mac) == ("registration allowed", MAC)


def test_log_says_which_claim_asked_for_which_certificate(register, upload):
    asked = read_event("authorize_device", "claimed")
    upload(MAC.encode())
    for mac in (MAC, "24:6F:28:00:00:02"):
        _, line = register(MAC=mac)
        assert (line.claim, line.certificate) == (asked["claimCertificateId"], asked["certificateId"])


def test_nothing_is_registered_without_a_list(register):
    answer, line = register(MAC=MAC)
    assert (answer, line.getMessage(), line.code) == (REFUSED, "registration refused", "allow_list_missing")
    assert line.levelname == "WARNING"


@pytest.mark.parametrize("listed", [b"", f"# {MAC}".encode(), b"24:6F:28:00:00:02", b"24:6F:29"])
def test_device_that_is_not_listed_is_refused(register, upload, listed):
    upload(listed)
    answer, line = register(MAC=MAC)
    assert (answer, line.code) == (REFUSED, "mac_not_allowed")


@pytest.mark.parametrize("line", [b"all", b"24:6F", b"*", b"24:6F:28:00:00:02, 24:6F:28:00:00:03", b"\xff"])
def test_list_with_one_wrong_line_allows_nothing(register, upload, line):
    upload(MAC.encode() + b"\n" + line)
    answer, logged = register(MAC=MAC)
    assert (answer, logged.code) == (REFUSED, "allow_list_malformed")


def test_list_beyond_its_limit_allows_nothing(register, upload):
    content = MAC.encode() + b"\n"
    upload(content.ljust(MAX_ALLOW_LIST_BYTES, b"#"))
    assert register(MAC=MAC)[0] != REFUSED
    upload(content.ljust(MAX_ALLOW_LIST_BYTES + 1, b"#"))
    answer, line = register(MAC=MAC)
    assert (answer, line.code) == (REFUSED, "allow_list_too_large")


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            None,
            1,
            [MAC],
            {"MAC": MAC},
            "",
            f" {MAC}",
            f"{MAC}\n",
            "24:6F:28",
            "24:6F:28:00:00:0G",
            "24:6F-28:00:00:01",
        ),
        *("00:00:00:00:00:00", "FF:FF:FF:FF:FF:FF", "01:00:5E:00:00:01", "33:33:00:00:00:01", f"{MAC}{'x' * 1000}"),
    ],
)
def test_what_is_not_a_devices_mac_is_refused_whatever_the_list_says(register, upload, wrong):
    upload(b"00:00:00\nFF:FF:FF\n01:00:5E\n33:33:00\n24:6F:28")
    answer, line = register(MAC=wrong)
    assert (answer, line.code) == (REFUSED, "mac_invalid")
    assert len(line.mac) < 100


def test_other_parameters_do_not_stand_for_the_mac(register, upload):
    upload(b"24:6F:28")
    assert register(SerialNumber=MAC, mac=MAC)[0] == REFUSED


@pytest.mark.parametrize("attributes", [{}, {"first_certificate": "another"}], ids=["by hand", "by a claim"])
def test_device_that_has_a_certificate_keeps_its_identity(register, upload, attributes):
    upload(b"24:6F:28")
    iot = boto3.client("iot")
    iot.create_thing(thingName=MAC, attributePayload={"attributes": attributes})
    iot.attach_thing_principal(thingName=MAC, principal=iot.create_keys_and_certificate()["certificateArn"])
    answer, line = register(MAC=MAC.lower())
    assert (answer, line.code) == (REFUSED, "mac_registered")


@pytest.mark.parametrize("call", ["get_object", "list_thing_principals"])
def test_what_cannot_be_asked_is_an_error_and_not_a_registration(handler, register, upload, monkeypatch, call):
    """AWS IoT Core registers nothing when its hook fails."""
    upload(b"24:6F:28")

    def fail(**_):
        raise ClientError({"Error": {"Code": "ThrottlingException"}}, call)

    monkeypatch.setattr(handler.STORE._s3 if call == "get_object" else handler.IOT, call, fail)
    with pytest.raises(ClientError):
        register(MAC=MAC)

"""The two functions of the API, run on the very events of `sam local invoke`, over fakes of S3 and PostgreSQL."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import EndpointConnectionError
from ota_core.rules.check_in import Candidate
from ota_core.stages.delivery import Delivery
from ota_core.stores.delivery_store import ReleasedImage
from ota_core.stores.image_store import ImageDamaged, StoredImage
from pg8000.exceptions import InterfaceError
from support.drops import make_drop
from support.fakes import FakeCheckIns, FakeDeliveries, FakeImages
from support.functions import CONTEXT, load_handler, read_event
from support.observed import read_log

CONTENT = bytes(range(256)) * 1024
IMAGE = StoredImage("releases/x.bin", "v", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
SETTINGS = {"BUCKET": "b", "DOWNLOAD_MODE": "proxy", "IMAGE_CACHE_BYTES": "1000000"}


@pytest.fixture
def deliver(monkeypatch):
    handler = load_handler("deliver_firmware", monkeypatch, **SETTINGS)
    released = ReleasedImage(IMAGE, datetime(2026, 3, 7, tzinfo=UTC))
    releases = FakeDeliveries({("demo-sensor", version): released for version in ("1.4.0", "1.4.0+5")})
    images = FakeImages(CONTENT)
    handler.DELIVERY = Delivery(releases, images, redirects=False)

    def call(name):
        return handler.lambda_handler(read_event("deliver_firmware", name), CONTEXT)

    call.handler, call.releases, call.images = handler, releases, images
    return call


@pytest.fixture
def check(monkeypatch):
    handler = load_handler("check_for_update", monkeypatch)
    drop = make_drop(version="1.4.0")
    handler.DEVICES = devices = FakeCheckIns(
        Candidate(
            release_id="r1",
            version="1.4.0",
            envelope=drop.manifest.decode(),
            allow_downgrade=False,
            expires_at=datetime.now(UTC) + timedelta(days=1),
        )
    )

    def call(name):
        return handler.lambda_handler(read_event("check_for_update", name), CONTEXT)

    call.devices, call.drop = devices, drop
    return call


def code_of(answer):
    assert answer["headers"]["Content-Type"] == "application/json"
    document = json.loads(answer["body"])
    assert set(document) == {"code", "message"}
    return document["code"]


def test_chunk_is_answered_in_base64(deliver):
    answer = deliver("chunk")
    assert answer["statusCode"] == 206
    assert answer["isBase64Encoded"] is True
    assert base64.b64decode(answer["body"]) == CONTENT[65536:131072]
    assert answer["headers"]["Content-Range"] == f"bytes 65536-131071/{len(CONTENT)}"
    assert answer["headers"]["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("name", "status", "size"), [("chunk", 206, 65536), ("whole", 200, len(CONTENT)), ("head", 200, 0)]
)
def test_what_is_delivered_is_logged_with_its_size(deliver, capsys, name, status, size):
    deliver(name)
    _, [line] = read_log(capsys.readouterr().out)
    assert (line["message"], line["product"], line["version"]) == ("delivered", "demo-sensor", "1.4.0")
    assert (line["status"], line["bytes"]) == (status, size)


def test_redirect_is_logged_with_the_size_that_s3_delivers(deliver, capsys):
    deliver.handler.DELIVERY = Delivery(deliver.releases, deliver.images, redirects=True)
    deliver("chunk")
    _, [line] = read_log(capsys.readouterr().out)
    assert (line["status"], line["bytes"]) == (307, 65536)


@pytest.mark.parametrize("name", ["unknown_version", "path_trick", "no_accept"])
def test_nothing_is_logged_as_delivered_of_what_no_release_has(deliver, capsys, name):
    deliver(name)
    assert "delivered" not in capsys.readouterr().out


def test_whole_image_is_answered_without_a_range(deliver):
    answer = deliver("whole")
    assert answer["statusCode"] == 200
    assert base64.b64decode(answer["body"]) == CONTENT


def test_head_has_no_content_but_its_length(deliver):
    answer = deliver("head")
    assert (answer["statusCode"], answer["body"]) == (200, "")
    assert answer["headers"]["Content-Length"] == str(len(CONTENT))


def test_version_is_found_when_the_gateway_leaves_it_encoded(deliver):
    assert deliver("encoded_build_metadata")["statusCode"] == 200


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("unknown_version", 404, "firmware_unknown"),
        ("path_trick", 404, "firmware_unknown"),
        ("no_accept", 406, "accept_missing"),
    ],
)
def test_delivery_refuses_in_json(deliver, name, status, code):
    answer = deliver(name)
    assert (answer["statusCode"], code_of(answer)) == (status, code)


def test_release_and_device_are_those_of_the_query(deliver):
    deliver("chunk")
    deliver("whole")
    assert [(asked["release_id"], asked["mac"]) for asked in deliver.releases.asked] == [
        ("0123456789abcdef" * 2, "AA:BB:CC:DD:EE:FF"),
        (None, None),
    ]


@pytest.mark.parametrize("mac", ["", "AABBCCDDEEF", "AA:BB-CC:DD:EE:FF", "' OR 1=1", "é"])
def test_delivery_refuses_what_is_no_mac(deliver, mac):
    asked = read_event("deliver_firmware", "chunk")
    asked["queryStringParameters"]["mac"] = mac
    answer = deliver.handler.lambda_handler(asked, CONTEXT)
    assert (answer["statusCode"], code_of(answer)) == (400, "mac_invalid")
    assert deliver.releases.asked == []


@pytest.mark.parametrize(
    ("releases_error", "images_error", "status", "code"),
    [
        (InterfaceError("Can't create a connection to host db.example"), None, 503, "temporarily_unavailable"),
        (TimeoutError("timed out"), None, 503, "temporarily_unavailable"),
        (None, EndpointConnectionError(endpoint_url="https://s3"), 503, "temporarily_unavailable"),
        (None, ImageDamaged("image_damaged", "its SHA-256 is 00"), 500, "image_damaged"),
        (ZeroDivisionError("division by zero"), None, 500, "internal_error"),
    ],
)
def test_what_goes_wrong_inside_is_logged_and_answered_without_a_stack_trace(
    deliver, caplog, releases_error, images_error, status, code
):
    deliver.releases.error, deliver.images.error = releases_error, images_error
    answer = deliver("chunk")
    assert (answer["statusCode"], code_of(answer)) == (status, code)
    assert ("Retry-After" in answer["headers"]) == (status == 503)
    assert "Traceback" not in answer["body"]
    assert "db.example" not in answer["body"]
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info[1] in {releases_error, images_error}


def test_device_with_an_older_version_gets_the_notification(check):
    answer = check("older_version")
    assert answer["statusCode"] == 200
    notification = json.loads(answer["body"])
    assert notification["release_id"] == "r1"
    assert notification["manifest"] == json.loads(check.drop.manifest)
    assert (
        notification["url"]
        == "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/v1/firmware/demo-sensor/1.4.0?release=r1"
    )


def test_device_with_the_current_version_gets_nothing_and_is_recorded(check):
    answer = check("current_version")
    assert (answer["statusCode"], answer["body"]) == (204, "")
    assert check.devices.asked == [
        {"mac": "AA:BB:CC:DD:EE:FF", "product": "demo-sensor", "chip": "esp32s3", "running_version": "1.4.0"}
    ]


@pytest.mark.parametrize(("name", "release_id"), [("older_version", "r1"), ("current_version", None)])
def test_check_in_is_logged_with_what_was_offered(check, capsys, name, release_id):
    check(name)
    _, [line] = read_log(capsys.readouterr().out)
    assert (line["message"], line["mac"], line["release_id"]) == ("checked in", "AA:BB:CC:DD:EE:FF", release_id)


@pytest.mark.parametrize(("name", "code"), [("no_mac", "mac_invalid"), ("no_product", "product_invalid")])
def test_check_in_refuses_in_json_and_records_nothing(check, name, code):
    answer = check(name)
    assert (answer["statusCode"], code_of(answer)) == (400, code)
    assert check.devices.asked == []


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("product", "Demo", "product_invalid"),
        ("product", "", "product_invalid"),
        ("chip", "", "chip_invalid"),
        ("chip", "ESP32", "chip_invalid"),
        ("version", "", "version_invalid"),
        ("version", "1.0\x00", "version_invalid"),
        ("version", "1" * 65, "version_invalid"),
        ("version", "é", "version_invalid"),
        ("mac", "AA:BB:CC:DD:EE", "mac_invalid"),
        ("mac", "AA:BB-CC:DD-EE:FF", "mac_invalid"),
        ("mac", "..", "mac_invalid"),
        ("mac", "AA:BB:CC:DD:EE:FF/..", "mac_invalid"),
    ],
)
def test_check_in_refuses_what_it_cannot_read(monkeypatch, field, value, code):
    handler = load_handler("check_for_update", monkeypatch)
    asked = read_event("check_for_update", "older_version")
    asked["pathParameters" if field == "mac" else "queryStringParameters"][field] = value
    answer = handler.lambda_handler(asked, CONTEXT)
    assert (answer["statusCode"], code_of(answer)) == (400, code)


def test_outage_of_the_database_is_a_503(check):
    check.devices.error = InterfaceError("network error")
    answer = check("older_version")
    assert (answer["statusCode"], code_of(answer)) == (503, "temporarily_unavailable")
    assert int(answer["headers"]["Retry-After"]) > 0

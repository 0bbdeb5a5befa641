import base64
import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats.esp_image import CHIP_IDS
from ota_core.formats.manifest import MAX_SEQUENCE, Manifest, is_product, parse_manifest, write_manifest
from ota_core.formats.rfc3339 import format_time
from ota_core.formats.targets import AllDevices, ListedDevices, TaggedDevices, TargetsFile
from support.drops import key, manifest_fields
from support.esp_images import app_image
from support.rejections import rejected

FIELDS = manifest_fields(app_image(), key())
OPTIONAL = ("allow_downgrade", "strict_app_version")

sha256s = st.binary(min_size=32, max_size=32).map(bytes.hex)
macs = st.binary(min_size=6, max_size=6).map(lambda mac: mac.hex(":").upper())
versions = st.builds("{}.{}.{}".format, *[st.integers(0, 999)] * 3)
manifests = st.builds(
    Manifest,
    product=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    version=versions,
    sequence=st.integers(1, MAX_SEQUENCE),
    expires=st.integers(0, 2**37).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    changelog=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200),
    chip=st.sampled_from(sorted(CHIP_IDS)),
    image_size=st.integers(1, 2**31 - 1),
    image_sha256=sha256s,
    image_signature=st.binary(max_size=512),
    targets=st.just(AllDevices())
    | st.sets(macs, min_size=1, max_size=5).map(lambda found: ListedDevices(tuple(sorted(found))))
    | st.builds(TargetsFile, sha256s, st.integers(1, 1_000_000))
    | st.sets(st.from_regex(r"[a-z0-9][a-z0-9_.=-]{0,62}", fullmatch=True), min_size=1, max_size=20).map(
        lambda found: TaggedDevices(tuple(sorted(found)))
    ),
    allow_downgrade=st.booleans(),
    strict_app_version=st.booleans(),
)


def parse(fields=FIELDS, **changes):
    document = {name: value for name, value in (fields | changes).items() if value is not ...}
    return parse_manifest(json.dumps(document).encode())


@given(manifests)
def test_written_manifest_is_parsed_back_to_the_same(manifest):
    assert parse_manifest(write_manifest(manifest)) == manifest


def test_fields_are_read_as_the_contract_names_them():
    manifest = parse(version="1.4.0-rc.1+5", expires="2031-05-06T07:08:09+02:00", allow_downgrade=True)
    assert manifest == Manifest(
        product="demo-sensor",
        version="1.4.0-rc.1+5",
        sequence=FIELDS["sequence"],
        expires=datetime(2031, 5, 6, 5, 8, 9, tzinfo=UTC),
        changelog="What is new.",
        chip="esp32s3",
        image_size=4096,
        image_sha256=FIELDS["firmware"]["sha256"],
        image_signature=base64.b64decode(FIELDS["firmware"]["signature"]),
        targets=AllDevices(),
        allow_downgrade=True,
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
)


@given(st.sampled_from([*FIELDS, *OPTIONAL]), json_values)
def test_field_of_any_json_value_is_accepted_or_rejected(name, value):
    with contextlib.suppress(DropRejected):
        parse(**{name: value})


@given(json_values)
def test_payload_of_any_json_value_is_rejected(value):
    with pytest.raises(DropRejected):
        parse_manifest(json.dumps(value).encode())


@given(st.binary())
def test_payload_of_any_bytes_is_rejected(raw):
    with pytest.raises(DropRejected):
        parse_manifest(raw)


@pytest.mark.parametrize("name", [*FIELDS, "firmware"])
def test_required_field_may_not_be_missing(name):
    with rejected(RejectionCode.MANIFEST_MALFORMED, repr(name)):
        parse(**{name: ...})


@pytest.mark.parametrize("name", ["size", "sha256", "signature"])
def test_required_field_of_firmware_may_not_be_missing(name):
    firmware = {field: value for field, value in FIELDS["firmware"].items() if field != name}
    with rejected(RejectionCode.MANIFEST_MALFORMED, f"'firmware' lacks {name!r}"):
        parse(firmware=firmware)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unknown": 1}, "the manifest has unknown fields 'unknown'"),
        ({"firmware": FIELDS["firmware"] | {"url": "x"}}, "'firmware' has unknown fields 'url'"),
        ({"firmware": []}, "'firmware' is a list; expected an object"),
        ({"schema": "1"}, "'schema' is a string; expected an integer"),
        ({"schema": True}, "'schema' is true or false; expected an integer"),
        ({"schema": 1.0}, "'schema' is a number with a fraction or exponent"),
        ({"product": "Demo"}, "'product' is 'Demo'"),
        ({"product": "-demo"}, "'product' is '-demo'"),
        ({"product": "a" * 64}, "'product' is"),
        ({"product": "demo\n"}, "'product' is"),
        ({"product": "status"}, "'product' is 'status'"),
        ({"product": ""}, "'product' is ''"),
        ({"product": None}, "'product' is null"),
        ({"sequence": 0}, "'sequence' is 0; expected an integer from 1"),
        ({"sequence": 2**53}, "'sequence' is 9007199254740992"),
        ({"sequence": -1}, "'sequence' is -1"),
        ({"expires": 1}, "'expires' is an integer"),
        ({"expires": "2031-05-06"}, "an RFC 3339 time"),
        ({"expires": "2031-05-06T07:08:09"}, "an RFC 3339 time"),
        ({"expires": "2031-05-06 07:08:09Z"}, "an RFC 3339 time"),
        ({"expires": "2031-02-30T07:08:09Z"}, "an RFC 3339 time"),
        ({"expires": "2031-05-06T24:00:00Z"}, "an RFC 3339 time"),
        ({"expires": "2031-05-06T07:08:09Z\n"}, "an RFC 3339 time"),
        ({"expires": "0001-01-01T00:00:00+23:59"}, "an RFC 3339 time"),
        ({"expires": "2031-W19-2T07:08:09Z"}, "an RFC 3339 time"),
        ({"changelog": "x" * 4097}, "'changelog' has 4097 characters; expected at most 4096"),
        ({"changelog": "a\0b"}, "NUL"),
        ({"changelog": None}, "'changelog' is null"),
        ({"changelog": "\ud800"}, "half a surrogate pair"),
        ({"chip": "esp8266"}, "'chip' is 'esp8266'; expected one of esp32, "),
        ({"firmware": FIELDS["firmware"] | {"size": 0}}, "'size' is 0"),
        ({"firmware": FIELDS["firmware"] | {"size": 2**31}}, "'size' is 2147483648"),
        ({"firmware": FIELDS["firmware"] | {"size": True}}, "'size' is true or false"),
        ({"firmware": FIELDS["firmware"] | {"sha256": "A" * 64}}, "'sha256' is"),
        ({"firmware": FIELDS["firmware"] | {"signature": "*"}}, "'firmware.signature' is not base64"),
        ({"firmware": FIELDS["firmware"] | {"signature": "QR=="}}, "'firmware.signature' is not base64"),
        ({"targets": "everyone"}, "'targets' is 'everyone'"),
        ({"targets": None}, "'targets' is"),
        ({"targets": {}}, "'targets' lacks 'file_sha256', 'count'"),
        ({"targets": {"tags": ["beta"], "count": 1}}, "'targets' has unknown fields 'count'"),
        ({"targets": {"file_sha256": "0" * 64, "count": 0}}, "'count' is 0"),
        ({"targets": {"file_sha256": "0" * 64, "count": 1_000_001}}, "'count' is 1000001"),
        ({"targets": {"file_sha256": "0" * 63, "count": 1}}, "'file_sha256' is"),
        ({"targets": {"file_sha256": "0" * 64, "count": 1, "x": 1}}, "'targets' has unknown fields 'x'"),
        ({"allow_downgrade": None}, "'allow_downgrade' is null; expected true or false"),
        ({"allow_downgrade": 1}, "'allow_downgrade' is an integer"),
        ({"strict_app_version": "yes"}, "'strict_app_version' is a string"),
        ({"strict_app_version": True, "version": "auto"}, "'strict_app_version' is set for the version 'auto'"),
    ],
    ids=str,
)
def test_malformed_manifest_is_rejected_with_what_was_seen(changes, message):
    with rejected(RejectionCode.MANIFEST_MALFORMED, message):
        parse(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "auto"},
        {"changelog": ""},
        {"changelog": "🚀" * 4096},
        {"expires": "2031-05-06t07:08:09.5z"},
        {"product": "7"},
        {"product": "a" * 63},
        {"product": "status-lamp"},
        {"sequence": MAX_SEQUENCE},
        {"allow_downgrade": False, "strict_app_version": True},
        {"targets": ["aabbccddeeff", "AA-BB-CC-DD-EE-FF"]},
    ],
    ids=str,
)
def test_manifest_at_the_limits_is_accepted(changes):
    parse(**changes)


@pytest.mark.parametrize(
    "version", ["", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3\n", "١.2.3", "Auto", "1.2.3.4"]
)
def test_version_that_is_not_semver_is_rejected(version):
    with rejected(RejectionCode.VERSION_INVALID, repr(version)):
        parse(version=version)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 10**4000},
        {"sequence": 10**4000},
        {"version": "x" * 100_000},
        {"targets": "x" * 100_000},
        {"targets": {"tags": ["x" * 100_000]}},
        {"targets": ["x" * 100_000] * 20},
        {"rollout": {"waves": [{"percent": 100}], "abort": {"min_devices": "x" * 100_000}}},
        {"rollout": {"waves": [{"percent": 100}], "x" * 100_000: 1}},
        {"rollout": {"waves": [{"percent": 100}], "start_at": "x" * 100_000}},
    ],
)
def test_reason_is_short_however_long_the_value_is(changes):
    with pytest.raises(DropRejected) as refused:
        parse(**changes)
    assert len(refused.value.message) < 2000


def test_other_schema_is_told_before_its_unknown_fields():
    with rejected(RejectionCode.SCHEMA_UNSUPPORTED, "schema 2; expected schema 1"):
        parse(schema=2, waves=[])


def test_name_twice_is_rejected_as_readers_would_differ():
    raw = json.dumps(FIELDS).encode().replace(b'"schema": 1', b'"schema": 1, "product": "other"')
    with rejected(RejectionCode.MANIFEST_MALFORMED, "the same name twice"):
        parse_manifest(raw)


def test_time_is_written_in_utc_and_whole_seconds():
    moment = datetime(2031, 5, 6, 7, 8, 9, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(moment) == "2031-05-06T05:08:09Z"


@given(st.text(max_size=70))
@example("status")
def test_product_has_no_character_that_topics_keys_or_urls_could_mistake(text):
    assert is_product(text) == (
        0 < len(text) <= 63
        and all(char in "abcdefghijklmnopqrstuvwxyz0123456789-" for char in text)
        and text[0] != "-"
        and text != "status"
    )

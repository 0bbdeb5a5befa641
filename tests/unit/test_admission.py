import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.errors import RejectionCode
from ota_core.formats.manifest import parse_manifest
from ota_core.formats.release_id import release_id_of
from ota_core.rules import admission
from ota_core.rules.admission import ProductLine
from support.drops import key, manifest_fields
from support.esp_images import app_image
from support.rejections import rejected

IMAGE = app_image(version="1.4.0")


def manifest(image=IMAGE, **changes):
    return parse_manifest(json.dumps(manifest_fields(image, key(), **changes)).encode())


def test_manifest_is_valid_up_to_its_expiry_and_not_at_it():
    expires = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    expiring = manifest(expires="2031-05-06T09:08:09+02:00")
    admission.check_not_expired(expiring, expires - timedelta(microseconds=1))
    with rejected(RejectionCode.MANIFEST_EXPIRED, "expired at 2031-05-06T07:08:09Z (now: 2031-05-06T07:08:09Z)"):
        admission.check_not_expired(expiring, expires)


def test_image_of_its_manifest_is_accepted_without_a_warning():
    assert admission.check_image(manifest(), IMAGE, key().public) == []


def test_image_signed_by_another_trusted_key_than_its_manifest_is_rejected():
    with rejected(RejectionCode.IMAGE_SIGNATURE_INVALID):
        admission.check_image(manifest(), IMAGE, key("other").public)


def test_image_is_checked_in_the_order_of_the_contract():
    broken = IMAGE[:-1] + bytes([IMAGE[-1] ^ 1])
    with rejected(RejectionCode.IMAGE_SIZE_MISMATCH, "4097 bytes; expected 4096"):
        admission.check_image(manifest(), broken + b"\0", key("other").public)
    with rejected(RejectionCode.IMAGE_SHA256_MISMATCH, hashlib.sha256(broken).hexdigest()):
        admission.check_image(manifest(), broken, key("other").public)
    with rejected(RejectionCode.IMAGE_SIGNATURE_INVALID):
        admission.check_image(manifest(broken), broken, key("other").public)
    with rejected(RejectionCode.IMAGE_APPENDED_HASH_WRONG):
        admission.check_image(manifest(broken), broken, key().public)


def test_image_for_another_chip_is_rejected():
    image = app_image(chip="esp32c6")
    with rejected(RejectionCode.IMAGE_WRONG_CHIP, "for esp32c6; expected esp32s3"):
        admission.check_image(manifest(image), image, key().public)


@pytest.mark.parametrize("app_version", ["v5.5.1", "1.4.1", ""])
def test_other_version_in_the_image_is_a_warning_and_an_error_only_when_strict(app_version):
    image = app_image(version=app_version)
    [warning] = admission.check_image(manifest(image), image, key().public)
    assert warning == f"The image's own version is {app_version!r}, the release's '1.4.0'."
    with rejected(RejectionCode.APP_VERSION_MISMATCH, f"{app_version!r}; expected '1.4.0'"):
        admission.check_image(manifest(image, strict_app_version=True), image, key().public)


@pytest.mark.parametrize("app_version", ["1.4.0", "v1.4.0"])
def test_version_of_a_git_tag_is_the_same_version(app_version):
    image = app_image(version=app_version)
    assert admission.check_image(manifest(image, strict_app_version=True), image, key().public) == []


def test_auto_has_no_version_to_compare():
    assert admission.check_image(manifest(version="auto"), IMAGE, key().public) == []


@given(st.integers(1, 100), st.integers(0, 100))
def test_sequence_must_rise(sequence, last):
    if sequence > last:
        admission.assign_version(manifest(sequence=sequence), ProductLine(None, last))
    else:
        with rejected(RejectionCode.SEQUENCE_REPLAYED, f"sequence {sequence}; expected more than {last}"):
            admission.assign_version(manifest(sequence=sequence), ProductLine(None, last))


@pytest.mark.parametrize(
    ("version", "latest", "assigned"),
    [
        ("auto", None, "0.0.1"),
        ("auto", "1.4.9", "1.4.10"),
        ("auto", "2.0.0-rc.1", "2.0.1"),
        ("1.4.0", None, "1.4.0"),
        ("1.4.0", "1.3.99", "1.4.0"),
        ("1.4.0", "1.4.0-rc.1", "1.4.0"),
        ("1.4.0+b", "1.4.0+a", "1.4.0+b"),
    ],
)
def test_release_gets_its_version(version, latest, assigned):
    assert admission.assign_version(manifest(version=version), ProductLine(latest, 0)) == assigned


def test_lower_version_is_rejected_unless_the_downgrade_is_meant():
    line = ProductLine("1.4.1", 0)
    with rejected(RejectionCode.VERSION_DOWNGRADE, "1.4.0; expected 1.4.1 or higher"):
        admission.assign_version(manifest(), line)
    assert admission.assign_version(manifest(allow_downgrade=True), line) == "1.4.0"


def test_latest_version_of_a_line_never_falls():
    assert admission.higher_version("1.4.0", ProductLine(None, 0)) == "1.4.0"
    assert admission.higher_version("1.4.0", ProductLine("1.4.1", 0)) == "1.4.1"
    assert admission.higher_version("1.4.2", ProductLine("1.4.1", 0)) == "1.4.2"


def test_version_conflict_names_both_images():
    conflict = admission.version_conflict("demo-sensor", "1.4.0", released_sha256="aa", sha256="bb")
    assert conflict.rejection_code is RejectionCode.VERSION_CONFLICT
    assert "demo-sensor 1.4.0 with image SHA-256 bb; expected aa" in conflict.message


def test_one_signed_payload_is_one_release():
    assert release_id_of(b"payload") == hashlib.sha256(b"payload").hexdigest()[:32]

import base64
import bisect
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats import envelope as dsse
from ota_core.formats import notification
from ota_core.formats.manifest import parse_manifest
from support.drops import key, make_drop, target_list
from support.esp_images import app_image
from support.rejections import rejected

IMAGE = app_image()


def opened(drop):
    return parse_manifest(dsse.parse(drop.manifest)[0])


def write(drop, *, version="1.4.0", envelope=None, api_url="https://api.example/v1"):
    return notification.write_notification(
        release_id=drop.release_id,
        manifest=opened(drop),
        version=version,
        envelope=envelope or drop.manifest,
        api_url=api_url,
    )


def test_notification_says_what_the_contract_names():
    drop = make_drop(image=IMAGE, changelog='Füße "gewärmt" 🚀')
    said = json.loads(write(drop))
    assert said == {
        "release_id": drop.release_id,
        "product": "demo-sensor",
        "version": "1.4.0",
        "url": f"https://api.example/v1/firmware/demo-sensor/1.4.0?release={drop.release_id}",
        "size": 4096,
        "sha256": said["sha256"],
        "signature": base64.b64encode(key().sign(IMAGE)).decode(),
        "changelog": 'Füße "gewärmt" 🚀',
        "manifest": json.loads(drop.manifest),
    }


def test_url_of_a_version_with_build_metadata_is_encoded():
    url = notification.download_url("https://api.example/v1", "demo-sensor", "1.2.0+5", "0" * 32)
    assert url == f"https://api.example/v1/firmware/demo-sensor/1.2.0%2B5?release={'0' * 32}"


def test_devices_get_the_signed_envelope_and_nothing_that_was_slipped_into_it():
    drop = make_drop(image=IMAGE)
    honest = json.loads(drop.manifest)
    slipped = json.dumps(honest | {"junk": "x" * 100_000, "deep": [[[[]]]]}).encode()
    assert write(drop, envelope=slipped) == write(drop)
    notification.check_fits_device(opened(drop), slipped)


def test_envelope_in_url_safe_base64_reaches_devices_in_the_standard_alphabet():
    drop = make_drop(image=IMAGE, changelog="~~~???>>>" * 20)
    sealed = json.loads(drop.manifest)
    url_safe = sealed | {"payload": sealed["payload"].replace("+", "-").replace("/", "_")}
    assert url_safe != sealed
    assert json.loads(write(drop, envelope=json.dumps(url_safe).encode()))["manifest"] == sealed


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4096),
    st.integers(0, 600),
    st.integers(1, 2),
)
def test_notification_that_passes_the_check_fits_the_device(changelog, targets, signatures):
    drop = make_drop(image=IMAGE, changelog=changelog, targets=target_list(targets) or "all")
    payload, listed = dsse.parse(drop.manifest)
    envelope = dsse.seal(payload, listed * signatures)
    try:
        notification.check_fits_device(opened(drop), envelope)
    except DropRejected:
        return
    written = write(drop, version="1" * 20 + ".0.0-" + "a" * 39, envelope=envelope, api_url="https://" + "a" * 200)
    assert len(written) <= notification.MAX_NOTIFICATION_BYTES


@pytest.mark.parametrize("char", ["x", "ä", "🚀", "\n", '"'])
def test_largest_notification_that_passes_the_check_fits_the_device(char):
    def fitting(length):
        drop = make_drop(image=IMAGE, changelog=char * length, targets=target_list(230))
        try:
            notification.check_fits_device(opened(drop), drop.manifest)
        except DropRejected:
            return None
        return drop

    longest = bisect.bisect(range(4097), False, key=lambda length: fitting(length) is None) - 1
    drop = fitting(longest)
    written = write(drop, version="1" * 20 + ".0.0-" + "a" * 39, api_url="https://" + "a" * 300)
    assert len(written) <= notification.MAX_NOTIFICATION_BYTES


def test_notification_that_is_too_large_is_rejected_with_what_to_do():
    drop = make_drop(image=IMAGE, targets=target_list(600))
    with rejected(RejectionCode.NOTIFICATION_TOO_LARGE, "expected at most 16384"):
        notification.check_fits_device(opened(drop), drop.manifest)


@pytest.mark.parametrize("targets", ["all", target_list(100)])
def test_usual_release_with_a_long_changelog_fits(targets):
    drop = make_drop(signer=key("large", 4096), image=IMAGE, changelog="x" * 4096, targets=targets)
    notification.check_fits_device(opened(drop), drop.manifest)


def test_topics_are_those_of_the_contract():
    assert notification.fleet_topics("/firmware_update", "demo-sensor") == [
        "/firmware_update",
        "/firmware_update/product/demo-sensor",
    ]
    assert notification.device_topic("/firmware_update", "02:00:00:00:00:01") == "/firmware_update/02:00:00:00:00:01"

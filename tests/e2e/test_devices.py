"""The whole way: from `aws s3 cp` to devices that run the new version, with the firmware's own update code."""

from support.drops import key, make_drop
from support.esp_images import app_image
from support.pipeline import TOPIC_PREFIX

MACS = [f"02:DE:00:00:00:{number:02X}" for number in range(8)]


def drop_in(cloud, stem, drop):
    cloud.drop(
        stem, **{"bin": drop.image, "manifest": drop.manifest} | ({"targets": drop.targets} if drop.targets else {})
    )


def test_targeted_devices_run_the_new_version_and_others_hear_nothing(cloud, fleet):
    drop = make_drop(
        product="e2e-listed", version="2.0.0", targets=MACS[:2], image=app_image(size=300_000, version="2.0.0")
    )
    with (
        fleet(MACS[0], "e2e-listed") as first,
        fleet(MACS[1], "e2e-listed") as second,
        fleet(MACS[2], "e2e-listed") as bystander,
    ):
        for device in (first, second, bystander):
            device.wait_for_event("checked_in")
        drop_in(cloud, "e2e-listed/app", drop)
        for device in (first, second):
            installed = device.wait_for_event("installed")
            assert installed["release_id"] == drop.release_id
            assert device.running_version == "2.0.0"
        # When this is heard, everything before it was.
        cloud.client("iot-data").publish(topic=f"{TOPIC_PREFIX}/{MACS[2]}", qos=1, payload=b"no notification")
        bystander.wait_for(lambda event: event.get("reason") == "notification_malformed", 60)
        assert bystander.running_version == "1.0.0"
        assert not [event for event in bystander.events if event.get("release_id") == drop.release_id]


def test_device_that_was_off_learns_what_it_missed(pipeline, fleet):
    drop = make_drop(product="e2e-late", version="2.0.0", targets=[MACS[3]], image=app_image(version="2.0.0"))
    pipeline.release("e2e-late/app", drop)
    # A device's own message is not retained, so only asking can tell it.
    with fleet(MACS[3], "e2e-late") as device:
        device.wait_for_event("installed")
        assert device.running_version == "2.0.0"


def test_device_without_power_in_the_middle_goes_on_where_it_stopped(cloud, fleet):
    image = app_image(size=1_500_000, version="2.0.0")
    drop = make_drop(product="e2e-power", version="2.0.0", image=image)
    with fleet(MACS[4], "e2e-power") as device:
        device.wait_for_event("checked_in")
        drop_in(cloud, "e2e-power/app", drop)
        device.wait_for(lambda event: event["event"] == "chunk_confirmed" and event["offset"] >= 262_144, 180)
    with fleet(MACS[4], "e2e-power") as device:
        started = device.wait_for_event("download_started")
        assert started["offset"] >= 262_144
        device.wait_for_event("installed")
        assert device.running_version == "2.0.0"


def test_device_whose_self_test_fails_goes_back_to_the_old_version(cloud, fleet):
    drop = make_drop(product="e2e-broken", version="2.0.0", image=app_image(version="2.0.0"))
    with fleet(MACS[5], "e2e-broken", fail_self_test="2.0.0") as device:
        device.wait_for_event("checked_in")
        drop_in(cloud, "e2e-broken/app", drop)
        device.wait_for(lambda event: event.get("state") == "rolled_back", 180)
        assert device.running_version == "1.0.0"


def test_device_refuses_a_release_by_a_key_that_it_was_not_flashed_with(cloud, fleet):
    unflashed = key("unflashed")  # Its own: once distrusted, a key is never again an unknown one.
    cloud.trust(unflashed.public_pem.encode())
    try:
        drop = make_drop(product="e2e-unflashed", version="2.0.0", signer=unflashed)
        with fleet(MACS[6], "e2e-unflashed") as device:
            device.wait_for_event("checked_in")
            drop_in(cloud, "e2e-unflashed/app", drop)
            refused = device.wait_for(lambda event: event.get("state") == "rejected", 180)
            assert refused["reason"] == "envelope_untrusted_key"
            assert device.running_version == "1.0.0"
            assert not [event for event in device.events if event["event"] == "download_started"]
    finally:
        cloud.distrust(unflashed.keyid)

"""From files in the inbox to messages on the devices' topics, on the deployed stack with IAM checking on."""

import base64
import contextlib
import hashlib
import itertools
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from support.drops import Drop, key, make_drop, pre_authentication_encoding, target_list
from support.esp_images import app_image, real_image
from support.pipeline import TOPIC_PREFIX, Upload

MEMBERS = ("image", "manifest", "targets")


@dataclass(frozen=True)
class Released:
    """A drop that went through, and whom it was told."""

    product: str
    drop: Drop
    uploads: list[Upload]


def topics(messages):
    return sorted(message.topic for message in messages)


def names_under_inbox(uploads):
    return {(upload.key.removeprefix("inbox/"), upload.version_id) for upload in uploads}


def fleet_topics(product):
    return [TOPIC_PREFIX, f"{TOPIC_PREFIX}/product/{product}"]


# --- a release for the whole fleet ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet_release(pipeline, new_product):
    """A real image, under a version that its app descriptor does not have."""
    product = new_product("fleet")
    drop = make_drop(product=product, version="1.2.0+5", image=real_image(), changelog="Größer, „schneller“ ✓")
    return Released(product, drop, pipeline.release(f"{product}/nightly/app", drop))


def test_fleet_hears_of_a_release_once_on_each_of_its_topics(pipeline, fleet_release):
    assert topics(pipeline.heard(fleet_release.drop.release_id)) == fleet_topics(fleet_release.product)


def test_notification_is_what_the_contract_says(cloud, pipeline, fleet_release):
    manifest = json.loads(base64.b64decode(json.loads(fleet_release.drop.manifest)["payload"]))
    expected = {
        "release_id": fleet_release.drop.release_id,
        "product": fleet_release.product,
        "version": "1.2.0+5",
        "url": f"{cloud.outputs['ApiUrl']}/firmware/{fleet_release.product}/1.2.0%2B5"
        f"?release={fleet_release.drop.release_id}",
        "size": len(real_image()),
        "sha256": manifest["firmware"]["sha256"],
        "signature": manifest["firmware"]["signature"],
        "changelog": "Größer, „schneller“ ✓",
        "manifest": json.loads(fleet_release.drop.manifest),
    }
    assert [message.json for message in pipeline.heard(fleet_release.drop.release_id)] == 2 * [expected]


def test_devices_can_verify_envelope_and_image_with_what_they_are_told(pipeline, fleet_release):
    told = pipeline.heard(fleet_release.drop.release_id)[0].json
    payload = base64.b64decode(told["manifest"]["payload"])
    signed = pre_authentication_encoding(told["manifest"]["payloadType"], payload)
    for signature, message in [
        (told["manifest"]["signatures"][0]["sig"], signed),
        (told["signature"], real_image()),
    ]:
        key().public.verify(base64.b64decode(signature), message, padding.PKCS1v15(), hashes.SHA256())


def test_device_that_subscribes_later_still_hears_of_a_fleet_wide_release(cloud, fleet_release):
    topic = f"{TOPIC_PREFIX}/product/{fleet_release.product}"
    with cloud.subscriber("02:00:00:00:0A:01", [topic]) as device:
        [message] = device.wait_for(1, 10)
    assert (message.retained, message.json["release_id"]) == (True, fleet_release.drop.release_id)


def test_release_is_recorded(pipeline, fleet_release):
    manifest = json.loads(base64.b64decode(json.loads(fleet_release.drop.manifest)["payload"]))
    [row] = pipeline.releases(fleet_release.product)
    expected = {
        "release_id": fleet_release.drop.release_id,
        "version": "1.2.0+5",
        "sequence": manifest["sequence"],
        "chip": "esp32s3",
        "changelog": "Größer, „schneller“ ✓",
        "envelope": json.dumps(json.loads(fleet_release.drop.manifest), separators=(",", ":")),
        "keyid": key().keyid,
        "image_size": len(real_image()),
        "image_sha256": manifest["firmware"]["sha256"],
        "image_signature": manifest["firmware"]["signature"],
        "target_count": None,
        "allow_downgrade": False,
        "state": "published",
        "expires_at": datetime.strptime(manifest["expires"], "%Y-%m-%dT%H:%M:%S%z"),
    }
    assert {name: row[name] for name in expected} == expected
    assert row["registered_at"] <= row["published_at"] <= datetime.now(UTC)
    [warning] = row["warnings"]
    assert "1.2.0+5" in warning


def test_stored_image_is_the_dropped_one_byte_for_byte(pipeline, fleet_release):
    [row] = pipeline.releases(fleet_release.product)
    [stored] = pipeline.objects(f"releases/{fleet_release.product}/")
    assert stored.key == f"releases/{fleet_release.product}/1.2.0+5/{row['image_sha256']}.bin"
    assert (stored.key, stored.version_id) == (row["image_key"], row["image_version_id"])
    assert pipeline.read(stored.key) == real_image()


def test_drop_is_archived_and_the_inbox_is_empty(pipeline, fleet_release):
    assert pipeline.origins(f"archive/{fleet_release.product}/") == names_under_inbox(fleet_release.uploads)
    assert pipeline.read(f"archive/{fleet_release.product}/nightly/app.bin") == real_image()
    assert pipeline.objects(f"inbox/{fleet_release.product}/") == []
    assert pipeline.objects(f"rejected/{fleet_release.product}/") == []


def test_other_programs_learn_of_a_release_from_eventbridge(pipeline, fleet_release):
    event = pipeline.event("ReleasePublished", lambda detail: detail["release_id"] == fleet_release.drop.release_id)
    assert event["version"] == "1.2.0+5"
    assert event["product"] == fleet_release.product
    assert {(member["key"], member["version_id"]) for member in event["members"]} == {
        (upload.key, upload.version_id) for upload in fleet_release.uploads
    }


# --- a release for listed devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["in the manifest", "in a targets file"])
def test_listed_devices_hear_of_a_release_once_and_no_other_device_does(cloud, pipeline, product, way):
    listed = ["02-00-00-00-0b-01", "02:00:00:00:0B:02", "020000000b03", "02:00:00:00:0b:01"]
    macs = [f"02:00:00:00:0B:0{number}" for number in (1, 2, 3)]
    if way == "in the manifest":
        drop = make_drop(product=product, targets=listed)
    else:
        document = json.dumps({"devices": listed}, indent=1).encode()
        signed = {"file_sha256": hashlib.sha256(document).hexdigest(), "count": 3}
        drop = make_drop(product=product, targets_file=document, targets=signed)
    with cloud.subscriber(macs[0]) as target, cloud.subscriber("02:00:00:00:0B:04") as stranger:
        uploads = pipeline.release(f"{product}/app", drop)
        messages = pipeline.heard(drop.release_id)
        assert topics(messages) == [f"{TOPIC_PREFIX}/{mac}" for mac in macs]
        told = pipeline.heard_by(target, f"{TOPIC_PREFIX}/{macs[0]}")
        assert [message.json["release_id"] for message in told if not message.retained] == [drop.release_id]
        strangers = pipeline.heard_by(stranger, f"{TOPIC_PREFIX}/02:00:00:00:0B:04")
        assert product not in {message.json.get("product") for message in strangers}
    assert pipeline.origins(f"archive/{product}/") == names_under_inbox(uploads)
    [release] = pipeline.releases(product)
    assert release["target_count"] == 3


def test_message_to_a_device_is_not_retained(cloud, pipeline, product):
    mac = "02:00:00:00:0B:05"
    pipeline.release(f"{product}/app", make_drop(product=product, targets=[mac]))
    with cloud.subscriber(mac, [f"{TOPIC_PREFIX}/{mac}"]) as device:
        assert pipeline.heard_of_product(product)
        assert pipeline.heard_by(device, f"{TOPIC_PREFIX}/{mac}") == []


# --- signed by the people's own programs ------------------------------------------------------------------------------


@pytest.fixture
def build_server(cloud):
    """A KMS key, and the environment of a user who may only sign with it and read its public half."""
    kms, iam = cloud.client("kms"), cloud.client("iam")
    key_arn = kms.create_key(KeySpec="RSA_3072", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    spki = kms.get_public_key(KeyId=key_arn)["PublicKey"]
    public_key = serialization.load_der_public_key(spki)
    cloud.trust(public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    iam.create_user(UserName="build-server")
    may_sign = {"Effect": "Allow", "Action": ["kms:GetPublicKey", "kms:Sign"], "Resource": key_arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may_sign]})
    iam.put_user_policy(UserName="build-server", PolicyName="sign", PolicyDocument=policy)
    access = iam.create_access_key(UserName="build-server")["AccessKey"]
    credentials = {"AWS_ACCESS_KEY_ID": access["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": access["SecretAccessKey"]}
    return key_arn, cloud.environment | credentials


def test_release_signed_by_aws_kms_reaches_the_fleet(cloud, pipeline, product, build_server, tmp_path):
    key_arn, environment = build_server
    (tmp_path / "app.bin").write_bytes(real_image())
    signed = subprocess.run(
        [
            *("ota-sign", "sign", "app.bin", "--key", f"awskms:{key_arn}"),
            *("--product", product, "--version", "1.4.0"),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert signed.returncode == 0, signed.stderr
    drop = Drop((tmp_path / "app.bin").read_bytes(), (tmp_path / "app.manifest.json").read_bytes())
    pipeline.release(f"{product}/app", drop)
    assert topics(pipeline.heard(drop.release_id)) == fleet_topics(product)
    assert pipeline.releases(product)[0]["keyid"] == json.loads(drop.manifest)["signatures"][0]["keyid"] != key().keyid


# --- versions ---------------------------------------------------------------------------------------------------------


def test_auto_is_the_next_patch_after_the_latest_version(pipeline, product):
    for version in ("auto", "auto", "1.4.0", "auto"):
        pipeline.release(f"{product}/app", make_drop(product=product, version=version, image=app_image()))
    assert [row["version"] for row in pipeline.releases(product)] == ["0.0.1", "0.0.2", "1.4.0", "1.4.1"]
    last = pipeline.heard_of_product(product)[-1].json
    assert (last["version"], urlsplit(last["url"]).path.rsplit("/", 1)[1]) == ("1.4.1", "1.4.1")


def test_concurrent_drops_get_versions_without_gap_or_duplicate(pipeline, product):
    drops = [
        (f"{product}/build-{number}", make_drop(product=product, version="auto", image=app_image(seed=number)))
        for number in range(8)
    ]
    pipeline.settle(pipeline.drop_at_once(drops))
    released = pipeline.releases(product)
    ids = {row["release_id"] for row in released}
    refused = [
        json.loads(pipeline.read(f"rejected/{stem}.reason.json")) for stem, drop in drops if drop.release_id not in ids
    ]
    assert {reason["code"] for reason in refused} <= {"sequence_replayed"}
    assert len(released) + len(refused) == 8
    assert [row["version"] for row in released] == [f"0.0.{number}" for number in range(1, len(released) + 1)]
    # Nobody who was told of a version would be told of another under the same name.
    told = {(message.json["release_id"], message.json["version"]) for message in pipeline.heard_of_product(product)}
    assert told == {(row["release_id"], row["version"]) for row in released}


def test_same_version_with_the_same_bytes_can_be_released_to_other_devices(pipeline, product):
    image = app_image()
    for mac in ("02:00:00:00:0C:01", "02:00:00:00:0C:02"):
        pipeline.release(f"{product}/app", make_drop(product=product, image=image, targets=[mac]))
    assert topics(pipeline.heard_of_product(product)) == [f"{TOPIC_PREFIX}/02:00:00:00:0C:0{n}" for n in (1, 2)]
    assert [row["version"] for row in pipeline.releases(product)] == ["1.4.0", "1.4.0"]


def test_downgrade_is_released_when_it_is_meant(pipeline, product):
    for version in ("1.4.0", "1.3.9"):
        pipeline.release(
            f"{product}/app", make_drop(product=product, version=version, allow_downgrade=version == "1.3.9")
        )
    assert [row["version"] for row in pipeline.releases(product)] == ["1.4.0", "1.3.9"]


# --- orders, repetitions, coincidences --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drops_in_every_order(pipeline, new_product):
    """For each order of the members: a drop that was dropped twice in that order."""
    macs = target_list(3, first=0x0D00)

    def drop_twice(order):
        product = new_product("-".join(order))
        drop = make_drop(product=product, targets_file=json.dumps(macs).encode())
        uploads = []
        for _ in range(2):
            for member in order:
                uploads += pipeline.drop(f"{product}/app", drop, member)
                pipeline.wait_until_looked_at(uploads)
            pipeline.settle(uploads)
        return Released(product, drop, uploads)

    orders = list(itertools.permutations(MEMBERS))
    with ThreadPoolExecutor(len(orders)) as pool:
        return dict(zip(orders, pool.map(drop_twice, orders), strict=True))


@pytest.mark.parametrize("order", list(itertools.permutations(MEMBERS)), ids=", ".join)
def test_members_in_any_order_and_repeated_are_one_release(pipeline, drops_in_every_order, order):
    released = drops_in_every_order[order]
    assert_released_once(pipeline, released, [f"{TOPIC_PREFIX}/{mac}" for mac in target_list(3, first=0x0D00)])


def assert_released_once(pipeline, released, expected_topics):
    assert topics(pipeline.heard_of_product(released.product)) == expected_topics
    [row] = pipeline.releases(released.product)
    assert (row["release_id"], row["state"]) == (released.drop.release_id, "published")
    assert len(pipeline.objects(f"releases/{released.product}/")) == 1
    assert pipeline.origins(f"archive/{released.product}/") == names_under_inbox(released.uploads)
    assert pipeline.objects(f"inbox/{released.product}/") == []
    assert pipeline.objects(f"rejected/{released.product}/") == []
    assert pipeline.alerts(released.product) == []


def test_members_that_arrive_at_the_same_moment_are_one_release(pipeline, product):
    drop = make_drop(product=product, targets_file=json.dumps(target_list(3, first=0x0D10)).encode())
    uploads = pipeline.drop_at_once([(f"{product}/app", drop)])
    pipeline.settle(uploads)
    expected = [f"{TOPIC_PREFIX}/{mac}" for mac in target_list(3, first=0x0D10)]
    assert_released_once(pipeline, Released(product, drop, uploads), expected)


def test_same_drop_in_several_places_at_the_same_moment_is_one_release(pipeline, product):
    drop = make_drop(product=product)
    uploads = pipeline.drop_at_once([(f"{product}/{place}/app", drop) for place in range(4)])
    pipeline.settle(uploads)
    assert_released_once(pipeline, Released(product, drop, uploads), fleet_topics(product))


def test_drop_that_is_overwritten_by_itself_at_the_same_moment_is_one_release_and_nothing_is_lost(pipeline, product):
    drop = make_drop(product=product)
    uploads = pipeline.drop_at_once([(f"{product}/app", drop)] * 4)
    pipeline.settle(uploads)
    assert topics(pipeline.heard_of_product(product)) == fleet_topics(product)
    assert len(pipeline.releases(product)) == 1
    # A last copy of one member may have come after the others were archived: it waits, as a lone member does.
    waiting = {
        (stored.key.removeprefix("inbox/"), stored.version_id) for stored in pipeline.objects(f"inbox/{product}/")
    }
    assert pipeline.origins(f"archive/{product}/") | waiting == names_under_inbox(uploads)
    assert len({key for key, _ in waiting}) < 2
    assert pipeline.objects(f"rejected/{product}/") == []


def test_drop_that_comes_again_after_others_is_archived_and_nobody_is_told_again(pipeline, product):
    first = make_drop(product=product, version="1.0.0")
    uploads = pipeline.release(f"{product}/app", first)
    uploads += pipeline.release(f"{product}/app", make_drop(product=product, version="1.1.0"))
    told = len(pipeline.heard_of_product(product))
    uploads += pipeline.release(f"{product}/app", first)
    assert len(pipeline.heard_of_product(product)) == told == 4
    assert [row["version"] for row in pipeline.releases(product)] == ["1.0.0", "1.1.0"]
    assert pipeline.origins(f"archive/{product}/") == names_under_inbox(uploads)
    assert pipeline.objects(f"inbox/{product}/") == []
    assert len(pipeline.objects(f"releases/{product}/")) == 2


@pytest.mark.parametrize("name", ["app 1.2.0+5", "a%20b&c=d", "it's (1), [2] #3?"])
def test_names_that_shells_and_urls_make_trouble_with_work(pipeline, product, name):
    drop = make_drop(product=product)
    uploads = pipeline.release(f"{product}/night build+1/{name}", drop)
    assert topics(pipeline.heard(drop.release_id)) == fleet_topics(product)
    assert len(pipeline.origins(f"archive/{product}/")) == len(uploads)
    assert pipeline.objects(f"inbox/{product}/") == []


# --- dropping the same files again completes what broke ---------------------------------------------------------------

BROKEN_SETTINGS = {
    "ValidateSignatureFunction": "TRUSTED_KEYS_PREFIX",
    "ResolveTargetsFunction": "TOPIC_PREFIX",
    "AdvanceRolloutFunction": "DATABASE_HOST",
    "SettleDropFunction": "BUCKET",
}


@pytest.mark.parametrize("function", BROKEN_SETTINGS)
def test_release_that_broke_is_announced_and_finished_by_dropping_it_again(pipeline, product, function):
    macs = target_list(3, first=0x0E00)
    drop = make_drop(product=product, targets=macs)
    with pipeline.without_retries(), pipeline.function_with(function, **{BROKEN_SETTINGS[function]: ""}):
        uploads = pipeline.drop(f"{product}/app", drop)
        broken = [execution for execution in pipeline.settle(uploads) if execution.status == "FAILED"]
    announced = pipeline.event("ReleaseFailed", lambda detail: detail["execution"] == broken[0].arn)
    assert announced["key"] in {upload.key for upload in uploads}
    assert "failed" in pipeline.alert(broken[0].arn)
    # Nothing is lost: every file still lies where it was dropped.
    assert {(stored.key, stored.version_id) for stored in pipeline.objects(f"inbox/{product}/")} == {
        (upload.key, upload.version_id) for upload in uploads
    }

    uploads += pipeline.release(f"{product}/app", drop)
    assert topics(pipeline.heard_of_product(product)) == [f"{TOPIC_PREFIX}/{mac}" for mac in macs]
    [row] = pipeline.releases(product)
    assert row["state"] == "published"
    assert pipeline.origins(f"archive/{product}/") == names_under_inbox(uploads)
    assert pipeline.objects(f"inbox/{product}/") == []


def test_publication_that_broke_half_way_goes_on_where_it_broke(cloud, pipeline, product):
    """Two batches, of which only the first can be published."""
    macs = target_list(1001, first=0x010000)
    last = f"{TOPIC_PREFIX}/{macs[-1]}"
    drop = make_drop(product=product, targets_file=json.dumps(macs).encode())
    with (
        pipeline.without_retries(),
        pipeline.function_with("PublishMqttFunction", PUBLISH_CONCURRENCY="1"),
        denied(cloud, pipeline.role_of("PublishMqttFunction"), "iot:Publish", last),
    ):
        uploads = pipeline.drop(f"{product}/app", drop, "targets", "image", "manifest")
        assert "FAILED" in {execution.status for execution in pipeline.settle(uploads)}
    assert topics(pipeline.heard_of_product(product)) == [f"{TOPIC_PREFIX}/{mac}" for mac in macs[:-1]]
    assert pipeline.releases(product)[0]["state"] != "published"

    uploads += pipeline.release(f"{product}/app", drop)
    assert topics(pipeline.heard_of_product(product)) == [f"{TOPIC_PREFIX}/{mac}" for mac in macs]
    assert pipeline.releases(product)[0]["state"] == "published"
    assert pipeline.origins(f"archive/{product}/") == names_under_inbox(uploads)


@contextlib.contextmanager
def denied(cloud, role, action, topic):
    """Deny a role an action on a topic."""
    iam = cloud.client("iam")
    # The emulator drops a topic's leading slash in the ARN, AWS keeps it.
    resources = [f"arn:aws:iot:*:*:topic/{name}" for name in (topic, topic.removeprefix("/"))]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": action, "Resource": resources}]}
    iam.put_role_policy(RoleName=role, PolicyName="denied", PolicyDocument=json.dumps(document))
    try:
        yield
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="denied")


def test_functions_replace_database_connections_that_died_while_they_slept(pipeline, product):
    pipeline.release(f"{product}/app", make_drop(product=product, version="1.0.0"))
    [closed] = pipeline.rows(
        "SELECT count(pg_terminate_backend(pid)) AS connections FROM pg_stat_activity"
        " WHERE application_name = 'esp32-ota'"
    )
    assert closed["connections"] > 0
    uploads = pipeline.drop(f"{product}/app", make_drop(product=product, version="1.1.0"))
    assert {execution.status for execution in pipeline.settle(uploads)} == {"SUCCEEDED"}
    assert [row["version"] for row in pipeline.releases(product)] == ["1.0.0", "1.1.0"]

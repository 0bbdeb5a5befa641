"""Whether recorded releases fit together, and that each way in which they may not is found."""

import base64
import hashlib
import itertools
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import boto3
import pytest
from ota_core.formats.manifest import parse_manifest
from ota_core.stages.consistency import check_consistency
from ota_core.stores.consistency_store import ConsistencyStore
from ota_core.stores.firmware_store import FirmwareStore
from ota_core.stores.release_store import NewRelease, ReleaseStore
from ota_core.stores.rollout_store import RolloutStore
from support.drops import key, make_drop, target_list

_products = itertools.count(1)


@pytest.fixture(scope="module")
def s3(connect):
    client = boto3.client("s3")
    client.create_bucket(Bucket="consistency")
    client.put_bucket_versioning(Bucket="consistency", VersioningConfiguration={"Status": "Enabled"})
    return client


@pytest.fixture
def store(s3):
    return FirmwareStore(s3, "consistency")


@pytest.fixture
def release(database, s3, store):
    """A release of two waves to two devices that is published: its rows, and its objects."""
    product = f"consistent-{next(_products)}"
    macs = target_list(2, first=0x0C0000)
    drop = make_drop(product=product, targets=macs, rollout={"waves": [{"percent": 50}, {"percent": 100}]})
    payload = base64.b64decode(json.loads(drop.manifest)["payload"])
    members = []
    for suffix, body in ((".bin", drop.image), (".manifest.json", drop.manifest)):
        dropped = store.write(f"inbox/{product}/app{suffix}", body)
        members.append({"key": dropped.key, "version_id": dropped.version_id, "size": dropped.size})
        store.archive([dropped])
    image = store.write(f"releases/{product}/app.bin", drop.image)
    store.remember_key(key().keyid, key().public_pem.encode())
    new = NewRelease(
        release_id=drop.release_id,
        manifest_sha256=hashlib.sha256(payload).hexdigest(),
        manifest=parse_manifest(payload),
        envelope=drop.manifest.decode(),
        keyid=key().keyid,
        image_key=image.key,
        image_version_id=image.version_id,
        targets_key=None,
        targets_version_id=None,
        target_count=2,
        warnings=[],
        drop_members=members,
    )
    ReleaseStore(database).register(new, execution="e")
    run(
        database,
        "INSERT INTO release_targets (release, mac) SELECT id, unnest(CAST(:macs AS macaddr[])) FROM releases"
        " WHERE release_id = :id",
        macs=macs,
        id=drop.release_id,
    )
    now = datetime.now(UTC)
    for wave in (1, 2):
        now += timedelta(days=100)
        RolloutStore(database).advance(drop.release_id, "e", now=now, published_wave=wave, takes_over=False)
    RolloutStore(database).advance(drop.release_id, "e", now=now + timedelta(days=100), takes_over=False)
    return SimpleNamespace(id=drop.release_id, product=product, image=image, members=members, macs=macs)


def run(database, sql, **parameters):
    return database.transaction(lambda connection: connection.run(sql, **parameters))


@pytest.fixture
def broken(database, store, release):
    """The rules that the release breaks."""

    def check():
        names = (release.id, release.product)
        report = check_consistency(ConsistencyStore(database), store)
        return sorted({broken.rule for broken in report.violations if any(name in broken.what for name in names)})

    return check


def test_release_that_went_well_breaks_no_rule(broken, database, store, release):
    assert broken() == []
    assert check_consistency(ConsistencyStore(database), store).releases >= 1


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("version = '9.9.9'", "record_differs_from_what_was_signed"),
        ("image_sha256 = repeat('0', 64)", "record_differs_from_what_was_signed"),
        ("sequence = sequence - 1", "record_differs_from_what_was_signed"),
        ("envelope = replace(envelope, 'payload\": \"', 'payload\": \"AAAA')", "signature_does_not_hold"),
        ("image_version_id = 'another'", "image_is_gone"),
        ("waves_published = 3", "more_waves_than_planned"),
        ("waves_published = 1, cohort_percent = 50", "published_before_its_last_wave"),
        ("published_at = NULL", "published_before_its_last_wave"),
        ("cohort_percent = 50", "cohort_of_another_wave"),
        ("state = 'withdrawn'", "withdrawn_without_a_reason"),
        ("target_count = 3", "other_number_of_targets"),
    ],
)
def test_changed_record_is_found(database, broken, release, change, rule):
    run(database, f"UPDATE releases SET {change} WHERE release_id = :id", id=release.id)  # noqa: S608 - ours
    assert rule in broken()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("last_sequence = last_sequence - 1", "sequence_beyond_the_products_last"),
        ("latest_version = '0.0.1'", "product_has_a_higher_version"),
    ],
)
def test_product_that_fell_behind_its_releases_is_found(database, broken, release, change, rule):
    run(database, f"UPDATE products SET {change} WHERE product = :product", product=release.product)  # noqa: S608 - ours
    assert broken() == [rule]


def test_state_that_nobody_reported_is_found(database, broken, release):
    run(
        database,
        "INSERT INTO device_states (release, mac, state) SELECT id, CAST(:mac AS macaddr), 'installed' FROM releases"
        " WHERE release_id = :id",
        mac=release.macs[0],
        id=release.id,
    )
    assert broken() == ["device_state_that_nobody_reported"]


def test_second_image_of_a_version_is_found(database, broken, release, insert_release):
    insert_release(product=release.product, version="1.4.0", image_sha256="ab")
    assert "version_has_several_images" in broken()


def test_image_with_other_bytes_is_found(database, s3, broken, release):
    other = s3.put_object(Bucket="consistency", Key=release.image.key, Body=b"x" * release.image.size)
    run(
        database,
        "UPDATE releases SET image_version_id = :version WHERE release_id = :id",
        version=other["VersionId"],
        id=release.id,
    )
    assert broken() == ["image_differs_from_what_was_signed"]


def test_drop_that_is_not_archived_is_found(s3, broken, release):
    [version] = s3.list_object_versions(Bucket="consistency", Prefix=f"archive/{release.product}/app.bin")["Versions"]
    s3.delete_object(Bucket="consistency", Key=version["Key"], VersionId=version["VersionId"])
    assert broken() == ["drop_is_not_archived"]


def test_rejected_file_without_its_reason_is_found(store, broken, release):
    store.write(f"rejected/{release.product}/build.manifest.json", b"{}")
    assert broken() == ["rejected_without_a_reason"]
    store.write(f"rejected/{release.product}/build.reason.json", b"{}")
    assert broken() == []

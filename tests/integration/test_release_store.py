"""How drops become releases, on a real PostgreSQL."""

import base64
import dataclasses
import hashlib
import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from ota_core.errors import RejectionCode
from ota_core.formats.manifest import parse_manifest
from ota_core.stores.release_store import AlreadyReleased, InProgress, NewRelease, Registered, ReleaseStore
from support.drops import make_drop
from support.esp_images import app_image
from support.rejections import rejected

_products = itertools.count(1)


@pytest.fixture
def product():
    return f"registered-{next(_products)}"


@pytest.fixture
def releases(database):
    return ReleaseStore(database)


@pytest.fixture
def new_release(product):
    def make(**changes):
        drop = make_drop(**{"product": product, "image": app_image()} | changes)
        payload = base64.b64decode(json.loads(drop.manifest)["payload"])
        return NewRelease(
            release_id=drop.release_id,
            manifest_sha256=hashlib.sha256(payload).hexdigest(),
            manifest=parse_manifest(payload),
            envelope=drop.manifest.decode(),
            keyid="k",
            image_key="releases/x.bin",
            image_version_id="v",
            targets_key=None,
            targets_version_id=None,
            target_count=None,
            warnings=["The image's own version is 'x'."],
            drop_members=[{"key": "inbox/app.bin", "version_id": "1", "size": 1}],
        )

    return make


@pytest.fixture
def rows(database, product):
    """What is recorded of the product."""

    def read(columns):
        return database.transaction(
            lambda connection: connection.run(
                f"SELECT {columns} FROM releases WHERE product = :product ORDER BY sequence",  # noqa: S608 - ours
                product=product,
            )
        )

    return read


@pytest.fixture
def line(database, product):
    def read():
        return database.transaction(
            lambda connection: connection.run(
                "SELECT latest_version, last_sequence FROM products WHERE product = :product", product=product
            )
        )

    return read


def test_release_is_recorded_as_it_was_signed(releases, new_release, rows, line):
    release = new_release(changelog="Größer, „✓“ \\ ' \" \n", allow_downgrade=True)
    assert releases.register(release, execution="e") == Registered("1.4.0")
    manifest = release.manifest
    signature = base64.b64encode(manifest.image_signature).decode()
    [
        [
            release_id,
            sequence,
            chip,
            changelog,
            envelope,
            image,
            size,
            sha256,
            signed,
            targets,
            downgrade,
            warnings,
            *_,
        ],
    ] = rows(
        "release_id, sequence, chip, changelog, envelope, image_key || ' ' || image_version_id, image_size,"
        " image_sha256, image_signature, target_count, allow_downgrade, warnings"
    )
    assert (release_id, sequence, chip) == (release.release_id, manifest.sequence, "esp32s3")
    assert (changelog, envelope) == (manifest.changelog, release.envelope)
    assert (image, size, sha256) == ("releases/x.bin v", manifest.image_size, manifest.image_sha256)
    assert (signed, targets, downgrade, warnings) == (signature, None, True, release.warnings)
    assert rows("state, rollout, drop_members, expires_at") == [
        ["registered", None, release.drop_members, manifest.expires]
    ]
    assert line() == [["1.4.0", manifest.sequence]]


def test_attempt_that_is_repeated_finds_what_it_did(releases, new_release, rows):
    release = new_release(version="auto")
    for _ in range(3):
        assert releases.register(release, execution="e") == Registered("0.0.1")
    assert len(rows("1")) == 1


def test_same_manifest_is_owned_by_one_execution_until_it_is_released(releases, new_release, database, rows):
    release = new_release()
    releases.register(release, execution="first")
    assert releases.register(release, execution="second") == InProgress("first")
    finish(database, release)
    assert releases.register(release, execution="second") == AlreadyReleased("1.4.0")
    assert rows("execution_arn") == [["first"]]


@pytest.mark.parametrize("state", ["registered", "rolling_out"])
def test_release_whose_execution_broke_is_taken_over_once(releases, new_release, database, rows, state):
    release = new_release()
    releases.register(release, execution="broken")
    finish(database, release, state)
    again = dataclasses.replace(release, drop_members=[{"key": "inbox/b.bin", "version_id": "2", "size": 1}])
    assert releases.register(again, execution="second", take_over_from="broken") == Registered("1.4.0")
    assert releases.register(again, execution="third", take_over_from="broken") == InProgress("second")
    assert releases.register(release, execution="broken") == InProgress("second"), "a redrive of the broken one ends"
    # All that was dropped of it leaves the inbox in the end.
    assert rows("execution_arn, drop_members") == [["second", release.drop_members + again.drop_members]]


def test_release_that_is_over_is_not_taken_over(releases, new_release, database):
    release = new_release()
    releases.register(release, execution="first")
    for state in ("published", "withdrawn"):
        finish(database, release, state)
        outcome = releases.register(release, execution="second", take_over_from="first")
        assert outcome == AlreadyReleased("1.4.0")


def test_release_is_found_again_after_its_product_s_numbers_were_put_back(releases, new_release, database, rows, line):
    release = new_release(sequence=1000)
    releases.register(release, execution="first")
    finish(database, release)
    database.statement(
        "UPDATE products SET last_sequence = 0 WHERE product = :p RETURNING 1", p=release.manifest.product
    )
    before = rows("*"), line()
    assert releases.register(release, execution="second") == AlreadyReleased("1.4.0")
    assert (rows("*"), line()) == before


def finish(database, release, state="published"):
    database.transaction(
        lambda connection: connection.run(
            "UPDATE releases SET state = :state WHERE release_id = :release_id",
            state=state,
            release_id=release.release_id,
        )
    )


REFUSALS = {
    RejectionCode.SEQUENCE_REPLAYED: {"sequence": 1000, "version": "1.5.0"},
    RejectionCode.VERSION_DOWNGRADE: {"sequence": 1001, "version": "1.4.0-rc.1"},
    RejectionCode.VERSION_CONFLICT: {"sequence": 1001, "image": app_image(seed=1)},
}


@pytest.mark.parametrize("code", REFUSALS)
def test_refused_drop_leaves_nothing_behind(releases, new_release, rows, line, code):
    releases.register(new_release(sequence=1000), execution="e")
    before = rows("*"), line()
    with rejected(code):
        releases.register(new_release(**REFUSALS[code]), execution="f")
    assert (rows("*"), line()) == before


def test_refused_first_drop_leaves_not_even_its_product_behind(releases, new_release, line, monkeypatch):
    def refuse(*_):
        raise RuntimeError("refused")

    monkeypatch.setattr("ota_core.rules.admission.assign_version", refuse)
    with pytest.raises(RuntimeError):
        releases.register(new_release(), execution="e")
    assert line() == []


def test_latest_version_stays_the_highest_after_a_downgrade(releases, new_release, line):
    releases.register(new_release(version="2.0.0"), execution="e")
    last = new_release(version="1.0.0", allow_downgrade=True)
    releases.register(last, execution="f")
    assert line() == [["2.0.0", last.manifest.sequence]]
    assert releases.register(new_release(version="auto"), execution="g") == Registered("2.0.1")


def test_version_is_released_again_with_the_same_bytes(releases, new_release, rows):
    for execution in ("e", "f"):
        assert releases.register(new_release(), execution=execution) == Registered("1.4.0")
    assert len(rows("1")) == 2


def test_other_products_do_not_matter(releases, new_release):
    releases.register(new_release(product="other", version="9.0.0", sequence=2**53 - 1), execution="e")
    assert releases.register(new_release(version="auto"), execution="f") == Registered("0.0.1")


def test_concurrent_drops_get_versions_without_gap_or_duplicate(connect, new_release, rows):
    """Each on a connection of its own, as functions have them."""
    drops = [new_release(version="auto", image=app_image(seed=number)) for number in range(16)]
    start = threading.Barrier(len(drops))

    def register(release):
        releases = ReleaseStore(connect())
        start.wait()
        try:
            return releases.register(release, execution=release.release_id).version
        except Exception as refusal:  # noqa: BLE001 - whatever it is, it is looked at
            return refusal.code

    with ThreadPoolExecutor(len(drops)) as pool:
        outcomes = list(pool.map(register, drops))
    versions = [version for (version,) in rows("version")]
    assert versions == [f"0.0.{number}" for number in range(1, len(versions) + 1)]
    assert sorted(outcomes) == sorted(versions + ["sequence_replayed"] * (len(drops) - len(versions)))
    assert outcomes[-1] == versions[-1], "the highest sequence is always accepted"


def test_same_manifest_is_registered_once_however_many_ask_at_once(connect, new_release, rows):
    release = new_release()
    start = threading.Barrier(8)

    def register(number):
        releases = ReleaseStore(connect())
        start.wait()
        return releases.register(release, execution=f"e{number}")

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(register, range(8)))
    [[owner]] = rows("execution_arn")
    assert outcomes.count(Registered("1.4.0")) == 1
    assert outcomes.count(InProgress(owner)) == 7

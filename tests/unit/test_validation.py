import dataclasses
import hashlib
import json
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from ota_core.errors import ConfigurationError, RejectionCode
from ota_core.stages.validation import Accepted, NothingToDo, Rejected, Validation, Waiting
from ota_core.stores.firmware_store import FirmwareStore
from ota_core.stores.trusted_keys import TrustedKeys
from support.drops import key, make_drop
from support.esp_images import app_image, with_byte

NOW = datetime.now(UTC)
SLOT_BYTES = 0x1E0000
STEM = "nightly/app"
SUFFIXES = {"image": ".bin", "manifest": ".manifest.json", "targets": ".targets.json"}
ONE_MAC = b'["02-00-00-00-00-01"]'


@pytest.fixture
def trust(aws):
    """Puts the text of a trusted key where the stack has it; None takes the key away."""
    ssm = boto3.client("ssm")
    parameter = f"/ota/trusted-keys/{key().keyid}"

    def call(pem):
        if pem is None:
            ssm.delete_parameter(Name=parameter)
        else:
            ssm.put_parameter(Name=parameter, Value=pem, Type="String", Overwrite=True)

    call(key().public_pem)
    return call


@pytest.fixture
def put(s3):
    def call(drop, *members):
        for member in members or [name for name in SUFFIXES if getattr(drop, name) is not None]:
            s3.put_object(Bucket="bucket", Key=f"inbox/{STEM}{SUFFIXES[member]}", Body=getattr(drop, member))

    return call


@pytest.fixture
def validate(store, trust):
    trusted_keys = TrustedKeys(boto3.client("ssm"), "/ota/trusted-keys")

    def call(name=f"{STEM}.bin", *, execution="first", now=NOW, pending=None, bucket=store):
        validation = Validation(bucket, trusted_keys, SLOT_BYTES)
        return validation.validate(f"inbox/{name}", execution=execution, now=now, pending=pending)

    return call


def stored(s3, prefix):
    return [version["Key"] for version in s3.list_object_versions(Bucket="bucket", Prefix=prefix).get("Versions", [])]


# --- good drops -------------------------------------------------------------------------------------------------------


def test_good_drop_is_accepted_with_everything_that_follows_from_it(s3, store, put, validate):
    drop = make_drop(image=app_image(version="v5.5.1"))
    put(drop)
    verdict = validate()
    assert isinstance(verdict, Accepted)
    assert [member.key for member in verdict.members] == [f"inbox/{STEM}.bin", f"inbox/{STEM}.manifest.json"]
    assert verdict.release_id == drop.release_id == verdict.manifest_sha256[:32]
    assert (json.loads(verdict.envelope), verdict.keyid) == (json.loads(drop.manifest), key().keyid)
    assert (verdict.targets, verdict.target_count) == (None, None)
    assert len(verdict.warnings) == 1
    assert verdict.image.key == f"releases/demo-sensor/1.4.0/{hashlib.sha256(drop.image).hexdigest()}.bin"
    assert store.read(verdict.image) == drop.image
    assert store.read_current(f"keys/{key().keyid}.pem").decode() == key().public_pem


def test_what_nobody_signed_goes_no_further(put, validate):
    """States of Step Functions hand on 256 KiB at most, and padding would break a release that is good."""
    drop = make_drop()
    padded = json.dumps(json.loads(drop.manifest) | {"padding": "x" * 900_000}).encode()
    put(dataclasses.replace(drop, manifest=padded))
    assert json.loads(validate().envelope) == json.loads(drop.manifest)


def test_auto_version_is_stored_under_the_sequence(put, validate):
    put(make_drop(version="auto", sequence=77))
    assert validate().image.key.startswith("releases/demo-sensor/77/")


@pytest.mark.parametrize("way", ["in the manifest", "in a file"])
def test_listed_devices_are_stored_one_a_line(store, put, validate, way):
    listed = ["02-00-00-00-00-0b", "02000000000A", "02:00:00:00:00:0B"]
    if way == "in the manifest":
        drop = make_drop(targets=listed)
    else:
        raw = json.dumps(listed).encode()
        drop = make_drop(targets_file=raw, targets={"file_sha256": hashlib.sha256(raw).hexdigest(), "count": 2})
    put(drop)
    verdict = validate()
    assert verdict.target_count == 2
    assert store.read(verdict.targets) == b"02:00:00:00:00:0A\n02:00:00:00:00:0B\n"
    assert len(verdict.members) == (2 if way == "in the manifest" else 3)


def test_any_member_leads_to_the_drop(put, validate):
    put(make_drop(targets_file=ONE_MAC))
    for suffix in SUFFIXES.values():
        assert isinstance(validate(f"{STEM}{suffix}"), Accepted)


def test_image_that_is_swapped_during_the_checks_changes_nothing(s3, store, put, validate):
    drop = make_drop()
    put(drop)

    class Swapped(FirmwareStore):
        def read(self, version):
            s3.put_object(Bucket="bucket", Key=f"inbox/{STEM}.bin", Body=app_image(seed=666))
            return super().read(version)

    verdict = validate(bucket=Swapped(s3, "bucket"))
    assert store.read(verdict.image) == drop.image


# --- who acts on a drop -----------------------------------------------------------------------------------------------


def test_only_one_execution_acts_on_a_drop(put, validate):
    put(make_drop())
    assert isinstance(validate(execution="first"), Accepted)
    assert isinstance(validate(f"{STEM}.manifest.json", execution="second"), NothingToDo)
    assert isinstance(validate(execution="first"), Accepted), "a retry goes on"


def test_only_one_execution_rejects_a_drop(put, validate):
    put(make_drop(version="1.4"))
    assert isinstance(validate(execution="first"), Rejected)
    assert isinstance(validate(f"{STEM}.manifest.json", execution="second"), NothingToDo)


def test_drop_whose_checking_broke_is_claimed_by_whichever_execution_tries_again_first(put, validate, trust):
    put(make_drop())
    trust("not a key")
    for execution in ("first", "second"):
        with pytest.raises(ConfigurationError):
            validate(execution=execution)
    trust(key().public_pem)
    assert isinstance(validate(execution="second"), Accepted)
    assert isinstance(validate(execution="first"), NothingToDo)


def test_same_files_dropped_again_are_another_drop(put, validate):
    drop = make_drop()
    put(drop)
    validate(execution="first")
    put(drop)
    assert isinstance(validate(execution="second"), Accepted)


def test_drop_that_is_moved_during_the_checks_is_left_alone(s3, put, validate):
    put(make_drop())

    class Moved(FirmwareStore):
        def read(self, version):
            s3.delete_object(Bucket="bucket", Key=version.key, VersionId=version.version_id)
            return super().read(version)

    assert isinstance(validate(bucket=Moved(s3, "bucket")), NothingToDo)
    assert stored(s3, "releases/") == []


# --- drops that lack something ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "missing"), [("image", ["manifest"]), ("manifest", ["image"]), ("targets", ["image", "manifest"])]
)
def test_incomplete_drop_waits(s3, put, validate, there, missing):
    put(make_drop(targets_file=ONE_MAC), there)
    assert validate(f"{STEM}{SUFFIXES[there]}") == Waiting([f"inbox/{STEM}{SUFFIXES[member]}" for member in missing])
    assert stored(s3, "claims/") == []


def other_size(drop):
    return dataclasses.replace(drop, image=drop.image + bytes(16))


def other_bytes(drop):
    return dataclasses.replace(drop, image=with_byte(drop.image, 400, drop.image[400] ^ 1))


def no_targets(drop):
    return dataclasses.replace(drop, targets=None)


def other_targets(drop):
    return dataclasses.replace(drop, targets=b"[]")


MISFITS = {
    RejectionCode.IMAGE_SIZE_MISMATCH: other_size,
    RejectionCode.IMAGE_SHA256_MISMATCH: other_bytes,
    RejectionCode.TARGETS_FILE_MISSING: no_targets,
    RejectionCode.TARGETS_FILE_CHANGED: other_targets,
}


@pytest.mark.parametrize("code", MISFITS)
def test_member_that_does_not_fit_may_be_put_right_within_the_grace_period(put, validate, code):
    drop = make_drop(targets_file=ONE_MAC)
    put(MISFITS[code](drop))
    verdict = validate(execution="first")
    assert (verdict.reason.rejection_code, verdict.pending) == (code, True)

    put(drop, "image", "targets")
    assert isinstance(validate(execution="second"), Accepted)
    assert isinstance(validate(execution="first", pending=verdict.members), NothingToDo)


@pytest.mark.parametrize("code", MISFITS)
def test_member_that_still_does_not_fit_after_the_grace_period_is_rejected(put, validate, code):
    put(MISFITS[code](make_drop(targets_file=ONE_MAC)))
    before = validate()
    after = validate(pending=before.members)
    assert (after.reason.rejection_code, after.pending, after.members) == (code, False, before.members)


def test_drop_that_was_put_right_and_moved_within_the_grace_period_is_left_alone(store, put, validate):
    drop = make_drop()
    put(other_size(drop))
    before = validate(execution="first")
    put(drop, "image")
    store.archive(validate(execution="second").members)
    assert isinstance(validate(execution="first", pending=before.members), Waiting)


# --- bad drops --------------------------------------------------------------------------------------------------------


IMAGE = app_image(chip="esp32c6")
SHA256 = hashlib.sha256(IMAGE).hexdigest()
OTHER_FILE = {"file_sha256": "0" * 64, "count": 1}
# The order of the contract.
FAULTS = {
    RejectionCode.KEY_UNKNOWN: {"signer": key("stranger")},
    RejectionCode.SCHEMA_UNSUPPORTED: {"schema": 2},
    RejectionCode.MANIFEST_EXPIRED: {"expires": "2020-01-01T00:00:00Z"},
    RejectionCode.IMAGE_SIZE_MISMATCH: {"firmware": {"size": 1, "sha256": "0" * 64, "signature": ""}},
    RejectionCode.IMAGE_SHA256_MISMATCH: {"firmware": {"size": len(IMAGE), "sha256": "0" * 64, "signature": ""}},
    RejectionCode.IMAGE_SIGNATURE_INVALID: {"firmware": {"size": len(IMAGE), "sha256": SHA256, "signature": ""}},
    RejectionCode.IMAGE_WRONG_CHIP: {"chip": "esp32s3"},
    RejectionCode.TARGETS_FILE_CHANGED: {"chip": "esp32c6"},
}


@pytest.mark.parametrize("code", FAULTS)
def test_first_fault_in_the_order_of_the_contract_is_told(s3, put, validate, code):
    """Each time, the drop has this fault and all that come after it."""
    changes = {}
    for fault in reversed(list(FAULTS)[list(FAULTS).index(code) :]):
        changes |= FAULTS[fault]
    put(make_drop(image=IMAGE, targets_file=b"[7]", targets=OTHER_FILE, **changes))
    verdict = validate()
    assert verdict.reason.rejection_code == code
    assert [stored(s3, prefix) for prefix in ("releases/", "batches/", "keys/")] == [[], [], []]


def test_revoked_key_is_told_from_one_that_was_never_trusted(put, validate, trust):
    put(make_drop())
    assert isinstance(validate(), Accepted)
    trust(None)
    put(make_drop())
    assert validate(execution="second").reason.rejection_code == RejectionCode.KEY_REVOKED


def test_manifest_is_refused_at_its_very_expiry(put, validate):
    expires = NOW.replace(microsecond=0) + timedelta(days=1)
    put(make_drop(expires=expires.strftime("%Y-%m-%dT%H:%M:%SZ")))
    assert isinstance(validate(now=expires - timedelta(seconds=1)), Accepted)
    assert validate(now=expires).reason.rejection_code == RejectionCode.MANIFEST_EXPIRED


class Unread(FirmwareStore):
    """Refuses to read what ends like this."""

    suffix = ""

    def fetch(self, key, max_bytes):
        found = super().fetch(key, max_bytes)
        assert found is None or found[1] is None or not key.endswith(self.suffix)
        return found

    def read(self, version):
        assert not version.key.endswith(self.suffix)
        return super().read(version)


@pytest.mark.parametrize(
    ("code", "member", "size"),
    [
        (RejectionCode.ENVELOPE_TOO_LARGE, "manifest", 1024 * 1024 + 1),
        (RejectionCode.IMAGE_SIZE_MISMATCH, "image", 5000),
        (RejectionCode.TARGETS_MALFORMED, "targets", 48_000_001),
    ],
)
def test_what_is_too_large_is_not_even_read(s3, put, validate, code, member, size):
    put(dataclasses.replace(make_drop(targets_file=ONE_MAC), **{member: bytes(size)}))
    unread = Unread(s3, "bucket")
    unread.suffix = SUFFIXES[member]
    assert validate(bucket=unread).reason.rejection_code == code


@pytest.mark.parametrize("member", SUFFIXES)
def test_member_that_cannot_be_read_is_rejected_once_the_grace_period_is_over(s3, put, validate, member):
    drop = make_drop(targets_file=ONE_MAC)
    put(drop)
    key = f"inbox/{STEM}{SUFFIXES[member]}"
    s3.put_object(Bucket="bucket", Key=key, Body=getattr(drop, member), StorageClass="GLACIER")
    verdict = validate()
    assert (verdict.reason.rejection_code, verdict.pending) == (RejectionCode.INBOX_FILE_UNREADABLE, True)
    assert key in verdict.reason.message
    assert key in [found.key for found in verdict.members]
    assert not validate(pending=verdict.members).pending
    put(drop, member)
    assert isinstance(validate(execution="second"), Accepted)


# --- what is no drop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [("app.elf", RejectionCode.INBOX_FILE_UNKNOWN), ("a..b.bin", RejectionCode.INBOX_KEY_INVALID)],
)
def test_file_of_no_drop_is_rejected_by_one_execution(s3, validate, name, code):
    version_id = s3.put_object(Bucket="bucket", Key=f"inbox/{name}", Body=b"x")["VersionId"]
    verdict = validate(name, execution="first")
    assert [(member.key, member.version_id) for member in verdict.members] == [(f"inbox/{name}", version_id)]
    assert (verdict.reason.rejection_code, verdict.pending) == (code, False)
    assert isinstance(validate(name, execution="second"), NothingToDo)


def test_file_of_no_drop_that_is_no_longer_there_is_left_alone(validate):
    assert isinstance(validate("app.elf"), NothingToDo)


def test_folder_marker_is_left_alone_but_not_a_file_of_such_a_name(s3, validate):
    s3.put_object(Bucket="bucket", Key="inbox/folder/", Body=b"")
    assert isinstance(validate("folder/"), NothingToDo)
    s3.put_object(Bucket="bucket", Key="inbox/folder/", Body=b"content")
    assert validate("folder/").reason.rejection_code == RejectionCode.INBOX_KEY_INVALID

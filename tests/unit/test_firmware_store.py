import base64
import hashlib
import io
import json

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from botocore.stub import Stubber
from ota_core.stores import firmware_store
from ota_core.stores.firmware_store import FirmwareStore, ObjectGone, ObjectUnreadable, ObjectVersion


@pytest.fixture
def put(s3):
    def call(key, body):
        version_id = s3.put_object(Bucket="bucket", Key=key, Body=body)["VersionId"]
        return ObjectVersion(key, version_id, len(body))

    return call


@pytest.fixture
def bodies(s3):
    """Every version under a prefix, by key, oldest first."""

    def call(prefix):
        listed = s3.list_object_versions(Bucket="bucket", Prefix=prefix)
        found = {}
        for version in reversed(listed.get("Versions", [])):
            stored = s3.get_object(Bucket="bucket", Key=version["Key"], VersionId=version["VersionId"])
            found.setdefault(version["Key"], []).append(stored["Body"].read())
        assert "DeleteMarkers" not in listed
        return found

    return call


def test_current_version_is_found(store, put):
    put("inbox/app.bin", b"old")
    newer = put("inbox/app.bin", b"newer")
    assert store.find("inbox/app.bin") == newer
    assert store.find("inbox/other.bin") is None


def test_current_version_is_fetched_with_its_bytes(store, put):
    put("inbox/app.manifest.json", b"old")
    newer = put("inbox/app.manifest.json", b"newer")
    assert store.fetch("inbox/app.manifest.json", 5) == (newer, b"newer")
    assert store.fetch("inbox/other.manifest.json", 5) is None


def test_no_byte_is_fetched_of_what_is_too_large(s3):
    class Unread(io.BytesIO):
        def read(self, *_):
            raise AssertionError

    body = Unread(b"newer")
    with Stubber(s3) as stub:
        stub.add_response("get_object", {"VersionId": "v", "ContentLength": 5, "Body": StreamingBody(body, 5)})
        fetched = FirmwareStore(s3, "bucket").fetch("inbox/app.manifest.json", 4)
    assert fetched == (ObjectVersion("inbox/app.manifest.json", "v", 5), None)
    assert body.closed, "the connection would hang"


@pytest.mark.parametrize(
    ("call", "ask"),
    [
        ("head_object", lambda store: store.find("inbox/app.bin")),
        ("get_object", lambda store: store.fetch("inbox/app.bin", 5)),
    ],
)
def test_refused_access_is_not_taken_for_a_missing_object(s3, call, ask):
    with Stubber(s3) as stub:
        stub.add_client_error(call, service_error_code="403", http_status_code=403)
        with pytest.raises(ClientError, match="403"):
            ask(FirmwareStore(s3, "bucket"))


def test_very_version_is_read_whatever_came_after_it(store, put):
    first = put("inbox/app.bin", b"first")
    put("inbox/app.bin", b"second")
    assert store.read(first) == b"first"


def test_reading_a_version_that_was_moved_says_so(s3, store, put):
    version = put("inbox/app.bin", b"x")
    s3.delete_object(Bucket="bucket", Key="inbox/app.bin", VersionId=version.version_id)
    with pytest.raises(ObjectGone, match=r"inbox/app\.bin"):
        store.read(version)


def test_no_more_is_read_than_the_size_that_was_checked(store, put):
    version = put("inbox/app.bin", b"x" * 100)
    assert store.read(ObjectVersion(version.key, version.version_id, 10)) == b"x" * 10


def test_large_object_is_read_in_chunks(store, put):
    content = bytes(range(256)) * 4096 * 3
    version = put("batches/targets.txt", content)
    chunks = list(store.read_chunks(version.key, version.version_id))
    assert len(chunks) == 3
    assert b"".join(chunks) == content


def test_written_object_carries_its_digest_for_s3_to_check(s3, store):
    sent = []
    s3.meta.events.register("provide-client-params.s3.PutObject", lambda params, **_: sent.append(params))
    written = store.write("releases/p/1.bin", b"image")
    assert store.read(written) == b"image"
    digest = base64.b64encode(hashlib.sha256(b"image").digest()).decode()
    assert [params["ChecksumSHA256"] for params in sent] == [digest]


def test_first_to_write_once_wins_and_all_learn_what_is_there(store, bodies):
    assert store.write_once("claims/x", b"first") == b"first"
    assert store.write_once("claims/x", b"second") == b"first"
    assert bodies("claims/") == {"claims/x": [b"first"]}


def test_only_one_execution_gets_a_drop_however_often_it_asks(store, put):
    members = [put("inbox/app.bin", b"i"), put("inbox/app.manifest.json", b"m")]
    assert store.claim(members, "first")
    assert not store.claim(members, "second")
    assert store.claim(members[::-1], "first")


def test_newer_member_makes_another_drop(store, put):
    image, manifest = put("inbox/app.bin", b"i"), put("inbox/app.manifest.json", b"m")
    assert store.claim([image, manifest], "first")
    assert store.claim([put("inbox/app.bin", b"i"), manifest], "second")


def test_key_is_remembered_as_it_was(store, bodies):
    assert not store.remembers_key("k")
    store.remember_key("k", b"PEM")
    store.remember_key("k", b"another")
    assert store.remembers_key("k")
    assert bodies("keys/") == {"keys/k.pem": [b"PEM"]}


def test_archived_version_takes_along_the_older_ones_that_it_covers(s3, store, put, bodies):
    old, member = put("inbox/app.bin", b"old"), put("inbox/app.bin", b"member")
    newer = put("inbox/app.bin", b"newer")
    store.archive([member])
    assert bodies("inbox/") == {"inbox/app.bin": [b"newer"]}
    assert store.find("inbox/app.bin") == newer
    assert bodies("archive/") == {"archive/app.bin": [b"old", b"member"]}
    origins = [
        s3.head_object(Bucket="bucket", Key=version["Key"], VersionId=version["VersionId"])["Metadata"]
        for version in s3.list_object_versions(Bucket="bucket", Prefix="archive/")["Versions"]
    ]
    assert origins == [
        {"inbox-key": "inbox/app.bin", "inbox-version-id": version.version_id} for version in (member, old)
    ]


@pytest.fixture
def put_unreadable(s3):
    """An object in an archive: S3 lists it, and neither reads nor copies it."""

    def call(key, body):
        version_id = s3.put_object(Bucket="bucket", Key=key, Body=body, StorageClass="DEEP_ARCHIVE")["VersionId"]
        return ObjectVersion(key, version_id, len(body))

    return call


def test_unreadable_object_is_found_and_cannot_be_read(store, put_unreadable):
    planted = put_unreadable("inbox/app.bin", b"planted")
    assert store.find("inbox/app.bin") == planted
    assert store.fetch("inbox/app.bin", 100) == (planted, None)
    with pytest.raises(ObjectUnreadable, match=r"inbox/app\.bin"):
        store.read(planted)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("400", "Bad Request"),
        ("InvalidRequest", "The object was stored using a form of Server Side Encryption."),
        ("KMS.DisabledException", "the key is disabled"),
        ("AccessDenied", "User: arn is not authorized to perform: kms:Decrypt on the resource"),
    ],
)
def test_object_under_a_foreign_key_is_found_by_listing(s3, code, message):
    listed = {"Versions": [{"Key": "inbox/app.bin", "VersionId": "v", "Size": 7}]}
    for operation, ask, found in (
        ("head_object", lambda store: store.find("inbox/app.bin"), lambda version: version),
        ("get_object", lambda store: store.fetch("inbox/app.bin", 9), lambda version: (version, None)),
    ):
        with Stubber(s3) as stub:
            stub.add_client_error(operation, service_error_code=code, service_message=message)
            stub.add_response("list_object_versions", listed)
            assert ask(FirmwareStore(s3, "bucket")) == found(ObjectVersion("inbox/app.bin", "v", 7))


def test_planted_versions_do_not_stop_a_drop(store, put, put_unreadable, bodies):
    unreadable = put_unreadable("inbox/app.bin", b"planted")
    too_large = put("inbox/app.bin", bytes(firmware_store._MAX_OLDER_BYTES + 1))
    put("inbox/app.bin", b"older")
    member = put("inbox/app.bin", b"member")
    assert store.archive([member]) == [unreadable, too_large]
    assert bodies("archive/") == {"archive/app.bin": [b"older", b"member"]}
    assert store.find("inbox/app.bin") == too_large


def test_member_that_cannot_be_read_stays_in_the_inbox_beside_its_reason(store, put, put_unreadable, bodies):
    members = [put_unreadable("inbox/app.bin", b"planted"), put("inbox/app.manifest.json", b"manifest")]
    reason, left = store.reject(members, {"code": "x"})
    assert left == members[:1]
    assert bodies("rejected/").keys() == {reason, "rejected/app.manifest.json"}
    assert store.find("inbox/app.bin") == members[0]


def test_only_so_many_older_versions_move_with_a_member(monkeypatch, store, put, bodies):
    monkeypatch.setattr(firmware_store, "_MAX_OLDER_VERSIONS", 3)
    for number in range(5):
        put("inbox/app.bin", b"%d" % number)
    member = put("inbox/app.bin", b"member")
    newer = put("inbox/app.bin", b"newer")
    store.archive([member])
    assert bodies("archive/") == {"archive/app.bin": [b"2", b"3", b"4", b"member"]}
    assert bodies("inbox/") == {"inbox/app.bin": [b"0", b"1", b"newer"]}
    assert store.find("inbox/app.bin") == newer


def test_object_whose_name_only_begins_alike_stays(store, put, bodies):
    member = put("inbox/app.bin", b"member")
    put("inbox/app.bin.bin", b"other")
    store.archive([member])
    assert bodies("inbox/") == {"inbox/app.bin.bin": [b"other"]}


def test_rejected_members_lie_beside_their_reason(store, put, bodies):
    reason_key, left = store.reject([put("inbox/d/app.bin", b"image")], {"code": "x", "message": "größer"})
    assert (reason_key, left) == ("rejected/d/app.reason.json", [])
    moved = bodies("rejected/")
    reason = json.loads(moved.pop("rejected/d/app.reason.json")[0])
    assert reason == {"code": "x", "message": "größer"}
    assert moved == {"rejected/d/app.bin": [b"image"]}
    assert bodies("inbox/") == {}


def test_discarding_leaves_other_versions(store, put, bodies):
    put("releases/p/1.bin", b"released")
    again = put("releases/p/1.bin", b"again")
    store.discard(again.key, again.version_id)
    assert bodies("releases/") == {"releases/p/1.bin": [b"released"]}
    assert store.is_there("releases/p/1.bin")


class CutShort(Exception):  # noqa: N818 - what happened
    """The function ended here."""


@pytest.mark.parametrize("calls", range(10))
def test_move_that_breaks_at_any_call_is_finished_by_the_next_attempt(s3, store, put, bodies, calls):
    """Two members of two versions each: a list, and two copies and deletions of each. Cut off after each in turn."""
    members = []
    for key in ("inbox/app.bin", "inbox/app.manifest.json"):
        put(key, b"old " + key.encode())
        members.append(put(key, b"new " + key.encode()))
    left = [calls]

    def cut_off(**_):
        left[0] -= 1
        if left[0] < 0:
            raise CutShort

    s3.meta.events.register("before-call.s3", cut_off, unique_id="cut")
    with pytest.raises(CutShort):
        store.archive(members)
    s3.meta.events.unregister("before-call.s3", unique_id="cut")
    everything = {
        body for prefix in ("inbox/", "archive/") for versions in bodies(prefix).values() for body in versions
    }
    assert len(everything) == 4

    store.archive(members)
    assert bodies("inbox/") == {}
    archived = bodies("archive/")
    for key, versions in archived.items():
        name = key.removeprefix("archive/").encode()
        # A version whose deletion broke is copied again; the last one is the member's.
        assert set(versions) == {b"old inbox/" + name, b"new inbox/" + name}
        assert versions[-1] == b"new inbox/" + name
    assert len(archived) == 2

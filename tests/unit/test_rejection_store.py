import json

import pytest
from ota_core.formats.paging import read_cursor
from ota_core.rules.inbox import reason_key
from ota_core.stores import rejection_store
from ota_core.stores.rejection_store import RejectionStore

REASON = {
    "code": "key_unknown",
    "message": "No trusted key signed it.",
    "stage": "ValidateSignature",
    "at": "2026-06-01T00:00:00Z",
    "execution": "arn:e",
    "versions": [{"key": "inbox/demo/app.bin", "version_id": "1"}],
}


@pytest.fixture
def rejections(s3):
    return RejectionStore(s3, "bucket")


@pytest.fixture
def reject(s3):
    def call(stem, reason=REASON):
        body = reason if isinstance(reason, bytes) else json.dumps(reason).encode()
        s3.put_object(Bucket="bucket", Key=reason_key(f"inbox/{stem}.bin"), Body=body)
        s3.put_object(Bucket="bucket", Key=f"rejected/{stem}.bin", Body=b"x")

    return call


def test_rejected_drop_is_listed_with_its_reason(rejections, reject):
    reject("demo/app")
    shown = {name: REASON[name] for name in ("code", "message", "stage", "at", "versions")}
    assert rejections.list_rejected(before=None, limit=50) == {
        "drops": [{"stem": "demo/app", **shown}],
        "is_complete": True,
    }


def test_all_are_listed_once_in_pages(rejections, reject):
    stems = {f"demo/{number}" for number in range(5)}
    for stem in stems:
        reject(stem)
    listed, before = [], None
    while True:
        page = rejections.list_rejected(before=before, limit=2)
        listed += [drop["stem"] for drop in page["drops"]]
        if "next" not in page:
            break
        assert len(page["drops"]) == 2
        before = tuple(read_cursor(page["next"], "rejected"))
    assert len(listed) == 5
    assert set(listed) == stems


def test_latest_is_first(rejections, reject, monkeypatch):
    for stem in ("a", "c", "b"):
        reject(stem)
    moments = {"a": 1, "c": 3, "b": 2}
    monkeypatch.setattr(
        rejection_store, "_position", lambda entry: (moments[entry["Key"].split("/")[1].split(".")[0]], "")
    )
    assert [drop["stem"] for drop in rejections.list_rejected(before=None, limit=3)["drops"]] == ["c", "b", "a"]


def test_nothing_was_rejected(rejections):
    assert rejections.list_rejected(before=None, limit=50) == {"drops": [], "is_complete": True}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"\xff", json.dumps(REASON | {"x": "x" * 70_000}).encode()])
def test_what_is_no_reason_is_listed_as_that(rejections, reject, body):
    reject("demo/app", body)
    [drop] = rejections.list_rejected(before=None, limit=50)["drops"]
    assert (drop["stem"], drop["code"], drop["at"]) == ("demo/app", "reason_unreadable", None)
    assert "rejected/demo/app.reason.json" in drop["message"]


def test_list_says_when_there_was_more_than_it_looked_at(rejections, reject, monkeypatch):
    monkeypatch.setattr(rejection_store, "MAX_OBJECTS", 3)
    reject("a")
    reject("b")
    listed = rejections.list_rejected(before=None, limit=50)
    assert not listed["is_complete"]

import re
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from ota_core.errors import DropRejected, RejectionCode
from ota_core.rules.inbox import (
    ARCHIVE,
    MAX_KEY_CHARS,
    REASON_SUFFIX,
    REJECTED,
    Drop,
    Member,
    locate,
    moved_key,
    reason_key,
    status_key,
)
from support.rejections import rejected

# What S3 may hand us: any UTF-8 of up to 1,024 bytes.
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=1000).map(
    lambda text: ("inbox/" + text).encode()[:1024].decode(errors="ignore")
)
tricky_keys = st.lists(
    st.sampled_from(["..", ".", "", "%2E", "%", "/", "a", " ", "\\", "é", "\n", ".bin", ".manifest.json", "x" * 300]),
    max_size=8,
).map(lambda parts: "inbox/" + "".join(parts))


@given(keys | tricky_keys)
@example("inbox/")
@example("inbox/.bin")
def test_any_key_is_located_or_rejected(key):
    try:
        drop = locate(key)
    except DropRejected:
        return
    assert key in {drop.key(member) for member in Member}
    if "%" not in key:
        assert moved_key(key, ARCHIVE) == key.replace("inbox/", "archive/", 1)


@given(keys | tricky_keys)
@example("inbox/" + "/a." * 300)
@example("inbox/" + "\\/" * 300)
@example("inbox/app.reason.json")
def test_moved_key_is_plain_and_short_enough_for_s3(key):
    moved = moved_key(key, REJECTED)
    assert re.fullmatch(r"rejected/[ -\[\]-~]+", moved)
    assert ".." not in moved
    assert not {"", "."} & set(moved.split("/"))
    assert not moved.endswith(REASON_SUFFIX)
    # Room for what stands beside it.
    assert len(moved) <= 1024 - len(".reason.json") - 100


@given(st.lists(keys | tricky_keys, unique=True, min_size=2))
@example(["inbox/../a.bin", "inbox/%2E%2E/a.bin", "inbox/%252E%252E/a.bin"])
@example(["inbox/a.reason.json", "inbox/a.reason%2Ejson", "inbox/a%2Ereason%2Ejson"])
@example(["inbox//a.bin", "inbox/%/a.bin", "inbox/%25/a.bin", "inbox/a.bin"])
@example(["inbox/" + "é" * 500, "inbox/" + "é" * 499 + "è"])
def test_different_keys_move_to_different_places(all_keys):
    assert len({moved_key(key, REJECTED) for key in all_keys}) == len(all_keys)


@given(st.lists(st.text("abz09-_.+ ()'", min_size=1, max_size=8).filter(lambda text: ".." not in text), min_size=1))
def test_members_of_a_drop_are_found_from_each_other(parts):
    stem = "inbox/" + "/".join(parts)
    assume("." not in parts and not stem.endswith(".") and len(stem) < 280)
    located = {locate(stem + member.value) for member in Member}
    assert located == {Drop(stem)}


@pytest.mark.parametrize(
    ("key", "stem"),
    [
        ("inbox/app.bin", "inbox/app"),
        ("inbox/demo-sensor/1.2.0+5/app v2.manifest.json", "inbox/demo-sensor/1.2.0+5/app v2"),
        ("inbox/a/b/c/d.targets.json", "inbox/a/b/c/d"),
        ("inbox/app.manifest.json.bin", "inbox/app.manifest.json"),
        ("inbox/100%.bin", "inbox/100%"),
    ],
)
def test_member_belongs_to_the_drop_of_its_stem(key, stem):
    assert locate(key) == Drop(stem)


@pytest.mark.parametrize(
    "key",
    [
        "inbox/../app.bin",
        "inbox/a/../../releases/app.bin",
        "inbox/./app.bin",
        "inbox/a..b.bin",
        "inbox//app.bin",
        "inbox/a\\b.bin",
        "inbox/a\nb.bin",
        "inbox/a\x7fb.bin",
        "inbox/\u202eapp.bin",
        "inbox/gerät.bin",
        "inbox/",
        "inbox/" + "a" * MAX_KEY_CHARS + ".bin",
        "inbox/" + "a" * (MAX_KEY_CHARS - len("inbox/.manifest.json") + 1) + ".bin",
    ],
)
def test_misleading_key_is_rejected(key):
    with rejected(RejectionCode.INBOX_KEY_INVALID):
        locate(key)


@pytest.mark.parametrize(
    "key", ["inbox/app.elf", "inbox/app.BIN", "inbox/.bin", "inbox/a/.manifest.json", "inbox/app.json", "inbox/bin"]
)
def test_file_that_is_no_member_is_rejected(key):
    with rejected(RejectionCode.INBOX_FILE_UNKNOWN):
        locate(key)


@pytest.mark.parametrize(
    ("key", "stem"),
    [
        ("inbox/a/app.bin", "a/app"),
        ("inbox/a/app.manifest.json", "a/app"),
        ("inbox/a/app.targets.json", "a/app"),
        ("inbox/app.manifest.json.bin", "app.manifest.json"),
        ("inbox/app.elf", "app.elf"),
        ("inbox/../app.bin", "%2E%2E/app"),
    ],
)
def test_reason_stands_beside_the_members_and_status_by_itself_under_their_stem(key, stem):
    assert reason_key(key) == f"rejected/{stem}.reason.json"
    assert status_key(key) == f"status/{stem}.json"


@given(keys | tricky_keys)
def test_keys_of_reason_and_status_are_short_enough_for_s3(key):
    assert len(reason_key(key)) <= 1024
    assert len(status_key(key)) <= 1024


def test_members_end_differently():
    for one, other in pairwise(sorted(Member)):
        assert not one.endswith(other)
        assert not other.endswith(one)

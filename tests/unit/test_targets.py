import json
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from ota_core.errors import DropRejected, RejectionCode
from ota_core.formats import strict_json, targets
from ota_core.formats.targets import TargetsFile, normalise_mac, parse_mac_list, parse_targets_document
from support.drops import target_list
from support.rejections import rejected

mac_bytes = st.binary(min_size=6, max_size=6)
spellings = st.sampled_from([":", "-", ""])


def plain(mac):
    return mac.hex(":").upper()


def spelled(mac, separator, upper):
    text = mac.hex(separator) if separator else mac.hex()
    return text.upper() if upper else text


any_spelling = st.builds(spelled, mac_bytes, spellings, st.booleans())


@given(mac_bytes, spellings, st.booleans())
def test_mac_in_any_accepted_spelling_is_normalised(mac, separator, upper):
    assert normalise_mac(spelled(mac, separator, upper)) == plain(mac)


@given(any_spelling, st.data())
def test_mac_with_one_character_wrong_is_none(mac, data):
    at = data.draw(st.integers(0, len(mac) - 1))
    wrong = data.draw(st.characters(exclude_characters="0123456789abcdefABCDEF" + mac[at]))
    assert normalise_mac(mac[:at] + wrong + mac[at + 1 :]) is None


@given(st.text() | any_spelling)
def test_any_text_is_a_plain_mac_or_none(text):
    mac = normalise_mac(text)
    assert mac is None or normalise_mac(mac) == mac


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AA:BB:CC:DD:EE",
        "AA:BB:CC:DD:EE:FF:00",
        "AA:BB-CC:DD:EE:FF",
        "AABB:CC:DD:EE:FF",
        "AABBCC:DDEEFF",
        "AA BB CC DD EE FF",
        "AABB.CCDD.EEFF",
        "AA:BB:CC:DD:EE:FF\n",
        " AA:BB:CC:DD:EE:FF",
        "0xAABBCCDDEEFF",
        "ＡＡ:BB:CC:DD:EE:FF",
        "AA:BB:CC:DD:EE:F",
    ],
)
def test_text_that_is_almost_a_mac_is_none(text):
    assert normalise_mac(text) is None


@given(st.lists(st.tuples(mac_bytes, spellings, st.booleans()), min_size=1), st.booleans(), st.integers(0, 4))
def test_list_is_sorted_and_duplicates_are_folded(macs, in_object, indent):
    listed = [spelled(*mac) for mac in macs]
    raw = json.dumps({"devices": listed} if in_object else listed, indent=indent).encode()
    assert parse_targets_document(raw) == sorted({plain(mac) for mac, *_ in macs})


@given(
    st.lists(st.tuples(st.text() | any_spelling, st.sampled_from(["", "\n", "\r\n\n"])), min_size=1, max_size=20),
    st.booleans(),
)
def test_invalid_macs_are_reported_with_the_lines_they_stand_on(items, in_object):
    raw, line, expected = '{\n"devices": [' if in_object else "[", 2 if in_object else 1, []
    for number, (text, gap) in enumerate(items):
        raw += gap
        line += gap.count("\n")
        if normalise_mac(text) is None:
            expected.append(f"{text[:40]!r} (line {line})")
        raw += json.dumps(text) + ("," if number + 1 < len(items) else "]")
    raw += "\n}" if in_object else ""
    assume(expected)
    more = f" and {len(expected) - 10} more" if len(expected) > 10 else ""
    with rejected(RejectionCode.TARGET_MAC_INVALID, f"not a MAC address: {', '.join(expected[:10])}{more}; expected"):
        parse_targets_document(raw.encode())


def test_invalid_macs_of_a_manifest_are_reported_by_position():
    with rejected(RejectionCode.TARGET_MAC_INVALID, "'x' (item 2)"):
        parse_mac_list(["AABBCCDDEEFF", "x"])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the targets file is not JSON"),
        (b"AA:BB:CC:DD:EE:FF\n", "the targets file is not JSON"),
        (b'\xef\xbb\xbf["AABBCCDDEEFF"]', "the targets file is not JSON"),
        (b"{}", "the targets file is an object"),
        (b'{"devices": ["AABBCCDDEEFF"], "more": 1}', "the targets file is an object"),
        (b'{"devices": {}}', "the targets file is an object"),
        (b'"AABBCCDDEEFF"', "the targets file is a string"),
        (b"null", "the targets file is null"),
        (b"7", "the targets file is an integer"),
        (b'["AABBCCDDEEFF", 7]', "item 2 of the list is an integer"),
        (b'[["AABBCCDDEEFF"]]', "item 1 of the list is a list"),
        (b'{"devices": [], "devices": ["AABBCCDDEEFF"]}', "the same name twice"),
    ],
)
def test_targets_file_of_another_form_is_rejected(raw, message):
    with rejected(RejectionCode.TARGETS_MALFORMED, message):
        parse_targets_document(raw)


@pytest.mark.parametrize("raw", [b"[]", b'{"devices": []}'])
def test_empty_target_list_is_rejected(raw):
    with rejected(RejectionCode.TARGETS_EMPTY):
        parse_targets_document(raw)


def test_a_million_targets_are_accepted_and_one_more_is_not():
    listed = target_list(1_000_000)
    raw = json.dumps(listed, indent=1).encode()
    assert parse_targets_document(raw) == listed
    with rejected(RejectionCode.TARGETS_TOO_MANY, "1000001 devices are listed; expected at most 1000000"):
        parse_targets_document(raw[:-2] + b',\n"020000000000"]')


def test_targets_file_that_is_too_large_is_rejected_before_it_is_read():
    targets.check_targets_file_size(targets.MAX_TARGETS_FILE_BYTES)
    with rejected(RejectionCode.TARGETS_MALFORMED, "48000001 bytes"):
        targets.check_targets_file_size(targets.MAX_TARGETS_FILE_BYTES + 1)
    with rejected(RejectionCode.TARGETS_MALFORMED, "48000001 bytes"):
        parse_targets_document(b" " * (targets.MAX_TARGETS_FILE_BYTES + 1))


MAC_BYTE = "[0-9A-Fa-f]{2}"
SPELLING = re.compile(f"({MAC_BYTE}){{6}}|{MAC_BYTE}(:{MAC_BYTE}){{5}}|{MAC_BYTE}(-{MAC_BYTE}){{5}}")


def listed_in(raw):
    """The MACs that a targets file lists, None if it must be rejected: by rules written down a second time."""
    try:
        document = strict_json.loads(raw)
    except ValueError:
        return None
    if isinstance(document, dict) and set(document) == {"devices"}:
        document = document["devices"]
    if not isinstance(document, list) or not document:
        return None
    digits = [re.sub("[:-]", "", item) for item in document if isinstance(item, str) and SPELLING.fullmatch(item)]
    if len(digits) < len(document):
        return None
    return sorted({plain(bytes.fromhex(item)) for item in digits})


@st.composite
def damaged_files(draw):
    """A good targets file with up to three bytes overwritten."""
    listed = draw(st.lists(any_spelling, min_size=1, max_size=3))
    raw = json.dumps(draw(st.sampled_from([listed, {"devices": listed}]))).encode()
    at = draw(st.integers(0, len(raw)))
    damage = draw(st.binary(max_size=3) | st.text("0123456789abcdefABCDEF:-", max_size=3).map(str.encode))
    return raw[:at] + damage + raw[at + len(damage) :]


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | any_spelling,
    lambda inner: st.lists(inner) | st.dictionaries(st.just("devices") | st.text(), inner),
    max_leaves=10,
)


@given(st.binary() | documents.map(lambda document: json.dumps(document).encode()) | damaged_files())
@example(b'["02-00-00-00-00-0a", "02000000000A"]')
@example(b'{"devices": ["02:00:00:00:00:0A"]}')
@example(b'["02:00:00-00-00-0A"]')
def test_targets_file_of_any_bytes_is_read_or_rejected(raw):
    expected = listed_in(raw)
    if expected is None:
        with pytest.raises(DropRejected):
            parse_targets_document(raw)
    else:
        assert parse_targets_document(raw) == expected


def test_targets_file_must_be_the_signed_one():
    raw = b'["020000000001"]'
    signed = TargetsFile("d3a1fe11fc40a1bc5d1fd0b6f9dd9a0a5d68cd0ba1d6c4c5ee3d5f3a3c35a1d0", 1)
    with rejected(RejectionCode.TARGETS_FILE_CHANGED, signed.sha256):
        targets.check_targets_file(signed, raw)


def test_tags_are_sorted_and_folded():
    assert targets.parse_target_tags(["site=berlin", "beta", "beta"]).tags == ("beta", "site=berlin")


@pytest.mark.parametrize("tag", [None, True, 1, ["beta"], {}])
def test_tag_of_another_type_is_rejected(tag):
    with rejected(RejectionCode.TARGET_TAG_INVALID, "a tag is"):
        targets.parse_target_tags([tag, "beta"])


@pytest.mark.parametrize("tag", ["b", "beta", "site=berlin", "0", "a.b_c-d", "a" * 63])
def test_tag_is_accepted(tag):
    assert targets.is_tag(tag)


@pytest.mark.parametrize("tag", ["", "Beta", "=x", "-x", "a b", "a/b", "ä", "a\n", "a" * 64])
def test_text_is_no_tag(tag):
    assert not targets.is_tag(tag)
    with rejected(RejectionCode.TARGET_TAG_INVALID, "a tag is"):
        targets.parse_target_tags(["beta", tag])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("beta", "'tags' is a string"),
        ([1], "a tag is 1"),
        ([["a"]], "a tag is"),
        ([f"t{n}" for n in range(21)], "21 tags"),
    ],
)
def test_list_of_tags_is_refused(items, message):
    with rejected(RejectionCode.TARGET_TAG_INVALID, message):
        targets.parse_target_tags(items)


def test_empty_list_of_tags_is_refused():
    with rejected(RejectionCode.TARGETS_EMPTY):
        targets.parse_target_tags([])

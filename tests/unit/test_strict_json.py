import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.formats import strict_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(json_values, st.booleans())
def test_whatever_json_writes_is_read_back(value, ascii_only):
    if not ascii_only:
        assert strict_json.loads(json.dumps(value, ensure_ascii=False).encode()) == value
    assert strict_json.loads(json.dumps(value).encode()) == value


@given(st.binary() | st.text('[]{}:,"0123456789eE+-. \\utrfalsn', max_size=12).map(str.encode))
def test_any_bytes_are_read_or_refused_as_value_error(raw):
    try:
        value = strict_json.loads(raw)
    except ValueError:
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    assert strict_json.kind_of(value)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "\\u0061": 2}',
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"[" * 100_000,
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b"\xff",
        b"\xef\xbb\xbf1",
        b"9" * 5000,
        b"'a'",
        b"[1,]",
        b"",
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_readers_differ_about_is_refused(raw):
    with pytest.raises(ValueError, match=r".+"):
        strict_json.loads(raw)


def test_escaped_surrogate_pair_is_one_character():
    assert strict_json.loads(b'"\\ud83d\\ude80"') == "🚀"
    assert strict_json.loads(b'"\\\\ud800"') == "\\ud800"


@given(st.binary())
def test_base64_has_one_spelling(decoded):
    text = base64.b64encode(decoded).decode()
    assert strict_json.decode_base64(text) == decoded
    for other in (text + "=", text + "\n", " " + text, text.rstrip("=") if text.endswith("=") else "A" + text):
        with pytest.raises(ValueError, match=r".+"):
            strict_json.decode_base64(other)


def test_base64_with_unused_bits_set_is_refused():
    assert strict_json.decode_base64("QQ==") == b"A"
    with pytest.raises(ValueError, match="canonical"):
        strict_json.decode_base64("QR==")

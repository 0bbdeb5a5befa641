import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.formats.byte_range import MAX_HEADER_CHARS, ByteRange, Unsatisfiable, requested_range

SIZES = st.integers(1, 2**31 - 1)
POSITIONS = st.one_of(st.integers(0, 20), st.integers(0, 2**31), st.integers(0, 10**40))
OWS = st.sampled_from(["", " ", "\t", "  "])


@st.composite
def range_specs(draw):
    kind = draw(st.sampled_from(["closed", "open", "suffix"]))
    first = draw(POSITIONS)
    if kind == "open":
        return f"{first}-"
    if kind == "suffix":
        return f"-{first}"
    return f"{first}-{first + draw(POSITIONS)}"


@st.composite
def range_headers(draw):
    """Valid Range headers of every form that the grammar allows."""
    specs = draw(st.lists(range_specs(), min_size=1, max_size=5))
    separators = [draw(OWS) + "," * draw(st.integers(1, 3)) + draw(OWS) for _ in specs[1:]]
    text = specs[0] + "".join(separator + spec for separator, spec in zip(separators, specs[1:], strict=True))
    return draw(st.sampled_from(["bytes=", "Bytes=", "BYTES="])) + draw(st.sampled_from(["", ",", ", "])) + text


def naive(header, size):
    """What section 14 says, by sets of offsets instead of arithmetic; only for small sizes."""
    for spec in header.partition("=")[2].split(","):
        first, _, last = spec.strip(" \t").partition("-")
        if not spec.strip(" \t"):
            continue
        if first:
            chosen = [at for at in range(size) if int(first) <= at and (not last or at <= int(last))]
        else:
            chosen = [at for at in range(size) if at >= size - int(last)]
        if chosen:
            return chosen
    return []


@given(range_headers(), st.integers(1, 60))
def test_range_is_the_first_satisfiable_one(header, size):
    part = requested_range(header, size)
    expected = naive(header, size)
    if expected:
        assert [*range(part.first, part.last + 1)] == expected
    else:
        assert part == Unsatisfiable()


@given(range_headers(), SIZES)
def test_answered_part_lies_in_the_image_and_says_so(header, size):
    part = requested_range(header, size)
    if part != Unsatisfiable():
        assert 0 <= part.first <= part.last < size
        assert part.size == part.last - part.first + 1
        assert part.content_range(size) == f"bytes {part.first}-{part.last}/{size}"


@given(st.text(max_size=80), SIZES)
def test_any_text_is_ignored_or_answered_and_never_breaks(header, size):
    for text in (header, f"bytes={header}"):
        part = requested_range(text, size)
        assert part is None or part == Unsatisfiable() or part.last < size


@given(st.text("0123456789-=, \tbytesBYTES", max_size=40), SIZES)
def test_almost_ranges_are_ignored_or_answered_and_never_break(header, size):
    part = requested_range(header, size)
    assert part is None or part == Unsatisfiable() or part.last < size


@given(st.binary(min_size=1, max_size=500), st.data())
def test_resumed_downloads_put_together_give_the_image(image, data):
    got = b""
    while len(got) < len(image):
        # A chunk that is asked for, and a connection that breaks somewhere in it.
        size = data.draw(st.integers(1, 200))
        header = data.draw(st.sampled_from([f"bytes={len(got)}-", f"bytes={len(got)}-{len(got) + size - 1}"]))
        part = requested_range(header, len(image))
        assert part.first == len(got)
        sent = image[part.first : part.last + 1]
        assert len(sent) == part.size
        got += sent[: data.draw(st.integers(1, len(sent)))]
    assert got == image
    assert requested_range(f"bytes={len(got)}-", len(image)) == Unsatisfiable()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # RFC 9110 section 14.1.2, for a representation of 10,000 bytes
        ("bytes=0-499", (0, 499)),
        ("bytes=500-999", (500, 999)),
        ("bytes=-500", (9500, 9999)),
        ("bytes=9500-", (9500, 9999)),
        ("bytes=0-0,-1", (0, 0)),
        ("bytes= 0-999, 4500-5499, -1000", (0, 999)),
        ("bytes=500-600,601-999", (500, 600)),
        ("bytes=500-700,601-999", (500, 700)),
        # cut at the end; longer than the image
        ("bytes=9999-20000", (9999, 9999)),
        ("bytes=-20000", (0, 9999)),
        # the first that can be satisfied
        ("bytes=10000-,5-6", (5, 6)),
        ("bytes=-0,5-6", (5, 6)),
    ],
)
def test_ranges_of_the_rfc(header, expected):
    assert requested_range(header, 10_000) == ByteRange(*expected)


@pytest.mark.parametrize("header", ["bytes=10000-", "bytes=10000-10001", "bytes=-0", "bytes=20000-,-0"])
def test_range_outside_the_image_is_unsatisfiable(header):
    assert requested_range(header, 10_000) == Unsatisfiable()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=5",
        "bytes=5-4",
        "bytes=0-1,5-4",
        "bytes=0-1;2-3",
        "bytes=0x0-0x1",
        "byte\N{LATIN SMALL LETTER LONG S}=0-1",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes =0-1",
        "bytes:0-1",
        "bytes=٠-٩",
        "items=0-1",
        "bytes=0-1, bytes=2-3",
        "bytes=" + "0-0," * MAX_HEADER_CHARS,
    ],
)
def test_range_is_ignored_when_missing_malformed_or_of_another_unit(header):
    assert requested_range(header, 10_000) is None

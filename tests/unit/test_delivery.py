"""Whole answers: what the status line and the fields say must be what the bytes are."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ota_core.formats.preconditions import Conditions, format_http_date
from ota_core.stages.delivery import MAX_CONTENT_BYTES, Delivery, DownloadRefused, FirmwareRequest
from ota_core.stores.delivery_store import NotOffered, NotStarted, ReleasedImage, Withdrawn
from ota_core.stores.image_store import StoredImage
from support.fakes import FakeDeliveries, FakeImages

RELEASED_AT = datetime(2026, 3, 7, 8, 9, 10, tzinfo=UTC)
NOW = RELEASED_AT + timedelta(hours=1)


def delivery_of(content, *, size=None, redirects=False):
    image = StoredImage("releases/p/1.0.0/x.bin", "v1", size or len(content), hashlib.sha256(content).hexdigest())
    releases = FakeDeliveries(
        {
            ("p", "1.0.0"): ReleasedImage(image, RELEASED_AT),
            ("p", "0.9.0"): Withdrawn(),
            ("p", "2.0.0"): NotStarted(NOW + timedelta(days=1)),
            ("p", "2.1.0"): NotStarted(None),
            ("p", "2.2.0"): NotOffered(),
        }
    )
    return Delivery(releases, FakeImages(content), redirects=redirects), releases


def request(version="1.0.0", *, product="p", release_id=None, mac=None, is_head=False, range_header=None, **conditions):
    return FirmwareRequest(
        product=product,
        version=version,
        release_id=release_id,
        mac=mac,
        is_head=is_head,
        range=range_header,
        conditions=Conditions(**conditions),
        now=NOW,
    )


def refused(delivery, asked):
    with pytest.raises(DownloadRefused) as refusal:
        delivery.deliver(asked)
    return refusal.value


RANGES = st.one_of(
    st.none(),
    st.text("bytes=0123456789-, ", max_size=30),
    st.builds(lambda a, b: f"bytes={a}-{b}", st.integers(0, 400), st.integers(0, 400)),
    st.builds(lambda a: f"bytes={a}-", st.integers(0, 400)),
    st.builds(lambda a: f"bytes=-{a}", st.integers(0, 400)),
)
ETAGS = st.sampled_from([None, "right", '"wrong"', "W/right", format_http_date(RELEASED_AT), "Sat, 07 Mar 2026", "*"])


@given(st.binary(min_size=1, max_size=300), RANGES, ETAGS, ETAGS, ETAGS, st.booleans())
def test_bytes_are_those_that_the_headers_say(content, range_header, if_range, if_none_match, if_match, is_head):
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    fields = {"if_range": if_range, "if_none_match": if_none_match, "if_match": if_match}
    conditions = {name: value.replace("right", etag) for name, value in fields.items() if value}
    delivery, _ = delivery_of(content)
    try:
        answer = delivery.deliver(request(range_header=range_header, is_head=is_head, **conditions))
    except DownloadRefused as refusal:
        answer = refusal
    if isinstance(answer, DownloadRefused):
        assert answer.status in {412, 416}
        assert answer.status != 416 or answer.headers["Content-Range"] == f"bytes */{len(content)}"
        return
    assert answer.headers["ETag"] == etag
    if answer.status == 304:
        assert answer.content is None
    elif is_head:
        assert (answer.status, answer.content) == (200, None)
        assert answer.headers["Content-Length"] == str(len(content))
        assert "Content-Range" not in answer.headers
    elif answer.status == 200:
        assert bytes(answer.content) == content
        assert "Content-Range" not in answer.headers
    else:
        assert answer.status == 206
        said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["Content-Range"])
        first, last, size = map(int, said.groups())
        assert size == len(content)
        assert bytes(answer.content) == content[first : last + 1]
        assert len(answer.content) == last - first + 1


@given(st.binary(min_size=1, max_size=300), st.data())
def test_any_sequence_of_resumed_downloads_gives_the_image(content, data):
    delivery, _ = delivery_of(content)
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    got = b""
    while len(got) < len(content):
        chunk = data.draw(st.integers(1, 100))
        header = data.draw(st.sampled_from([f"bytes={len(got)}-{len(got) + chunk - 1}", f"bytes={len(got)}-"]))
        answer = delivery.deliver(request(range_header=header, if_range=data.draw(st.sampled_from([None, etag]))))
        assert answer.status == 206
        got += answer.content[: data.draw(st.integers(1, len(answer.content)))]
    assert got == content


def test_whole_image_is_answered_when_if_range_names_another():
    delivery, _ = delivery_of(b"image")
    assert delivery.deliver(request(range_header="bytes=2-", if_range='"old"')).status == 200


def test_range_of_a_head_is_ignored():
    delivery, _ = delivery_of(b"image")
    assert delivery.deliver(request(is_head=True, range_header="bytes=9-")).status == 200


def test_conditions_are_evaluated_before_the_range():
    delivery, _ = delivery_of(b"image")
    assert refused(delivery, request(range_header="bytes=9-", if_match='"old"')).status == 412


def test_withdrawn_release_is_gone():
    delivery, _ = delivery_of(b"image")
    refusal = refused(delivery, request("0.9.0"))
    assert (refusal.status, refusal.code) == (410, "release_withdrawn")


@pytest.mark.parametrize(
    ("product", "version"), [("p", "1.0.1"), ("..", "1.0.0"), ("a/b", "1.0.0"), ("é", "1.0.0"), ("p", ".."), ("", "")]
)
def test_what_was_never_released_is_unknown(product, version):
    delivery, _ = delivery_of(b"image")
    assert refused(delivery, request(version, product=product)).status == 404


@pytest.mark.parametrize(
    ("version", "seconds", "moment"), [("2.0.0", 86_400, "2026-03-08T09:09:10Z"), ("2.1.0", 60, "2026-03-07T09:10:10Z")]
)
def test_release_that_has_not_started_says_when_to_ask_again(version, seconds, moment):
    delivery, _ = delivery_of(b"image")
    refusal = refused(delivery, request(version))
    assert (refusal.status, refusal.code) == (404, "firmware_not_started")
    assert refusal.headers == {"Retry-After": str(seconds)}
    assert moment in refusal.message


def test_release_for_others_is_not_offered():
    delivery, _ = delivery_of(b"image")
    refusal = refused(delivery, request("2.2.0", mac="02:00:00:00:00:01"))
    assert (refusal.status, refusal.code) == (404, "firmware_not_offered")
    assert "02:00:00:00:00:01" in refusal.message


def test_release_and_device_decide_beside_the_version():
    delivery, releases = delivery_of(b"image")
    delivery.deliver(request(release_id="0" * 32, mac="02:00:00:00:00:01"))
    delivery.deliver(request())
    named = {"product": "p", "version": "1.0.0", "release_id": "0" * 32, "mac": "02:00:00:00:00:01"}
    assert releases.asked == [named, named | {"release_id": None, "mac": None}]


@pytest.mark.parametrize("release_id", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "' OR 1=1"])
def test_database_is_not_asked_for_what_is_no_release_id(release_id):
    delivery, releases = delivery_of(b"image")
    assert refused(delivery, request(release_id=release_id)).code == "firmware_unknown"
    assert releases.asked == []


@pytest.mark.parametrize("version", ["..", "1.0", "1.0.0/..", "1.0.0\0", "auto", "1.0.0" + "0" * 100])
def test_database_is_not_asked_for_what_cannot_be_released(version):
    delivery, releases = delivery_of(b"image")
    refused(delivery, request(version))
    assert releases.asked == []


@pytest.mark.parametrize("range_header", [None, "bytes=0-", f"bytes=1-{MAX_CONTENT_BYTES + 1}"])
def test_what_does_not_fit_an_answer_is_redirected(range_header):
    delivery, _ = delivery_of(b"image", size=MAX_CONTENT_BYTES + 2)
    answer = delivery.deliver(request(range_header=range_header))
    assert (answer.status, answer.content) == (307, None)
    assert answer.headers == {
        "Location": "https://bucket.example/releases/p/1.0.0/x.bin?for=60",
        "Cache-Control": "no-store",
    }


def test_chunk_of_a_large_image_is_not_redirected():
    delivery, _ = delivery_of(b"image", size=MAX_CONTENT_BYTES + 2)
    assert delivery.deliver(request(range_header="bytes=0-3")).status == 206


def test_every_download_is_redirected_where_the_deployment_says_so():
    delivery, _ = delivery_of(b"image", redirects=True)
    assert delivery.deliver(request(range_header="bytes=0-3")).status == 307
    assert delivery.deliver(request()).status == 307
    assert delivery.deliver(request(is_head=True)).status == 200
    assert refused(delivery, request("0.9.0")).status == 410

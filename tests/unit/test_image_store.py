import hashlib

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from ota_core.formats.byte_range import ByteRange
from ota_core.stores.image_store import ImageDamaged, ImageStore, StoredImage

BUCKET = "firmware"


@pytest.fixture
def s3(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1", config=Config(signature_version="s3v4"))
        client.create_bucket(Bucket=BUCKET)
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield client


@pytest.fixture
def reads(s3):
    """The images that S3 was asked for."""
    keys = []
    s3.meta.events.register("provide-client-params.s3.GetObject", lambda params, **_: keys.append(params["Key"]))
    return keys


def stored(s3, content, key="releases/p/1.0.0/x.bin"):
    version_id = s3.put_object(Bucket=BUCKET, Key=key, Body=content)["VersionId"]
    return StoredImage(key, version_id, len(content), hashlib.sha256(content).hexdigest())


def read(store, image, first, last):
    return bytes(store.read(image, ByteRange(first, last)))


def test_warm_chunk_costs_no_call(s3, reads):
    content = bytes(range(256)) * 4
    image = stored(s3, content)
    store = ImageStore(s3, BUCKET, capacity=2000)
    for first in range(0, 1024, 100):
        last = min(first + 99, 1023)
        assert read(store, image, first, last) == content[first : last + 1]
    assert len(reads) == 1


def test_bytes_are_those_of_the_version_whatever_was_put_over_it(s3):
    image = stored(s3, b"the released image")
    stored(s3, b"some other content")
    assert read(ImageStore(s3, BUCKET, capacity=100), image, 0, 17) == b"the released image"
    assert read(ImageStore(s3, BUCKET, capacity=1), image, 4, 11) == b"released"


def test_part_of_an_image_that_is_too_large_to_be_kept_is_read_alone(s3, reads):
    image = stored(s3, b"0123456789")
    store = ImageStore(s3, BUCKET, capacity=9)
    assert read(store, image, 3, 5) == b"345"
    assert read(store, image, 9, 9) == b"9"
    assert len(reads) == 2


def test_image_that_was_not_read_for_longest_makes_room(s3, reads):
    a, b, c = (stored(s3, bytes([n]) * 40, f"releases/{n}") for n in range(3))
    store = ImageStore(s3, BUCKET, capacity=100)
    for image in (a, b, a, c):  # c drives out b
        read(store, image, 0, 39)
    assert len(reads) == 3
    read(store, a, 0, 39)
    assert len(reads) == 3
    read(store, b, 0, 39)
    assert len(reads) == 4


@given(st.lists(st.integers(0, 7), max_size=30))
def test_no_more_is_kept_than_the_capacity(order):
    images = [StoredImage(str(n), "v", 10 + 7 * n, hashlib.sha256(bytes(10 + 7 * n)).hexdigest()) for n in range(8)]

    class Zeros:
        def get_object(self, *, Bucket, Key, VersionId, Range):  # noqa: ARG002, N803 - boto3's names
            first, last = map(int, Range.removeprefix("bytes=").split("-"))
            body = type("Body", (), {"read": lambda _: bytes(last - first + 1)})()
            return {"Body": body, "ContentRange": f"bytes {first}-{last}/{images[int(Key)].size}"}

    store = ImageStore(Zeros(), BUCKET, capacity=70)
    for number in order:
        assert read(store, images[number], 0, 4) == bytes(5)
        assert sum(len(content) for content in store._kept.values()) <= 70


def test_image_that_is_not_what_was_released_is_not_handed_out(s3):
    image = stored(s3, b"damaged")
    wrong = StoredImage(image.key, image.version_id, image.size, hashlib.sha256(b"image__").hexdigest())
    store = ImageStore(s3, BUCKET, capacity=100)
    for _ in range(2):
        with pytest.raises(ImageDamaged, match="SHA-256"):
            read(store, wrong, 0, 1)


@pytest.mark.parametrize("capacity", [1, 100])
def test_image_of_another_size_is_not_handed_out(s3, capacity):
    image = stored(s3, b"0123456789")
    longer = StoredImage(image.key, image.version_id, 11, image.sha256)
    with pytest.raises(ImageDamaged, match="11 bytes"):
        read(ImageStore(s3, BUCKET, capacity), longer, 0, 3)


@pytest.mark.parametrize("capacity", [1, 100])
def test_image_that_is_gone_is_reported_as_damaged(s3, capacity):
    image = stored(s3, b"0123456789")
    s3.delete_object(Bucket=BUCKET, Key=image.key, VersionId=image.version_id)
    with pytest.raises(ImageDamaged, match="not the image that was released"):
        read(ImageStore(s3, BUCKET, capacity), image, 0, 3)


def test_refusal_by_s3_is_no_damage(s3):
    image = stored(s3, b"0123456789")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        read(ImageStore(s3, "another", 100), image, 0, 3)


def test_presigned_url_names_the_version_and_its_end(s3):
    image = stored(s3, b"0123456789")
    url = ImageStore(s3, BUCKET, 100).presign(image, 60)
    assert f"versionId={image.version_id}" in url
    assert "X-Amz-Expires=60" in url

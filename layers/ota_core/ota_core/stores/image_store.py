"""The released images' bytes: read from S3 by exact object version, and kept in memory while in demand."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from ota_core.errors import OtaError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from ota_core.formats.byte_range import ByteRange

# The object version is gone, or shorter than what was asked for.
_MISSING = {"NoSuchKey", "NoSuchVersion", "InvalidRange"}


class ImageDamaged(OtaError):  # noqa: N818 - a state of the world
    """What is stored is not what was released. None of it is served."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A released image in the bucket: one immutable object version, its size in bytes and its SHA-256 in hex."""

    key: str
    version_id: str
    size: int
    sha256: str


class ImageStore:
    """Reads images, and keeps the most recently read ones."""

    def __init__(self, s3: S3Client, bucket: str, capacity: int) -> None:
        """Args: capacity: bytes to keep at most. A larger image is read from S3 for every request."""
        self._s3 = s3
        self._bucket = bucket
        self._capacity = capacity
        self._kept: OrderedDict[StoredImage, bytes] = OrderedDict()

    def read(self, image: StoredImage, part: ByteRange) -> bytes | memoryview:
        """The bytes of a part of an image.

        An image that can be kept is loaded whole and checked against its SHA-256 first. For a larger one only the part
        is read, and S3 vouches for it.

        Raises:
            ImageDamaged: the image is not what was released.
            ClientError, BotoCoreError: the call to S3 failed.
        """
        if image.size > self._capacity:
            return self._fetch(image, part.first, part.last)
        if image in self._kept:
            self._kept.move_to_end(image)
        else:
            self._keep(image, self._load(image))
        return memoryview(self._kept[image])[part.first : part.last + 1]

    def presign(self, image: StoredImage, seconds: int) -> str:
        """A URL from which anyone can download the image for this long."""
        return self._s3.generate_presigned_url(
            "get_object",
            Params={"Bucket": self._bucket, "Key": image.key, "VersionId": image.version_id},
            ExpiresIn=seconds,
        )

    def _load(self, image: StoredImage) -> bytes:
        content = self._fetch(image, 0, image.size - 1)
        digest = hashlib.sha256(content).hexdigest()
        if digest != image.sha256:
            raise _damaged(image, f"its SHA-256 is {digest}; expected {image.sha256}")
        return content

    def _keep(self, image: StoredImage, content: bytes) -> None:
        room = self._capacity - image.size
        while sum(kept.size for kept in self._kept) > room:
            self._kept.popitem(last=False)
        self._kept[image] = content

    def _fetch(self, image: StoredImage, first: int, last: int) -> bytes:
        """Bytes of the object version, exactly as many as asked for."""
        try:
            answer = self._s3.get_object(
                Bucket=self._bucket, Key=image.key, VersionId=image.version_id, Range=f"bytes={first}-{last}"
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                raise _damaged(image, str(error)) from error
            raise
        if answer["ContentRange"] != f"bytes {first}-{last}/{image.size}":
            raise _damaged(image, f"S3 has {answer['ContentRange']} where {image.size} bytes were released")
        return answer["Body"].read()


def _damaged(image: StoredImage, why: str) -> ImageDamaged:
    return ImageDamaged(
        "image_damaged",
        f"{image.key} (version {image.version_id}) is not the image that was released: {why}. "
        "Withdraw the release, and sign the image again with another version.",
    )

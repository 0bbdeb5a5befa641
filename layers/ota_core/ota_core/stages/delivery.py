"""The download of an image: how to answer a GET or HEAD of `/firmware/{product}/{version}` (RFC 9110)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ota_core.errors import OtaError
from ota_core.formats.byte_range import ByteRange, Unsatisfiable, requested_range
from ota_core.formats.manifest import is_product
from ota_core.formats.preconditions import Conditions, Validators, Verdict, evaluate, format_http_date, range_applies
from ota_core.formats.versions import is_version
from ota_core.stores.delivery_store import Withdrawn

if TYPE_CHECKING:
    from ota_core.stores.delivery_store import ReleasedImage
    from ota_core.stores.image_store import StoredImage
    from ota_core.stores.interfaces import Deliveries, Images

# Lambda answers with at most 6 MB, and base64 adds a third
# (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
MAX_CONTENT_BYTES = 4_500_000
REDIRECT_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareRequest:
    """A GET or HEAD of an image; `now` is aware."""

    product: str
    version: str
    is_head: bool
    range: str | None
    conditions: Conditions
    now: datetime


@dataclass(frozen=True, slots=True)
class Delivered:
    """An answer that is not an error; `content` is None if it has none.

    `size` is how many bytes of the image the client gets, from here or from S3.
    """

    status: int
    headers: dict[str, str]
    content: bytes | memoryview | None = None
    size: int = 0


class DownloadRefused(OtaError):  # noqa: N818 - what happens to the download
    """There is nothing to deliver; `status` and `headers` are what RFC 9110 prescribes for the reason."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(code, message)
        self.status = status
        self.headers = headers or {}


class Delivery:
    """Answers requests for images."""

    def __init__(self, releases: Deliveries, images: Images, *, redirects: bool) -> None:
        """Args: redirects: whether to send every download to S3, not only those too large for an answer."""
        self._releases = releases
        self._images = images
        self._redirects = redirects

    def deliver(self, request: FirmwareRequest) -> Delivered:
        """The answer to a request.

        Raises:
            DownloadRefused: 404, 410, 412 or 416.
            ImageDamaged: what is stored is not what was released.
        """
        released = self._find(request.product, request.version)
        image = released.image
        validators = Validators(f'"{image.sha256}"', released.released_at)
        headers = {
            "ETag": validators.etag,
            "Last-Modified": format_http_date(validators.last_modified),
            "Accept-Ranges": "bytes",
            # A client may keep the image, but must ask whether the release still stands.
            "Cache-Control": "private, no-cache, no-transform",
        }
        match evaluate(request.conditions, validators):
            case Verdict.FAILED:
                raise DownloadRefused(
                    412,
                    "precondition_failed",
                    f"The image's ETag is {validators.etag}, which the request's conditions exclude. Start over.",
                    headers,
                )
            case Verdict.NOT_MODIFIED:
                return Delivered(304, headers)
        headers["Content-Type"] = "application/octet-stream"
        if request.is_head:  # Only GET has ranges (section 14.2).
            return Delivered(200, headers | {"Content-Length": str(image.size)})
        return self._content(image, _part(request, image, validators, headers), headers)

    def _find(self, product: str, version: str) -> ReleasedImage:
        if is_product(product) and is_version(version):
            released = self._releases.find(product, version)
            if isinstance(released, Withdrawn):
                raise DownloadRefused(
                    410, "release_withdrawn", f"{product} {version} was withdrawn. Check for an update again."
                )
            if released is not None:
                return released
        raise DownloadRefused(
            404,
            "firmware_unknown",
            f"There is no release {version[:64]!r} of {product[:63]!r}. Use the URL from a notification unchanged.",
        )

    def _content(self, image: StoredImage, part: ByteRange | None, headers: dict[str, str]) -> Delivered:
        wanted = part or ByteRange(0, image.size - 1)
        if self._redirects or wanted.size > MAX_CONTENT_BYTES:
            url = self._images.presign(image, REDIRECT_SECONDS)
            return Delivered(307, {"Location": url, "Cache-Control": "no-store"}, size=wanted.size)
        content = self._images.read(image, wanted)
        if part is None:
            return Delivered(200, headers, content, wanted.size)
        return Delivered(206, headers | {"Content-Range": part.content_range(image.size)}, content, wanted.size)


def _part(
    request: FirmwareRequest, image: StoredImage, validators: Validators, headers: dict[str, str]
) -> ByteRange | None:
    """The requested part, or None for the whole image."""
    if not range_applies(request.conditions, validators, request.now):
        return None
    part = requested_range(request.range, image.size)
    if isinstance(part, Unsatisfiable):
        raise DownloadRefused(
            416,
            "range_not_satisfiable",
            f"The image has {image.size} bytes, none of which lie in {(request.range or '')[:64]!r}.",
            {name: headers[name] for name in ("ETag", "Accept-Ranges")} | {"Content-Range": f"bytes */{image.size}"},
        )
    return part

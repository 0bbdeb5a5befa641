"""The download of an image: how to answer a GET or HEAD of `/firmware/{product}/{version}` (RFC 9110)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ota_core.errors import OtaError
from ota_core.formats.byte_range import ByteRange, Unsatisfiable, requested_range
from ota_core.formats.manifest import is_product
from ota_core.formats.preconditions import Conditions, Validators, Verdict, evaluate, format_http_date, range_applies
from ota_core.formats.release_id import is_release_id
from ota_core.formats.rfc3339 import format_time
from ota_core.formats.versions import is_version
from ota_core.stores.delivery_store import NotOffered, NotStarted, Withdrawn

if TYPE_CHECKING:
    from ota_core.stores.delivery_store import ReleasedImage
    from ota_core.stores.image_store import StoredImage
    from ota_core.stores.interfaces import Deliveries, Images

# Lambda answers with at most 6 MB, and base64 adds a third
# (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
MAX_CONTENT_BYTES = 4_500_000
# A presigned URL outlives a withdrawal by this much.
REDIRECT_SECONDS = 60
# When to ask again for a release that is about to start.
_SOON = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareRequest:
    """A GET or HEAD of an image.

    Attributes:
        release_id: the release whose image it is; None: the newest one of the version.
        mac: the device that asks, as `AA:BB:CC:DD:EE:FF`; None if the request names none.
        now: aware.
    """

    product: str
    version: str
    release_id: str | None
    mac: str | None
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
        released = self._find(request)
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

    def _find(self, request: FirmwareRequest) -> ReleasedImage:
        product, version = request.product, request.version
        found = None
        if (
            is_product(product)
            and is_version(version)
            and (request.release_id is None or is_release_id(request.release_id))
        ):
            found = self._releases.find(product, version, release_id=request.release_id, mac=request.mac)
        match found:
            case None:
                raise DownloadRefused(
                    404,
                    "firmware_unknown",
                    f"There is no such release {version[:64]!r} of {product[:63]!r}."
                    " Use the URL from a notification unchanged.",
                )
            case Withdrawn():
                raise DownloadRefused(
                    410, "release_withdrawn", f"{product} {version} was withdrawn. Check for an update again."
                )
            case NotStarted(starts_at):
                raise _not_started(f"{product} {version}", starts_at, request.now)
            case NotOffered():
                raise DownloadRefused(
                    404,
                    "firmware_not_offered",
                    f"{product} {version} is not for {request.mac}, or not yet. Check for an update again.",
                )
            case _:
                return found

    def _content(self, image: StoredImage, part: ByteRange | None, headers: dict[str, str]) -> Delivered:
        wanted = part or ByteRange(0, image.size - 1)
        if self._redirects or wanted.size > MAX_CONTENT_BYTES:
            url = self._images.presign(image, REDIRECT_SECONDS)
            return Delivered(307, {"Location": url, "Cache-Control": "no-store"}, size=wanted.size)
        content = self._images.read(image, wanted)
        if part is None:
            return Delivered(200, headers, content, wanted.size)
        return Delivered(206, headers | {"Content-Range": part.content_range(image.size)}, content, wanted.size)


def _not_started(release: str, starts_at: datetime | None, now: datetime) -> DownloadRefused:
    moment = max(starts_at or now, now + _SOON)
    return DownloadRefused(
        404,
        "firmware_not_started",
        f"The rollout of {release} has not started. Ask again at {format_time(moment)}.",
        {"Retry-After": str(int((moment - now).total_seconds()))},
    )


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

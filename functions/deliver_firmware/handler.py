"""DeliverFirmware: `GET` and `HEAD /firmware/{product}/{version}?release=&mac=`, an image or a part of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from ota_core.formats.preconditions import Conditions
from ota_core.formats.targets import normalise_mac
from ota_core.http.api_gateway import (
    RequestRefused,
    answer,
    answer_bytes,
    answer_nothing,
    header,
    path_parameter,
    query_parameter,
)
from ota_core.runtime.aws_errors import is_aws_error
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure, write_line
from ota_core.stages.delivery import Delivery, DownloadRefused, FirmwareRequest
from ota_core.stores.database import Database, DatabaseSettings, is_outage
from ota_core.stores.delivery_store import DeliveryStore
from ota_core.stores.image_store import ImageStore

if TYPE_CHECKING:
    from ota_core.formats import contracts


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str
    download_mode: str
    image_cache_bytes: int


SETTINGS = read_environment(Settings)
# API Gateway waits 29 seconds. A presigned URL needs signature version 4 if the bucket is encrypted.
S3 = boto3.client(
    "s3",
    config=Config(
        signature_version="s3v4", connect_timeout=3, read_timeout=8, retries={"mode": "standard", "max_attempts": 2}
    ),
)
DELIVERY = Delivery(
    DeliveryStore(Database(read_environment(DatabaseSettings), on_failure=log_database_failure, timeout_seconds=5)),
    ImageStore(S3, SETTINGS.bucket, SETTINGS.image_cache_bytes),
    redirects=SETTINGS.download_mode == "redirect",
)
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.ApiRequest, context: LambdaContext) -> contracts.ApiAnswer:
    """Answer a request of the device `mac` for the image of `release` (query), of `product` and `version` (path)."""
    return answer(event, deliver, logger, is_outage, is_aws_error)


def deliver(event: contracts.ApiRequest) -> contracts.ApiAnswer:
    """Read the request, deliver, shape the answer."""
    product, version = path_parameter(event, "product"), path_parameter(event, "version")
    given = query_parameter(event, "mac")
    mac = None if given is None else normalise_mac(given)
    if given is not None and mac is None:
        raise RequestRefused(400, "mac_invalid", "The parameter mac is not a MAC address; expected AABBCCDDEEFF.")
    request = FirmwareRequest(
        product=product,
        version=version,
        release_id=query_parameter(event, "release"),
        mac=mac,
        is_head=event["httpMethod"] == "HEAD",
        range=header(event, "Range"),
        conditions=Conditions(
            if_match=header(event, "If-Match"),
            if_none_match=header(event, "If-None-Match"),
            if_modified_since=header(event, "If-Modified-Since"),
            if_unmodified_since=header(event, "If-Unmodified-Since"),
            if_range=header(event, "If-Range"),
        ),
        now=datetime.now(UTC),
    )
    try:
        delivered = DELIVERY.deliver(request)
    except DownloadRefused as refusal:
        raise RequestRefused(refusal.status, refusal.code, refusal.message, refusal.headers) from refusal
    if delivered.content is not None and header(event, "Accept") is None:
        # API Gateway looks at Accept to decide whether to decode the content; without it a device might get base64.
        raise RequestRefused(406, "accept_missing", "Send the header Accept: application/octet-stream (or */*).")
    # The template counts bytes from this line: the metrics library would cost as much as the chunk.
    write_line("delivered", product=product, version=version, status=delivered.status, bytes=delivered.size)
    if delivered.content is None:
        return answer_nothing(delivered.status, delivered.headers)
    return answer_bytes(delivered.status, delivered.content, delivered.headers)

"""CheckForUpdate: `GET /devices/{mac}/update`, the notification that a device should act on now, or 204."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.formats.envelope import payload_of
from ota_core.formats.esp_image import CHIP_IDS
from ota_core.formats.manifest import PRODUCT_RULE, is_product, parse_manifest
from ota_core.formats.notification import write_notification
from ota_core.formats.targets import normalise_mac
from ota_core.http.api_gateway import (
    RequestRefused,
    answer,
    answer_json,
    answer_nothing,
    path_parameter,
    query_parameter,
)
from ota_core.rules.check_in import should_act
from ota_core.runtime.aws_errors import is_aws_error
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure, write_line
from ota_core.stores.check_in_store import CheckInStore
from ota_core.stores.database import Database, DatabaseSettings, is_outage

if TYPE_CHECKING:
    from ota_core.formats import contracts
    from ota_core.stores.interfaces import CheckIns

# All that an app descriptor can hold, and more: an Arduino core's string need not be SemVer.
_RUNNING_VERSION = re.compile(r"[\x20-\x7e]{1,64}")
_NOT_STORED = {"Cache-Control": "no-store"}

DEVICES: CheckIns = CheckInStore(
    Database(read_environment(DatabaseSettings), on_failure=log_database_failure, timeout_seconds=5)
)
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.ApiRequest, context: LambdaContext) -> contracts.ApiAnswer:
    """Answer the device `mac` (path), which is a `product` with a `chip` and runs `version` (query)."""
    return answer(event, check, logger, is_outage, is_aws_error)


def check(event: contracts.ApiRequest) -> contracts.ApiAnswer:
    """Read the request, look up, shape the answer."""
    mac = normalise_mac(path_parameter(event, "mac"))
    if mac is None:
        raise RequestRefused(
            400, "mac_invalid", "The path contains no MAC address; expected /devices/AA:BB:CC:DD:EE:FF/update."
        )
    product = query_parameter(event, "product")
    if product is None or not is_product(product):
        raise RequestRefused(
            400, "product_invalid", f"The parameter product is missing or invalid; expected {PRODUCT_RULE}."
        )
    chip = query_parameter(event, "chip")
    if chip is not None and chip not in CHIP_IDS:
        raise RequestRefused(
            400, "chip_invalid", f"The parameter chip is invalid; expected one of {', '.join(CHIP_IDS)}."
        )
    running_version = query_parameter(event, "version")
    if running_version is not None and _RUNNING_VERSION.fullmatch(running_version) is None:
        raise RequestRefused(
            400, "version_invalid", "The parameter version is invalid; expected 1 to 64 ASCII characters."
        )
    candidate = DEVICES.check_in(mac=mac, product=product, chip=chip, running_version=running_version)
    offered = candidate if candidate and should_act(candidate, running_version, datetime.now(UTC)) else None
    write_line(
        "checked in",
        mac=mac,
        product=product,
        chip=chip,
        running_version=running_version,
        release_id=offered.release_id if offered else None,
    )
    if offered is None:
        return answer_nothing(204, _NOT_STORED)
    notification = write_notification(
        release_id=offered.release_id,
        manifest=parse_manifest(payload_of(offered.envelope)),
        version=offered.version,
        envelope=offered.envelope.encode(),
        # A variable of the stage, not of the function, which would have to exist before its own API.
        api_url=(event["stageVariables"] or {})["apiUrl"],
    )
    return answer_json(200, notification, _NOT_STORED)

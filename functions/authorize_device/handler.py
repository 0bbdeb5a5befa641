"""AuthorizeDevice: whether a device may register itself with a claim.

AWS IoT Core's fleet provisioning asks before it registers anything (a pre-provisioning hook,
https://docs.aws.amazon.com/iot/latest/developerguide/pre-provisioning-hook.html). Anyone who holds a claim could
otherwise invent devices, and let them decide about rollouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from ota_core.errors import OtaError
from ota_core.formats.allow_list import MAX_ALLOW_LIST_BYTES, is_listed, parse_allow_list
from ota_core.formats.targets import is_unicast, normalise_mac
from ota_core.runtime.environment import read_environment
from ota_core.stores.firmware_store import FirmwareStore

if TYPE_CHECKING:
    from ota_core.formats import contracts

ALLOW_LIST = "provisioning/allowed.txt"
_MAX_LOGGED_CHARS = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str


class RegistrationRefused(OtaError):  # noqa: N818 - what happens to the device
    """The device must not be registered."""


# AWS IoT Core waits five seconds.
CONFIG = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "max_attempts": 2})
STORE = FirmwareStore(boto3.client("s3", config=CONFIG), read_environment(Settings).bucket)
IOT = boto3.client("iot", config=CONFIG)
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.DeviceRegistration, context: LambdaContext) -> contracts.RegistrationVerdict:
    """Allow the registration of the device `MAC`, under the spelling that it connects with, or refuse it."""
    given = str(event["parameters"].get("MAC"))[:_MAX_LOGGED_CHARS]
    asked = {"claim": event.get("claimCertificateId"), "certificate": event["certificateId"]}
    try:
        mac = authorize(given)
    except OtaError as refusal:
        logger.warning(
            "registration refused", extra={"mac": given, "code": refusal.code, "why": refusal.message, **asked}
        )
        return {"allowProvisioning": False}
    logger.info("registration allowed", extra={"mac": mac, **asked})
    return {"allowProvisioning": True, "parameterOverrides": {"MAC": mac}}


def authorize(given: str) -> str:
    """The MAC, as `AA:BB:CC:DD:EE:FF`, which is the device's client id.

    Raises:
        OtaError: why the device must not be registered.
    """
    mac = normalise_mac(given)
    if mac is None or not is_unicast(mac):
        raise RegistrationRefused("mac_invalid", "This is not a device's MAC address; expected AA:BB:CC:DD:EE:FF.")
    found = STORE.fetch(ALLOW_LIST, MAX_ALLOW_LIST_BYTES)
    if found is None:
        raise RegistrationRefused(
            "allow_list_missing", f"There is no {ALLOW_LIST} in the bucket. Upload the MACs that you produce."
        )
    version, content = found
    if content is None:
        raise RegistrationRefused(
            "allow_list_too_large",
            f"{ALLOW_LIST} has {version.size} bytes; expected at most {MAX_ALLOW_LIST_BYTES}. "
            "List the devices in production only, or their common first bytes.",
        )
    if not is_listed(mac, parse_allow_list(content)):
        raise RegistrationRefused("mac_not_allowed", f"{ALLOW_LIST} does not list this device.")
    if has_certificate(mac):
        raise RegistrationRefused(
            "mac_registered", "This device has a certificate. To register it again, remove its registration first."
        )
    return mac


def has_certificate(mac: str) -> bool:
    """Whether the device was registered before, by a claim or by hand."""
    try:
        return bool(IOT.list_thing_principals(thingName=mac, maxResults=1)["principals"])
    except IOT.exceptions.ResourceNotFoundException:
        return False

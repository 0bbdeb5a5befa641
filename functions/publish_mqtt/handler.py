"""PublishMqtt: one batch of messages to AWS IoT Core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.runtime.device_notifier import DeviceNotifier
from ota_core.runtime.environment import read_environment
from ota_core.stages.publication import Notifier, publish_batch
from ota_core.stores.firmware_store import FirmwareStore

if TYPE_CHECKING:
    from ota_core.formats import contracts


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str
    publish_rate_per_second: int
    publish_concurrency: int


SETTINGS = read_environment(Settings)
STORE = FirmwareStore(boto3.client("s3"), SETTINGS.bucket)
# The account's limit, divided among the batches that the state machine runs at a time.
NOTIFIER: Notifier = DeviceNotifier(SETTINGS.publish_rate_per_second / SETTINGS.publish_concurrency)
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.PublishBatch, context: LambdaContext) -> contracts.Published:
    """Publish a batch."""
    published = publish_batch(STORE, NOTIFIER, event["batch"])
    logger.info("published", extra={"batch": event["batch"], "messages": published})
    return {"published": published}

"""ResolveTargets: whom the release is for, recorded in PostgreSQL and cut into batches of messages."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.database import Database, DatabaseSettings
from ota_core.envelope import payload_of
from ota_core.environment import read_environment
from ota_core.firmware_store import FirmwareStore
from ota_core.manifest import parse_manifest
from ota_core.notification import write_notification
from ota_core.release_store import ReleaseStore, ReleaseSuperseded
from ota_core.resolution import Resolution, TargetList


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str
    topic_prefix: str
    api_url: str


SETTINGS = read_environment(Settings)
RESOLUTION = Resolution(
    FirmwareStore(boto3.client("s3"), SETTINGS.bucket),
    ReleaseStore(Database(read_environment(DatabaseSettings))),
    SETTINGS.topic_prefix,
)
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Resolve `event["release"]`, registered as `event["version"]`."""
    release = event["release"]
    manifest = parse_manifest(payload_of(release["envelope"]))
    listed = release["targets"]
    try:
        index = RESOLUTION.resolve(
            release_id=release["release_id"],
            product=manifest.product,
            notification=write_notification(
                release_id=release["release_id"],
                manifest=manifest,
                version=event["version"],
                envelope=release["envelope"].encode(),
                api_url=SETTINGS.api_url,
            ),
            listed=TargetList(listed["key"], listed["version_id"]) if listed else None,
            execution=event["execution"],
        )
    except ReleaseSuperseded:
        answer: dict[str, Any] = {"outcome": "superseded"}
    else:
        answer = {"outcome": "resolved", **asdict(index)}
    logger.info("resolved", extra={"release_id": release["release_id"], **answer})
    return answer

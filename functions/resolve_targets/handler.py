"""ResolveTargets: whom a wave tells, or a withdrawal, recorded in PostgreSQL and cut into batches of messages."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure
from ota_core.stages.resolution import Resolution
from ota_core.stores.database import Database, DatabaseSettings
from ota_core.stores.firmware_store import FirmwareStore
from ota_core.stores.release_store import ReleaseSuperseded
from ota_core.stores.wave_store import WaveStore


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str
    topic_prefix: str
    api_url: str


SETTINGS = read_environment(Settings)
RESOLUTION = Resolution(
    FirmwareStore(boto3.client("s3"), SETTINGS.bucket),
    WaveStore(Database(read_environment(DatabaseSettings), on_failure=log_database_failure)),
    topic_prefix=SETTINGS.topic_prefix,
    api_url=SETTINGS.api_url,
)
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Resolve the wave `event["wave"]` of a release; without one, the release's withdrawal."""
    release_id, execution, wave = event["release_id"], event["execution"], event.get("wave")
    release = {"release_id": release_id, "execution": execution}
    try:
        if wave is None:
            index = RESOLUTION.resolve_withdrawal(release_id, execution)
        else:
            index = RESOLUTION.resolve_wave(
                release_id,
                execution,
                wave=wave,
                percent=event["percent"],
                earlier_percent=event["earlier_percent"],
            )
    except ReleaseSuperseded:
        logger.info("superseded", extra=release)
        return {"outcome": "superseded"}
    logger.info("resolved", extra={**release, "wave": wave, **asdict(index)})
    return {"outcome": "withdrawal" if wave is None else "wave", "wave": wave, **asdict(index)}

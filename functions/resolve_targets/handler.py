"""ResolveTargets: which devices a wave or a withdrawal tells, recorded in PostgreSQL and cut into batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

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

if TYPE_CHECKING:
    from ota_core.formats import contracts


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


# To mypy a wave's event is also a withdrawal's with more fields; here no event has more fields than its type.
@overload
def lambda_handler(  # type: ignore[overload-overlap]
    event: contracts.ResolveWave, context: LambdaContext
) -> contracts.WaveResolved | contracts.ResolutionSuperseded: ...
@overload
def lambda_handler(
    event: contracts.ResolveWithdrawal, context: LambdaContext
) -> contracts.WithdrawalResolved | contracts.ResolutionSuperseded: ...
@logger.inject_lambda_context
def lambda_handler(
    event: contracts.ResolveWave | contracts.ResolveWithdrawal, context: LambdaContext
) -> contracts.WaveResolved | contracts.WithdrawalResolved | contracts.ResolutionSuperseded:
    """Resolve a wave of a release, or its withdrawal."""
    release = {"release_id": event["release_id"], "execution": event["execution"]}
    try:
        answer = resolve(event)
    except ReleaseSuperseded:
        logger.info("superseded", extra=release)
        return {"outcome": "superseded"}
    logger.info("resolved", extra={**release, **answer})
    return answer


def resolve(
    event: contracts.ResolveWave | contracts.ResolveWithdrawal,
) -> contracts.WaveResolved | contracts.WithdrawalResolved:
    """Resolve what the event asks for, and shape the answer."""
    if "wave" not in event:
        index = RESOLUTION.resolve_withdrawal(event["release_id"], event["execution"])
        return {"outcome": "withdrawal", **index}
    index = RESOLUTION.resolve_wave(
        event["release_id"],
        event["execution"],
        wave=event["wave"],
        percent=event["percent"],
        earlier_percent=event["earlier_percent"],
    )
    return {"outcome": "wave", "wave": event["wave"], **index}

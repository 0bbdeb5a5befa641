"""CompleteRelease: every message is out; the release is published."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.database import Database, DatabaseSettings
from ota_core.environment import read_environment
from ota_core.release_store import ReleaseStore, ReleaseSuperseded

RELEASES = ReleaseStore(Database(read_environment(DatabaseSettings)))
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, str]:
    """Mark the release `event["release_id"]` published."""
    try:
        RELEASES.complete(event["release_id"], event["execution"])
    except ReleaseSuperseded:
        outcome = "superseded"
    else:
        outcome = "published"
    logger.info("completed", extra={"release_id": event["release_id"], "outcome": outcome})
    return {"outcome": outcome}

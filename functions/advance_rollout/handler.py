"""AdvanceRollout: records the wave that was published, looks at what devices answered, and decides what is next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.database import Database, DatabaseSettings
from ota_core.environment import read_environment
from ota_core.release_store import ReleaseSuperseded
from ota_core.rollout import describe_numbers, describe_step
from ota_core.rollout_store import RolloutStore

ROLLOUTS = RolloutStore(Database(read_environment(DatabaseSettings)))
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Advance the release `event["release_id"]`, after `event["published_wave"]` where there is one."""
    release_id = event["release_id"]
    try:
        advance = ROLLOUTS.advance(
            release_id,
            event["execution"],
            now=datetime.now(UTC),
            published_wave=event.get("published_wave"),
            takes_over=event.get("outcome") == "continued",
        )
    except ReleaseSuperseded:
        logger.info("superseded", extra={"release_id": release_id})
        return {"step": "superseded"}
    answer = {
        **describe_step(advance.step),
        "numbers": describe_numbers(advance.numbers),
        "release": {"release_id": release_id, "product": advance.product, "version": advance.version},
    }
    logger.info("advanced", extra={"advance": answer})
    return {**answer, "members": advance.drop_members}

"""AdvanceRollout: records the wave that was published, looks at what devices reported, and decides what is next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.formats.rfc3339 import parse_time
from ota_core.rules.rollout import Complete, describe_numbers, describe_step
from ota_core.runtime import metrics
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure
from ota_core.stores.database import Database, DatabaseSettings
from ota_core.stores.release_store import ReleaseSuperseded
from ota_core.stores.rollout_store import Advance, RolloutStore

if TYPE_CHECKING:
    from ota_core.formats import contracts
    from ota_core.stores.interfaces import Rollouts

ROLLOUTS: Rollouts = RolloutStore(Database(read_environment(DatabaseSettings), on_failure=log_database_failure))
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.AdvanceRelease, context: LambdaContext) -> contracts.Advance:
    """Advance the release, and record the wave that was just published, if there is one."""
    release_id, execution = event["release_id"], event["execution"]
    now = datetime.now(UTC)
    try:
        advance = ROLLOUTS.advance(
            release_id,
            execution,
            now=now,
            published_wave=event.get("published_wave"),
            takes_over=event.get("outcome") == "continued",
        )
    except ReleaseSuperseded:
        logger.info("superseded", extra={"release_id": release_id, "execution": execution})
        return {"step": "superseded"}
    started_at = event.get("started_at")  # Missing in an execution that began before the state machine passed it.
    if started_at and event.get("published_wave") == 1 and not advance.is_scheduled:
        metrics.emit(metrics.TIME_TO_DEVICES, (now - parse_time(started_at)).total_seconds(), product=advance.product)
    if advance.is_end:
        metrics.emit(metrics.RELEASES, 1, product=advance.product, outcome=outcome(advance))
    step = describe_step(advance.step)
    release: contracts.AdvancedRelease = {
        "numbers": describe_numbers(advance.numbers),
        "release": {"release_id": release_id, "product": advance.product, "version": advance.version},
        "members": advance.drop_members,
    }
    logger.info(
        "advanced",
        extra={
            "release_id": release_id,
            "execution": execution,
            "advance": {**step, "numbers": release["numbers"], "release": release["release"]},
        },
    )
    # Mypy knows both parts, and cannot join a union of TypedDicts with another one.
    return cast("contracts.Advance", {**step, **release})


def outcome(advance: Advance) -> str:
    """How a release ended."""
    if isinstance(advance.step, Complete):
        return "published"
    return "withdrawn" if advance.numbers.is_aborted else "aborted"

"""CheckConsistency: whether releases, their signatures and their objects agree. Operators invoke it by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure
from ota_core.stages.consistency import check_consistency
from ota_core.stores.consistency_store import ConsistencyStore
from ota_core.stores.database import Database, DatabaseSettings
from ota_core.stores.firmware_store import FirmwareStore

if TYPE_CHECKING:
    from ota_core.formats import contracts


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str


RECORDS = ConsistencyStore(Database(read_environment(DatabaseSettings), on_failure=log_database_failure))
STORE = FirmwareStore(boto3.client("s3"), read_environment(Settings).bucket)
# Lambda limits an answer to 6 MB.
MAX_VIOLATIONS = 1000
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.CheckEverything, context: LambdaContext) -> contracts.ConsistencyReport:
    """Check everything; `is_consistent` sums it up."""
    report = check_consistency(RECORDS, STORE)
    counts: contracts.ConsistencyCounts = {
        "releases": report.releases,
        "archived": report.archived,
        "rejected": report.rejected,
        "waiting": report.waiting,
    }
    logger.info("checked", extra={"consistency": {**counts, "violations": len(report.violations)}})
    return {
        "is_consistent": not report.violations,
        **counts,
        "violations": [{"rule": broken.rule, "what": broken.what} for broken in report.violations[:MAX_VIOLATIONS]],
    }

"""CheckConsistency: whether releases, their signatures and their objects fit together. Operators invoke it by hand."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure
from ota_core.stages.consistency import check_consistency
from ota_core.stores.consistency_store import ConsistencyStore
from ota_core.stores.database import Database, DatabaseSettings
from ota_core.stores.firmware_store import FirmwareStore


@dataclass(frozen=True, slots=True)
class Settings:
    """See the template for each variable."""

    bucket: str


RECORDS = ConsistencyStore(Database(read_environment(DatabaseSettings), on_failure=log_database_failure))
STORE = FirmwareStore(boto3.client("s3"), read_environment(Settings).bucket)
# What Lambda answers has a limit of 6 MB.
MAX_VIOLATIONS = 1000
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Check everything; `is_consistent` sums it up."""
    report = asdict(check_consistency(RECORDS, STORE))
    violations = report.pop("violations")
    answer = {"is_consistent": not violations, **report, "violations": violations[:MAX_VIOLATIONS]}
    logger.info("checked", extra={"consistency": {**report, "violations": len(violations)}})
    return answer

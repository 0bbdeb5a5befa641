"""MigrateDatabase: brings the schema up to date, as a custom resource on every deployment.

The migrations are the numbered SQL files beside this one; each is applied once, in order, all in one transaction.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure
from ota_core.stores.database import Database, DatabaseSettings

if TYPE_CHECKING:
    from pg8000.native import Connection

MIGRATIONS = sorted((Path(__file__).parent / "migrations").glob("*.sql"))
DATABASE = Database(read_environment(DatabaseSettings), on_failure=log_database_failure)
# Any constant: deployments of one database wait for each other.
_ADVISORY_LOCK = 7_036_874_417
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Answer CloudFormation's request: migrate on Create and Update, leave the data alone on Delete."""
    status, reason = "SUCCESS", "The schema is up to date."
    try:
        if event["RequestType"] != "Delete":
            DATABASE.transaction(migrate)
    except Exception as error:
        # Without an answer CloudFormation would wait an hour.
        logger.exception("migration failed")
        status, reason = "FAILED", f"The schema could not be migrated: {error!r}. See this function's log."
    respond(event, status, reason)


def migrate(connection: Connection) -> list[str]:
    """Apply the migrations that the database lacks; returns their names."""
    connection.run("SELECT pg_advisory_xact_lock(:lock)", lock=_ADVISORY_LOCK)
    connection.run(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        " name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    applied = {name for (name,) in connection.run("SELECT name FROM schema_migrations")}
    missing = [migration for migration in MIGRATIONS if migration.name not in applied]
    for migration in missing:
        connection.run(migration.read_text())
        connection.run("INSERT INTO schema_migrations (name) VALUES (:name)", name=migration.name)
        logger.info("migrated", extra={"migration": migration.name})
    return [migration.name for migration in missing]


def respond(event: dict[str, Any], status: str, reason: str) -> None:
    """PUT the answer where CloudFormation waits for it: a presigned S3 URL, reachable through the gateway endpoint.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html
    """
    answer = {
        "Status": status,
        "Reason": reason,
        "PhysicalResourceId": "schema",
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
    }
    request = urllib.request.Request(  # noqa: S310 - CloudFormation's own URL
        event["ResponseURL"], data=json.dumps(answer).encode(), method="PUT", headers={"Content-Type": ""}
    )
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310 # nosec B310
        pass

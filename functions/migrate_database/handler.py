"""MigrateDatabase: brings the schema up to date, as a custom resource on every deployment.

The migrations are the numbered SQL files beside this one; each is applied once, in order, all in one transaction.
A migration that was applied is never edited or renamed: such a file is refused, and nothing is applied. A change to the
schema is a new migration, with which the version before it can still work: CloudFormation rolls a failed deployment
back by running that version of this function over the newer schema, and needs its answer.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.errors import OtaError
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure
from ota_core.stores.database import Database, DatabaseSettings

if TYPE_CHECKING:
    from ota_core.formats import contracts
    from ota_core.stores.interfaces import Transactions
    from pg8000.native import Connection

MIGRATIONS = sorted((Path(__file__).parent / "migrations").glob("*.sql"))
DATABASE: Transactions = Database(read_environment(DatabaseSettings), on_failure=log_database_failure)
# Any constant will do: deployments to one database wait for each other.
_ADVISORY_LOCK = 7_036_874_417
_MAX_REPORTED = 5  # CloudFormation accepts no answer larger than 4 KiB.
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.CustomResourceRequest, context: LambdaContext) -> None:
    """Answer CloudFormation's request: migrate on Create and Update, leave the data alone on Delete."""
    status, reason = "SUCCESS", "The schema is up to date."
    try:
        if event["RequestType"] != "Delete":
            DATABASE.transaction(migrate)
    except OtaError as error:
        logger.error(error.message, extra={"code": error.code})  # noqa: TRY400 - it says what to do
        status, reason = "FAILED", f"The schema was left as it is. {error.message}"
    except Exception as error:
        # Without an answer CloudFormation would wait an hour.
        logger.exception("migration failed")
        status, reason = "FAILED", f"The schema could not be migrated: {error!r}. See this function's log."
    respond(event, status, reason)


def migrate(connection: Connection) -> list[str]:
    """Apply the migrations that the database lacks, and return their names.

    Raises:
        OtaError: migration_edited or migration_renamed.
    """
    connection.run("SELECT pg_advisory_xact_lock(:lock)", lock=_ADVISORY_LOCK)
    connection.run(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        " name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    # Earlier versions of this function recorded no checksum, and may do so again after a rollback.
    connection.run("ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS sha256 text")
    applied = dict(connection.run("SELECT name, sha256 FROM schema_migrations"))
    statements = {migration.name: migration.read_text(encoding="utf-8") for migration in MIGRATIONS}
    checksums = {name: checksum(sql) for name, sql in statements.items()}
    check_history(applied, checksums)
    for name in applied.keys() & checksums.keys():
        connection.run(
            "UPDATE schema_migrations SET sha256 = :sha256 WHERE name = :name AND sha256 IS NULL",
            name=name,
            sha256=checksums[name],
        )
    missing = [name for name in statements if name not in applied]
    for name in missing:
        connection.run(statements[name])
        connection.run(
            "INSERT INTO schema_migrations (name, sha256) VALUES (:name, :sha256)", name=name, sha256=checksums[name]
        )
        logger.info("migrated", extra={"migration": name})
    return missing


def checksum(sql: str) -> str:
    """The SHA-256 of a migration, hex, as `sha256sum` prints it for the file.

    Trailing blanks do not count, nor do line endings, which reading normalises: editors and git change both.
    """
    lines = "\n".join(line.rstrip() for line in sql.split("\n"))
    return hashlib.sha256(f"{lines.rstrip()}\n".encode()).hexdigest()


def check_history(applied: dict[str, str | None], checksums: dict[str, str]) -> None:
    """Refuse to migrate a database whose history is not the beginning of this version's, nor this version's of its.

    Args:
        applied: names and checksums that the database has recorded; None if it has no checksum yet.
        checksums: of this version's migrations, by name.

    Raises:
        OtaError: migration_edited or migration_renamed.
    """
    edited = [
        f"{name} (SHA-256 {checksums[name]}; expected {recorded})"
        for name, recorded in sorted(applied.items())
        if name in checksums and recorded not in {None, checksums[name]}
    ]
    if edited:
        raise OtaError(
            "migration_edited",
            f"Migrations differ from what was applied to this database: {', '.join(edited[:_MAX_REPORTED])}"
            f"{f' and {len(edited) - _MAX_REPORTED} more' if len(edited) > _MAX_REPORTED else ''}."
            " Restore these files, and make the change in a new migration.",
        )
    unknown, missing = sorted(applied.keys() - checksums.keys()), sorted(checksums.keys() - applied.keys())
    if unknown and missing:
        raise OtaError(
            "migration_renamed",
            f"The database has the migration {unknown[0]}, which this version does not have, and lacks {missing[0]};"
            " expected one history. If the file was renamed, give it its old name back; if two versions each added a"
            " migration, deploy one that has both.",
        )
    if unknown:
        logger.warning("the database is newer than this version; nothing to apply", extra={"unknown": unknown})


def respond(event: contracts.CustomResourceRequest, status: str, reason: str) -> None:
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

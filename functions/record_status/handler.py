"""RecordStatus: what devices say of releases, taken from the queue in batches and recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.database import Database, DatabaseSettings, is_outage
from ota_core.device_status import DeviceStatus, StatusRefused, read_queued
from ota_core.environment import read_environment
from ota_core.status_store import StatusStore
from pg8000.native import DatabaseError

STATUSES = StatusStore(Database(read_environment(DatabaseSettings), timeout_seconds=8))
# No dimension: these are sums over the fleet, and each combination of dimensions would be a metric of its own.
METRICS = Metrics(service="")
logger = Logger()


@logger.inject_lambda_context
@METRICS.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Record the messages of an SQS event; those that could not be recorded come back later.

    While PostgreSQL is away the whole batch fails, and Lambda asks the queue less often.
    """
    received: dict[str, DeviceStatus] = {}
    dropped = 0
    for record in event["Records"]:
        queued_at = datetime.fromtimestamp(int(record["attributes"]["SentTimestamp"]) / 1000, UTC)
        try:
            received[record["messageId"]] = read_queued(record["body"], queued_at)
        except StatusRefused as refusal:
            logger.warning("status dropped", extra={"code": refusal.code, "why": refusal.message})
            dropped += 1
    unknown, failed = record_statuses(received)
    for status in received.values():
        if status.release_id in unknown:
            logger.info(
                "status dropped",
                extra={"code": "status_release_unknown", "mac": status.mac, "release_id": status.release_id},
            )
            dropped += 1
    METRICS.add_metric("StatusesReceived", MetricUnit.Count, len(event["Records"]))
    METRICS.add_metric("StatusesDropped", MetricUnit.Count, dropped)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def record_statuses(statuses: dict[str, DeviceStatus]) -> tuple[set[str], list[str]]:
    """Record statuses by the ids of their messages, each by itself where the database refuses them together.

    Returns:
        The releases that do not exist, and the messages that were not recorded.
    """
    if not statuses:
        return set(), []
    try:
        return STATUSES.record(list(statuses.values())), []
    except DatabaseError as error:
        if is_outage(error):
            raise
        if len(statuses) == 1:
            logger.exception("status not recorded")
            return set(), list(statuses)
    unknown: set[str] = set()
    failed: list[str] = []
    for message_id, status in statuses.items():
        also_unknown, also_failed = record_statuses({message_id: status})
        unknown |= also_unknown
        failed += also_failed
    return unknown, failed

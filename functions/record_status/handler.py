"""RecordStatus: what devices say about releases, read from the queue in batches and recorded."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.formats.device_status import DeviceStatus, StatusRefused, read_queued
from ota_core.runtime import metrics
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure, write_line
from ota_core.stores.database import Database, DatabaseSettings, is_outage
from ota_core.stores.status_store import News, Recorded, StatusStore
from pg8000.native import DatabaseError

if TYPE_CHECKING:
    from ota_core.formats import contracts
    from ota_core.stores.interfaces import Statuses

STATUSES: Statuses = StatusStore(
    Database(read_environment(DatabaseSettings), on_failure=log_database_failure, timeout_seconds=8)
)
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.QueuedMessages, context: LambdaContext) -> contracts.BatchAnswer:
    """Record the messages of an SQS event; those that could not be recorded come back later.

    While PostgreSQL is unavailable the whole batch fails, and Lambda polls the queue less often.
    """
    received: dict[str, DeviceStatus] = {}
    dropped = 0
    for record in event["Records"]:
        queued_at = int(record["attributes"]["SentTimestamp"])
        try:
            received[record["messageId"]] = read_queued(record["body"], queued_at)
        except StatusRefused as refusal:
            logger.warning("status dropped", extra={"code": refusal.code, "why": refusal.message, "mac": refusal.mac})
            dropped += 1
    recorded, failed = record_statuses(received)
    for status in received.values():
        if status.release_id in recorded.unknown:
            code = "status_release_unknown"
        elif status.mac in recorded.strangers:
            code = "status_device_not_recorded"
        else:
            continue
        logger.info("status dropped", extra={"code": code, "mac": status.mac, "release_id": status.release_id})
        dropped += 1
    tell(recorded.news)
    metrics.emit(metrics.STATUSES_RECEIVED, len(event["Records"]))
    metrics.emit(metrics.STATUSES_DROPPED, dropped)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def record_statuses(statuses: dict[str, DeviceStatus]) -> tuple[Recorded, list[str]]:
    """Record statuses by the ids of their messages, one at a time if the database refuses them together.

    Returns:
        What was recorded, and the messages that were not.
    """
    if not statuses:
        return Recorded(set(), set(), []), []
    try:
        return STATUSES.record(list(statuses.values())), []
    except DatabaseError as error:
        if is_outage(error):
            raise
        if len(statuses) == 1:
            logger.exception("status not recorded")
            return Recorded(set(), set(), []), list(statuses)
    recorded, failed = Recorded(set(), set(), []), []
    for message_id, status in statuses.items():
        one, one_failed = record_statuses({message_id: status})
        recorded.unknown.update(one.unknown)
        recorded.strangers.update(one.strangers)
        recorded.news.extend(one.news)
        failed += one_failed
    return recorded, failed


def tell(news: list[News]) -> None:
    """Log what devices said for the first time, and count it."""
    for item in news:
        status = item.status
        write_line(
            "status recorded",
            mac=status.mac,
            product=item.product,
            release_id=status.release_id,
            state=status.state,
            reason=status.reason,
            running_version=status.running_version,
        )
    for (product, state), count in Counter((item.product, item.status.state) for item in news).items():
        metrics.emit(metrics.DEVICE_STATES, count, product=product, state=state)
    for reason, count in Counter(item.status.failure for item in news).items():
        if reason is not None:
            metrics.emit(metrics.DEVICE_FAILURES, count, reason=reason)

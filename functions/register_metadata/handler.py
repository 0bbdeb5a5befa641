"""RegisterMetadata: the drop becomes a release in PostgreSQL, exactly once per signed manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.errors import DropRejected
from ota_core.formats.envelope import payload_of
from ota_core.formats.manifest import parse_manifest
from ota_core.runtime import metrics
from ota_core.runtime.environment import read_environment
from ota_core.runtime.log_line import log_database_failure
from ota_core.stores.database import Database, DatabaseSettings
from ota_core.stores.release_store import AlreadyReleased, InProgress, NewRelease, Registered, ReleaseStore

if TYPE_CHECKING:
    from ota_core.formats import contracts
    from ota_core.stores.interfaces import Releases

RELEASES: Releases = ReleaseStore(Database(read_environment(DatabaseSettings), on_failure=log_database_failure))
logger = Logger()


@logger.inject_lambda_context
def lambda_handler(event: contracts.RegisterRelease, context: LambdaContext) -> contracts.Registration:
    """Register the release for the execution."""
    release = event["release"]
    new_release = NewRelease(
        release_id=release["release_id"],
        manifest_sha256=release["manifest_sha256"],
        manifest=parse_manifest(payload_of(release["envelope"])),
        envelope=release["envelope"],
        keyid=release["keyid"],
        image_key=release["image"]["key"],
        image_version_id=release["image"]["version_id"],
        targets_key=release["targets"]["key"] if release["targets"] else None,
        targets_version_id=release["targets"]["version_id"] if release["targets"] else None,
        target_count=release["target_count"],
        warnings=release["warnings"],
        drop_members=event["members"],
    )
    try:
        outcome = RELEASES.register(
            new_release, execution=event["execution"], take_over_from=event.get("take_over_from")
        )
    except DropRejected as reason:
        answer: contracts.Registration = {"outcome": "rejected", "code": reason.code, "message": reason.message}
    else:
        answer = shape(new_release, outcome)
        if isinstance(outcome, Registered) and "take_over_from" not in event:
            metrics.emit(metrics.RELEASES, 1, product=new_release.manifest.product, outcome="registered")
    logger.info(
        "registered",
        extra={"release_id": new_release.release_id, "execution": event["execution"], "registration": answer},
    )
    return answer


def shape(new_release: NewRelease, outcome: Registered | AlreadyReleased | InProgress) -> contracts.Registration:
    """The outcome in the form that the state machine reads."""
    release: contracts.RegisteredRelease = {
        "release_id": new_release.release_id,
        "is_staged": new_release.manifest.rollout is not None,
    }
    match outcome:
        case Registered(version):
            return {"outcome": "registered", "version": version, **release}
        case AlreadyReleased(version):
            return {"outcome": "already_released", "version": version, **release}
        case InProgress(owner):
            return {"outcome": "in_progress", "owner": owner, **release}

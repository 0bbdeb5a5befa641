"""What a device says about a release: the status message, and the states that a device goes through.

A device's state in a release is the highest that it ever reported. Taking the highest is idempotent and does not depend
on order, so duplicates and late messages do no harm; a device that fails and later succeeds ends as installed.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from ota_core.errors import OtaError
from ota_core.formats import strict_json
from ota_core.formats.fields import Fields
from ota_core.formats.release_id import is_release_id
from ota_core.formats.targets import normalise_mac

MAX_STATUS_BYTES = 2048
_MAX_TEXT_CHARS = 200
_EPOCH = datetime.fromtimestamp(0, UTC)


class DeviceState(StrEnum):
    """The states, lowest first."""

    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    REBOOTING = "rebooting"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    INSTALLED = "installed"

    @property
    def rank(self) -> int:
        """The higher one wins."""
        return list(DeviceState).index(self)


# The device ended without running the release.
FAILING = frozenset({DeviceState.FAILED, DeviceState.REJECTED, DeviceState.ROLLED_BACK})
# What devices of this project give as a reason. tests/vectors/device_status.json holds them to ota/reason.hpp.
REASONS = frozenset(
    """
    notification_too_large notification_malformed envelope_malformed envelope_unknown_type envelope_untrusted_key
    envelope_bad_signature manifest_malformed manifest_unsupported_schema notification_mismatch
    release_expired sequence_not_newer wrong_product wrong_chip version_not_newer not_targeted targets_not_verifiable
    not_in_cohort image_too_large failed_before
    server_unreachable tls_failed connection_lost http_forbidden http_not_found release_withdrawn
    http_range_not_satisfiable http_too_many_requests http_server_error http_unexpected_status http_redirect_refused
    range_ignored content_range_mismatch etag_mismatch too_many_bytes download_too_slow started_too_often
    image_bad_header image_wrong_chip image_no_app_description app_version_mismatch image_sha256_mismatch
    image_bad_signature image_not_bootable
    out_of_memory flash_error storage_error
    broker_unreachable trial_interrupted self_test_timed_out self_test_failed boot_failed
    """.split()  # noqa: SIM905 - a line for each would be long
)
# Reasons of a device that does not need the release: it runs this version or a newer one. These are not failures.
NOT_NEEDED = frozenset({"version_not_newer", "sequence_not_newer"})


class DeviceStatus(NamedTuple):
    """One status message: a tuple, because there are many and creating a tuple takes half the time.

    Attributes:
        mac: of the device on whose topic it arrived.
        release_id: which release it is about.
        state: what the device does.
        progress: percent of the image, if the device says it.
        reason: the device's code for a refusal or failure.
        running_version: what the device runs now, if it says it.
        received_at: when the broker received it; aware.
    """

    mac: str
    release_id: str
    state: DeviceState
    progress: int | None
    reason: str | None
    running_version: str | None
    received_at: datetime

    @property
    def failure(self) -> str | None:
        """Why the device counts as failed: one of REASONS, or `other`. None if it does not."""
        if not counts_as_failed(self.state, self.reason):
            return None
        return self.reason if self.reason in REASONS else "other"


def counts_as_failed(state: DeviceState, reason: str | None) -> bool:
    """Whether a device with this state and reason counts as a failure, which can make its release stop itself.

    PostgreSQL has a function of the same name (migration 0008). `tests/vectors/counts_as_failed.json` tests both.
    """
    return state in FAILING and not (state is DeviceState.REJECTED and reason in NOT_NEEDED)


class StatusRefused(OtaError):  # noqa: N818 - a refusal, as DropRejected is a rejection
    """A message that is not a status; it is counted, logged and dropped. `mac` is the device's, if known."""

    mac: str | None = None


def read_queued(body: str, queued_at: float) -> DeviceStatus:
    """Read what the IoT rule put into the queue, or what AWS IoT put into the dead-letter queue instead.

    The latter (https://docs.aws.amazon.com/iot/latest/developerguide/rule-error-handling.html) arrives here when the
    dead-letter queue is redriven.

    Args:
        body: the queue's message, `{"topic", "payload", "received_at"}` with the payload in base64 and milliseconds
            since 1970, or `{"topic", "base64OriginalPayload", ...}`.
        queued_at: when the queue received it, in milliseconds since 1970.

    Raises:
        StatusRefused: not a status.
    """
    try:
        document = strict_json.loads(body.encode())
        payload = document["payload"] if "payload" in document else document["base64OriginalPayload"]
        milliseconds = document.get("received_at", queued_at)
        received_at = _EPOCH + timedelta(milliseconds=milliseconds)
        return parse_status(document["topic"], base64.b64decode(payload, validate=True), received_at)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise StatusRefused("status_event_malformed", f"Not an event of the IoT rule: {error!r}.") from error


def parse_status(topic: str, payload: bytes, received_at: datetime) -> DeviceStatus:
    """Read a message that arrived on `<prefix>/<MAC>/status`.

    The broker lets a device publish for its own MAC only, so the topic says whose status it is. A device that has
    installed a release runs its version, even if it does not say so.

    Raises:
        StatusRefused: not a status.
    """
    mac = topic.removesuffix("/status").rpartition("/")[2]
    # Only one spelling is accepted: a thing named in another one could speak for this device.
    if normalise_mac(mac) != mac:
        raise StatusRefused("status_topic_invalid", f"The topic {topic[:100]!r} has no MAC such as AA:BB:CC:DD:EE:FF.")
    try:
        return _parse_payload(mac, payload, received_at)
    except StatusRefused as refusal:
        refusal.mac = mac
        raise


def _parse_payload(mac: str, payload: bytes, received_at: datetime) -> DeviceStatus:
    if len(payload) > MAX_STATUS_BYTES:
        raise StatusRefused(
            "status_too_large", f"The payload has {len(payload)} bytes; expected at most {MAX_STATUS_BYTES}."
        )
    try:
        document = strict_json.loads(payload)
    except ValueError as error:
        raise StatusRefused("status_not_json", f"The payload is not JSON ({error}).") from error
    fields = Fields(document, "the status", _malformed)
    release_id = fields.take("release_id", str)
    if not is_release_id(release_id):
        raise _malformed(f"'release_id' is {release_id[:40]!r}", "32 lower-case hex digits")
    try:
        state = DeviceState(str(fields.value("state")))
    except ValueError as error:
        raise StatusRefused(
            "status_state_unknown",
            f"'state' is {fields.value('state')!r:.60}; expected one of {', '.join(DeviceState)}.",
        ) from error
    running_version = _text(fields, "running_version")
    if running_version is None and state is DeviceState.INSTALLED:
        running_version = _text(fields, "version")
    return DeviceStatus(
        mac=mac,
        release_id=release_id,
        state=state,
        progress=None if fields.value("progress") is None else fields.integer("progress", 0, 100),
        reason=_text(fields, "reason"),
        running_version=running_version,
        received_at=received_at,
    )


def _text(fields: Fields, name: str) -> str | None:
    """A text; None if it is missing, null or empty, which devices write for what they do not know."""
    if fields.value(name) in (None, ""):
        return None
    text = fields.take(name, str)
    if len(text) > _MAX_TEXT_CHARS:
        raise _malformed(f"{name!r} has {len(text)} characters", f"at most {_MAX_TEXT_CHARS}")
    # What PostgreSQL cannot hold would fail far from here.
    if "\0" in text:
        raise _malformed(f"{name!r} has a NUL character", "text without it")
    return text


def _malformed(seen: str, expected: str) -> StatusRefused:
    return StatusRefused("status_malformed", f"{seen}; expected {expected}.")

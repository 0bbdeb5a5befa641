"""The error tree: every error says what was seen, what was expected and what to do next, under a stable code."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class RejectionCode(StrEnum):
    """Why a drop was rejected. The values are a contract: `reason.json`, events and build servers carry them."""

    ENVELOPE_TOO_LARGE = "envelope_too_large"
    ENVELOPE_NOT_JSON = "envelope_not_json"
    ENVELOPE_MALFORMED = "envelope_malformed"
    PAYLOAD_TYPE_UNKNOWN = "payload_type_unknown"
    SIGNATURE_MISSING = "signature_missing"
    KEY_UNKNOWN = "key_unknown"
    KEY_REVOKED = "key_revoked"
    KEY_TOO_SMALL = "key_too_small"
    KEY_TOO_LARGE = "key_too_large"
    SIGNATURE_INVALID = "signature_invalid"
    MANIFEST_MALFORMED = "manifest_malformed"
    SCHEMA_UNSUPPORTED = "schema_unsupported"
    VERSION_INVALID = "version_invalid"
    MANIFEST_EXPIRED = "manifest_expired"
    SEQUENCE_REPLAYED = "sequence_replayed"
    IMAGE_SIZE_MISMATCH = "image_size_mismatch"
    IMAGE_SHA256_MISMATCH = "image_sha256_mismatch"
    IMAGE_SIGNATURE_INVALID = "image_signature_invalid"
    IMAGE_NOT_ESP = "image_not_esp"
    IMAGE_NOT_APP = "image_not_app"
    IMAGE_WRONG_CHIP = "image_wrong_chip"
    IMAGE_CHIP_UNKNOWN = "image_chip_unknown"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_CHECKSUM_WRONG = "image_checksum_wrong"
    IMAGE_APPENDED_HASH_WRONG = "image_appended_hash_wrong"
    IMAGE_TOO_LARGE = "image_too_large"
    APP_VERSION_MISMATCH = "app_version_mismatch"
    VERSION_CONFLICT = "version_conflict"
    VERSION_DOWNGRADE = "version_downgrade"
    TARGET_MAC_INVALID = "target_mac_invalid"
    TARGET_TAG_INVALID = "target_tag_invalid"
    TARGETS_EMPTY = "targets_empty"
    TARGETS_MALFORMED = "targets_malformed"
    TARGETS_TOO_MANY = "targets_too_many"
    TARGETS_FILE_MISSING = "targets_file_missing"
    TARGETS_FILE_CHANGED = "targets_file_changed"
    TARGETS_COUNT_MISMATCH = "targets_count_mismatch"
    ROLLOUT_INVALID = "rollout_invalid"
    NOTIFICATION_TOO_LARGE = "notification_too_large"
    INBOX_KEY_INVALID = "inbox_key_invalid"
    INBOX_FILE_UNKNOWN = "inbox_file_unknown"
    INBOX_FILE_UNREADABLE = "inbox_file_unreadable"


class OtaError(Exception):
    """The root of every error that this project raises on purpose.

    Attributes:
        code: stable, for machines.
        message: for a person: what was seen, what was expected, what to do next.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class DropRejected(OtaError):  # noqa: N818 - the design's word for it
    """The drop itself is at fault: it must be moved to `rejected/` and must change nothing else."""

    def __init__(self, code: RejectionCode, *, seen: str, expected: str, remedy: str) -> None:
        super().__init__(code.value, f"{seen}; expected {expected}. {remedy}")
        self.rejection_code = code


class ConfigurationError(OtaError):
    """A function was deployed with a setting missing or wrong."""

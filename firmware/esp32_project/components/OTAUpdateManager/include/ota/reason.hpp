#pragma once

#include <cstdint>

namespace ota {

/// Why a release was refused, or an update failed. The codes are part of the status contract; their
/// meaning is written in firmware/README.md, and a test keeps that table complete.
enum class Reason : std::uint8_t {
    none,

    // The notification and its envelope. Nothing in them is believed yet.
    notification_too_large,
    notification_malformed,
    envelope_malformed,
    envelope_unknown_type,
    envelope_untrusted_key,
    envelope_bad_signature,
    manifest_malformed,
    manifest_unsupported_schema,
    notification_mismatch,

    // The decision over a release whose manifest is authentic.
    release_expired,
    sequence_not_newer,
    wrong_product,
    wrong_chip,
    version_not_newer,
    not_targeted,
    targets_not_verifiable,
    not_in_cohort,
    image_too_large,
    failed_before,

    // The download.
    server_unreachable,
    tls_failed,
    connection_lost,
    http_forbidden,
    http_not_found,
    release_withdrawn,
    http_range_not_satisfiable,
    http_too_many_requests,
    http_server_error,
    http_unexpected_status,
    http_redirect_refused,
    range_ignored,
    content_range_mismatch,
    etag_mismatch,
    too_many_bytes,
    download_too_slow,

    // The image.
    image_bad_header,
    image_wrong_chip,
    image_no_app_description,
    app_version_mismatch,
    image_sha256_mismatch,
    image_bad_signature,
    image_not_bootable,

    // The device.
    out_of_memory,
    flash_error,
    storage_error,

    // The new app on its trial.
    self_test_timed_out,
    self_test_failed,
    boot_failed,
};

/// Every reason, in order, for tables and tests.
inline constexpr int kReasonCount = static_cast<int>(Reason::boot_failed) + 1;

/// The code that goes into the status message: the enumerator's name.
const char* to_string(Reason reason);

}  // namespace ota

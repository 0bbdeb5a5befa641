#pragma once

#include <cstdint>

/// Why a release was refused, or an update failed. The codes are part of the status contract:
/// tests hold this list and the pipeline's to tests/vectors/device_status.json, and firmware/README.md
/// explains them. Their numbers are neither stored nor sent.
#define OTA_REASONS(X)                                                        \
    X(none)                                                                   \
    /* The notification and its envelope. Nothing in them is believed yet. */ \
    X(notification_too_large)                                                 \
    X(notification_malformed)                                                 \
    X(envelope_malformed)                                                     \
    X(envelope_unknown_type)                                                  \
    X(envelope_untrusted_key)                                                 \
    X(envelope_bad_signature)                                                 \
    X(manifest_malformed)                                                     \
    X(manifest_unsupported_schema)                                            \
    X(notification_mismatch)                                                  \
    /* The decision over a release whose manifest is authentic. */            \
    X(release_expired)                                                        \
    X(sequence_not_newer)                                                     \
    X(wrong_product)                                                          \
    X(wrong_chip)                                                             \
    X(version_not_newer)                                                      \
    X(not_targeted)                                                           \
    X(targets_not_verifiable)                                                 \
    X(not_in_cohort)                                                          \
    X(image_too_large)                                                        \
    X(failed_before)                                                          \
    /* The download. */                                                       \
    X(server_unreachable)                                                     \
    X(tls_failed)                                                             \
    X(connection_lost)                                                        \
    X(http_forbidden)                                                         \
    X(http_not_found)                                                         \
    X(release_withdrawn)                                                      \
    X(http_range_not_satisfiable)                                             \
    X(http_too_many_requests)                                                 \
    X(http_server_error)                                                      \
    X(http_unexpected_status)                                                 \
    X(http_redirect_refused)                                                  \
    X(range_ignored)                                                          \
    X(content_range_mismatch)                                                 \
    X(etag_mismatch)                                                          \
    X(too_many_bytes)                                                         \
    X(download_too_slow)                                                      \
    X(started_too_often)                                                      \
    /* The image. */                                                          \
    X(image_bad_header)                                                       \
    X(image_wrong_chip)                                                       \
    X(image_no_app_description)                                               \
    X(app_version_mismatch)                                                   \
    X(image_sha256_mismatch)                                                  \
    X(image_bad_signature)                                                    \
    X(image_not_bootable)                                                     \
    /* The device. */                                                         \
    X(out_of_memory)                                                          \
    X(flash_error)                                                            \
    X(storage_error)                                                          \
    /* The new app on its trial. */                                           \
    X(broker_unreachable)                                                     \
    X(trial_interrupted)                                                      \
    X(self_test_timed_out)                                                    \
    X(self_test_failed)                                                       \
    X(boot_failed)

namespace ota {

#define OTA_ENUMERATOR(name) name,
enum class Reason : std::uint8_t { OTA_REASONS(OTA_ENUMERATOR) };
#undef OTA_ENUMERATOR

/// Every reason, in order, for tables and tests.
#define OTA_VALUE(name) Reason::name,
inline constexpr Reason kReasons[] = {OTA_REASONS(OTA_VALUE)};
#undef OTA_VALUE

/// The code that goes into the status message: the enumerator's name.
const char* to_string(Reason reason);

}  // namespace ota

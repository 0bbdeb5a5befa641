#pragma once

#include <cstdint>
#include <string>
#include <string_view>

/// States of a release on a device, as devices report them. The cloud keeps the highest; lowest first. Tests
/// hold this list and the pipeline's to tests/vectors/device_status.json. Their numbers are neither stored
/// nor sent.
#define OTA_UPDATE_STATUSES(X)                                                                     \
    X(downloading) /* With a reason: interrupted, and to be resumed. */                            \
    X(verifying)                                                                                   \
    X(rebooting)   /* Before the restart, and, with the new running_version, on trial after it. */ \
    X(interrupted) /* The trial reached no broker, and the old app runs: tried again later. */     \
    X(failed)      /* The image was bad; tried again later, up to the limit of attempts. */        \
    X(rejected)    /* Refused before a byte was fetched, or given up for good. */                  \
    X(rolled_back)                                                                                 \
    X(installed)

namespace ota {

#define OTA_ENUMERATOR(name) name,
enum class UpdateStatus : std::uint8_t { OTA_UPDATE_STATUSES(OTA_ENUMERATOR) };
#undef OTA_ENUMERATOR

/// Every status, in order, for tables and tests.
#define OTA_VALUE(name) UpdateStatus::name,
inline constexpr UpdateStatus kUpdateStatuses[] = {OTA_UPDATE_STATUSES(OTA_VALUE)};
#undef OTA_VALUE

/// The state that goes into the status message: the enumerator's name.
const char* to_string(UpdateStatus status);

/// One message on `<prefix>/<MAC>/status`.
struct StatusMessage {
    std::string_view release_id;
    std::string_view version;
    std::string_view state;
    int progress = 0;         ///< Percent of the image that has arrived.
    std::string_view reason;  ///< Code of a Reason; empty becomes null.
    std::string_view running_version;
};

std::string to_json(const StatusMessage& message);

}  // namespace ota

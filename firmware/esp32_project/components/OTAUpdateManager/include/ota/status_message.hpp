#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ota {

/// States of a release on a device, as the cloud records them.
enum class UpdateStatus : std::uint8_t {
    downloading,  ///< With a reason: interrupted, and to be gone on with.
    verifying,
    rebooting,  ///< Before the restart, and, with the new running_version, on trial after it.
    installed,
    failed,  ///< The image was bad; tried again later, up to the limit of attempts.
    rolled_back,
    rejected,  ///< Refused before a byte was fetched, or given up for good.
};

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

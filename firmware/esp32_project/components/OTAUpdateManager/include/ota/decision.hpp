#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "ota/mac_address.hpp"
#include "ota/manifest.hpp"
#include "ota/notification.hpp"
#include "ota/reason.hpp"

namespace ota {

/// Where a notification came from. Every device receives the fleet's topics.
enum class NotificationSource : std::uint8_t { fleet_topic, own_topic, check_in };

/// What a device knows about itself when it decides.
struct DeviceFacts {
    MacAddress mac;
    std::string_view product;
    std::string_view chip;
    std::string_view running_version;
    /// The running version comes from a signed manifest or from the image, not from the unsigned part
    /// of a notification (version "auto").
    bool running_version_is_authentic = true;
    std::int64_t stored_sequence = 0;  ///< Of the release installed last; 0: none.
    std::size_t slot_size = 0;
    std::optional<std::int64_t> unix_time;
};

/// Checks that the device is in the cohort: the first 4 bytes of SHA-256(salt ‖ MAC), big-endian, as a
/// fraction of 2^32, are below `percent` / 100. The MAC is the text `AA:BB:CC:DD:EE:FF`.
/// The pipeline computes the same, as the tests with tests/vectors/cohort.json ensure.
/// @return none, not_in_cohort or out_of_memory.
Reason check_cohort(const Cohort& cohort, const MacAddress& mac);

/// Whether the unsigned fields of the notification agree with the signed manifest. Decodes the
/// notification's signature in place.
/// @return none or notification_mismatch.
Reason compare_with_manifest(Notification& notification, const Manifest& manifest);

/// Decides about a release with a verified envelope, before a byte of the image is fetched. Checks, in
/// this order: expiry (if the clock is set), sequence, product, chip, version, targets, cohort, size.
/// @return none, or the first reason against the release, or out_of_memory.
Reason decide(const Manifest& manifest, const Notification& notification, NotificationSource source,
              const DeviceFacts& device);

/// Whether the release is meant for this device at all. If not, a refusal is not reported: otherwise a
/// release for one product would make the whole fleet write.
bool is_addressed_to(const Manifest& manifest, const Notification& notification, const DeviceFacts& device);

}  // namespace ota

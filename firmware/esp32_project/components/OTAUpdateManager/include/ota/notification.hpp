#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "ota/envelope.hpp"
#include "ota/heap_text.hpp"
#include "ota/reason.hpp"

namespace ota {

/// Largest notification that a device accepts, in bytes. The pipeline sends none that is larger.
inline constexpr std::size_t kMaxNotificationSize = 16384;
inline constexpr std::size_t kReleaseIdLength = 32;
inline constexpr std::int64_t kMaxDelayLimit_s = 86400;

/// A part of the fleet (see check_cohort()).
struct Cohort {
    double percent = 100.0;
    std::string_view salt;
};

/// The notification of a release, in its buffer. Only what the envelope signs can be trusted. Of the rest,
/// `max_delay`, `cohort` and `withdrawn` can delay or prevent an update, as can anyone who holds messages
/// back, but they cannot install anything.
struct Notification {
    std::string_view release_id;  ///< 32 hex digits in lower case.
    std::string_view product;
    std::string_view version;
    std::string_view sha256;
    TextSpan signature;  ///< base64
    std::optional<std::int64_t> size;
    std::optional<std::uint32_t> max_delay_s;
    std::optional<Cohort> cohort;
    bool withdrawn = false;  ///< The release was withdrawn; there is no envelope.
    bool has_envelope = false;
    Envelope envelope;
};

/// Reads a notification, rewriting it in place.
/// @return none or notification_malformed (also without an envelope, unless it is `withdrawn`).
Reason parse_notification(char* text, std::size_t size, Notification& notification);

/// Once the envelope is decoded, frees what is no longer needed of the text that the notification was
/// parsed from: verifying a signature takes 8 KiB of heap.
void shrink_notification(HeapText& text, Notification& notification);

}  // namespace ota

// A notification as anyone can publish it, up to the check of its signature.

#include "ota/notification.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "ota/decision.hpp"
#include "require.hpp"

using ota::Notification;
using ota::Reason;

namespace {

bool lies_in(std::string_view piece, const ota::HeapText& text) {
    return piece.data() == nullptr ||
           (piece.data() >= text.data() && piece.data() + piece.size() <= text.data() + text.size());
}

std::vector<std::string> pieces_of(const Notification& notification) {
    std::vector<std::string> pieces{
        std::string(notification.release_id),       std::string(notification.product),
        std::string(notification.version),          std::string(notification.sha256),
        std::string(notification.signature.view()), std::string(notification.envelope.payload.view())};
    if (notification.cohort) {
        pieces.emplace_back(notification.cohort->salt);
    }
    for (std::size_t i = 0; i < notification.envelope.signature_count; ++i) {
        pieces.emplace_back(notification.envelope.signatures[i].keyid.view());
        pieces.emplace_back(notification.envelope.signatures[i].sig.view());
    }
    return pieces;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
    ota::HeapText text = own_copy(input, size);
    Notification notification;
    const Reason reason = ota::parse_notification(text.data(), text.size(), notification);
    REQUIRE(reason == Reason::none || reason == Reason::notification_malformed);
    REQUIRE(notification.release_id.empty() || notification.release_id.size() == ota::kReleaseIdLength);
    REQUIRE(notification.release_id.find_first_not_of("0123456789abcdef") == std::string_view::npos);
    if (reason != Reason::none) {
        return 0;
    }
    REQUIRE(!notification.release_id.empty());
    REQUIRE(notification.max_delay_s.value_or(0) <= ota::kMaxDelayLimit_s);
    REQUIRE(!notification.cohort ||
            (notification.cohort->percent >= 0 && notification.cohort->percent <= 100));
    if (notification.cohort) {
        (void)ota::check_cohort(*notification.cohort, {});
    }
    if (!notification.has_envelope) {
        REQUIRE(notification.withdrawn);
        return 0;
    }
    ota::Sha256Digest digest;
    if (ota::decode_envelope(notification.envelope, digest) != Reason::none) {
        return 0;
    }
    const std::vector<std::string> before = pieces_of(notification);
    ota::shrink_notification(text, notification);
    REQUIRE(pieces_of(notification) == before);
    for (const std::string_view piece :
         {notification.release_id, notification.product, notification.version, notification.sha256,
          notification.signature.view(), notification.envelope.payload.view()}) {
        REQUIRE(lies_in(piece, text));
    }
    return 0;
}

#include "ota/refusal_ledger.hpp"

#include <algorithm>

#include "ota/semver.hpp"

namespace ota {
namespace {

/// In this time one unauthenticated refusal is reported, and no more refusals of any kind than are
/// remembered. Otherwise anyone who can publish on the fleet's topic could make every device write again
/// and again, by sending old, genuine releases in turn.
constexpr std::uint32_t kInterval_s = 3600;

/// FNV-1a, to tell refusals apart; a collision costs one report.
std::uint32_t hash_of(std::string_view release_id, Reason reason) {
    std::uint32_t hash = 2166136261U;
    for (const char c : release_id) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
    }
    return (hash ^ static_cast<std::uint32_t>(reason)) * 16777619U;
}

}  // namespace

bool RefusalLedger::tell(std::string_view release_id, std::string_view version, Reason reason,
                         NotificationSource source) {
    const std::uint32_t hash = hash_of(release_id, reason);
    const auto now_s = static_cast<std::uint32_t>(context_.ports.clock.uptime_ms() / 1000);
    const bool told_before =
        std::any_of(told_.begin(), told_.end(), [hash](const Told& told) { return told.hash == hash; });
    Told& oldest = told_[next_ % told_.size()];
    const bool too_many = source != NotificationSource::check_in && next_ >= told_.size() &&
                          now_s - oldest.uptime_s < kInterval_s;
    if (release_id.empty() || told_before || too_many) {
        return false;
    }
    StatusMessage message;
    message.release_id = release_id;
    message.version = is_semver(version) ? version : std::string_view();
    message.state = to_string(UpdateStatus::rejected);
    message.reason = to_string(reason);
    message.running_version = context_.running.version;
    if (!reporter_.send(message)) {
        return false;  // Reported when the release comes again, after a reconnect or by check-in.
    }
    oldest = {hash, now_s};
    ++next_;
    return true;
}

void RefusalLedger::tell_unverified(std::string_view release_id, std::string_view version, Reason reason,
                                    NotificationSource source) {
    const std::uint64_t now = context_.ports.clock.uptime_ms();
    if (now >= next_unverified_ms_ && tell(release_id, version, reason, source)) {
        next_unverified_ms_ = now + kInterval_s * 1000ULL;
    }
}

}  // namespace ota

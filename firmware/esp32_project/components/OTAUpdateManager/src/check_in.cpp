#include "ota/check_in.hpp"

#include <algorithm>

namespace ota {
namespace {

constexpr std::uint32_t kSecond_ms = 1000;
/// Spreads the first check-ins when the power returns to a whole site.
constexpr std::uint32_t kBootSpread_s = 10;

}  // namespace

void CheckIn::begin() {
    const std::uint32_t spread_s = std::min(kBootSpread_s, context_.config.max_delay_s);
    next_ms_ = context_.ports.clock.uptime_ms() + context_.back_off.random_up_to(spread_s * kSecond_ms);
}

void CheckIn::ask(std::uint64_t now, HeapText& body) {
    const UpdateConfig& config = context_.config;
    const std::uint32_t interval = config.check_in_interval_s * kSecond_ms;
    const Reason reason = api_.check_in(context_.running.version, body);
    if (reason == Reason::none) {
        failures_ = 0;
        // Up to 10 % sooner or later, so that devices that were switched on together drift apart.
        next_ms_ = now + interval - interval / 10 + context_.back_off.random_up_to(interval / 5);
        reporter_.event("checked_in", "update", body ? 1 : 0);
        return;
    }
    ++failures_;
    const std::uint32_t retry_after = api_.retry_after_s() * kSecond_ms;
    next_ms_ = now + std::max(std::min(context_.back_off.delay_ms(failures_), interval), retry_after);
    reporter_.event("check_in_failed", reason);
}

}  // namespace ota

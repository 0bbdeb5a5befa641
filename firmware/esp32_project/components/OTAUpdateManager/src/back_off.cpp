#include "ota/back_off.hpp"

#include <algorithm>

namespace ota {

std::uint32_t BackOff::delay_ms(std::uint32_t failures) {
    std::uint64_t delay_s = config_.first_back_off_s;
    for (std::uint32_t i = 1; i < failures && delay_s < config_.back_off_limit_s; ++i) {
        delay_s *= 2;
    }
    const auto delay =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(delay_s, config_.back_off_limit_s) * 1000);
    return delay + random_up_to(delay / 4);
}

std::uint32_t BackOff::random_up_to(std::uint32_t limit) {
    // For a day in milliseconds, the bias of the modulo is below 1 in 49, which does not matter for a delay.
    return limit == 0 ? 0 : random_.next() % limit;
}

}  // namespace ota

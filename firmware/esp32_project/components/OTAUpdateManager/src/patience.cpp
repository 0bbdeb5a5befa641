#include "ota/patience.hpp"

#include <algorithm>
#include <iterator>

namespace ota {
namespace {

constexpr std::uint16_t kHour_min = 60;
constexpr std::uint16_t kStart_min = 4 * kHour_min;
constexpr std::uint16_t kFreeStarts = 8;
/// By the number of trials that reached no broker.
constexpr std::uint16_t kTrialWaits_min[] = {kHour_min, 8 * kHour_min, 24 * kHour_min, 168 * kHour_min};

}  // namespace

void Patience::tick(std::uint64_t now) {
    if (now < next_tick_ms_) {
        return;
    }
    next_tick_ms_ = now + kTick_ms;
    WaitRecord waits = storage_.waits();
    if (waits.starts_min == 0 && waits.trial_min == 0) {
        return;
    }
    for (std::uint16_t* const wait : {&waits.starts_min, &waits.trial_min}) {
        *wait = static_cast<std::uint16_t>(*wait - std::min(*wait, kTick_min));
    }
    (void)storage_.set(waits);  // If that fails, the waits only take longer.
}

std::uint32_t Patience::until_tick_ms(std::uint64_t now) const {
    return static_cast<std::uint32_t>(next_tick_ms_ <= now ? 0 : next_tick_ms_ - now);
}

Reason Patience::start(std::uint32_t offset) {
    WaitRecord waits = storage_.waits();
    if (offset <= waits.start_offset) {
        if (waits.starts_min > (kFreeStarts - 1) * kStart_min) {
            return Reason::started_too_often;
        }
        waits.starts_min = static_cast<std::uint16_t>(waits.starts_min + kStart_min);
    }
    waits.start_offset = offset;
    return storage_.set(waits) ? Reason::none : Reason::storage_error;
}

Reason Patience::may_try(std::int64_t sequence) const {
    const WaitRecord waits = storage_.waits();
    return sequence <= waits.sequence && waits.trial_min > 0 ? Reason::trial_interrupted : Reason::none;
}

bool Patience::interrupt(std::int64_t sequence) {
    WaitRecord waits = storage_.waits();
    if (sequence > waits.sequence) {  // Older ones in turn with it do not begin to count anew.
        waits.sequence = sequence;
        waits.interruptions = 0;
    }
    const std::uint16_t wait = kTrialWaits_min[waits.interruptions];
    waits.trial_min = static_cast<std::uint16_t>(wait + back_off_.random_up_to(wait / 4U));
    if (waits.interruptions + 1U < std::size(kTrialWaits_min)) {
        ++waits.interruptions;
    }
    return storage_.set(waits);
}

}  // namespace ota

#pragma once

#include <cstdint>

#include "ota/back_off.hpp"
#include "ota/nvs_storage_handler.hpp"
#include "ota/reason.hpp"

namespace ota {

/// Owns the waits of hours and days. What is left of them is in NVS: a restart does not end them, and a
/// device that is often restarted gets through them too.
///
/// Starts of a download: a sector of flash survives about 100,000 erases, and anyone who can publish could
/// make a device begin one genuine release after the other. Eight starts are free, and one more every four
/// hours, so that a sector lasts for decades. An installed release makes all of them free again.
///
/// Trials that reached no broker: the next one comes after an hour, eight hours, a day, and then after a
/// week each time. Only a newer release does not wait for it.
class Patience {
public:
    Patience(NVSStorageHandler& storage, BackOff& back_off) : storage_(storage), back_off_(back_off) {}

    /// Takes a quarter of an hour off the waits, if it has passed. Call it in every step.
    void tick(std::uint64_t now);

    /// Milliseconds until the waits become shorter.
    [[nodiscard]] std::uint32_t until_tick_ms(std::uint64_t now) const;

    /// Call it before a download writes to the update slot from `offset` on. Counts the start, unless bytes
    /// were confirmed since the last one: then this one erases what no start has erased before.
    /// @return none; started_too_often; storage_error.
    [[nodiscard]] Reason start(std::uint32_t offset);

    /// @return none, or trial_interrupted if the release with this sequence has to wait for a trial.
    [[nodiscard]] Reason may_try(std::int64_t sequence) const;

    /// Counts a trial that reached no broker. @return false if that could not be stored.
    [[nodiscard]] bool interrupt(std::int64_t sequence);

private:
    static constexpr std::uint16_t kTick_min = 15;
    static constexpr std::uint32_t kTick_ms = kTick_min * 60U * 1000U;

    NVSStorageHandler& storage_;
    BackOff& back_off_;
    std::uint64_t next_tick_ms_ = kTick_ms;
};

}  // namespace ota

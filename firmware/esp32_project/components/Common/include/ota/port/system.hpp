#pragma once

#include <cstdint>
#include <optional>

namespace ota {

/// Time. `esp_idf`: esp_timer, and the system clock once SNTP has set it. `posix`: clock_gettime.
class Clock {
public:
    virtual ~Clock() = default;

    /// Milliseconds since boot; never goes back.
    [[nodiscard]] virtual std::uint64_t uptime_ms() const = 0;

    /// Seconds since 1970-01-01 UTC, or nothing while the clock is not set
    /// (esp_idf: before 2024 counts as not set).
    [[nodiscard]] virtual std::optional<std::int64_t> unix_time() const = 0;
};

/// Randomness for delays. `esp_idf`: esp_random. `posix`: getrandom.
class RandomSource {
public:
    virtual ~RandomSource() = default;

    /// Uniform over all 32-bit values.
    virtual std::uint32_t next() = 0;
};

/// `esp_idf`: esp_restart, which does not return. `posix`: `ota_device` starts itself again with
/// execve. In tests the call returns, so do nothing after it.
class Reboot {
public:
    virtual ~Reboot() = default;

    virtual void restart() = 0;
};

Clock& system_clock();
RandomSource& system_random();
Reboot& system_reboot();

}  // namespace ota

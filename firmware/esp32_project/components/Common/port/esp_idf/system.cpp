#include "ota/port/system.hpp"

#include <ctime>

#include "esp_random.h"
#include "esp_system.h"
#include "esp_timer.h"

namespace ota {
namespace {

// 2024-01-01T00:00:00Z. The chip's clock starts at 1970, so an earlier time means no answer from SNTP yet.
constexpr std::time_t kEarliestSetTime = 1704067200;

class EspClock final : public Clock {
public:
    std::uint64_t uptime_ms() const override {
        return static_cast<std::uint64_t>(esp_timer_get_time()) / 1000;
    }

    std::optional<std::int64_t> unix_time() const override {
        const std::time_t now = std::time(nullptr);
        if (now < kEarliestSetTime) {
            return std::nullopt;
        }
        return now;
    }
};

class EspRandom final : public RandomSource {
public:
    std::uint32_t next() override { return esp_random(); }
};

class EspReboot final : public Reboot {
public:
    void restart() override { esp_restart(); }
};

}  // namespace

Clock& system_clock() {
    static EspClock clock;
    return clock;
}

RandomSource& system_random() {
    static EspRandom random;
    return random;
}

Reboot& system_reboot() {
    static EspReboot reboot;
    return reboot;
}

}  // namespace ota

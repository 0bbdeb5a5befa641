#include "ota/port/system.hpp"

#include <sys/random.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "reboot.hpp"

namespace ota {
namespace {

constexpr std::int64_t kNanosecondsPerMillisecond = 1000000;

class PosixClock final : public Clock {
public:
    [[nodiscard]] std::uint64_t uptime_ms() const override {
        timespec now{};
        ::clock_gettime(CLOCK_MONOTONIC, &now);
        return static_cast<std::uint64_t>(now.tv_sec) * 1000 +
               static_cast<std::uint64_t>(now.tv_nsec / kNanosecondsPerMillisecond);
    }

    [[nodiscard]] std::optional<std::int64_t> unix_time() const override {
        return static_cast<std::int64_t>(::time(nullptr));
    }
};

class PosixRandom final : public RandomSource {
public:
    std::uint32_t next() override {
        std::uint32_t value = 0;
        // Up to 256 bytes are never cut short (getrandom(2)).
        if (::getrandom(&value, sizeof(value), 0) != static_cast<ssize_t>(sizeof(value))) {
            std::abort();
        }
        return value;
    }
};

class PosixReboot final : public Reboot {
public:
    void restart() override {
        std::fflush(nullptr);
        // Nothing but the standard streams survives, as on the chip.
        ::close_range(STDERR_FILENO + 1, ~0U, 0);
        if (posix::reboot_arguments != nullptr) {
            ::execv("/proc/self/exe", posix::reboot_arguments);
        }
        std::perror("execv");
        std::abort();
    }
};

}  // namespace

char* const* posix::reboot_arguments = nullptr;

Clock& system_clock() {
    static PosixClock clock;
    return clock;
}

RandomSource& system_random() {
    static PosixRandom random;
    return random;
}

Reboot& system_reboot() {
    static PosixReboot reboot;
    return reboot;
}

}  // namespace ota

#pragma once

#include <cstdint>

#include "ota/api_client.hpp"
#include "ota/heap_text.hpp"
#include "ota/status_reporter.hpp"
#include "ota/update_context.hpp"

namespace ota {

/// Owns the schedule of check-ins, in which the device asks the API what it should run: soon after a boot
/// or a trial, then about once per hour, and less often after failures.
class CheckIn {
public:
    CheckIn(UpdateContext& context, StatusReporter& reporter, ApiClient& api)
        : context_(context), reporter_(reporter), api_(api) {}

    /// Schedules the first check-in after a boot.
    void begin();

    /// Schedules the next check-in for now.
    void hurry(std::uint64_t now) { next_ms_ = now; }

    [[nodiscard]] std::uint64_t next_ms() const { return next_ms_; }

    /// Checks in, and schedules the next check-in.
    /// @param[out] body the notification; empty if there is nothing to do, or if asking failed.
    void ask(std::uint64_t now, HeapText& body);

private:
    UpdateContext& context_;
    StatusReporter& reporter_;
    ApiClient& api_;
    std::uint64_t next_ms_ = 0;
    std::uint32_t failures_ = 0;
};

}  // namespace ota

#pragma once

#include <cstdint>

#include "ota/api_client.hpp"
#include "ota/heap_text.hpp"
#include "ota/status_reporter.hpp"
#include "ota/update_context.hpp"

namespace ota {

/// Owns the schedule by which the device asks the API what it should run: soon after a boot or a trial,
/// then about every hour, and later after failures.
class CheckIn {
public:
    CheckIn(UpdateContext& context, StatusReporter& reporter, ApiClient& api)
        : context_(context), reporter_(reporter), api_(api) {}

    /// Plans the first one after a boot.
    void begin();

    /// Plans the next one for now.
    void hurry(std::uint64_t now) { next_ms_ = now; }

    [[nodiscard]] std::uint64_t next_ms() const { return next_ms_; }

    /// Asks, and plans the next one.
    /// @param[out] body the notification that was answered; none of it when there is nothing to do, or
    ///             it failed.
    void ask(std::uint64_t now, HeapText& body);

private:
    UpdateContext& context_;
    StatusReporter& reporter_;
    ApiClient& api_;
    std::uint64_t next_ms_ = 0;
    std::uint32_t failures_ = 0;
};

}  // namespace ota

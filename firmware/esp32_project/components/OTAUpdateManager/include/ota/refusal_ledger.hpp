#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ota/decision.hpp"
#include "ota/reason.hpp"
#include "ota/status_reporter.hpp"
#include "ota/update_context.hpp"

namespace ota {

/// Owns the memory of reported refusals, and so the rule which ones are reported: each one once, although
/// a retained message comes with every reconnect, and only a few per hour of what anyone could send.
class RefusalLedger {
public:
    RefusalLedger(UpdateContext& context, StatusReporter& reporter)
        : context_(context), reporter_(reporter) {}

    /// Reports that a release will not be installed, unless that was reported before. Of releases that did
    /// not come by check-in, only a few are reported per hour.
    /// @return whether it was reported.
    bool tell(std::string_view release_id, std::string_view version, Reason reason,
              NotificationSource source);

    /// The same for an unauthenticated release: one per hour.
    void tell_unverified(std::string_view release_id, std::string_view version, Reason reason,
                         NotificationSource source);

private:
    struct Told {
        std::uint32_t hash;  ///< Of release and reason.
        std::uint32_t uptime_s;
    };

    UpdateContext& context_;
    StatusReporter& reporter_;
    std::array<Told, 8> told_{};  ///< The oldest is overwritten when it is old enough.
    std::size_t next_ = 0;        ///< Refusals reported since the boot.
    std::uint64_t next_unverified_ms_ = 0;
};

}  // namespace ota

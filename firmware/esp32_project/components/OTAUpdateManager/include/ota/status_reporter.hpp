#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ota/nvs_storage_handler.hpp"
#include "ota/reason.hpp"
#include "ota/status_message.hpp"
#include "ota/update_context.hpp"

namespace ota {

/// Owns everything that the device reports: status messages on its own topic, the final report that stays
/// in NVS until the broker has acknowledged it, and events for the observer.
class StatusReporter {
public:
    explicit StatusReporter(UpdateContext& context);

    /// Loads the final report that an earlier boot could not deliver.
    void load_report() { report_ = context_.storage.report(); }

    /// A final report is waiting for the broker's acknowledgement.
    [[nodiscard]] bool has_report() const { return report_.has_value(); }

    /// Reports the outcome of a release. The report stays in NVS until the broker has acknowledged it, and
    /// replaces one that is still waiting.
    void report_outcome(std::string_view release_id, std::string_view version, UpdateStatus status,
                        std::string_view reason);

    /// Sends the final report, or deletes it once it was acknowledged. Call it in every step.
    void deliver_report();

    /// Reports the progress of the release under way. Lost without a connection; the next one replaces it.
    void send_progress(UpdateStatus status, int percent, Reason reason = Reason::none);

    /// Passes a message to MQTT. @return false if it was not accepted.
    bool send(const StatusMessage& message);

    /// Tells the observer about an event of the release under way, if there is one.
    void event(const char* name, Reason reason = Reason::none);
    void event(const char* name, const char* value_name, std::int64_t value);

    /// Call it when a record could not be stored. All that is left to do is to report it: the next boot
    /// starts from the previous record.
    void storage_failed() { event("storage_failed", Reason::storage_error); }

private:
    void tell(UpdateEvent event);

    UpdateContext& context_;
    const std::string topic_;
    std::optional<PendingReport> report_;
    bool report_in_flight_ = false;
};

}  // namespace ota

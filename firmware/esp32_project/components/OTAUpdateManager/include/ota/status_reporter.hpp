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

/// Owns what the device says: the status messages on its own topic, the one final report that waits in
/// NVS until the broker has acknowledged it, and the events for the observer.
class StatusReporter {
public:
    explicit StatusReporter(UpdateContext& context);

    /// Takes up the final report that an earlier boot left undelivered.
    void load_report() { report_ = context_.storage.report(); }

    /// A final report waits for the broker's acknowledgement.
    [[nodiscard]] bool has_report() const { return report_.has_value(); }

    /// Reports the end of a release. It must arrive: it is kept in NVS until the broker has acknowledged
    /// it, and takes the place of one that waits.
    void report_outcome(std::string_view release_id, std::string_view version, UpdateStatus status,
                        std::string_view reason);

    /// Sends the final report that waits, or forgets it once it was acknowledged. Call it in every step.
    void deliver_report();

    /// Says how far the release under way has come. Lost when there is no connection: the next replaces it.
    void send_progress(UpdateStatus status, int percent, Reason reason = Reason::none);

    /// Hands a message to MQTT. @return false when it was not taken.
    bool send(const StatusMessage& message);

    /// Tells the observer, of the release under way if there is one.
    void event(const char* name, Reason reason = Reason::none);
    void event(const char* name, const char* value_name, std::int64_t value);

    /// A record did not reach NVS. Nothing else can be done about it here: the next boot, or the next
    /// failure, starts from the record before.
    void storage_failed() { event("storage_failed", Reason::storage_error); }

private:
    void tell(UpdateEvent event);

    UpdateContext& context_;
    const std::string topic_;
    std::optional<PendingReport> report_;
    bool report_in_flight_ = false;
};

}  // namespace ota

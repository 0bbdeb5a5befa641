#pragma once

#include <cstdint>
#include <optional>

#include "ota/nvs_storage_handler.hpp"
#include "ota/status_message.hpp"
#include "ota/status_reporter.hpp"
#include "ota/update_context.hpp"

namespace ota {

/// Owns the trial of a new app: finds out at boot which app runs and how the pending update ended, lets a
/// new app prove itself, and stores the verdict. Only this part writes the record of the installed
/// release. A trial that reached no broker in time says nothing about the release: it is repeated later,
/// and does not count as failed.
class Trial {
public:
    enum class Verdict : std::uint8_t { pending, passed, failed };

    Trial(UpdateContext& context, StatusReporter& reporter) : context_(context), reporter_(reporter) {}

    /// Settles what the last boot left unfinished: completes a trial that passed, or reports one that was
    /// undone. Call once. @return whether the running app is on trial: then call step().
    [[nodiscard]] bool begin();

    /// Lets the new app prove itself. If it does not, this stores the verdict and gives up the app, and a
    /// restart takes the device back to the old one.
    [[nodiscard]] Verdict step(std::uint64_t now);

    /// If the trial has not passed by then, it is interrupted.
    [[nodiscard]] std::uint64_t deadline_ms() const { return deadline_ms_; }

private:
    std::optional<Sha256Digest> read_running_image();
    bool settle_pending_update(const std::optional<Sha256Digest>& running_head);
    void commit(const PendingUpdate& pending);
    void record_end(const PendingUpdate& pending, UpdateStatus if_failed);
    void give_up(Reason reason);
    void run_as(const PendingUpdate& pending);

    UpdateContext& context_;
    StatusReporter& reporter_;
    std::uint64_t deadline_ms_ = 0;
    bool published_ = false;  ///< The first message of this connection, which proves the link.
};

}  // namespace ota

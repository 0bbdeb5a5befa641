#pragma once

#include <cstdint>
#include <optional>

#include "ota/nvs_storage_handler.hpp"
#include "ota/status_message.hpp"
#include "ota/status_reporter.hpp"
#include "ota/update_context.hpp"

namespace ota {

/// Owns the trial of a new app: finds out at boot what runs and what became of the update that was
/// pending, lets a new app prove itself, and stores the verdict. It alone writes the record of the
/// installed release.
class Trial {
public:
    enum class Verdict : std::uint8_t { pending, passed, failed };

    Trial(UpdateContext& context, StatusReporter& reporter) : context_(context), reporter_(reporter) {}

    /// Settles what the last boot left: completes a trial that had passed, or reports one that was
    /// undone. Call once. @return whether the running app is on its trial: call step() then.
    [[nodiscard]] bool begin();

    /// Has the new app prove itself. A trial that failed is stored and the app given up: a restart takes
    /// the device back.
    [[nodiscard]] Verdict step(std::uint64_t now);

    /// When the trial fails if it has not passed.
    [[nodiscard]] std::uint64_t deadline_ms() const { return deadline_ms_; }

private:
    std::optional<Sha256Digest> read_running_image();
    bool settle_pending_update(const std::optional<Sha256Digest>& running_head);
    void commit(const PendingUpdate& pending);
    void record_failure(const PendingUpdate& pending, UpdateStatus status);
    void give_up(Reason reason);
    void run_as(const PendingUpdate& pending);

    UpdateContext& context_;
    StatusReporter& reporter_;
    std::uint64_t deadline_ms_ = 0;
    bool published_ = false;  ///< The device's first message in this connection, which proves the link.
};

}  // namespace ota

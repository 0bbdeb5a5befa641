#pragma once

#include <cstdint>
#include <string>

#include "ota/api_client.hpp"
#include "ota/check_in.hpp"
#include "ota/download.hpp"
#include "ota/notification_intake.hpp"
#include "ota/reason.hpp"
#include "ota/refusal_ledger.hpp"
#include "ota/signature_verifier.hpp"
#include "ota/status_reporter.hpp"
#include "ota/trial.hpp"
#include "ota/update_config.hpp"
#include "ota/update_context.hpp"
#include "ota/update_state.hpp"

namespace ota {

/// Keeps one device up to date: receives releases, decides, downloads, verifies, activates, restarts, and
/// then proves the new app or goes back to the old one. All of it runs in one task:
///
///     manager.start();
///     for (;;) { mqtt.wait(manager.step()); }
///
/// A step does a bounded piece of work (at most one buffer of the download, one request or one
/// signature) and never sleeps.
///
/// The manager owns the state (see next_state()), and the times at which a download or a restart is due.
/// A part does the work of each state, and the parts of two states do not know each other.
class OTAUpdateManager {
public:
    OTAUpdateManager(const UpdateConfig& config, const UpdatePorts& ports, UpdateObserver& observer);
    ~OTAUpdateManager() = default;
    OTAUpdateManager(const OTAUpdateManager&) = delete;  // Its parts point to each other.
    OTAUpdateManager& operator=(const OTAUpdateManager&) = delete;

    /// Settles what the last boot left unfinished: starts the trial of a new app, completes a trial that
    /// passed, or reports one that was undone. Call once.
    void start();

    /// Does the next piece of work. @return milliseconds until there is more, unless a message arrives.
    std::uint32_t step();

    [[nodiscard]] UpdateState state() const { return state_; }
    [[nodiscard]] const std::string& running_version() const { return context_.running.version; }
    /// A final report is waiting for the broker's acknowledgement.
    [[nodiscard]] bool has_report() const { return reporter_.has_report(); }

private:
    void go(UpdateTrigger trigger);
    std::uint32_t step_trial(std::uint64_t now);
    std::uint32_t step_download(std::uint64_t now);
    std::uint32_t step_check_in(std::uint64_t now);
    std::uint32_t step_restart(std::uint64_t now);

    void receive_messages();
    void follow(NotificationIntake::Outcome outcome);
    void wait_for_download();
    void drop_release(Reason reason);
    void forget_release();
    void restart_soon(UpdateTrigger trigger);

    UpdateContext context_;
    StatusReporter reporter_;
    SignatureVerifier verifier_;
    ApiClient api_;
    Trial trial_;
    RefusalLedger refusals_;
    NotificationIntake intake_;
    Download download_;
    CheckIn check_in_;

    UpdateState state_ = UpdateState::idle;
    std::uint64_t start_at_ms_ = 0;    ///< End of the delay or back-off.
    std::uint64_t restart_at_ms_ = 0;  ///< Even if the last message is not acknowledged by then.
};

}  // namespace ota

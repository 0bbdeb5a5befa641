#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ota {

enum class UpdateState : std::uint8_t {
    self_test,  ///< A new app is on trial.
    idle,       ///< Nothing to do.
    waiting,    ///< A release was accepted, and its random delay or back-off is running.
    downloading,
    restarting,  ///< Waiting for the last message to be acknowledged.
};
inline constexpr std::size_t kUpdateStateCount = 5;

/// What moves an update from one state to another.
enum class UpdateTrigger : std::uint8_t {
    trial_began,       ///< At boot: the running app must prove itself.
    trial_passed,      ///< It has proven itself.
    trial_failed,      ///< It has failed or was interrupted, and was given up.
    release_accepted,  ///< Possibly in place of another one under way.
    release_dropped,   ///< Withdrawn, expired, disowned by a check-in, or failed for good.
    wait_over,         ///< The delay or back-off has passed.
    download_failed,   ///< It will be tried again later.
    postponed,         ///< Nothing failed, but it is not the time for it.
    image_activated,   ///< The new image is the one to boot.
};
inline constexpr std::size_t kUpdateTriggerCount = 9;

/// The life of an update. A device always boots into `idle`: what an earlier boot left is in NVS and
/// otadata. Only the restart itself ends `restarting`.
///
/// @return the next state; `state` itself where the trigger has no meaning.
constexpr UpdateState next_state(UpdateState state, UpdateTrigger trigger) {
    using S = UpdateState;
    constexpr S kSelfTest = S::self_test;
    constexpr S kIdle = S::idle;
    constexpr S kWaiting = S::waiting;
    constexpr S kDownload = S::downloading;
    constexpr S kRestart = S::restarting;
    constexpr S kSame{0xFF};
    // clang-format off
    constexpr std::array<std::array<S, kUpdateStateCount>, kUpdateTriggerCount> kNext = {{
        // in state             self_test  idle       waiting    downloading restarting
        /* trial_began      */ {kSame,     kSelfTest, kSame,     kSame,      kSame},
        /* trial_passed     */ {kIdle,     kSame,     kSame,     kSame,      kSame},
        /* trial_failed     */ {kRestart,  kSame,     kSame,     kSame,      kSame},
        /* release_accepted */ {kSame,     kWaiting,  kWaiting,  kWaiting,   kSame},
        /* release_dropped  */ {kSame,     kSame,     kIdle,     kIdle,      kSame},
        /* wait_over        */ {kSame,     kSame,     kDownload, kSame,      kSame},
        /* download_failed  */ {kSame,     kSame,     kSame,     kWaiting,   kSame},
        /* postponed        */ {kSame,     kSame,     kSame,     kWaiting,   kSame},
        /* image_activated  */ {kSame,     kSame,     kSame,     kRestart,   kSame},
    }};
    // clang-format on
    const S next = kNext[static_cast<std::size_t>(trigger)][static_cast<std::size_t>(state)];
    return next == kSame ? state : next;
}

}  // namespace ota

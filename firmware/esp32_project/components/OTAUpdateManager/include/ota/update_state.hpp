#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ota {

enum class UpdateState : std::uint8_t {
    self_test,  ///< A new app on its trial.
    idle,       ///< Nothing to do.
    waiting,    ///< A release was accepted; its random delay or back-off runs.
    downloading,
    restarting,  ///< Until the last message is out.
};
inline constexpr std::size_t kUpdateStateCount = 5;

/// What moves an update from one state to another.
enum class UpdateTrigger : std::uint8_t {
    trial_began,       ///< At boot: the running app has to prove itself.
    trial_passed,      ///< It has.
    trial_failed,      ///< It has not, and was given up.
    release_accepted,  ///< Also in place of another that was under way.
    release_dropped,   ///< Withdrawn, expired, disowned by a check-in, or failed for good.
    wait_over,         ///< The delay or back-off has passed.
    download_failed,   ///< It is tried again later.
    image_activated,   ///< The new image is the one to boot.
};
inline constexpr std::size_t kUpdateTriggerCount = 8;

/// The life of an update. A device boots into `idle`, and into nothing else: what an earlier boot left is
/// in NVS and otadata, and `restarting` ends with the power.
///
/// @return the state that follows; the same one where the trigger has no meaning.
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
        /* image_activated  */ {kSame,     kSame,     kSame,     kRestart,   kSame},
    }};
    // clang-format on
    const S next = kNext[static_cast<std::size_t>(trigger)][static_cast<std::size_t>(state)];
    return next == kSame ? state : next;
}

}  // namespace ota

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ota/back_off.hpp"
#include "ota/heap_text.hpp"
#include "ota/nvs_storage_handler.hpp"
#include "ota/patience.hpp"
#include "ota/sha256.hpp"
#include "ota/update_config.hpp"

namespace ota {

/// How often a release may fail before it is refused for good.
inline constexpr std::uint16_t kMaxAttempts = 3;

/// The app that runs.
struct RunningApp {
    std::string version;
    bool version_is_authentic = true;  ///< See DeviceFacts.
    std::int64_t sequence = 0;         ///< Of the release installed last; 0: none.
};

/// The accepted release: what the download needs from the manifest.
struct AcceptedRelease {
    std::string id;
    std::string version;
    bool version_is_authentic = true;
    bool strict_app_version = false;
    std::optional<std::uint32_t> max_delay_s;
    std::int64_t sequence = 0;
    std::int64_t expires = 0;
    std::uint32_t size = 0;
    std::uint32_t furthest = 0;  ///< Most bytes that any download of it has confirmed.
    Sha256Digest sha256{};
    HeapText signature;  ///< Of the image.
};

/// What the parts of the update share. OTAUpdateManager owns it.
struct UpdateContext {
    const UpdateConfig& config;
    const UpdatePorts ports;
    UpdateObserver& observer;
    NVSStorageHandler storage;
    BackOff back_off;
    Patience patience;
    RunningApp running;  ///< Only Trial writes it.
    /// The release under way. NotificationIntake sets it, the manager clears it.
    std::optional<AcceptedRelease> release;
};

}  // namespace ota

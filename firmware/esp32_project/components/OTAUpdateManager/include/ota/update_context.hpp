#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ota/back_off.hpp"
#include "ota/heap_text.hpp"
#include "ota/nvs_storage_handler.hpp"
#include "ota/sha256.hpp"
#include "ota/update_config.hpp"

namespace ota {

/// Times that an image of one release may turn out bad before it is refused for good.
inline constexpr std::uint16_t kMaxAttempts = 3;

/// The app that runs.
struct RunningApp {
    std::string version;
    bool version_is_authentic = true;  ///< See DeviceFacts.
    std::int64_t sequence = 0;         ///< Of the release installed last; 0: none.
};

/// The release that was accepted: what the download needs of the manifest.
struct AcceptedRelease {
    std::string id;
    std::string version;
    bool version_is_authentic = true;
    bool strict_app_version = false;
    std::optional<std::uint32_t> max_delay_s;
    std::int64_t sequence = 0;
    std::int64_t expires = 0;
    std::uint32_t size = 0;
    std::uint32_t furthest = 0;  ///< Most bytes of it that a download has confirmed.
    Sha256Digest sha256{};
    HeapText signature;  ///< Of the image.
};

/// What the parts of the update share. OTAUpdateManager owns it and outlives them all.
struct UpdateContext {
    const UpdateConfig& config;
    const UpdatePorts ports;
    UpdateObserver& observer;
    NVSStorageHandler storage;
    BackOff back_off;
    RunningApp running;  ///< Written by Trial alone.
    std::optional<AcceptedRelease>
        release;  ///< Under way. Set by NotificationIntake, cleared by the manager.
};

}  // namespace ota

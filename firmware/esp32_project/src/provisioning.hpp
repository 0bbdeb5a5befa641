#pragma once

#include <optional>
#include <string>

/// What makes one device of many: written to the NVS partition when it is made (firmware/README.md),
/// and no part of any image.
struct Provisioning {
    std::string wifi_ssid;
    std::string wifi_password;
    std::string mqtt_host;
    std::string mqtt_certificate;  ///< PEM
    std::string mqtt_key;          ///< PEM
    std::string api_url;           ///< Base of the download API, without a slash at the end.
    std::string api_key;
};

/// Reads the namespace `provisioning` of the NVS partition.
/// @return nothing when a value is missing; the log names it.
std::optional<Provisioning> read_provisioning();

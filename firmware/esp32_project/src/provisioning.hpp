#pragma once

#include <optional>
#include <string>

/// What distinguishes one device from another: flashed to its NVS partition when the device is made
/// (README.md), and not part of any image.
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
/// @return nothing if a value is missing; the log names it.
std::optional<Provisioning> read_provisioning();

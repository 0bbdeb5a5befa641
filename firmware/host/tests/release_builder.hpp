#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "esp_image_builder.hpp"
#include "signing_key.hpp"

namespace ota::test {

/// A release as the pipeline would announce it. Fields with JSON text are inserted unchanged, so that a
/// test can put anything there.
struct Release {
    // Signed
    int schema = 1;
    std::string product = "sensor";
    std::string version = "2.0.0";
    std::int64_t sequence = 100;
    std::string expires = "2030-01-01T00:00:00Z";
    std::string chip = "esp32";
    std::string targets = R"("all")";
    bool allow_downgrade = false;
    std::string more_manifest;  ///< For example `,"strict_app_version":true`
    std::vector<std::uint8_t> image;
    std::string image_signature;  ///< base64; empty: by `signer`
    const SigningKey* signer = &trusted_key();

    // Not signed
    std::string claimed_id;         ///< Empty: the right one.
    std::string announced_version;  ///< Empty: the signed one.
    std::string more_notification = R"(,"max_delay":0)";

    [[nodiscard]] std::string manifest() const;
    /// The id that the manifest gives the release.
    [[nodiscard]] std::string id() const;
    [[nodiscard]] std::string envelope() const;
    [[nodiscard]] std::string notification() const;
    /// The notification with a different envelope.
    [[nodiscard]] std::string notification_with(const std::string& envelope) const;
};

/// An envelope over any payload.
std::string seal(const SigningKey& key, const std::string& payload,
                 const std::string& type = "application/vnd.esp32-ota.manifest+json");

std::string sha256_hex(const std::vector<std::uint8_t>& bytes);

/// `text` with the first `from` replaced; fails if `from` does not occur.
std::string replaced(std::string text, const std::string& from, const std::string& to);

}  // namespace ota::test

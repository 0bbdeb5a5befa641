#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ota::host {

struct ImageSpec {
    std::uint16_t chip_id = 0;
    std::string version;  ///< In the app description, at most 31 characters.
    std::string project = "firmware";
    std::size_t size = 65536;  ///< Of the whole image, a multiple of 16, at least 512.
    std::uint32_t seed = 1;    ///< Images with different seeds have different content.
};

/// Builds an image that ESP-IDF's image check accepts: header, one segment that starts with an app
/// description, checksum, appended SHA-256.
std::vector<std::uint8_t> build_image(const ImageSpec& spec);

/// A whole flash with the image in ota_0, and the rest erased.
std::vector<std::uint8_t> build_flash(const std::vector<std::uint8_t>& image);

}  // namespace ota::host

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ota/reason.hpp"

namespace ota {

/// Size of an ESP application image's header, first segment header and app description together
/// (esp_app_format.h, esp_app_desc.h of ESP-IDF). One app stores a digest over this many bytes in NVS and
/// the next one compares it, so no version may change the size.
inline constexpr std::size_t kImageHeadSize = 0x20 + 256;

/// Checks the head of an image: magic 0xE9, 1 to 16 segments, the chip, and that an app description
/// follows. SHA-256, signature and bootloader check the rest.
/// @param head kImageHeadSize bytes.
/// @param[out] app_version version in the app description, without a `v` before a SemVer version.
/// @return none, image_bad_header, image_wrong_chip or image_no_app_description.
Reason check_image_head(const std::uint8_t* head, std::uint16_t chip_id, std::string& app_version);

}  // namespace ota

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ota/reason.hpp"

namespace ota {

/// Bytes at the start of an ESP application image that hold its header, the header of the first
/// segment and the app description (esp_app_format.h, esp_app_desc.h of ESP-IDF). One app stores a digest
/// of so many in NVS, and the next compares: no version may change it.
inline constexpr std::size_t kImageHeadSize = 0x20 + 256;

/// Checks the head of an image: magic 0xE9, 1 to 16 segments, the chip, and that an app description
/// follows. What comes after the head is the business of SHA-256, signature and bootloader.
/// @param head kImageHeadSize bytes.
/// @param[out] app_version version in the app description, without the `v` that may stand before a SemVer.
/// @return none, image_bad_header, image_wrong_chip or image_no_app_description.
Reason check_image_head(const std::uint8_t* head, std::uint16_t chip_id, std::string& app_version);

}  // namespace ota

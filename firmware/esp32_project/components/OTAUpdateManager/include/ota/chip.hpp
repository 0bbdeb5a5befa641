#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace ota {

/// Id that no chip has.
inline constexpr std::uint16_t kNoChip = 0xFFFF;

/// Id of a chip in the image header (`esp_chip_id_t` of ESP-IDF's esp_app_format.h), by the name that
/// a manifest uses. @return nothing for a name that is not known.
std::optional<std::uint16_t> chip_id_of(std::string_view chip);

}  // namespace ota

#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace ota {

/// Id that no chip has.
inline constexpr std::uint16_t kNoChip = 0xFFFF;

/// Id of a chip in the image header (`esp_chip_id_t` of ESP-IDF's esp_app_format.h), by its name in a
/// manifest. @return nothing for an unknown name.
std::optional<std::uint16_t> chip_id_of(std::string_view chip);

}  // namespace ota

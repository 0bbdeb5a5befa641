#include "ota/esp_image.hpp"

#include <cstring>

#include "ota/semver.hpp"

namespace ota {

Reason check_image_head(const std::uint8_t* head, std::uint16_t chip_id, std::string& app_version) {
    constexpr std::uint8_t kImageMagic = 0xE9;
    constexpr std::uint8_t kMaxSegments = 16;
    constexpr std::uint8_t kAppDescriptionMagic[] = {0x32, 0x54, 0xCD, 0xAB};  // ABCD5432, little-endian
    constexpr std::size_t kChipIdOffset = 12;
    constexpr std::size_t kAppDescriptionOffset = 0x20;
    constexpr std::size_t kVersionOffset = kAppDescriptionOffset + 16;
    constexpr std::size_t kVersionSize = 32;

    if (head[0] != kImageMagic || head[1] == 0 || head[1] > kMaxSegments) {
        return Reason::image_bad_header;
    }
    if ((head[kChipIdOffset] | (head[kChipIdOffset + 1] << 8)) != chip_id) {
        return Reason::image_wrong_chip;
    }
    if (std::memcmp(head + kAppDescriptionOffset, kAppDescriptionMagic, sizeof(kAppDescriptionMagic)) != 0) {
        return Reason::image_no_app_description;
    }
    const char* const version = reinterpret_cast<const char*>(head) + kVersionOffset;
    app_version.assign(version, strnlen(version, kVersionSize));
    if (app_version.size() > 1 && app_version.front() == 'v' && is_semver(app_version.c_str() + 1)) {
        app_version.erase(0, 1);  // As `git describe` writes it.
    }
    return Reason::none;
}

}  // namespace ota

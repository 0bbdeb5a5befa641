#include "ota/chip.hpp"

namespace ota {

std::optional<std::uint16_t> chip_id_of(std::string_view chip) {
    struct Entry {
        std::string_view name;
        std::uint16_t id;
    };
    constexpr Entry kChips[] = {
        {"esp32", 0x00},   {"esp32s2", 0x02}, {"esp32c3", 0x05}, {"esp32s3", 0x09},  {"esp32c2", 0x0C},
        {"esp32c6", 0x0D}, {"esp32h2", 0x10}, {"esp32p4", 0x12}, {"esp32c61", 0x14}, {"esp32c5", 0x17},
        {"esp32h21", 0x19}, {"esp32h4", 0x1C}, {"esp32e22", 0x1F}, {"esp32s31", 0x20},
    };
    for (const Entry& entry : kChips) {
        if (entry.name == chip) {
            return entry.id;
        }
    }
    return std::nullopt;
}

}  // namespace ota

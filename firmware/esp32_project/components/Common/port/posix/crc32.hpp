#pragma once

#include <cstddef>
#include <cstdint>

namespace ota::posix {

/// CRC-32 (IEEE 802.3, reflected) as `esp_rom_crc32_le` computes it: both `crc` and the result are
/// inverted.
inline std::uint32_t crc32_le(std::uint32_t crc, const void* bytes, std::size_t size) {
    constexpr std::uint32_t kPolynomial = 0xEDB88320U;
    const auto* const source = static_cast<const std::uint8_t*>(bytes);
    crc = ~crc;
    for (std::size_t i = 0; i < size; ++i) {
        crc ^= source[i];
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? kPolynomial : 0U);
        }
    }
    return ~crc;
}

}  // namespace ota::posix

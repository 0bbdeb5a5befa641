#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ota {

/// Lower-case hexadecimal digits of `size` bytes.
std::string hex_encode(const std::uint8_t* bytes, std::size_t size);

/// Decodes exactly `size` bytes from `2 * size` digits in either case. @return false for other input.
[[nodiscard]] bool hex_decode(std::string_view digits, std::uint8_t* bytes, std::size_t size);

/// Value of a hexadecimal digit, or -1.
[[nodiscard]] int hex_digit_value(char digit);

}  // namespace ota

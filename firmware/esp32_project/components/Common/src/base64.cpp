#include "ota/base64.hpp"

#include <cstdint>

namespace ota {
namespace {

int digit_value(char digit) {
    if (digit >= 'A' && digit <= 'Z') {
        return digit - 'A';
    }
    if (digit >= 'a' && digit <= 'z') {
        return digit - 'a' + 26;
    }
    if (digit >= '0' && digit <= '9') {
        return digit - '0' + 52;
    }
    if (digit == '+' || digit == '-') {
        return 62;
    }
    if (digit == '/' || digit == '_') {
        return 63;
    }
    return -1;
}

}  // namespace

bool base64_decode_in_place(TextSpan& text) {
    if (text.size % 4 != 0) {
        return false;
    }
    std::size_t digits = text.size;
    while (digits > 0 && text.size - digits < 2 && text.data[digits - 1] == '=') {
        --digits;
    }
    std::uint32_t bits = 0;
    int bit_count = 0;
    std::size_t written = 0;
    for (std::size_t i = 0; i < digits; ++i) {
        const int value = digit_value(text.data[i]);
        if (value < 0) {
            return false;
        }
        bits = (bits << 6U) | static_cast<std::uint32_t>(value);
        bit_count += 6;
        if (bit_count >= 8) {
            bit_count -= 8;
            // Three bytes replace four digits: what is written was read before.
            text.data[written++] = static_cast<char>(bits >> static_cast<unsigned>(bit_count));
            bits &= (1U << static_cast<unsigned>(bit_count)) - 1U;
        }
    }
    text.size = written;
    return bits == 0;
}

}  // namespace ota

#include "ota/mac_address.hpp"

#include "ota/hex.hpp"

namespace ota {

bool parse_mac(std::string_view text, MacAddress& mac) {
    const bool separated = text.size() == 17;
    if (!separated && text.size() != 12) {
        return false;
    }
    const char separator = separated ? text[2] : ':';
    if (separator != ':' && separator != '-') {
        return false;
    }
    const std::size_t stride = separated ? 3 : 2;
    for (std::size_t i = 0; i < mac.octets.size(); ++i) {
        if (separated && i > 0 && text[i * stride - 1] != separator) {
            return false;
        }
        if (!hex_decode(text.substr(i * stride, 2), &mac.octets[i], 1)) {
            return false;
        }
    }
    return true;
}

std::string format_mac(const MacAddress& mac) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    std::string text;
    text.reserve(17);
    for (const std::uint8_t octet : mac.octets) {
        if (!text.empty()) {
            text += ':';
        }
        text += kDigits[octet >> 4U];
        text += kDigits[octet & 0xFU];
    }
    return text;
}

}  // namespace ota

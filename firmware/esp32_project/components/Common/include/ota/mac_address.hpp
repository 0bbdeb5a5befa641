#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace ota {

/// A 48-bit MAC address.
struct MacAddress {
    std::array<std::uint8_t, 6> octets{};

    bool operator==(const MacAddress& other) const { return octets == other.octets; }
};

/// Reads `AA:BB:CC:DD:EE:FF`, with colons, dashes or no separators, in either case.
[[nodiscard]] bool parse_mac(std::string_view text, MacAddress& mac);

/// `AA:BB:CC:DD:EE:FF`: the thing name and MQTT client id, also used in topics and URLs.
std::string format_mac(const MacAddress& mac);

}  // namespace ota

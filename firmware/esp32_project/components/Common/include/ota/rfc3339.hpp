#pragma once

#include <cstdint>
#include <string_view>

namespace ota {

/// Reads a timestamp of RFC 3339, section 5.6 (`2026-03-01T12:00:00Z`, fraction and offset allowed).
/// @param[out] unix_time seconds since 1970-01-01 UTC; a fraction is dropped.
[[nodiscard]] bool parse_rfc3339(std::string_view text, std::int64_t& unix_time);

}  // namespace ota

#pragma once

#include <string_view>

namespace ota {

/// Longest version that the device stores, in characters.
inline constexpr std::size_t kMaxVersionLength = 64;

/// @return whether `text` is a SemVer 2.0.0 version within the length limit.
[[nodiscard]] bool is_semver(std::string_view text);

/// Precedence of two valid versions (SemVer 2.0.0, section 11; build metadata does not count).
/// @return negative, 0 or positive if `a` is lower than, equal to or higher than `b`.
[[nodiscard]] int compare_semver(std::string_view a, std::string_view b);

}  // namespace ota

#pragma once

#include <string_view>

namespace ota {

/// Longest version that the device stores, in characters.
inline constexpr std::size_t kMaxVersionLength = 64;

/// @return whether `text` is a version of Semantic Versioning 2.0.0 and not longer than the limit.
[[nodiscard]] bool is_semver(std::string_view text);

/// Precedence of two valid versions (SemVer 2.0.0, section 11; build metadata does not count).
/// @return negative, 0 or positive as `a` is before, level with or after `b`.
[[nodiscard]] int compare_semver(std::string_view a, std::string_view b);

}  // namespace ota

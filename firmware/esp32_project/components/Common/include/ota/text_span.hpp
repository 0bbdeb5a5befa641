#pragma once

#include <cstddef>
#include <string_view>

namespace ota {

/// Part of a buffer that its parser may rewrite: escapes and base64 are decoded in place, because the
/// heap has no room for a second copy of a 16 KiB notification.
struct TextSpan {
    char* data = nullptr;
    std::size_t size = 0;

    [[nodiscard]] std::string_view view() const { return {data, size}; }
};

}  // namespace ota

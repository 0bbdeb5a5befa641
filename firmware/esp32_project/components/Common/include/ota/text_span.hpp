#pragma once

#include <cstddef>
#include <string_view>

namespace ota {

/// A piece of a buffer that its parser may rewrite: escapes and base64 are decoded where they stand,
/// because a second copy of a 16 KiB notification does not fit the heap.
struct TextSpan {
    char* data = nullptr;
    std::size_t size = 0;

    [[nodiscard]] std::string_view view() const { return {data, size}; }
};

}  // namespace ota

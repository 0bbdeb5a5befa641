#pragma once

namespace ota {

/// Result of a storage operation. Nothing here throws: ESP-IDF builds without exceptions.
enum class [[nodiscard]] PortResult{
    ok,
    not_found,  ///< There is no such key.
    no_space,   ///< The store or the slot is full, or the caller's buffer is too small.
    invalid,    ///< The call is not allowed now, or the stored data fails its check.
    io_error,   ///< The medium failed.
};

}  // namespace ota

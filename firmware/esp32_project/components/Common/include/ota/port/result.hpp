#pragma once

namespace ota {

/// What a storage port answers. Nothing here throws: ESP-IDF builds without exceptions.
enum class [[nodiscard]] PortResult{
    ok,
    not_found,  ///< There is no such key.
    no_space,   ///< The store or the slot is full, or the caller's buffer is too small.
    invalid,    ///< The call is not allowed now, or what is stored fails its own check.
    io_error,   ///< The medium failed.
};

}  // namespace ota

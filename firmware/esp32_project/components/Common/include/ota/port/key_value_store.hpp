#pragma once

#include <cstddef>
#include <memory>

#include "ota/port/result.hpp"

namespace ota {

/// Small values that survive a restart.
///
/// `esp_idf`: one NVS namespace, blobs. `posix`: a log in the NVS partition of the flash file.
/// A key has at most 15 characters (NVS's limit), a value at most kMaxValueSize bytes.
class KeyValueStore {
public:
    static constexpr std::size_t kMaxKeyLength = 15;
    static constexpr std::size_t kMaxValueSize = 512;

    virtual ~KeyValueStore() = default;

    /// Copies the value of `key` to `buffer`.
    /// @param[in,out] size in: room in `buffer`; out: bytes of the value.
    /// @return ok; not_found; no_space if the value is larger than the buffer; io_error.
    virtual PortResult get(const char* key, void* buffer, std::size_t& size) const = 0;

    /// Stores the value. Even if the power fails, `get` then returns either the old value or the new
    /// one, complete. When this returns ok, the value is in flash.
    /// @return ok; no_space; invalid for a key or value that is too long; io_error.
    virtual PortResult set(const char* key, const void* value, std::size_t size) = 0;

    /// Removes the key, with the same guarantee if the power fails.
    /// @return ok, also if there was none; io_error.
    virtual PortResult erase(const char* key) = 0;
};

/// Opens the store of the update component.
/// @param medium as for make_flash_slots().
/// @return nullptr if it cannot be opened (esp_idf: also if nvs_flash_init() was not called. The port
///         never erases the NVS partition, which also holds the device's certificate and key).
std::unique_ptr<KeyValueStore> make_key_value_store(const char* medium);

}  // namespace ota

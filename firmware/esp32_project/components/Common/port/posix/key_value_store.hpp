#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nor_flash.hpp"
#include "ota/port/key_value_store.hpp"

namespace ota::posix {

/// Values in the NVS partition of a NorFlash: a log of records in one of two sectors. A full sector is
/// copied to the other one, without superseded records, and the header is written last. So one sector
/// is complete at any moment. The format is this port's own, not ESP-IDF's.
class KeyValueStore final : public ota::KeyValueStore {
public:
    explicit KeyValueStore(std::shared_ptr<NorFlash> flash);

    PortResult get(const char* key, void* buffer, std::size_t& size) const override;
    PortResult set(const char* key, const void* value, std::size_t size) override;
    PortResult erase(const char* key) override;

private:
    using Value = std::vector<std::uint8_t>;

    void load();
    [[nodiscard]] std::size_t sector_offset(std::size_t sector) const;
    PortResult append(const std::string& key, const Value* value);
    PortResult compact();

    std::shared_ptr<NorFlash> flash_;
    std::map<std::string, Value> values_;
    std::size_t sector_ = 0;
    std::uint32_t generation_ = 0;  ///< 0: no sector is valid yet.
    std::size_t end_ = 0;           ///< Where the next record goes, from the start of the sector.
};

}  // namespace ota::posix

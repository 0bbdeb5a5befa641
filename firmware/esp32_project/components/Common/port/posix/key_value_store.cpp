#include "key_value_store.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "crc32.hpp"
#include "flash_layout.hpp"
#include "ota/port/flash_slots.hpp"

namespace ota::posix {
namespace {

constexpr std::uint32_t kSectorMagic = 0x4B564F54;
constexpr std::uint16_t kErased = 0xFFFF;  ///< Size of the value in the record of an erased key.

struct SectorHeader {
    std::uint32_t magic;
    std::uint32_t generation;  ///< The valid sector with the higher one counts.
    std::uint32_t crc;         ///< Over the two fields before.
};

struct RecordHeader {
    std::uint32_t crc;  ///< Over what follows: sizes, key, value.
    std::uint16_t key_size;
    std::uint16_t value_size;
};

std::uint32_t crc_of(const SectorHeader& header) {
    return crc32_le(0, &header, offsetof(SectorHeader, crc));
}

std::vector<std::uint8_t> encode(const std::string& key, const std::vector<std::uint8_t>* value) {
    RecordHeader header{};
    header.key_size = static_cast<std::uint16_t>(key.size());
    header.value_size = value != nullptr ? static_cast<std::uint16_t>(value->size()) : kErased;
    std::vector<std::uint8_t> record(sizeof(header) + key.size() + (value != nullptr ? value->size() : 0));
    std::memcpy(record.data(), &header, sizeof(header));
    const auto after_key =
        std::copy(key.begin(), key.end(), record.begin() + static_cast<std::ptrdiff_t>(sizeof(header)));
    if (value != nullptr) {
        std::copy(value->begin(), value->end(), after_key);
    }
    header.crc = crc32_le(0, record.data() + sizeof(header.crc), record.size() - sizeof(header.crc));
    std::memcpy(record.data(), &header.crc, sizeof(header.crc));
    return record;
}

}  // namespace

KeyValueStore::KeyValueStore(std::shared_ptr<NorFlash> flash) : flash_(std::move(flash)) {
    load();
}

std::size_t KeyValueStore::sector_offset(std::size_t sector) const {
    return kNvsOffset + sector * kFlashSectorSize;
}

void KeyValueStore::load() {
    for (std::size_t sector = 0; sector < 2; ++sector) {
        SectorHeader header{};
        (void)flash_->read(sector_offset(sector), &header, sizeof(header));
        if (header.magic == kSectorMagic && header.crc == crc_of(header) && header.generation > generation_) {
            sector_ = sector;
            generation_ = header.generation;
        }
    }
    if (generation_ == 0) {
        return;
    }
    std::array<std::uint8_t, kFlashSectorSize> bytes{};
    (void)flash_->read(sector_offset(sector_), bytes.data(), bytes.size());
    end_ = sizeof(SectorHeader);
    while (bytes.size() - end_ >= sizeof(RecordHeader)) {
        RecordHeader header{};
        const std::uint8_t* const record = bytes.data() + end_;
        std::memcpy(&header, record, sizeof(header));
        const std::size_t value_size = header.value_size == kErased ? 0 : header.value_size;
        const std::size_t size = sizeof(header) + header.key_size + value_size;
        if (header.key_size > kMaxKeyLength || value_size > kMaxValueSize || size > bytes.size() - end_ ||
            header.crc != crc32_le(0, record + sizeof(header.crc), size - sizeof(header.crc))) {
            break;
        }
        const std::uint8_t* const key = record + sizeof(header);
        const std::string name(key, key + header.key_size);
        if (header.value_size == kErased) {
            values_.erase(name);
        } else {
            values_[name].assign(key + header.key_size, key + header.key_size + value_size);
        }
        end_ += size;
    }
    // A record torn by a power cut cannot be overwritten, so the next one is appended.
    for (std::size_t i = end_; i < bytes.size(); ++i) {
        if (bytes[i] != 0xFF) {
            end_ = bytes.size();
        }
    }
}

PortResult KeyValueStore::get(const char* key, void* buffer, std::size_t& size) const {
    const auto found = values_.find(key);
    if (found == values_.end()) {
        return PortResult::not_found;
    }
    if (found->second.size() > size) {
        return PortResult::no_space;
    }
    size = found->second.size();
    std::copy(found->second.begin(), found->second.end(), static_cast<std::uint8_t*>(buffer));
    return PortResult::ok;
}

PortResult KeyValueStore::set(const char* key, const void* value, std::size_t size) {
    const std::string name = key;
    if (name.empty() || name.size() > kMaxKeyLength || size > kMaxValueSize) {
        return PortResult::invalid;
    }
    const auto* const bytes = static_cast<const std::uint8_t*>(value);
    Value& stored = values_[name];
    stored.assign(bytes, bytes + size);
    return append(name, &stored);
}

PortResult KeyValueStore::erase(const char* key) {
    return values_.erase(key) == 0 ? PortResult::ok : append(key, nullptr);
}

PortResult KeyValueStore::append(const std::string& key, const Value* value) {
    const std::vector<std::uint8_t> record = encode(key, value);
    if (generation_ == 0 || record.size() > kFlashSectorSize - end_) {
        return compact();
    }
    const std::size_t offset = sector_offset(sector_) + end_;
    end_ += record.size();
    return flash_->write(offset, record.data(), record.size()) ? PortResult::ok : PortResult::io_error;
}

PortResult KeyValueStore::compact() {
    const std::size_t target = generation_ == 0 ? 0 : 1 - sector_;
    std::size_t end = sizeof(SectorHeader);
    if (!flash_->erase_sector(sector_offset(target))) {
        return PortResult::io_error;
    }
    for (const auto& [key, value] : values_) {
        const std::vector<std::uint8_t> record = encode(key, &value);
        if (record.size() > kFlashSectorSize - end) {
            return PortResult::no_space;
        }
        if (!flash_->write(sector_offset(target) + end, record.data(), record.size())) {
            return PortResult::io_error;
        }
        end += record.size();
    }
    SectorHeader header{kSectorMagic, generation_ + 1, 0};
    header.crc = crc_of(header);
    if (!flash_->write(sector_offset(target), &header, sizeof(header))) {
        return PortResult::io_error;
    }
    sector_ = target;
    generation_ = header.generation;
    end_ = end;
    return PortResult::ok;
}

}  // namespace ota::posix

namespace ota {

std::unique_ptr<KeyValueStore> make_key_value_store(const char* medium) {
    auto flash = std::make_shared<posix::FileFlash>(medium);
    return flash->is_open() ? std::make_unique<posix::KeyValueStore>(std::move(flash)) : nullptr;
}

}  // namespace ota

// What a device finds in flash when it starts: records, the store that holds them, and otadata.

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "crc32.hpp"
#include "esp_image_builder.hpp"
#include "flash_layout.hpp"
#include "flash_slots.hpp"
#include "key_value_store.hpp"
#include "ota/nvs_storage_handler.hpp"
#include "require.hpp"

using ota::PortResult;

namespace {

class MemoryStore final : public ota::KeyValueStore {
public:
    PortResult get(const char* key, void* buffer, std::size_t& size) const override {
        const auto found = values.find(key);
        if (found == values.end() || found->second.size() > size) {
            return PortResult::not_found;
        }
        size = found->second.size();
        std::memcpy(buffer, found->second.data(), size);
        return PortResult::ok;
    }
    PortResult set(const char* key, const void* value, std::size_t size) override {
        values[key].assign(static_cast<const std::uint8_t*>(value),
                           static_cast<const std::uint8_t*>(value) + size);
        return PortResult::ok;
    }
    PortResult erase(const char* key) override {
        values.erase(key);
        return PortResult::ok;
    }

    std::map<std::string, std::vector<std::uint8_t>> values;
};

/// A record that can be read is written back unchanged, except that any true becomes 1.
template <typename Record>
void read_record(const std::uint8_t* bytes, std::size_t size) {
    Record record;
    if (size > ota::KeyValueStore::kMaxValueSize || !ota::decode(bytes, size, record)) {
        return;
    }
    MemoryStore store;
    REQUIRE(ota::NVSStorageHandler(store).set(record));
    const std::vector<std::uint8_t>& written = store.values.begin()->second;
    REQUIRE(written.size() == size);
    Record again;
    REQUIRE(ota::decode(written.data(), written.size(), again));
    MemoryStore second;
    REQUIRE(ota::NVSStorageHandler(second).set(again));
    REQUIRE(second.values == store.values);
}

/// The flash of a device with a whole image in both slots.
std::vector<std::uint8_t>& flash_bytes() {
    static std::vector<std::uint8_t> bytes = [] {
        ota::host::ImageSpec spec;
        spec.size = 512;
        const std::vector<std::uint8_t> image = ota::host::build_image(spec);
        std::vector<std::uint8_t> flash = ota::host::build_flash(image);
        std::copy(image.begin(), image.end(), flash.begin() + ota::posix::kSlotOffset[1]);
        return flash;
    }();
    return bytes;
}

std::shared_ptr<ota::posix::NorFlash> flash_with(std::size_t offset, std::size_t room,
                                                 const std::uint8_t* content, std::size_t size) {
    std::vector<std::uint8_t>& bytes = flash_bytes();
    const auto start = bytes.begin() + static_cast<std::ptrdiff_t>(offset);
    std::fill(start, start + static_cast<std::ptrdiff_t>(room), std::uint8_t{0xFF});
    std::copy(content, content + std::min(size, room), start);
    return std::make_shared<ota::posix::NorFlash>(bytes.data(), bytes.size());
}

void read_store(const std::uint8_t* content, std::size_t size) {
    const auto flash = flash_with(ota::posix::kNvsOffset, ota::posix::kNvsSize, content, size);
    ota::posix::KeyValueStore store(flash);
    REQUIRE(store.set("key", "value", 5) == PortResult::ok);
    char value[5];
    std::size_t value_size = sizeof(value);
    REQUIRE(ota::posix::KeyValueStore(flash).get("key", value, value_size) == PortResult::ok);
    REQUIRE(std::string(value, value_size) == "value");
}

/// A store that was filled, then damaged: undamaged records are found, and the store stays usable.
void read_damaged_store(const std::uint8_t* content, std::size_t size) {
    const auto flash = flash_with(ota::posix::kNvsOffset, ota::posix::kNvsSize, content, 0);
    const std::size_t used = size / 2;
    ota::posix::KeyValueStore store(flash);
    for (std::size_t at = 0; at + 2 <= used; at += 2) {
        const std::string key = "key" + std::to_string(content[at] % 4);
        const std::vector<std::uint8_t> value(content[at + 1] * 2, content[at]);
        REQUIRE((value.empty() ? store.erase(key.c_str())
                               : store.set(key.c_str(), value.data(), value.size())) == PortResult::ok);
    }
    for (std::size_t at = used; at + 3 <= size; at += 3) {
        const std::size_t where = (content[at] * 256U + content[at + 1]) % ota::posix::kNvsSize;
        flash_bytes()[ota::posix::kNvsOffset + where] ^= content[at + 2];
    }
    ota::posix::KeyValueStore damaged(flash);
    REQUIRE(damaged.set("key", "value", 5) == PortResult::ok);
    char value[5];
    std::size_t value_size = sizeof(value);
    REQUIRE(ota::posix::KeyValueStore(flash).get("key", value, value_size) == PortResult::ok);
}

/// Whatever is in otadata, a device with complete images boots one of them, and can be updated.
void read_otadata(const std::uint8_t* content, std::size_t size, bool with_right_crc) {
    const auto flash = flash_with(ota::posix::kOtaDataOffset, ota::posix::kOtaDataSize, nullptr, 0);
    std::array<std::uint32_t, 2> sequences{};
    for (std::size_t i = 0; i < 2; ++i) {
        ota::posix::OtaSelectEntry entry;
        std::memset(&entry, 0xFF, sizeof(entry));
        if (size >= (i + 1) * sizeof(entry)) {
            std::memcpy(&entry, content + i * sizeof(entry), sizeof(entry));
        }
        // It counts activations, and flash endures about 100,000 of them.
        entry.ota_seq = entry.ota_seq == UINT32_MAX ? UINT32_MAX : entry.ota_seq % 1000000;
        if (with_right_crc) {
            entry.ota_state = entry.ota_state % 6 == 5 ? UINT32_MAX : entry.ota_state % 6;
            entry.crc = ota::posix::crc32_le(UINT32_MAX, &entry.ota_seq, sizeof(entry.ota_seq));
        }
        sequences[i] = entry.ota_seq;
        REQUIRE(flash->write(ota::posix::kOtaDataOffset + i * ota::kFlashSectorSize, &entry, sizeof(entry)));
    }
    auto slots = ota::posix::FlashSlots::boot(flash);
    REQUIRE(slots != nullptr);
    const int running = slots->running_slot();
    REQUIRE(slots->update_slot() == 1 - running);
    // No device writes two entries for one slot, and nothing tells them apart (esp_ota_ops.c).
    if (sequences[0] % 2 == sequences[1] % 2) {
        return;
    }
    (void)slots->mark_running_valid();
    if (slots->state(running) != ota::SlotState::pending_verify && slots->activate() == PortResult::ok) {
        slots = ota::posix::FlashSlots::boot(flash);
        REQUIRE(slots != nullptr);
        REQUIRE(slots->running_slot() == 1 - running);
        REQUIRE(slots->state(1 - running) == ota::SlotState::pending_verify);
        REQUIRE(ota::posix::FlashSlots::boot(flash)->running_slot() == running);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
    if (size == 0) {
        return 0;
    }
    // A block of exactly the right size, so that reading past it is detected.
    const std::vector<std::uint8_t> content(input + 1, input + size);
    switch (input[0] % 9) {
        case 0:
            read_record<ota::InstalledRelease>(content.data(), content.size());
            break;
        case 1:
            read_record<ota::PendingUpdate>(content.data(), content.size());
            break;
        case 2:
            read_record<ota::DownloadProgress>(content.data(), content.size());
            break;
        case 3:
            read_record<ota::FailureRecord>(content.data(), content.size());
            read_record<ota::WaitRecord>(content.data(), content.size());
            break;
        case 4:
            read_record<ota::PendingReport>(content.data(), content.size());
            break;
        case 5:
            read_store(content.data(), content.size());
            break;
        case 6:
            read_damaged_store(content.data(), content.size());
            break;
        default:
            read_otadata(content.data(), content.size(), input[0] % 9 == 7);
    }
    return 0;
}

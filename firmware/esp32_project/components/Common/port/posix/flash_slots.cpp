#include "flash_slots.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "crc32.hpp"
#include "flash_layout.hpp"
#include "ota/sha256.hpp"

namespace ota::posix {
namespace {

// esp_ota_img_states_t
constexpr std::uint32_t kStateNew = 0;
constexpr std::uint32_t kStatePendingVerify = 1;
constexpr std::uint32_t kStateValid = 2;
constexpr std::uint32_t kStateInvalid = 3;
constexpr std::uint32_t kStateAborted = 4;

constexpr std::uint32_t kEmptySequence = UINT32_MAX;
constexpr int kSlotCount = 2;

using OtaData = std::array<OtaSelectEntry, 2>;

std::uint32_t crc_of(const OtaSelectEntry& entry) {
    return crc32_le(UINT32_MAX, &entry.ota_seq, sizeof(entry.ota_seq));
}

int slot_of(const OtaSelectEntry& entry) {
    return static_cast<int>((entry.ota_seq - 1) % kSlotCount);
}

OtaData read_otadata(const NorFlash& flash) {
    OtaData otadata;
    for (std::size_t i = 0; i < otadata.size(); ++i) {
        (void)flash.read(kOtaDataOffset + i * kFlashSectorSize, &otadata[i], sizeof(otadata[i]));
    }
    return otadata;
}

bool write_entry(NorFlash& flash, std::size_t index, OtaSelectEntry entry) {
    entry.crc = crc_of(entry);
    const std::size_t offset = kOtaDataOffset + index * kFlashSectorSize;
    return flash.erase_sector(offset) && flash.write(offset, &entry, sizeof(entry));
}

/// bootloader_common_ota_select_invalid
bool is_invalid(const OtaSelectEntry& entry) {
    return entry.ota_seq == kEmptySequence || entry.ota_state == kStateInvalid ||
           entry.ota_state == kStateAborted;
}

/// bootloader_common_get_active_otadata. @return index of the active entry, or -1.
int active_entry(const OtaData& otadata) {
    int active = -1;
    for (int i = 0; i < static_cast<int>(otadata.size()); ++i) {
        const OtaSelectEntry& entry = otadata[static_cast<std::size_t>(i)];
        const bool usable = !is_invalid(entry) && entry.crc == crc_of(entry);
        if (usable && (active < 0 || entry.ota_seq > otadata[static_cast<std::size_t>(active)].ota_seq)) {
            active = i;
        }
    }
    return active;
}

bool is_written(const OtaSelectEntry& entry) {
    return entry.ota_seq != kEmptySequence && entry.crc == crc_of(entry);
}

/// esp_rewrite_ota_data: makes `slot` the one to boot, as a new image.
bool rewrite_otadata(NorFlash& flash, int slot) {
    OtaData otadata = read_otadata(flash);
    const int active = active_entry(otadata);
    const std::size_t next = active < 0 ? 0 : static_cast<std::size_t>(1 - active);
    std::uint32_t sequence = static_cast<std::uint32_t>(slot) + 1;
    while (active >= 0 && sequence < otadata[static_cast<std::size_t>(active)].ota_seq) {
        sequence += kSlotCount;
    }
    otadata[next].ota_seq = sequence;
    otadata[next].ota_state = kStateNew;
    return write_entry(flash, next, otadata[next]);
}

/// esp_ota_mark_app_valid_cancel_rollback, which marks the app that otadata names, running or not.
bool mark_active_valid(NorFlash& flash) {
    const OtaData otadata = read_otadata(flash);
    const int active = active_entry(otadata);
    if (active < 0) {
        return false;
    }
    OtaSelectEntry entry = otadata[static_cast<std::size_t>(active)];
    if (entry.ota_state == kStateValid) {
        return true;
    }
    entry.ota_state = kStateValid;
    return write_entry(flash, static_cast<std::size_t>(active), entry);
}

/// As in the esp_idf port: makes otadata name the running app if it does not.
PortResult select_running(NorFlash& flash, int running_slot) {
    const OtaData otadata = read_otadata(flash);
    const int active = active_entry(otadata);
    if (active >= 0 && slot_of(otadata[static_cast<std::size_t>(active)]) == running_slot) {
        return PortResult::ok;
    }
    if (!is_bootable(flash, running_slot)) {
        return PortResult::invalid;
    }
    return rewrite_otadata(flash, running_slot) && mark_active_valid(flash) ? PortResult::ok
                                                                            : PortResult::io_error;
}

/// bootloader_utility_get_selected_boot_partition.
/// @param[out] initial_contents otadata was never written: the bootloader then writes its first entry.
int select_slot(NorFlash& flash, bool& initial_contents) {
    OtaData otadata = read_otadata(flash);
    for (std::size_t i = 0; i < otadata.size(); ++i) {
        if (otadata[i].ota_state == kStatePendingVerify) {
            otadata[i].ota_state = kStateAborted;
            write_entry(flash, i, otadata[i]);
        }
    }
    initial_contents = false;
    if (is_invalid(otadata[0]) && is_invalid(otadata[1])) {
        initial_contents = std::all_of(otadata.begin(), otadata.end(), [](const OtaSelectEntry& entry) {
            return entry.ota_seq == kEmptySequence || entry.crc != crc_of(entry);
        });
        return 0;
    }
    const int active = active_entry(otadata);
    if (active < 0) {
        return -1;  // There is no factory app: all slots are tried, from the first.
    }
    OtaSelectEntry& entry = otadata[static_cast<std::size_t>(active)];
    if (entry.ota_state == kStateNew) {
        entry.ota_state = kStatePendingVerify;
        write_entry(flash, static_cast<std::size_t>(active), entry);
    }
    return slot_of(entry);
}

}  // namespace

bool is_bootable(const NorFlash& flash, int slot) {
    constexpr std::uint8_t kMagic = 0xE9;
    constexpr std::uint8_t kChecksumSeed = 0xEF;
    constexpr std::size_t kHeaderSize = 24;
    constexpr std::size_t kSegmentHeaderSize = 8;
    constexpr std::size_t kHashSize = 32;

    const std::size_t start = kSlotOffset[slot];
    std::array<std::uint8_t, kHeaderSize> header{};
    std::array<std::uint8_t, 4096> buffer{};
    if (!flash.read(start, header.data(), header.size()) || header[0] != kMagic || header[1] == 0 ||
        header[1] > 16) {
        return false;
    }
    Sha256 hash;
    hash.update(header.data(), header.size());
    std::uint8_t checksum = kChecksumSeed;
    std::size_t offset = kHeaderSize;
    for (int segment = 0; segment < header[1]; ++segment) {
        std::array<std::uint8_t, kSegmentHeaderSize> segment_header{};
        if (offset + kSegmentHeaderSize > kSlotSize ||
            !flash.read(start + offset, segment_header.data(), segment_header.size())) {
            return false;
        }
        hash.update(segment_header.data(), segment_header.size());
        offset += kSegmentHeaderSize;
        std::uint32_t length = 0;
        std::memcpy(&length, segment_header.data() + 4, sizeof(length));
        if (length > kSlotSize - offset) {
            return false;
        }
        while (length > 0) {
            const std::size_t size = std::min<std::size_t>(length, buffer.size());
            (void)flash.read(start + offset, buffer.data(), size);
            hash.update(buffer.data(), size);
            for (std::size_t i = 0; i < size; ++i) {
                checksum ^= buffer[i];
            }
            offset += size;
            length -= static_cast<std::uint32_t>(size);
        }
    }
    // The checksum is the last byte before the next multiple of 16.
    const std::size_t padded = (offset / 16 + 1) * 16;
    if (padded + kHashSize > kSlotSize) {
        return false;
    }
    (void)flash.read(start + offset, buffer.data(), padded - offset);
    hash.update(buffer.data(), padded - offset);
    if (buffer[padded - offset - 1] != checksum) {
        return false;
    }
    if (header[23] == 0) {
        return true;
    }
    Sha256Digest expected;
    Sha256Digest digest;
    (void)flash.read(start + padded, expected.data(), expected.size());
    return hash.finish(digest) && digest == expected;
}

std::unique_ptr<FlashSlots> FlashSlots::boot(std::shared_ptr<NorFlash> flash) {
    bool initial_contents = false;
    const int selected = select_slot(*flash, initial_contents);
    // bootloader_utility_load_boot_image: backwards from the selected slot, then forwards.
    std::array<int, kSlotCount> order{0, 1};
    if (selected == 1) {
        order = {1, 0};
    }
    for (const int slot : order) {
        if (!is_bootable(*flash, slot)) {
            continue;
        }
        if (initial_contents) {
            OtaSelectEntry entry;
            std::memset(&entry, 0xFF, sizeof(entry));
            entry.ota_seq = static_cast<std::uint32_t>(slot) + 1;
            entry.ota_state = kStateValid;
            write_entry(*flash, 0, entry);
        }
        return std::unique_ptr<FlashSlots>(new FlashSlots(std::move(flash), slot));
    }
    return nullptr;
}

SlotState FlashSlots::state(int slot) const {
    for (const OtaSelectEntry& entry : read_otadata(*flash_)) {
        if (entry.ota_seq == kEmptySequence || slot_of(entry) != slot || entry.crc != crc_of(entry)) {
            continue;
        }
        switch (entry.ota_state) {
            case kStateNew:
                return SlotState::new_image;
            case kStatePendingVerify:
                return SlotState::pending_verify;
            case kStateValid:
                return SlotState::valid;
            case kStateInvalid:
                return SlotState::invalid;
            case kStateAborted:
                return SlotState::aborted;
            default:
                return SlotState::undefined;
        }
    }
    return SlotState::undefined;
}

std::size_t FlashSlots::update_slot_size() const {
    return kSlotSize;
}

PortResult FlashSlots::read(int slot, std::size_t offset, void* buffer, std::size_t size) const {
    if (slot < 0 || slot >= kSlotCount || offset > kSlotSize || size > kSlotSize - offset) {
        return PortResult::invalid;
    }
    return flash_->read(kSlotOffset[slot] + offset, buffer, size) ? PortResult::ok : PortResult::io_error;
}

PortResult FlashSlots::begin(std::size_t offset) {
    if (state(running_slot_) == SlotState::pending_verify || offset % kFlashSectorSize != 0 ||
        offset >= kSlotSize) {
        return PortResult::invalid;
    }
    if (const PortResult selected = select_running(*flash_, running_slot_); selected != PortResult::ok) {
        return selected;
    }
    // esp_ota_begin erases the entry of the app that is about to be overwritten.
    const OtaData otadata = read_otadata(*flash_);
    const auto inactive = static_cast<std::size_t>(1 - active_entry(otadata));
    if (offset == 0 && is_written(otadata[inactive]) && slot_of(otadata[inactive]) == update_slot() &&
        !flash_->erase_sector(kOtaDataOffset + inactive * kFlashSectorSize)) {
        return PortResult::io_error;
    }
    write_offset_ = offset;
    return PortResult::ok;
}

PortResult FlashSlots::write(const void* data, std::size_t size) {
    if (!write_offset_) {
        return PortResult::invalid;
    }
    if (size > kSlotSize - *write_offset_) {
        return PortResult::no_space;
    }
    const std::size_t start = kSlotOffset[update_slot()];
    const std::size_t first = (*write_offset_ + kFlashSectorSize - 1) / kFlashSectorSize * kFlashSectorSize;
    for (std::size_t sector = first; sector < *write_offset_ + size; sector += kFlashSectorSize) {
        if (!flash_->erase_sector(start + sector)) {
            return PortResult::io_error;
        }
    }
    if (!flash_->write(start + *write_offset_, data, size)) {
        return PortResult::io_error;
    }
    *write_offset_ += size;
    return PortResult::ok;
}

PortResult FlashSlots::activate() {
    write_offset_.reset();
    if (const PortResult selected = select_running(*flash_, running_slot_); selected != PortResult::ok) {
        return selected;
    }
    if (!is_bootable(*flash_, update_slot())) {
        return PortResult::invalid;
    }
    return rewrite_otadata(*flash_, update_slot()) ? PortResult::ok : PortResult::io_error;
}

PortResult FlashSlots::mark_running_valid() {
    const SlotState now = state(running_slot_);
    if (now == SlotState::undefined || now == SlotState::valid) {
        return PortResult::ok;
    }
    return mark_active_valid(*flash_) ? PortResult::ok : PortResult::io_error;
}

PortResult FlashSlots::mark_running_invalid() {
    const OtaData otadata = read_otadata(*flash_);
    const int active = active_entry(otadata);
    // esp_ota_check_rollback_is_possible: the other entry is usable, and so is its image.
    OtaData others = otadata;
    if (active >= 0) {
        others[static_cast<std::size_t>(active)].ota_seq = kEmptySequence;
    }
    const int other = active_entry(others);
    if (active < 0 || other < 0 || !is_bootable(*flash_, slot_of(otadata[static_cast<std::size_t>(other)]))) {
        return PortResult::invalid;
    }
    OtaSelectEntry entry = otadata[static_cast<std::size_t>(active)];
    entry.ota_state = kStateInvalid;
    return write_entry(*flash_, static_cast<std::size_t>(active), entry) ? PortResult::ok
                                                                         : PortResult::io_error;
}

}  // namespace ota::posix

namespace ota {

std::unique_ptr<FlashSlots> make_flash_slots(const char* medium) {
    auto flash = std::make_shared<posix::FileFlash>(medium);
    return flash->is_open() ? posix::FlashSlots::boot(std::move(flash)) : nullptr;
}

}  // namespace ota

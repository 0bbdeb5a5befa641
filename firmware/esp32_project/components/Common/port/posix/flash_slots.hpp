#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "nor_flash.hpp"
#include "ota/port/flash_slots.hpp"

namespace ota::posix {

/// Entry of otadata (`esp_ota_select_entry_t`, esp_flash_partitions.h). Each of the two sectors starts
/// with one.
struct OtaSelectEntry {
    std::uint32_t ota_seq;
    std::uint8_t seq_label[20];
    std::uint32_t ota_state;
    std::uint32_t crc;  ///< Over ota_seq alone.
};

/// The slots in a NorFlash. Boots as ESP-IDF's bootloader does with CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE
/// and no factory app (bootloader_utility.c), and writes otadata as app_update does (esp_ota_ops.c).
class FlashSlots final : public ota::FlashSlots {
public:
    /// Runs the bootloader. @return nullptr when no slot holds a bootable image.
    static std::unique_ptr<FlashSlots> boot(std::shared_ptr<NorFlash> flash);

    [[nodiscard]] int running_slot() const override { return running_slot_; }
    [[nodiscard]] int update_slot() const override { return 1 - running_slot_; }
    [[nodiscard]] SlotState state(int slot) const override;
    [[nodiscard]] std::size_t update_slot_size() const override;
    PortResult read(int slot, std::size_t offset, void* buffer, std::size_t size) const override;
    PortResult begin(std::size_t offset) override;
    PortResult write(const void* data, std::size_t size) override;
    PortResult activate() override;
    PortResult mark_running_valid() override;
    PortResult mark_running_invalid() override;

private:
    FlashSlots(std::shared_ptr<NorFlash> flash, int running_slot)
        : flash_(std::move(flash)), running_slot_(running_slot) {}

    std::shared_ptr<NorFlash> flash_;
    int running_slot_;
    std::optional<std::size_t> write_offset_;  ///< Set between begin() and activate().
};

/// Checks an image in a slot as esp_image_verify does: magic, segments within the slot, checksum, and
/// the appended SHA-256 when the header says there is one.
[[nodiscard]] bool is_bootable(const NorFlash& flash, int slot);

}  // namespace ota::posix

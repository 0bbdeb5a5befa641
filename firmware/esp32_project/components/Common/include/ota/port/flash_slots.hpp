#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "ota/port/result.hpp"

namespace ota {

/// Smallest unit of flash that can be erased, in bytes.
inline constexpr std::size_t kFlashSectorSize = 4096;

/// States of an OTA slot, as ESP-IDF keeps them in otadata (`esp_ota_img_states_t`).
enum class SlotState : std::uint8_t {
    undefined,       ///< otadata has no entry for the slot, or one without a state.
    new_image,       ///< Activated, but not booted yet.
    pending_verify,  ///< First boot: unless the app is marked valid, the next boot undoes it.
    valid,
    invalid,  ///< The app gave itself up (`mark_running_invalid`).
    aborted,  ///< The bootloader undid an app that restarted before it was marked valid.
};

/// The two application slots, and otadata, from which the bootloader chooses between them.
///
/// `esp_idf`: esp_ota_*, esp_partition_*. `posix`: a file that holds the whole 4 MB flash.
/// All writing goes to the update slot; the running one is never touched.
class FlashSlots {
public:
    virtual ~FlashSlots() = default;

    /// Index of the slot that this program was booted from: 0 or 1.
    [[nodiscard]] virtual int running_slot() const = 0;

    /// Index of the slot that an update is written to: 0 or 1, never the running one.
    [[nodiscard]] virtual int update_slot() const = 0;

    /// State of `slot` in otadata; `undefined` when there is no entry or it cannot be read.
    [[nodiscard]] virtual SlotState state(int slot) const = 0;

    /// Size of the update slot in bytes: the largest image that fits.
    [[nodiscard]] virtual std::size_t update_slot_size() const = 0;

    /// Reads `size` bytes at `offset` of `slot`, decrypted where flash encryption is on.
    /// @return ok; invalid if the range exceeds the slot; io_error.
    virtual PortResult read(int slot, std::size_t offset, void* buffer, std::size_t size) const = 0;

    /// Starts (`offset` 0) or resumes writing the update slot. Bytes below `offset`, written after an
    /// earlier `begin`, even before a restart, are kept. Ends an earlier `begin`.
    /// @param offset a multiple of kFlashSectorSize.
    /// @return ok; invalid if the running app is still pending_verify, or if `offset` is not a
    ///         multiple or is outside the slot; io_error.
    virtual PortResult begin(std::size_t offset) = 0;

    /// Appends to the update slot, erasing each sector when it is reached. `size` is a multiple of
    /// kFlashSectorSize, except in the last call for an image.
    /// @return ok; invalid without `begin`; no_space past the end of the slot; io_error.
    virtual PortResult write(const void* data, std::size_t size) = 0;

    /// Checks the image in the update slot as the bootloader does (header, segments, checksum,
    /// appended SHA-256) and makes it the one to boot, as `new_image`. After a restart it also works
    /// without `begin`, if the slot was written completely before.
    /// @return ok; invalid if the image fails that check (otadata is unchanged); io_error.
    virtual PortResult activate() = 0;

    /// Ends the trial of the running app: the bootloader now keeps it.
    /// @return ok, also if it was valid already; io_error.
    virtual PortResult mark_running_valid() = 0;

    /// Gives up the running app: the next boot takes the other slot. Does not restart.
    /// @return ok; invalid if there is no other app that could run; io_error.
    virtual PortResult mark_running_invalid() = 0;
};

/// Opens the slots of this device. Call once per boot.
/// @param medium posix: path of the flash file. The bootloader runs in this call, which stands for
///        switching a chip on. esp_idf: unused, nullptr.
/// @return nullptr if there is no bootable image (posix) or no OTA partition table (esp_idf).
std::unique_ptr<FlashSlots> make_flash_slots(const char* medium);

}  // namespace ota

#include "ota/port/flash_slots.hpp"

#include "esp_log.h"
#include "esp_ota_ops.h"
#include "esp_partition.h"

namespace ota {
namespace {

constexpr char kTag[] = "ota_slots";
constexpr esp_ota_handle_t kNoHandle = 0;  // esp_ota_begin numbers its handles from 1.

PortResult port_result(esp_err_t error) {
    switch (error) {
        case ESP_OK:
            return PortResult::ok;
        case ESP_ERR_INVALID_ARG:
        case ESP_ERR_OTA_VALIDATE_FAILED:
        case ESP_ERR_OTA_ROLLBACK_FAILED:
        case ESP_ERR_OTA_ROLLBACK_INVALID_STATE:
            ESP_LOGW(kTag, "Refused: %s", esp_err_to_name(error));
            return PortResult::invalid;
        case ESP_ERR_INVALID_SIZE:
            return PortResult::no_space;
        default:
            ESP_LOGE(kTag, "Flash failed: %s", esp_err_to_name(error));
            return PortResult::io_error;
    }
}

int slot_index(const esp_partition_t& partition) {
    return partition.subtype - ESP_PARTITION_SUBTYPE_APP_OTA_MIN;
}

class EspFlashSlots final : public FlashSlots {
public:
    EspFlashSlots(const esp_partition_t& running, const esp_partition_t& update)
        : running_(running), update_(update) {}

    int running_slot() const override { return slot_index(running_); }
    int update_slot() const override { return slot_index(update_); }

    SlotState state(int slot) const override {
        const esp_partition_t* const partition = find(slot);
        esp_ota_img_states_t state = ESP_OTA_IMG_UNDEFINED;
        if (partition == nullptr || esp_ota_get_state_partition(partition, &state) != ESP_OK) {
            return SlotState::undefined;
        }
        switch (state) {
            case ESP_OTA_IMG_NEW:
                return SlotState::new_image;
            case ESP_OTA_IMG_PENDING_VERIFY:
                return SlotState::pending_verify;
            case ESP_OTA_IMG_VALID:
                return SlotState::valid;
            case ESP_OTA_IMG_INVALID:
                return SlotState::invalid;
            case ESP_OTA_IMG_ABORTED:
                return SlotState::aborted;
            case ESP_OTA_IMG_UNDEFINED:
                break;
        }
        return SlotState::undefined;
    }

    std::size_t update_slot_size() const override { return update_.size; }

    PortResult read(int slot, std::size_t offset, void* buffer, std::size_t size) const override {
        const esp_partition_t* const partition = find(slot);
        if (partition == nullptr || offset > partition->size || size > partition->size - offset) {
            return PortResult::invalid;
        }
        return port_result(esp_partition_read(partition, offset, buffer, size));
    }

    PortResult begin(std::size_t offset) override {
        abandon();
        // esp_ota_begin checks the state of the running app, but esp_ota_resume does not.
        if (offset % kFlashSectorSize != 0 || offset >= update_.size ||
            state(running_slot()) == SlotState::pending_verify) {
            return PortResult::invalid;
        }
        esp_err_t error = select_running();
        if (error != ESP_OK) {
            return port_result(error);
        }
        // esp_ota_begin also erases the otadata entry of the slot, so that the bootloader cannot
        // fall back to a half-written image. For a resumed write, the first begin did that.
        error = offset == 0 ? esp_ota_begin(&update_, OTA_WITH_SEQUENTIAL_WRITES, &handle_)
                            : esp_ota_resume(&update_, OTA_WITH_SEQUENTIAL_WRITES, offset, &handle_);
        if (error != ESP_OK) {
            abandon();
        }
        return port_result(error);
    }

    PortResult write(const void* data, std::size_t size) override {
        if (handle_ == kNoHandle) {
            return PortResult::invalid;
        }
        return port_result(esp_ota_write(handle_, data, size));
    }

    PortResult activate() override {
        if (handle_ != kNoHandle) {
            // Writes the bytes that flash encryption has held back: it works in blocks of 16.
            const esp_err_t error = esp_ota_end(handle_);
            handle_ = kNoHandle;
            if (error != ESP_OK) {
                return port_result(error);
            }
        }
        const esp_err_t error = select_running();
        return port_result(error == ESP_OK ? esp_ota_set_boot_partition(&update_) : error);
    }

    PortResult mark_running_valid() override {
        const SlotState now = state(running_slot());
        // An app flashed over the serial port has no entry in otadata, so it is not on trial, and
        // esp_ota_mark_app_valid_cancel_rollback would return ESP_FAIL.
        if (now == SlotState::undefined || now == SlotState::valid) {
            return PortResult::ok;
        }
        return port_result(esp_ota_mark_app_valid_cancel_rollback());
    }

    PortResult mark_running_invalid() override {
        const esp_err_t error = esp_ota_mark_app_invalid_rollback();
        // ESP_FAIL: otadata has no usable entry, so there is no app to go back to.
        return error == ESP_FAIL ? PortResult::invalid : port_result(error);
    }

private:
    const esp_partition_t* find(int slot) const {
        if (slot == running_slot()) {
            return &running_;
        }
        return slot == update_slot() ? &update_ : nullptr;
    }

    /// Makes otadata name the running app if it does not, because the bootloader could not load the
    /// app that it names, or because no entry is usable. Otherwise esp_ota_set_boot_partition would
    /// leave no entry for the running app, and so nothing to go back to.
    esp_err_t select_running() const {
        esp_ota_img_states_t entry = ESP_OTA_IMG_UNDEFINED;
        if (esp_ota_get_boot_partition() == &running_ &&
            esp_ota_get_state_partition(&running_, &entry) == ESP_OK && entry != ESP_OTA_IMG_INVALID &&
            entry != ESP_OTA_IMG_ABORTED) {
            return ESP_OK;
        }
        const esp_err_t error = esp_ota_set_boot_partition(&running_);
        return error == ESP_OK ? esp_ota_mark_app_valid_cancel_rollback() : error;
    }

    void abandon() {
        if (handle_ != kNoHandle) {
            esp_ota_abort(handle_);
            handle_ = kNoHandle;
        }
    }

    const esp_partition_t& running_;
    const esp_partition_t& update_;
    esp_ota_handle_t handle_ = kNoHandle;
};

}  // namespace

std::unique_ptr<FlashSlots> make_flash_slots(const char* /*medium*/) {
    const esp_partition_t* const running = esp_ota_get_running_partition();
    const esp_partition_t* const update = esp_ota_get_next_update_partition(nullptr);
    if (update == nullptr || update == running) {
        ESP_LOGE(kTag, "The partition table has no second OTA slot: flash partitions.csv");
        return nullptr;
    }
    return std::make_unique<EspFlashSlots>(*running, *update);
}

}  // namespace ota

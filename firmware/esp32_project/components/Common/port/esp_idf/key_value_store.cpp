#include "ota/port/key_value_store.hpp"

#include "esp_log.h"
#include "nvs.h"

namespace ota {
namespace {

constexpr char kTag[] = "ota_store";
constexpr char kNamespace[] = "ota";

PortResult port_result(esp_err_t error) {
    switch (error) {
        case ESP_OK:
            return PortResult::ok;
        case ESP_ERR_NVS_NOT_FOUND:
            return PortResult::not_found;
        case ESP_ERR_NVS_INVALID_LENGTH:
        case ESP_ERR_NVS_NOT_ENOUGH_SPACE:
            return PortResult::no_space;
        case ESP_ERR_NVS_INVALID_NAME:
        case ESP_ERR_NVS_KEY_TOO_LONG:
        case ESP_ERR_NVS_VALUE_TOO_LONG:
            return PortResult::invalid;
        default:
            ESP_LOGE(kTag, "NVS failed: %s", esp_err_to_name(error));
            return PortResult::io_error;
    }
}

class NvsKeyValueStore final : public KeyValueStore {
public:
    explicit NvsKeyValueStore(nvs_handle_t handle) : handle_(handle) {}
    ~NvsKeyValueStore() override { nvs_close(handle_); }
    NvsKeyValueStore(const NvsKeyValueStore&) = delete;
    NvsKeyValueStore& operator=(const NvsKeyValueStore&) = delete;

    PortResult get(const char* key, void* buffer, std::size_t& size) const override {
        return port_result(nvs_get_blob(handle_, key, buffer, &size));
    }

    PortResult set(const char* key, const void* value, std::size_t size) override {
        if (size > kMaxValueSize) {
            return PortResult::invalid;
        }
        const esp_err_t error = nvs_set_blob(handle_, key, value, size);
        return port_result(error == ESP_OK ? nvs_commit(handle_) : error);
    }

    PortResult erase(const char* key) override {
        const esp_err_t error = nvs_erase_key(handle_, key);
        if (error == ESP_ERR_NVS_NOT_FOUND) {
            return PortResult::ok;
        }
        return port_result(error == ESP_OK ? nvs_commit(handle_) : error);
    }

private:
    nvs_handle_t handle_;
};

}  // namespace

std::unique_ptr<KeyValueStore> make_key_value_store(const char* /*medium*/) {
    nvs_handle_t handle = 0;
    const esp_err_t error = nvs_open(kNamespace, NVS_READWRITE, &handle);
    if (error != ESP_OK) {
        ESP_LOGE(kTag, "Cannot open NVS namespace %s: %s", kNamespace, esp_err_to_name(error));
        return nullptr;
    }
    return std::make_unique<NvsKeyValueStore>(handle);
}

}  // namespace ota

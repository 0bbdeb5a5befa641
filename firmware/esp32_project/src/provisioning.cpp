#include "provisioning.hpp"

#include "esp_log.h"
#include "nvs.h"

namespace {

constexpr char kTag[] = "provisioning";
constexpr char kNamespace[] = "provisioning";

esp_err_t read_string(nvs_handle_t handle, const char* key, std::string& value) {
    std::size_t size = 0;  // With the NUL at the end.
    esp_err_t error = nvs_get_str(handle, key, nullptr, &size);
    if (error != ESP_OK) {
        return error;
    }
    value.resize(size);
    error = nvs_get_str(handle, key, value.data(), &size);
    value.resize(size - 1);
    return error;
}

}  // namespace

std::optional<Provisioning> read_provisioning() {
    nvs_handle_t handle = 0;
    if (const esp_err_t error = nvs_open(kNamespace, NVS_READONLY, &handle); error != ESP_OK) {
        ESP_LOGE(kTag, "Cannot open NVS namespace %s: %s. Flash the device's provisioning image.", kNamespace,
                 esp_err_to_name(error));
        return std::nullopt;
    }
    Provisioning provisioning;
    const struct {
        const char* key;
        std::string& value;
    } fields[] = {
        {"wifi_ssid", provisioning.wifi_ssid}, {"wifi_password", provisioning.wifi_password},
        {"mqtt_host", provisioning.mqtt_host}, {"mqtt_cert", provisioning.mqtt_certificate},
        {"mqtt_key", provisioning.mqtt_key},   {"api_url", provisioning.api_url},
        {"api_key", provisioning.api_key},
    };
    bool complete = true;
    for (const auto& field : fields) {
        if (const esp_err_t error = read_string(handle, field.key, field.value); error != ESP_OK) {
            ESP_LOGE(kTag, "Cannot read %s from NVS namespace %s: %s", field.key, kNamespace,
                     esp_err_to_name(error));
            complete = false;
        }
    }
    nvs_close(handle);
    if (!complete) {
        return std::nullopt;
    }
    return provisioning;
}

// An application that only keeps its device up to date: a starting point for your own.

#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include "esp_event.h"
#include "esp_log.h"
#include "esp_mac.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "nvs_flash.h"
#include "ota/mac_address.hpp"
#include "ota/ota_update_manager.hpp"
#include "provisioning.hpp"
#include "sdkconfig.h"
#include "trusted_keys.h"
#include "wifi_station.hpp"

namespace {

constexpr char kTag[] = "app";
// Our own calls take about 3 KiB, and a TLS handshake at the deepest of them 6 KiB.
constexpr std::uint32_t kUpdateTaskStack = 12288;
constexpr UBaseType_t kUpdateTaskPriority = 5;
constexpr std::uint64_t kTrialMargin_s = 60;

class EventLog final : public ota::UpdateObserver {
public:
    void on_event(const ota::UpdateEvent& event) override {
        const std::string release(event.release_id);
        const std::string version(event.version);
        ESP_LOGI(kTag, "%s release=%s version=%s reason=%s %s=%lld, least free: heap %u, stack %u",
                 event.name, release.c_str(), version.c_str(), ota::to_string(event.reason),
                 event.value_name == nullptr ? "value" : event.value_name,
                 static_cast<long long>(event.value), static_cast<unsigned>(esp_get_minimum_free_heap_size()),
                 static_cast<unsigned>(uxTaskGetStackHighWaterMark(nullptr)));
    }

    void on_status(const ota::StatusMessage& status) override {
        ESP_LOGI(kTag, "status %s", ota::to_json(status).c_str());
    }
};

/// The last resort: if the update task has not decided about a new app, because the task hangs or did not
/// even start, this restart makes the bootloader return to the previous app.
void end_trial(void* argument) {
    const auto* const slots = static_cast<const ota::FlashSlots*>(argument);
    if (slots->state(slots->running_slot()) == ota::SlotState::pending_verify) {
        ESP_LOGE(kTag, "The new app has not passed its self-test: going back to the previous one");
        esp_restart();
    }
}

void arm_trial_timer(ota::FlashSlots& slots, std::uint64_t seconds) {
    const esp_timer_create_args_t arguments = {.callback = end_trial,
                                               .arg = &slots,
                                               .dispatch_method = ESP_TIMER_TASK,
                                               .name = "trial",
                                               .skip_unhandled_events = true};
    esp_timer_handle_t timer = nullptr;
    ESP_ERROR_CHECK(esp_timer_create(&arguments, &timer));
    ESP_ERROR_CHECK(esp_timer_start_once(timer, seconds * 1'000'000));
}

ota::UpdateConfig update_config(const Provisioning& provisioning) {
    ota::UpdateConfig config;
    ESP_ERROR_CHECK(esp_read_mac(config.mac.octets.data(), ESP_MAC_WIFI_STA));
    config.product = CONFIG_OTA_PRODUCT;
    config.chip = CONFIG_IDF_TARGET;
    config.api_url = provisioning.api_url.c_str();
    config.api_key = provisioning.api_key.c_str();
    config.topic_prefix = CONFIG_OTA_TOPIC_PREFIX;
    config.trusted_keys = {kTrustedKeys, std::size(kTrustedKeys)};
    return config;
}

void run_updates(const Provisioning& provisioning, ota::FlashSlots& slots) {
    const ota::UpdateConfig config = update_config(provisioning);
    const std::string client_id = ota::format_mac(config.mac);
    const ota::UpdateTopics topics(config.topic_prefix, config.product, config.mac);
    const char* const subscriptions[] = {topics.fleet.c_str(), topics.product.c_str(), topics.device.c_str()};

    ota::MqttClientConfig mqtt_config;
    mqtt_config.host = provisioning.mqtt_host.c_str();
    mqtt_config.client_id = client_id.c_str();
    mqtt_config.client_certificate_pem = provisioning.mqtt_certificate.c_str();
    mqtt_config.client_key_pem = provisioning.mqtt_key.c_str();
    mqtt_config.topics = subscriptions;
    mqtt_config.topic_count = std::size(subscriptions);

    const auto store = ota::make_key_value_store(nullptr);
    const auto http = ota::make_http_client({});
    const auto mqtt = ota::make_mqtt_client(mqtt_config);
    if (store == nullptr || mqtt == nullptr) {
        return;  // The port has logged why.
    }
    EventLog log;
    ota::OTAUpdateManager manager(config,
                                  {.slots = slots,
                                   .store = *store,
                                   .http = *http,
                                   .mqtt = *mqtt,
                                   .clock = ota::system_clock(),
                                   .random = ota::system_random(),
                                   .reboot = ota::system_reboot()},
                                  log);
    manager.start();
    for (;;) {
        mqtt->wait(manager.step());
    }
}

struct UpdateTask {
    Provisioning provisioning;
    ota::FlashSlots& slots;
};

void update_task(void* argument) {
    const auto* const task = static_cast<const UpdateTask*>(argument);
    run_updates(task->provisioning, task->slots);
    vTaskDelete(nullptr);
}

}  // namespace

extern "C" void app_main() {
    // Static, because it must outlive this function.
    static const auto slots = ota::make_flash_slots(nullptr);
    if (slots == nullptr) {
        return;
    }
    arm_trial_timer(*slots, ota::UpdateConfig{}.self_test_limit_s + kTrialMargin_s);

    // An unreadable partition is not erased: it holds the device's identity, and the previous app may
    // still be able to read it.
    if (const esp_err_t error = nvs_flash_init(); error != ESP_OK) {
        ESP_LOGE(kTag, "Cannot open the NVS partition: %s", esp_err_to_name(error));
        return;
    }
    std::optional<Provisioning> provisioning = read_provisioning();
    if (!provisioning) {
        return;
    }
    ESP_ERROR_CHECK(esp_event_loop_create_default());
    start_wifi(provisioning->wifi_ssid, provisioning->wifi_password);

    static UpdateTask task{*std::move(provisioning), *slots};
    if (xTaskCreate(update_task, "update", kUpdateTaskStack, &task, kUpdateTaskPriority, nullptr) != pdPASS) {
        ESP_LOGE(kTag, "Out of memory for the update task");
    }
}

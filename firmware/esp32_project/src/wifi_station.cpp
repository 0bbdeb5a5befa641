#include "wifi_station.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "esp_event.h"
#include "esp_log.h"
#include "esp_netif.h"
#include "esp_netif_sntp.h"
#include "esp_random.h"
#include "esp_timer.h"
#include "esp_wifi.h"
#include "sdkconfig.h"

namespace {

constexpr char kTag[] = "wifi";
constexpr std::uint64_t kFirstDelay_us = 1'000'000;
constexpr unsigned kMaxDoublings = 6;

esp_timer_handle_t retry_timer = nullptr;
unsigned failures = 0;  // Used only by the event loop's task.

void connect(void* /*argument*/) {
    esp_wifi_connect();
}

void on_wifi_event(void* /*argument*/, esp_event_base_t /*base*/, std::int32_t id, void* data) {
    if (id == WIFI_EVENT_STA_START) {
        connect(nullptr);
    } else if (id == WIFI_EVENT_STA_DISCONNECTED) {
        // A random delay between half the limit and the limit, so that the devices of a building do not
        // all return to their access point at once.
        const std::uint64_t limit = kFirstDelay_us << std::min(failures, kMaxDoublings);
        const std::uint64_t delay = limit / 2 + esp_random() % (limit / 2);
        ++failures;
        ESP_LOGW(kTag, "Disconnected, reason %d; reconnecting in %u ms",
                 static_cast<wifi_event_sta_disconnected_t*>(data)->reason,
                 static_cast<unsigned>(delay / 1000));
        esp_timer_start_once(retry_timer, delay);
    }
}

void on_got_ip(void* /*argument*/, esp_event_base_t /*base*/, std::int32_t /*id*/, void* /*data*/) {
    failures = 0;
    static bool sntp_started = false;
    if (!sntp_started) {
        esp_sntp_config_t sntp = ESP_NETIF_SNTP_DEFAULT_CONFIG(CONFIG_OTA_SNTP_SERVER);
        sntp.wait_for_sync = false;
        sntp_started = esp_netif_sntp_init(&sntp) == ESP_OK;
    }
}

}  // namespace

void start_wifi(const std::string& ssid, const std::string& password) {
    ESP_ERROR_CHECK(esp_netif_init());
    esp_netif_create_default_wifi_sta();

    const esp_timer_create_args_t timer = {.callback = connect,
                                           .arg = nullptr,
                                           .dispatch_method = ESP_TIMER_TASK,
                                           .name = "wifi_retry",
                                           .skip_unhandled_events = true};
    ESP_ERROR_CHECK(esp_timer_create(&timer, &retry_timer));

    const wifi_init_config_t init = WIFI_INIT_CONFIG_DEFAULT();
    ESP_ERROR_CHECK(esp_wifi_init(&init));
    ESP_ERROR_CHECK(esp_event_handler_register(WIFI_EVENT, ESP_EVENT_ANY_ID, on_wifi_event, nullptr));
    ESP_ERROR_CHECK(esp_event_handler_register(IP_EVENT, IP_EVENT_STA_GOT_IP, on_got_ip, nullptr));

    wifi_config_t config = {};
    // A full field needs no NUL (esp_wifi_types.h).
    std::memcpy(config.sta.ssid, ssid.data(), std::min(ssid.size(), sizeof(config.sta.ssid)));
    std::memcpy(config.sta.password, password.data(), std::min(password.size(), sizeof(config.sta.password)));
    config.sta.threshold.authmode = password.empty() ? WIFI_AUTH_OPEN : WIFI_AUTH_WPA2_PSK;

    // The credentials stay where they were provisioned, and are not copied to another namespace.
    ESP_ERROR_CHECK(esp_wifi_set_storage(WIFI_STORAGE_RAM));
    ESP_ERROR_CHECK(esp_wifi_set_mode(WIFI_MODE_STA));
    ESP_ERROR_CHECK(esp_wifi_set_config(WIFI_IF_STA, &config));
    ESP_ERROR_CHECK(esp_wifi_start());
}

#include "ota/port/mqtt_client.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>
#include <vector>

#include "esp_crt_bundle.h"
#include "esp_log.h"
#include "esp_random.h"
#include "freertos/FreeRTOS.h"
#include "freertos/semphr.h"
#include "freertos/task.h"
// The global header of esp-mqtt; ours is ota/port/mqtt_client.hpp.
#include "mqtt_client.h"

namespace ota {
namespace {

constexpr char kTag[] = "ota_mqtt";
constexpr TickType_t kHoldBack = pdMS_TO_TICKS(5000);
constexpr int kKeepAliveSeconds = 60;
constexpr int kReconnectMs = 1000;
constexpr unsigned kMaxBackOffDoublings = 6;  // Up to 64 s.

/// A FreeRTOS binary semaphore that frees itself.
class Signal {
public:
    Signal() : handle_(xSemaphoreCreateBinary()) {}
    ~Signal() { vSemaphoreDelete(handle_); }
    Signal(const Signal&) = delete;
    Signal& operator=(const Signal&) = delete;

    [[nodiscard]] bool created() const { return handle_ != nullptr; }
    void give() { xSemaphoreGive(handle_); }
    bool take(TickType_t ticks) { return xSemaphoreTake(handle_, ticks) == pdTRUE; }

private:
    SemaphoreHandle_t handle_;
};

class EspMqttClient final : public MqttClient {
public:
    explicit EspMqttClient(const MqttClientConfig& config) : max_payload_(config.max_payload) {
        for (std::size_t i = 0; i < config.topic_count; ++i) {
            topics_.push_back({.filter = config.topics[i], .qos = 1});
        }
    }

    ~EspMqttClient() override {
        if (client_ != nullptr) {
            esp_mqtt_client_destroy(client_);
        }
    }
    EspMqttClient(const EspMqttClient&) = delete;
    EspMqttClient& operator=(const EspMqttClient&) = delete;

    /// @return false if esp-mqtt refuses the configuration or memory runs out.
    bool start(const MqttClientConfig& config) {
        esp_mqtt_client_config_t settings = {};
        settings.broker.address.hostname = config.host;
        settings.broker.address.port = config.port;
        settings.broker.address.transport = MQTT_TRANSPORT_OVER_SSL;
        settings.broker.verification.certificate = config.ca_pem;
        settings.broker.verification.crt_bundle_attach =
            config.ca_pem == nullptr ? esp_crt_bundle_attach : nullptr;
        settings.credentials.client_id = config.client_id;
        settings.credentials.authentication.certificate = config.client_certificate_pem;
        settings.credentials.authentication.key = config.client_key_pem;
        settings.session.disable_clean_session = true;
        settings.session.keepalive = kKeepAliveSeconds;
        settings.session.protocol_ver = MQTT_PROTOCOL_V_3_1_1;
        settings.network.reconnect_timeout_ms = kReconnectMs;
        if (!changed_.created() || !slot_free_.created()) {
            return false;
        }
        slot_free_.give();
        client_ = esp_mqtt_client_init(&settings);
        return client_ != nullptr &&
               esp_mqtt_client_register_event(client_, MQTT_EVENT_ANY, on_event, this) == ESP_OK &&
               esp_mqtt_client_start(client_) == ESP_OK;
    }

    bool connected() const override { return subscribed_; }

    bool publish(const char* topic, const char* payload, std::size_t size) override {
        if (!accepted_) {
            return false;
        }
        // Counted first, because the acknowledgement may arrive before the call returns. And not
        // esp_mqtt_client_publish, which may queue a message and return -1 all the same.
        ++unacknowledged_;
        const int message_id =
            esp_mqtt_client_enqueue(client_, topic, payload, static_cast<int>(size), 1, 0, true);
        if (message_id < 0) {
            --unacknowledged_;
            return false;
        }
        return true;
    }

    bool all_acknowledged() const override { return unacknowledged_ == 0; }

    MqttMessage* waiting() override { return waiting_full_ ? &waiting_ : nullptr; }

    bool claim() override { return slot_free_.take(0); }

    void release() override {
        waiting_ = MqttMessage{};
        waiting_full_ = false;
        slot_free_.give();
    }

    void wait(std::uint32_t timeout_ms) override {
        if (!waiting_full_) {
            changed_.take(pdMS_TO_TICKS(timeout_ms));
        }
    }

private:
    // Runs in esp-mqtt's task, which holds the client's lock.
    static void on_event(void* argument, esp_event_base_t /*base*/, std::int32_t /*id*/, void* data) {
        static_cast<EspMqttClient*>(argument)->handle(*static_cast<esp_mqtt_event_t*>(data));
    }

    void handle(const esp_mqtt_event_t& event) {
        switch (event.event_id) {
            case MQTT_EVENT_BEFORE_CONNECT:
                back_off();
                break;
            case MQTT_EVENT_CONNECTED:
                accepted_ = true;
                subscription_id_ = esp_mqtt_client_subscribe_multiple(event.client, topics_.data(),
                                                                      static_cast<int>(topics_.size()));
                break;
            case MQTT_EVENT_SUBSCRIBED:
                on_subscribed(event);
                break;
            case MQTT_EVENT_DISCONNECTED:
                accepted_ = false;
                subscribed_ = false;
                drop_arriving();
                changed_.give();
                break;
            case MQTT_EVENT_PUBLISHED:
                --unacknowledged_;
                changed_.give();
                break;
            case MQTT_EVENT_DATA:
                on_fragment(event);
                break;
            case MQTT_EVENT_ERROR:
                ESP_LOGW(kTag, "Error type %d: %s, broker's answer %d", event.error_handle->error_type,
                         esp_err_to_name(event.error_handle->esp_tls_last_esp_err),
                         event.error_handle->connect_return_code);
                break;
            default:
                break;
        }
    }

    /// Delays a reconnection: by itself, esp-mqtt retries at a fixed interval, and a fleet that lost its
    /// broker would come back in one wave. Nothing else needs the client's lock while disconnected.
    void back_off() {
        if (attempts_ > 0) {
            const std::uint32_t limit_ms = 1000U << std::min(attempts_, kMaxBackOffDoublings);
            vTaskDelay(pdMS_TO_TICKS(esp_random() % limit_ms));
        }
        ++attempts_;
    }

    void on_subscribed(const esp_mqtt_event_t& event) {
        if (event.msg_id != subscription_id_) {
            return;
        }
        if (event.error_handle->error_type == MQTT_ERROR_TYPE_SUBSCRIBE_FAILED) {
            ESP_LOGE(kTag, "The broker refused a subscription: check that the device's policy allows it");
            return;
        }
        attempts_ = 0;
        subscribed_ = true;
        changed_.give();
    }

    void on_fragment(const esp_mqtt_event_t& event) {
        const auto offset = static_cast<std::size_t>(event.current_data_offset);
        const auto total = static_cast<std::size_t>(event.total_data_len);
        const auto length = static_cast<std::size_t>(event.data_len);
        if (offset == 0 && !begin_message(event, total)) {
            return;
        }
        if (!assembling_) {
            return;
        }
        if (arriving_.payload && length > 0) {
            std::memcpy(arriving_.payload.data() + offset, event.data, length);
        }
        if (offset + length == total) {
            assembling_ = false;
            waiting_ = std::move(arriving_);
            arriving_ = MqttMessage{};
            waiting_full_ = true;
            changed_.give();
        }
    }

    /// Takes the only message slot. @return false if it stays occupied: the message is lost.
    bool begin_message(const esp_mqtt_event_t& event, std::size_t total) {
        drop_arriving();
        if (!slot_free_.take(kHoldBack)) {
            ESP_LOGW(kTag, "Message dropped: the previous one has not been processed");
            return false;
        }
        assembling_ = true;
        arriving_.topic.assign(event.topic, static_cast<std::size_t>(event.topic_len));
        arriving_.size = total;
        if (total <= max_payload_ && !arriving_.payload.allocate(total)) {
            ESP_LOGW(kTag, "Out of memory for a message of %u bytes", static_cast<unsigned>(total));
        }
        return true;
    }

    /// Frees the slot of a message that was cut off when the link broke.
    void drop_arriving() {
        arriving_ = MqttMessage{};
        if (assembling_) {
            assembling_ = false;
            slot_free_.give();
        }
    }

    const std::size_t max_payload_;
    std::vector<esp_mqtt_topic_t> topics_;
    esp_mqtt_client_handle_t client_ = nullptr;
    Signal changed_;
    Signal slot_free_;  ///< Available while no message waits or arrives.

    std::atomic<bool> accepted_ = false;    ///< CONNACK has arrived.
    std::atomic<bool> subscribed_ = false;  ///< And SUBACK.
    std::atomic<int> unacknowledged_ = 0;
    std::atomic<bool> waiting_full_ = false;  ///< Hands `waiting_` from one task to the other.
    MqttMessage waiting_;

    // Used only by esp-mqtt's task.
    MqttMessage arriving_;
    bool assembling_ = false;
    unsigned attempts_ = 0;
    int subscription_id_ = -1;
};

}  // namespace

std::unique_ptr<MqttClient> make_mqtt_client(const MqttClientConfig& config) {
    auto client = std::make_unique<EspMqttClient>(config);
    if (!client->start(config)) {
        ESP_LOGE(kTag, "The MQTT client cannot be started: check host, certificate and key");
        return nullptr;
    }
    return client;
}

}  // namespace ota

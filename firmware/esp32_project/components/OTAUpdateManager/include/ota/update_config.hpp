#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ota/mac_address.hpp"
#include "ota/port/flash_slots.hpp"
#include "ota/port/http_client.hpp"
#include "ota/port/key_value_store.hpp"
#include "ota/port/mqtt_client.hpp"
#include "ota/port/system.hpp"
#include "ota/reason.hpp"
#include "ota/signature_verifier.hpp"
#include "ota/status_message.hpp"

// What the application gives the update: its settings, the ports, and an observer.

namespace ota {

/// Something that happened, for logs and tests. The texts are valid only during the call.
struct UpdateEvent {
    const char* name;
    std::string_view release_id;
    std::string_view version;
    Reason reason = Reason::none;
    const char* value_name = nullptr;  ///< What `value` is, with its unit; nullptr: no value.
    std::int64_t value = 0;
};

class UpdateObserver {
public:
    virtual ~UpdateObserver() = default;

    virtual void on_event(const UpdateEvent& event) = 0;

    /// A status message was passed to MQTT.
    virtual void on_status(const StatusMessage& status) = 0;

    /// The application's own test of a new image on its first boot: sensors, storage, whatever it needs
    /// to be useful. Called when the broker has acknowledged the device's first message.
    virtual bool self_test_passes() { return true; }
};

/// Settings that do not change while a firmware runs. They and their texts must outlive the manager.
struct UpdateConfig {
    MacAddress mac;
    const char* product = nullptr;
    const char* chip = nullptr;     ///< As in a manifest, for example "esp32s3".
    const char* api_url = nullptr;  ///< Base of the download API, without a slash at the end.
    const char* api_key = nullptr;
    const char* topic_prefix = "/firmware_update";
    TrustedKeys trusted_keys;

    /// Bytes per request, and the most that a power cut can lose; a multiple of kFlashSectorSize.
    std::uint32_t chunk_size = 65536;
    std::uint32_t max_delay_s = 60;  ///< Random delay before a download, unless the notification has one.
    std::uint32_t check_in_interval_s = 3600;
    std::uint32_t self_test_limit_s = 300;
    std::uint32_t first_back_off_s = 60;
    std::uint32_t back_off_limit_s = 21600;
};

/// The topics of a device.
struct UpdateTopics {
    UpdateTopics(std::string_view prefix, std::string_view product, const MacAddress& mac);

    std::string fleet;
    std::string product;
    std::string device;
    std::string status;
};

/// The parts of the world that the manager uses.
struct UpdatePorts {
    FlashSlots& slots;
    KeyValueStore& store;
    HttpClient& http;
    MqttClient& mqtt;
    Clock& clock;
    RandomSource& random;
    Reboot& reboot;
};

}  // namespace ota

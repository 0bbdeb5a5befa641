#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "ota/heap_text.hpp"

namespace ota {

/// One message of a subscription.
struct MqttMessage {
    std::string topic;
    std::size_t size = 0;  ///< Of the payload, as it was announced.
    HeapText payload;      ///< The receiver may rewrite it. None when it is larger than `max_payload`, or
                           ///< there is no memory for it.
};

/// All pointers stay valid as long as the client lives.
struct MqttClientConfig {
    const char* host = nullptr;
    std::uint16_t port = 8883;
    const char* client_id = nullptr;  ///< The thing's name: the MAC, `AA:BB:CC:DD:EE:FF`.
    const char* ca_pem = nullptr;     ///< Root of the broker. nullptr: the certificate bundle (esp_idf);
                                      ///< with client_certificate_pem nullptr too, plain TCP (posix,
                                      ///< for tests).
    const char* client_certificate_pem = nullptr;
    const char* client_key_pem = nullptr;
    const char* const* topics = nullptr;  ///< Subscribed with QoS 1 at every connect.
    std::size_t topic_count = 0;
    std::size_t max_payload = 16384;  ///< Bytes of the largest message that is kept.
};

/// An MQTT 3.1.1 client with mutual TLS, a persistent session (clean session off) and QoS 1, that
/// reconnects by itself with a back-off.
///
/// `esp_idf`: esp-mqtt. `posix`: libmosquitto. Its own task or thread receives; all functions here
/// are called from the update task only. At most one message waits in the port, and the receiving
/// task holds the next one back until it is taken (for 5 s, then it drops it: the retained message
/// and the hourly check-in bring the release again), so that the heap holds one payload.
class MqttClient {
public:
    virtual ~MqttClient() = default;

    /// Connected to the broker, and the subscriptions of this connection acknowledged.
    [[nodiscard]] virtual bool connected() const = 0;

    /// Sends with QoS 1, not retained. Possible from the broker's CONNACK on: retained messages come before
    /// the last subscription is acknowledged, and may be answered at once.
    /// @return false when there is no connection or no memory: nothing was sent nor queued.
    virtual bool publish(const char* topic, const char* payload, std::size_t size) = 0;

    /// Every message that publish() took was acknowledged by the broker (PUBACK).
    [[nodiscard]] virtual bool all_acknowledged() const = 0;

    /// The message that waits, or nullptr. It has the port's one place for a message, and holds the next
    /// back, until release().
    virtual MqttMessage* waiting() = 0;

    /// Takes the place for a message, so that none is received until release(): for work that needs the
    /// heap to itself. @return false when a message waits or is arriving.
    [[nodiscard]] virtual bool claim() = 0;

    /// Gives the place back, and frees the message that had it.
    virtual void release() = 0;

    /// Sleeps until a message waits, the connection's state changes, an acknowledgement comes, or
    /// `timeout_ms` have passed; 0 returns at once. This is where the update task rests.
    virtual void wait(std::uint32_t timeout_ms) = 0;
};

/// Starts the client; it connects in the background.
/// @return nullptr when there is no memory or the configuration is refused at once. That a certificate
///         or key is of no use may show only when it connects; the port then logs it.
std::unique_ptr<MqttClient> make_mqtt_client(const MqttClientConfig& config);

}  // namespace ota

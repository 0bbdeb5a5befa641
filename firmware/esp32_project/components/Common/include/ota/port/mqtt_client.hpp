#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "ota/heap_text.hpp"

namespace ota {

/// A received message.
struct MqttMessage {
    std::string topic;
    std::size_t size = 0;  ///< Of the payload, as announced.
    HeapText payload;      ///< The receiver may rewrite it. Empty if it is larger than `max_payload`, or if
                           ///< there is no memory for it.
};

/// Everything pointed to must outlive the client.
struct MqttClientConfig {
    const char* host = nullptr;
    std::uint16_t port = 8883;
    const char* client_id = nullptr;  ///< The thing name: the MAC, `AA:BB:CC:DD:EE:FF`.
    const char* ca_pem = nullptr;     ///< The broker's root. nullptr: the certificate bundle (esp_idf),
                                      ///< or plain TCP if client_certificate_pem is nullptr too (posix,
                                      ///< for tests).
    const char* client_certificate_pem = nullptr;
    const char* client_key_pem = nullptr;
    const char* const* topics = nullptr;  ///< Subscribed with QoS 1 at every connect.
    std::size_t topic_count = 0;
    std::size_t max_payload = 16384;  ///< Largest payload that is kept, in bytes.
};

/// An MQTT 3.1.1 client with mutual TLS, a persistent session (clean session off) and QoS 1, that
/// reconnects by itself with a back-off.
///
/// `esp_idf`: esp-mqtt. `posix`: libmosquitto. A task or thread of its own receives; call the functions
/// here from the update task only. The port has one slot for a message, so that the heap never holds
/// two payloads. While it is occupied, the receiving task holds the next message back, for 5 s, and
/// then drops it: the retained message and the hourly check-in bring the release again.
class MqttClient {
public:
    virtual ~MqttClient() = default;

    /// Connected to the broker, which has acknowledged this connection's subscriptions.
    [[nodiscard]] virtual bool connected() const = 0;

    /// Sends with QoS 1, not retained. Possible from the broker's CONNACK on: retained messages arrive
    /// before the last subscription is acknowledged, and may need an answer at once.
    /// @return false without a connection or memory: nothing was sent or queued.
    virtual bool publish(const char* topic, const char* payload, std::size_t size) = 0;

    /// The broker has acknowledged every message that publish() accepted (PUBACK).
    [[nodiscard]] virtual bool all_acknowledged() const = 0;

    /// The waiting message, or nullptr. It occupies the slot until release().
    virtual MqttMessage* waiting() = 0;

    /// Occupies the slot, so that no message is received until release(): for work that needs the heap
    /// to itself. @return false if a message is waiting or arriving.
    [[nodiscard]] virtual bool claim() = 0;

    /// Frees the slot, and the message in it.
    virtual void release() = 0;

    /// Sleeps until a message is waiting, the connection's state changes, an acknowledgement arrives, or
    /// `timeout_ms` have passed; with 0 it returns at once. The update task sleeps here.
    virtual void wait(std::uint32_t timeout_ms) = 0;
};

/// Starts the client; it connects in the background.
/// @return nullptr without memory, or if the configuration is refused at once. An unusable certificate or
///         key may only show when the client connects; the port then logs it.
std::unique_ptr<MqttClient> make_mqtt_client(const MqttClientConfig& config);

}  // namespace ota

// The MQTT port on libmosquitto against a real broker with mutual TLS.

#include <gtest/gtest.h>

#include <chrono>
#include <functional>

#include "broker.hpp"
#include "ota/port/mqtt_client.hpp"

namespace ota::test {
namespace {

constexpr char kMac[] = "AA:BB:CC:DD:EE:01";
constexpr const char* kTopics[] = {"/firmware_update", "/firmware_update/product/sensor",
                                   "/firmware_update/AA:BB:CC:DD:EE:01"};

class MqttClientTest : public ::testing::Test {
protected:
    /// The broker starts without the sessions of the previous test.
    void SetUp() override {
        broker().stop();
        broker().start();
    }

    static Broker& broker() {
        static Broker one;
        return one;
    }

    std::unique_ptr<MqttClient> client(const char* id, const Broker::Identity& identity,
                                       const char* const* topics, std::size_t topic_count) {
        MqttClientConfig config;
        config.host = "localhost";
        config.port = static_cast<std::uint16_t>(broker().port());
        config.client_id = id;
        config.ca_pem = broker().ca().c_str();
        config.client_certificate_pem = identity.certificate.c_str();
        config.client_key_pem = identity.key.c_str();
        config.topics = topics;
        config.topic_count = topic_count;
        return make_mqtt_client(config);
    }

    std::unique_ptr<MqttClient> device() {
        static const Broker::Identity identity = broker().identity(kMac);
        return client(kMac, identity, kTopics, std::size(kTopics));
    }

    std::unique_ptr<MqttClient> publisher() {
        static const Broker::Identity identity = broker().identity("publisher");
        return client("publisher", identity, nullptr, 0);
    }

    static bool wait_for(MqttClient& client, const std::function<bool()>& condition, int limit_s = 20) {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(limit_s);
        while (!condition() && std::chrono::steady_clock::now() < deadline) {
            client.wait(50);
        }
        return condition();
    }

    static bool connect(MqttClient& client) {
        return wait_for(client, [&] { return client.connected(); });
    }

    static void send(MqttClient& client, const char* topic, const std::string& payload) {
        ASSERT_TRUE(client.publish(topic, payload.data(), payload.size()));
        ASSERT_TRUE(wait_for(client, [&] { return client.all_acknowledged(); }));
    }
};

TEST_F(MqttClientTest, ReceivesWhatItSubscribedToInOrder) {
    const auto receiver = device();
    const auto sender = publisher();
    ASSERT_TRUE(connect(*receiver) && connect(*sender));
    for (const char* topic : kTopics) {
        send(*sender, topic, std::string("to ") + topic);
    }
    for (const char* topic : kTopics) {
        ASSERT_TRUE(wait_for(*receiver, [&] { return receiver->waiting() != nullptr; }));
        const MqttMessage& message = *receiver->waiting();
        EXPECT_EQ(message.topic, topic);
        EXPECT_EQ(std::string(message.payload.data(), message.payload.size()), std::string("to ") + topic);
        receiver->release();
    }
    EXPECT_EQ(receiver->waiting(), nullptr);
}

TEST_F(MqttClientTest, HoldsOneMessageAndTheNextOneBack) {
    const auto receiver = device();
    const auto sender = publisher();
    ASSERT_TRUE(connect(*receiver) && connect(*sender));
    ASSERT_TRUE(receiver->claim());
    send(*sender, kTopics[0], "one");
    send(*sender, kTopics[0], "two");
    receiver->wait(300);
    EXPECT_EQ(receiver->waiting(), nullptr) << "the slot is claimed";
    receiver->release();
    ASSERT_TRUE(wait_for(*receiver, [&] { return receiver->waiting() != nullptr; }));
    EXPECT_EQ(receiver->waiting()->payload.data()[0], 'o');
    EXPECT_FALSE(receiver->claim());
    receiver->release();
    ASSERT_TRUE(wait_for(*receiver, [&] { return receiver->waiting() != nullptr; }));
    EXPECT_EQ(receiver->waiting()->payload.data()[0], 't');
    receiver->release();
}

TEST_F(MqttClientTest, MessageThatIsTooLargeComesWithoutItsPayload) {
    const auto receiver = device();
    const auto sender = publisher();
    ASSERT_TRUE(connect(*receiver) && connect(*sender));
    for (const std::size_t size : {std::size_t{0}, std::size_t{16384}, std::size_t{16385}}) {
        send(*sender, kTopics[0], std::string(size, 'x'));
        ASSERT_TRUE(wait_for(*receiver, [&] { return receiver->waiting() != nullptr; }));
        EXPECT_EQ(static_cast<bool>(receiver->waiting()->payload), size <= 16384) << size;
        EXPECT_EQ(receiver->waiting()->payload.size(), size <= 16384 ? size : 0U);
        receiver->release();
    }
}

TEST_F(MqttClientTest, SessionKeepsMessagesForADeviceThatIsAway) {
    {
        const auto receiver = device();
        ASSERT_TRUE(connect(*receiver));
    }
    const auto sender = publisher();
    ASSERT_TRUE(connect(*sender));
    send(*sender, kTopics[2], "while away");
    const auto receiver = device();
    ASSERT_TRUE(wait_for(*receiver, [&] { return receiver->waiting() != nullptr; }));
    EXPECT_EQ(std::string(receiver->waiting()->payload.data(), receiver->waiting()->payload.size()),
              "while away");
    // It may arrive before the last SUBACK, and can be answered even then.
    EXPECT_TRUE(receiver->publish("/firmware_update/AA:BB:CC:DD:EE:01/status", "{}", 2));
}

TEST_F(MqttClientTest, ComesBackWhenTheBrokerDoes) {
    const auto receiver = device();
    ASSERT_TRUE(connect(*receiver));
    broker().stop();
    EXPECT_TRUE(wait_for(*receiver, [&] { return !receiver->connected(); }));
    EXPECT_FALSE(receiver->publish(kTopics[2], "x", 1));
    broker().start();
    EXPECT_TRUE(connect(*receiver));
}

TEST_F(MqttClientTest, BrokerWithAnotherCertificateIsNotTrusted) {
    Broker other;
    const Broker::Identity identity = other.identity(kMac);
    MqttClientConfig config;
    config.host = "localhost";
    config.port = static_cast<std::uint16_t>(broker().port());
    config.client_id = kMac;
    config.ca_pem = other.ca().c_str();
    config.client_certificate_pem = identity.certificate.c_str();
    config.client_key_pem = identity.key.c_str();
    const auto device = make_mqtt_client(config);
    ASSERT_TRUE(device);
    EXPECT_FALSE(wait_for(
        *device, [&] { return device->connected(); }, 2));
}

}  // namespace
}  // namespace ota::test

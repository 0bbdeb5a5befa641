// The real program `ota_device`: a process with a flash file, a broker with mutual TLS, an HTTP server,
// restarts, and SIGKILL as the power cut.

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "broker.hpp"
#include "child_process.hpp"
#include "ota/port/mqtt_client.hpp"
#include "release_builder.hpp"

namespace ota::test {
namespace {

constexpr char kMac[] = "AA:BB:CC:DD:EE:01";
constexpr int kLimit_ms = 60000;

class OtaDevice : public ::testing::Test {
protected:
    OtaDevice() : publisher_identity(broker.identity("publisher")) {
        directory = broker.directory();
        release.image = host::build_image(spec("2.0.0"));
        write_file(directory + "/image.bin", std::string(release.image.begin(), release.image.end()));
        write_file(directory + "/trusted.pem", trusted_key().public_pem());
        const Broker::Identity identity = broker.identity(kMac);
        write_file(directory + "/device.pem", identity.certificate);
        write_file(directory + "/device.key", identity.key);
    }

    static host::ImageSpec spec(const std::string& version) {
        host::ImageSpec one;
        one.version = version;
        one.size = 1048576;
        one.seed = 5;
        return one;
    }

    void start_server(const std::string& seconds_per_chunk = "0") {
        server = std::make_unique<ChildProcess>(std::vector<std::string>{
            "python3", std::string(OTA_FIRMWARE) + "/host/tests/http_server.py", directory + "/image.bin",
            "--notification", directory + "/notification.json", "--seconds-per-chunk", seconds_per_chunk});
        api_url = "http://127.0.0.1:" + server->read_line(kLimit_ms).value_or("");
    }

    std::unique_ptr<ChildProcess> start_device(const std::vector<std::string>& more) {
        std::vector<std::string> command{OTA_DEVICE,
                                         "--mac",
                                         kMac,
                                         "--flash",
                                         directory + "/flash.img",
                                         "--product",
                                         "sensor",
                                         "--version",
                                         "1.0.0",
                                         "--api-url",
                                         api_url,
                                         "--api-key",
                                         "key",
                                         "--mqtt-host",
                                         "localhost",
                                         "--mqtt-port",
                                         std::to_string(broker.port()),
                                         "--mqtt-ca",
                                         broker.ca_path(),
                                         "--mqtt-cert",
                                         directory + "/device.pem",
                                         "--mqtt-key",
                                         directory + "/device.key",
                                         "--trusted-key",
                                         directory + "/trusted.pem",
                                         "--max-delay",
                                         "0",
                                         "--back-off",
                                         "1",
                                         "--time-limit",
                                         "60"};
        command.insert(command.end(), more.begin(), more.end());
        return std::make_unique<ChildProcess>(command);
    }

    void publish(const std::string& notification) {
        MqttClientConfig config;
        config.host = "localhost";
        config.port = static_cast<std::uint16_t>(broker.port());
        config.client_id = "publisher";
        config.ca_pem = broker.ca().c_str();
        config.client_certificate_pem = publisher_identity.certificate.c_str();
        config.client_key_pem = publisher_identity.key.c_str();
        const auto client = make_mqtt_client(config);
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        bool sent = false;
        while (std::chrono::steady_clock::now() < deadline && !(sent && client->all_acknowledged())) {
            sent = sent || client->publish("/firmware_update", notification.data(), notification.size());
            client->wait(50);
        }
        EXPECT_TRUE(sent && client->all_acknowledged());
    }

    Broker broker;
    Broker::Identity publisher_identity;
    std::string directory;
    std::string api_url;
    Release release;
    std::unique_ptr<ChildProcess> server;
};

TEST_F(OtaDevice, InstallsWhatIsAnnouncedAndRunsItAfterItsRestart) {
    start_server();
    const auto device = start_device({"--exit-on", "installed"});
    ASSERT_TRUE(device->read_until("\"checked_in\"", kLimit_ms)) << device->output();
    // The broker keeps no message for a device that it has never seen, and this one may not have
    // subscribed yet.
    bool accepted = false;
    for (int attempt = 0; attempt < 30 && !accepted; ++attempt) {
        publish(release.notification());
        accepted = device->read_until("\"accepted\"", 2000).has_value();
    }
    ASSERT_TRUE(accepted) << device->output();
    const auto installed = device->read_until(R"("state":"installed")", kLimit_ms);
    ASSERT_TRUE(installed) << device->output();
    EXPECT_NE(installed->find(R"("running_version":"2.0.0")"), std::string::npos) << *installed;
    EXPECT_EQ(device->wait(), 0);

    // When it is switched on again, it still runs that version and does not update.
    write_file(directory + "/notification.json", release.notification());
    const auto again = start_device({"--exit-on", "ignored"});
    const auto booted = again->read_until("\"booted\"", kLimit_ms);
    ASSERT_TRUE(booted);
    EXPECT_NE(booted->find(R"("slot":1)"), std::string::npos) << *booted;
    EXPECT_EQ(again->wait(), 0) << again->output();
    EXPECT_EQ(again->output().find("download_started"), std::string::npos);
}

TEST_F(OtaDevice, KilledAmidTheDownloadGoesOnFromTheLastChunk) {
    start_server("0.1");
    write_file(directory + "/notification.json", release.notification());
    auto device = start_device({});
    for (int chunk = 0; chunk < 5; ++chunk) {
        ASSERT_TRUE(device->read_until("\"chunk_confirmed\"", kLimit_ms)) << device->output();
    }
    device->kill(SIGKILL);
    EXPECT_EQ(device->wait(), -1);
    device = start_device({"--exit-on", "installed"});
    const auto resumed = device->read_until("\"download_started\"", kLimit_ms);
    ASSERT_TRUE(resumed) << device->output();
    EXPECT_EQ(resumed->find(R"("offset":0)"), std::string::npos) << *resumed;
    ASSERT_TRUE(device->read_until(R"("state":"installed")", kLimit_ms)) << device->output();
    EXPECT_EQ(device->wait(), 0);
}

TEST_F(OtaDevice, ImageThatFailsItsSelfTestIsRolledBack) {
    start_server();
    write_file(directory + "/notification.json", release.notification());
    const auto device = start_device({"--fail-self-test", "2.0.0", "--exit-on", "rolled_back"});
    const auto report = device->read_until(R"("state":"rolled_back")", kLimit_ms);
    EXPECT_EQ(device->wait(), 0) << device->output();
    ASSERT_TRUE(report) << device->output();
    EXPECT_NE(report->find(R"("reason":"self_test_failed")"), std::string::npos) << *report;
    EXPECT_EQ(device->output().find("\"installed\""), std::string::npos);
}

TEST_F(OtaDevice, ForgedReleaseLeavesTheFlashAsItWas) {
    start_server();
    auto device = start_device({"--exit-on", "checked_in"});
    ASSERT_EQ(device->wait(), 0);
    const std::string before = read_file(directory + "/flash.img");
    release.signer = &attacker_key();
    write_file(directory + "/notification.json", release.notification());
    device = start_device({"--exit-on", "refused"});
    ASSERT_EQ(device->wait(), 0);
    while (device->read_line(100)) {
    }
    EXPECT_NE(device->output().find("envelope_untrusted_key"), std::string::npos) << device->output();
    EXPECT_EQ(read_file(directory + "/flash.img"), before);
}

TEST_F(OtaDevice, TellsWhatIsWrongWithItsArguments) {
    api_url = "http://127.0.0.1:1";
    for (const std::vector<std::string>& wrong :
         std::vector<std::vector<std::string>>{{"--mac", "nonsense"},
                                               {"--chunk", "1000"},
                                               {"--chunk", "x"},
                                               {"--chip", "esp8266"},
                                               {"--version", "one"},
                                               {"--trusted-key", "/nonexistent"},
                                               {"--trusted-key", directory + "/image.bin"},
                                               {"--flash", directory + "/image.bin"},
                                               {"--flash", "/nonexistent/flash.img"},
                                               {"--mqtt-key", "/nonexistent"},
                                               {"--nonsense", "x"},
                                               {"stray"}}) {
        const auto device = start_device(wrong);
        EXPECT_EQ(device->wait(), 2) << wrong[0] << " " << wrong.back();
        EXPECT_EQ(device->output(), "");
    }
}

}  // namespace
}  // namespace ota::test

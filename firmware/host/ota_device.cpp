// A device that runs on a PC: the components of the firmware with the posix port. It uses a file as its
// flash, talks MQTT and HTTP like a board, prints events as JSON lines, and restarts by executing itself
// again.

#include <getopt.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "esp_image_builder.hpp"
#include "ota/chip.hpp"
#include "ota/json_writer.hpp"
#include "ota/ota_update_manager.hpp"
#include "ota/semver.hpp"
#include "reboot.hpp"

namespace {

constexpr int kExitUsage = 2;
constexpr int kExitTimeLimit = 3;
constexpr std::uint32_t kLongestWait_ms = 200;               // To notice a signal or the time limit.
constexpr char kDeadlineVariable[] = "OTA_DEVICE_DEADLINE";  // The environment survives restarts.

constexpr char kUsage[] =
    R"(usage: ota_device --mac MAC --flash FILE --product NAME --api-url URL --api-key KEY
                  --mqtt-host HOST --trusted-key FILE [--trusted-key FILE ...] [options]

  --mac MAC               MAC address of this device, and its MQTT client id
  --flash FILE            the 4 MB flash; if missing, it is created with a factory image in ota_0
  --version VERSION       version of the factory image (default 1.0.0)
  --product NAME          product of this device
  --chip NAME             esp32, esp32s3, ... (default esp32)
  --api-url URL           base URL of the download API
  --api-key KEY           sent as x-api-key
  --mqtt-host HOST        host of the broker
  --mqtt-port PORT        (default 8883)
  --mqtt-ca FILE          with --mqtt-cert and --mqtt-key: mutual TLS; without: plain TCP
  --mqtt-cert FILE
  --mqtt-key FILE
  --topic-prefix PREFIX   (default /firmware_update)
  --trusted-key FILE      PEM public key that may sign releases (repeatable)
  --max-delay SECONDS     longest random delay before a download, unless the notification has one (default 60)
  --chunk BYTES           bytes per request, a multiple of 4096 (default 65536)
  --check-in SECONDS      time between check-ins (default 3600)
  --back-off SECONDS      first back-off, doubled with every failure (default 60)
  --fail-self-test WHICH  version whose self-test fails
  --exit-on NAME          exit with 0 after this event or status state (repeatable)
  --time-limit SECONDS    exit with 3 if that has not happened by then
)";

struct Options {
    std::string mac;
    std::string flash;
    std::string version = "1.0.0";
    std::string product;
    std::string chip = "esp32";
    std::string api_url;
    std::string api_key;
    std::string mqtt_host;
    std::string mqtt_port = "8883";
    std::string mqtt_ca;
    std::string mqtt_cert;
    std::string mqtt_key;
    std::string topic_prefix = "/firmware_update";
    std::vector<std::string> trusted_keys;
    std::string max_delay = "60";
    std::string chunk = "65536";
    std::string check_in = "3600";
    std::string back_off = "60";
    std::string fail_self_test;
    std::vector<std::string> exit_on;
    std::string time_limit;
};

[[noreturn]] void fail(const std::string& message) {
    std::fprintf(stderr, "ota_device: %s\n", message.c_str());
    std::exit(kExitUsage);
}

std::uint32_t number(const char* option, const std::string& text, std::uint32_t least, std::uint32_t most) {
    std::size_t used = 0;
    unsigned long value = 0;
    try {
        value = std::stoul(text, &used);
    } catch (const std::exception&) {
        used = 0;
    }
    if (used == 0 || used != text.size() || value < least || value > most) {
        fail(std::string(option) + " is \"" + text + "\", expected a number from " + std::to_string(least) +
             " to " + std::to_string(most));
    }
    return static_cast<std::uint32_t>(value);
}

std::string read_file(const char* option, const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (!file || text.empty()) {
        fail(std::string(option) + ": cannot read \"" + path + "\", or it is empty");
    }
    return text;
}

Options parse_options(int argc, char** argv) {
    Options options;
    const struct {
        const char* name;
        std::string* one;
        std::vector<std::string>* many;
    } table[] = {
        {"mac", &options.mac, nullptr},
        {"flash", &options.flash, nullptr},
        {"version", &options.version, nullptr},
        {"product", &options.product, nullptr},
        {"chip", &options.chip, nullptr},
        {"api-url", &options.api_url, nullptr},
        {"api-key", &options.api_key, nullptr},
        {"mqtt-host", &options.mqtt_host, nullptr},
        {"mqtt-port", &options.mqtt_port, nullptr},
        {"mqtt-ca", &options.mqtt_ca, nullptr},
        {"mqtt-cert", &options.mqtt_cert, nullptr},
        {"mqtt-key", &options.mqtt_key, nullptr},
        {"topic-prefix", &options.topic_prefix, nullptr},
        {"trusted-key", nullptr, &options.trusted_keys},
        {"max-delay", &options.max_delay, nullptr},
        {"chunk", &options.chunk, nullptr},
        {"check-in", &options.check_in, nullptr},
        {"back-off", &options.back_off, nullptr},
        {"fail-self-test", &options.fail_self_test, nullptr},
        {"exit-on", nullptr, &options.exit_on},
        {"time-limit", &options.time_limit, nullptr},
    };
    constexpr int kHelp = 1000;
    std::vector<option> long_options;
    for (const auto& entry : table) {
        long_options.push_back(
            {entry.name, required_argument, nullptr, static_cast<int>(long_options.size())});
    }
    long_options.push_back({"help", no_argument, nullptr, kHelp});
    long_options.push_back({nullptr, 0, nullptr, 0});
    for (int which = 0; (which = ::getopt_long(argc, argv, "", long_options.data(), nullptr)) != -1;) {
        if (which == kHelp) {
            std::fputs(kUsage, stdout);
            std::exit(EXIT_SUCCESS);
        }
        if (which == '?') {
            fail("see --help");
        }
        const auto& entry = table[which];
        if (entry.one != nullptr) {
            *entry.one = optarg;
        } else {
            entry.many->emplace_back(optarg);
        }
    }
    if (optind != argc) {
        fail(std::string("unexpected argument \"") + argv[optind] + "\"; see --help");
    }
    const struct {
        const char* name;
        bool given;
    } required[] = {
        {"--mac", !options.mac.empty()},
        {"--flash", !options.flash.empty()},
        {"--product", !options.product.empty()},
        {"--api-url", !options.api_url.empty()},
        {"--api-key", !options.api_key.empty()},
        {"--mqtt-host", !options.mqtt_host.empty()},
        {"--trusted-key", !options.trusted_keys.empty()},
    };
    for (const auto& entry : required) {
        if (!entry.given) {
            fail(std::string(entry.name) + " is missing; see --help");
        }
    }
    while (!options.api_url.empty() && options.api_url.back() == '/') {
        options.api_url.pop_back();
    }
    return options;
}

/// Prints events as JSON lines, and watches for the one to exit on.
class Console final : public ota::UpdateObserver {
public:
    Console(std::string mac, const Options& options) : mac_(std::move(mac)), options_(options) {}

    void watch(const ota::OTAUpdateManager& manager) { manager_ = &manager; }

    void on_event(const ota::UpdateEvent& event) override {
        ota::JsonWriter json = begin(event.name);
        if (!event.release_id.empty()) {
            json.member("release_id", event.release_id);
        }
        if (!event.version.empty()) {
            json.member("version", event.version);
        }
        if (event.reason != ota::Reason::none) {
            json.member("reason", ota::to_string(event.reason));
        }
        if (event.value_name != nullptr) {
            json.member(event.value_name, event.value);
        }
        if (manager_ != nullptr) {
            json.member("running_version", manager_->running_version());
        }
        print(json);
        note(event.name);
    }

    void on_status(const ota::StatusMessage& status) override {
        ota::JsonWriter json = begin("status");
        json.member("release_id", status.release_id)
            .member("version", status.version)
            .member("state", status.state)
            .member("progress", status.progress);
        if (!status.reason.empty()) {
            json.member("reason", status.reason);
        }
        json.member("running_version", status.running_version);
        print(json);
        note(status.state);
    }

    bool self_test_passes() override { return options_.fail_self_test != manager_->running_version(); }

    [[nodiscard]] bool seen_end() const { return seen_end_; }

private:
    ota::JsonWriter begin(const char* event) const {
        timespec now{};
        ::clock_gettime(CLOCK_REALTIME, &now);
        ota::JsonWriter json;
        json.member("at_ms", static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1000000)
            .member("mac", mac_)
            .member("event", event);
        return json;
    }

    static void print(ota::JsonWriter& json) {
        std::puts(json.finish().c_str());
        std::fflush(stdout);
    }

    void note(std::string_view name) {
        seen_end_ = seen_end_ || std::find(options_.exit_on.begin(), options_.exit_on.end(), name) !=
                                     options_.exit_on.end();
    }

    std::string mac_;
    const Options& options_;
    const ota::OTAUpdateManager* manager_ = nullptr;
    bool seen_end_ = false;
};

volatile std::sig_atomic_t g_stop = 0;

void make_flash_file(const Options& options, std::uint16_t chip_id) {
    struct stat status {};
    if (::stat(options.flash.c_str(), &status) == 0) {
        return;
    }
    if (!ota::is_semver(options.version)) {
        fail("--version is \"" + options.version + "\", expected a SemVer 2.0.0 version, for example 1.4.0");
    }
    ota::host::ImageSpec spec;
    spec.chip_id = chip_id;
    spec.version = options.version;
    spec.project = options.product;
    const std::vector<std::uint8_t> flash = ota::host::build_flash(ota::host::build_image(spec));
    std::ofstream file(options.flash, std::ios::binary);
    file.write(reinterpret_cast<const char*>(flash.data()), static_cast<std::streamsize>(flash.size()));
    if (!file.flush()) {
        fail("--flash: cannot write \"" + options.flash + "\"");
    }
}

/// Unix time at which to give up; 0: never. Fixed when the device is first started.
std::time_t deadline(const Options& options) {
    if (options.time_limit.empty()) {
        return 0;
    }
    const std::time_t limit_s = number("--time-limit", options.time_limit, 1, 86400);
    if (const char* const set_before = std::getenv(kDeadlineVariable)) {
        return static_cast<std::time_t>(std::strtoll(set_before, nullptr, 10));
    }
    const std::time_t at = std::time(nullptr) + limit_s;
    ::setenv(kDeadlineVariable, std::to_string(at).c_str(), 1);
    return at;
}

}  // namespace

int main(int argc, char** argv) {
    ota::posix::reboot_arguments = argv;
    const Options options = parse_options(argc, argv);

    ota::UpdateConfig config;
    if (!ota::parse_mac(options.mac, config.mac)) {
        fail("--mac is \"" + options.mac + "\", expected for example AA:BB:CC:DD:EE:FF");
    }
    const auto chip_id = ota::chip_id_of(options.chip);
    if (!chip_id) {
        fail("--chip is \"" + options.chip + "\", expected for example esp32 or esp32s3");
    }
    std::vector<std::string> keys;
    std::vector<const char*> key_pointers;
    keys.reserve(options.trusted_keys.size());
    key_pointers.reserve(options.trusted_keys.size());
    for (const std::string& path : options.trusted_keys) {
        keys.push_back(read_file("--trusted-key", path));
        ota::Sha256Digest id;
        if (ota::key_id(keys.back().c_str(), id) != ota::Reason::none) {
            fail("--trusted-key: \"" + path + "\" is not a PEM public key (-----BEGIN PUBLIC KEY-----)");
        }
    }
    for (const std::string& key : keys) {
        key_pointers.push_back(key.c_str());
    }
    config.product = options.product.c_str();
    config.chip = options.chip.c_str();
    config.api_url = options.api_url.c_str();
    config.api_key = options.api_key.c_str();
    config.topic_prefix = options.topic_prefix.c_str();
    config.trusted_keys = {key_pointers.data(), key_pointers.size()};
    config.chunk_size = number("--chunk", options.chunk, ota::kFlashSectorSize, 1U << 22U);
    config.max_delay_s = number("--max-delay", options.max_delay, 0, 86400);
    config.check_in_interval_s = number("--check-in", options.check_in, 1, 86400);
    config.first_back_off_s = number("--back-off", options.back_off, 1, 3600);
    if (config.chunk_size % ota::kFlashSectorSize != 0) {
        fail("--chunk is " + options.chunk + ", expected a multiple of 4096");
    }
    const std::time_t give_up_at = deadline(options);

    make_flash_file(options, *chip_id);
    const auto slots = ota::make_flash_slots(options.flash.c_str());
    const auto store = ota::make_key_value_store(options.flash.c_str());
    if (!slots || !store) {
        fail("--flash: \"" + options.flash +
             "\" is not a 4 MB flash with a bootable image; delete it to start with a new one");
    }

    const auto http = ota::make_http_client({});

    const std::string mac = ota::format_mac(config.mac);
    const ota::UpdateTopics topics(config.topic_prefix, config.product, config.mac);
    const char* const subscriptions[] = {topics.fleet.c_str(), topics.product.c_str(), topics.device.c_str()};
    std::string mqtt_ca;
    std::string mqtt_cert;
    std::string mqtt_key;
    ota::MqttClientConfig mqtt_config;
    mqtt_config.host = options.mqtt_host.c_str();
    mqtt_config.port = static_cast<std::uint16_t>(number("--mqtt-port", options.mqtt_port, 1, 65535));
    mqtt_config.client_id = mac.c_str();
    mqtt_config.topics = subscriptions;
    mqtt_config.topic_count = std::size(subscriptions);
    if (!options.mqtt_ca.empty()) {
        mqtt_ca = read_file("--mqtt-ca", options.mqtt_ca);
        mqtt_cert = read_file("--mqtt-cert", options.mqtt_cert);
        mqtt_key = read_file("--mqtt-key", options.mqtt_key);
        mqtt_config.ca_pem = mqtt_ca.c_str();
        mqtt_config.client_certificate_pem = mqtt_cert.c_str();
        mqtt_config.client_key_pem = mqtt_key.c_str();
    }
    const auto mqtt = ota::make_mqtt_client(mqtt_config);
    if (!http || !mqtt) {
        fail("cannot start the HTTP or MQTT client; check the --mqtt options");
    }

    struct sigaction action {};
    action.sa_handler = [](int) { g_stop = 1; };
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);

    Console console(mac, options);
    ota::OTAUpdateManager manager(
        config,
        {*slots, *store, *http, *mqtt, ota::system_clock(), ota::system_random(), ota::system_reboot()},
        console);
    console.watch(manager);
    manager.start();
    std::time_t leave_at = 0;
    while (g_stop == 0) {
        mqtt->wait(std::min(manager.step(), kLongestWait_ms));
        const std::time_t now = std::time(nullptr);
        if (console.seen_end()) {
            constexpr std::time_t kGrace_s = 5;  // For the broker to acknowledge the last message.
            leave_at = leave_at == 0 ? now + kGrace_s : leave_at;
            if ((!manager.has_report() && mqtt->all_acknowledged()) || now >= leave_at) {
                return EXIT_SUCCESS;
            }
        }
        if (give_up_at != 0 && now >= give_up_at) {
            return kExitTimeLimit;
        }
    }
    return EXIT_SUCCESS;
}

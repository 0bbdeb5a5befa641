#include "ota/port/mqtt_client.hpp"

#include <mosquitto.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

namespace ota {
namespace {

constexpr int kKeepAlive_s = 60;
constexpr int kLoop_ms = 200;
constexpr int kQos = 1;
constexpr std::chrono::seconds kMailboxWait{5};
constexpr std::chrono::seconds kFirstReconnectDelay{1};
constexpr std::chrono::seconds kLastReconnectDelay{60};

/// A PEM text with a path, because libmosquitto accepts nothing else. It stays in memory, so that no
/// key reaches a disk.
class PemFile {
public:
    explicit PemFile(const char* pem) {
        if (pem == nullptr) {
            return;
        }
        file_ = ::memfd_create("pem", MFD_CLOEXEC);
        const std::size_t size = std::strlen(pem);
        if (file_ >= 0 && ::write(file_, pem, size) == static_cast<ssize_t>(size)) {
            path_ = "/proc/self/fd/" + std::to_string(file_);
        }
    }

    ~PemFile() {
        if (file_ >= 0) {
            ::close(file_);
        }
    }

    PemFile(const PemFile&) = delete;
    PemFile& operator=(const PemFile&) = delete;

    [[nodiscard]] const char* path() const { return path_.empty() ? nullptr : path_.c_str(); }

private:
    int file_ = -1;
    std::string path_;
};

class MosquittoClient final : public MqttClient {
public:
    explicit MosquittoClient(const MqttClientConfig& config)
        : config_(config),
          ca_(config.ca_pem),
          certificate_(config.client_certificate_pem),
          key_(config.client_key_pem),
          client_(mosquitto_new(config.client_id, false, this)) {}

    ~MosquittoClient() override {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            stopping_ = true;
        }
        changed_.notify_all();
        if (client_ != nullptr) {
            mosquitto_disconnect(client_);
        }
        if (thread_.joinable()) {
            thread_.join();
        }
        mosquitto_destroy(client_);
    }

    MosquittoClient(const MosquittoClient&) = delete;
    MosquittoClient& operator=(const MosquittoClient&) = delete;

    bool start() {
        if (client_ == nullptr) {
            return false;
        }
        mosquitto_threaded_set(client_, true);
        mosquitto_connect_callback_set(client_, &MosquittoClient::on_connect);
        mosquitto_disconnect_callback_set(client_, &MosquittoClient::on_disconnect);
        mosquitto_subscribe_callback_set(client_, &MosquittoClient::on_subscribe);
        mosquitto_publish_callback_set(client_, &MosquittoClient::on_publish);
        mosquitto_message_callback_set(client_, &MosquittoClient::on_message);
        if (config_.ca_pem != nullptr && mosquitto_tls_set(client_, ca_.path(), nullptr, certificate_.path(),
                                                           key_.path(), nullptr) != MOSQ_ERR_SUCCESS) {
            return false;
        }
        thread_ = std::thread([this] { run(); });
        return true;
    }

    [[nodiscard]] bool connected() const override { return connected_; }

    bool publish(const char* topic, const char* payload, std::size_t size) override {
        if (!accepted_) {
            return false;
        }
        ++unacknowledged_;  // First, because the other thread receives the acknowledgement.
        if (mosquitto_publish(client_, nullptr, topic, static_cast<int>(size), payload, kQos, false) !=
            MOSQ_ERR_SUCCESS) {
            --unacknowledged_;
            return false;
        }
        return true;
    }

    [[nodiscard]] bool all_acknowledged() const override { return unacknowledged_ == 0; }

    MqttMessage* waiting() override {
        const std::lock_guard<std::mutex> lock(mutex_);
        return mailbox_ ? &*mailbox_ : nullptr;
    }

    bool claim() override {
        const std::lock_guard<std::mutex> lock(mutex_);
        claimed_ = !mailbox_;
        return claimed_;
    }

    void release() override {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            mailbox_.reset();
            claimed_ = false;
        }
        changed_.notify_all();
    }

    void wait(std::uint32_t timeout_ms) override {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                          [this] { return news_ || mailbox_.has_value(); });
        news_ = false;
    }

private:
    /// libmosquitto's own loop ends for good on a TLS or name error, but a device has to try again.
    void run() {
        std::chrono::seconds delay = kFirstReconnectDelay;
        while (!stopping_) {
            int result = mosquitto_connect(client_, config_.host, config_.port, kKeepAlive_s);
            while (result == MOSQ_ERR_SUCCESS && !stopping_) {
                result = mosquitto_loop(client_, kLoop_ms, 1);
                if (connected_) {
                    delay = kFirstReconnectDelay;
                    reported_ = MOSQ_ERR_SUCCESS;
                }
            }
            if (!stopping_ && result != reported_) {
                std::fprintf(stderr, "MQTT broker %s:%d: %s; trying again\n", config_.host, config_.port,
                             result == MOSQ_ERR_ERRNO ? std::strerror(errno) : mosquitto_strerror(result));
                reported_ = result;
            }
            accepted_ = false;
            set_connected(false);
            std::unique_lock<std::mutex> lock(mutex_);
            changed_.wait_for(lock, delay, [this] { return stopping_.load(); });
            delay = std::min(delay * 2, kLastReconnectDelay);
        }
    }

    void set_connected(bool connected) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            connected_ = connected;
            news_ = true;
        }
        changed_.notify_all();
    }

    static void on_connect(mosquitto* client, void* self, int code) {
        auto* const me = static_cast<MosquittoClient*>(self);
        if (code != 0) {
            return;
        }
        me->accepted_ = true;
        me->subscriptions_left_ = me->config_.topic_count;
        for (std::size_t i = 0; i < me->config_.topic_count; ++i) {
            mosquitto_subscribe(client, nullptr, me->config_.topics[i], kQos);
        }
        if (me->config_.topic_count == 0) {
            me->set_connected(true);
        }
    }

    static void on_subscribe(mosquitto* /*client*/, void* self, int /*id*/, int count, const int* granted) {
        auto* const me = static_cast<MosquittoClient*>(self);
        constexpr int kRefused = 0x80;
        if (std::any_of(granted, granted + count, [](int qos) { return qos >= kRefused; })) {
            return;  // Refused: the device hears nothing, so it does not count as connected.
        }
        if (--me->subscriptions_left_ == 0) {
            me->set_connected(true);
        }
    }

    static void on_disconnect(mosquitto* /*client*/, void* self, int /*code*/) {
        auto* const me = static_cast<MosquittoClient*>(self);
        me->accepted_ = false;
        me->set_connected(false);
    }

    static void on_publish(mosquitto* /*client*/, void* self, int /*id*/) {
        auto* const me = static_cast<MosquittoClient*>(self);
        {
            const std::lock_guard<std::mutex> lock(me->mutex_);
            --me->unacknowledged_;
            me->news_ = true;
        }
        me->changed_.notify_all();
    }

    static void on_message(mosquitto* /*client*/, void* self, const mosquitto_message* received) {
        static_cast<MosquittoClient*>(self)->put(*received);
    }

    void put(const mosquitto_message& received) {
        std::unique_lock<std::mutex> lock(mutex_);
        const bool is_free =
            changed_.wait_for(lock, kMailboxWait, [this] { return (!mailbox_ && !claimed_) || stopping_; });
        if (!is_free) {
            return;
        }
        MqttMessage& message = mailbox_.emplace();
        message.topic = received.topic;
        message.size = static_cast<std::size_t>(received.payloadlen);
        if (message.size <= config_.max_payload && message.payload.allocate(message.size)) {
            std::copy_n(static_cast<const char*>(received.payload), message.size, message.payload.data());
        }
        changed_.notify_all();
    }

    const MqttClientConfig config_;
    PemFile ca_;
    PemFile certificate_;
    PemFile key_;
    mosquitto* client_;
    std::thread thread_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<MqttMessage> mailbox_;
    bool claimed_ = false;
    bool news_ = false;
    std::atomic<bool> stopping_{false};
    std::atomic<bool> accepted_{false};   ///< CONNACK has arrived.
    std::atomic<bool> connected_{false};  ///< And every SUBACK.
    std::atomic<int> unacknowledged_{0};
    // Used only by the receiving thread.
    std::size_t subscriptions_left_ = 0;
    int reported_ = MOSQ_ERR_SUCCESS;  ///< The error logged last.
};

}  // namespace

std::unique_ptr<MqttClient> make_mqtt_client(const MqttClientConfig& config) {
    static const int initialised = mosquitto_lib_init();
    auto client = std::make_unique<MosquittoClient>(config);
    if (initialised != MOSQ_ERR_SUCCESS || !client->start()) {
        return nullptr;
    }
    return client;
}

}  // namespace ota

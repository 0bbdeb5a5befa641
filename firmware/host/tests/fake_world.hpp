#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "flash_slots.hpp"
#include "key_value_store.hpp"
#include "nor_flash.hpp"
#include "ota/ota_update_manager.hpp"
#include "release_builder.hpp"

namespace ota::test {

/// Thrown out of a flash operation: the power is gone.
struct PowerCut {};

/// Flash that counts its operations, and loses power at one of them.
class CuttableFlash final : public posix::NorFlash {
public:
    enum class Cut { before, torn, after };

    explicit CuttableFlash(std::vector<std::uint8_t>& bytes)
        : NorFlash(bytes.data(), bytes.size()), erases_(bytes.size() / kFlashSectorSize) {}

    bool write(std::size_t offset, const void* bytes, std::size_t size) override;
    bool erase_sector(std::size_t offset) override;

    /// Makes the power fail at the operation with this number, counted from now.
    void cut_at(std::uint64_t operation, Cut how);
    [[nodiscard]] std::uint64_t operations() const { return operations_; }
    [[nodiscard]] std::uint64_t bytes_written() const { return bytes_written_; }
    /// Erases of the sector that was erased most often.
    [[nodiscard]] std::uint64_t most_erases() const {
        return *std::max_element(erases_.begin(), erases_.end());
    }

private:
    /// @return whether this operation is torn.
    bool count();
    void end_operation();

    std::uint64_t operations_ = 0;
    std::uint64_t bytes_written_ = 0;
    std::vector<std::uint64_t> erases_;  ///< By sector.
    std::optional<std::uint64_t> cut_at_;
    Cut how_ = Cut::before;
};

class FakeClock final : public Clock {
public:
    [[nodiscard]] std::uint64_t uptime_ms() const override { return now_ms; }
    [[nodiscard]] std::optional<std::int64_t> unix_time() const override {
        if (!is_set) {
            return std::nullopt;
        }
        return 1'790'000'000 + static_cast<std::int64_t>(now_ms / 1000);  // In September 2026.
    }

    std::uint64_t now_ms = 5000;
    bool is_set = true;
};

class FakeRandom final : public RandomSource {
public:
    std::uint32_t next() override { return static_cast<std::uint32_t>(generator()); }

    std::mt19937 generator{1};
};

class FakeReboot final : public Reboot {
public:
    void restart() override { requested = true; }

    bool requested = false;
};

/// A broker and its client in one.
class FakeMqtt final : public MqttClient {
public:
    explicit FakeMqtt(FakeClock& clock) : clock_(clock) {}

    [[nodiscard]] bool connected() const override { return is_connected && is_subscribed; }
    bool publish(const char* topic, const char* payload, std::size_t size) override;
    [[nodiscard]] bool all_acknowledged() const override { return acknowledges || unacknowledged == 0; }
    MqttMessage* waiting() override;
    bool claim() override;
    void release() override;
    void wait(std::uint32_t timeout_ms) override { clock_.now_ms += timeout_ms; }

    void deliver(const std::string& topic, const std::string& payload);

    bool is_connected = true;
    bool is_subscribed = true;  ///< The broker has acknowledged this connection's subscriptions.
    bool acknowledges = true;
    bool is_arriving = false;  ///< Only part of the first message in `inbox` has arrived.
    int unacknowledged = 0;
    std::vector<std::pair<std::string, std::string>> published;
    std::deque<std::pair<std::string, std::string>> inbox;

private:
    FakeClock& clock_;
    std::optional<MqttMessage> place_;
    bool claimed_ = false;
};

/// The download API and its client in one. It answers as the real one does; a test can replace any answer,
/// and cut the link.
class FakeServer final : public HttpClient {
public:
    struct Answer {
        HttpResult result = HttpResult::ok;
        HttpResponseHead head;
        std::string body;
    };

    struct Seen {
        std::string url;
        std::map<std::string, std::string> headers;
    };

    explicit FakeServer(FakeClock& clock) : clock_(clock) {}

    HttpResult get(const HttpRequest& request, HttpResponseHead& head) override;
    HttpResult read(void* buffer, std::size_t size, std::size_t& received) override;
    void close() override { open_ = false; }

    /// The answer of a well-behaved API, which has `images` by "product/version" and the check-in.
    Answer answer(const Seen& request);
    [[nodiscard]] static Answer range_answer(const Seen& request, const std::vector<std::uint8_t>& image);

    std::map<std::string, std::vector<std::uint8_t>> images;
    std::string check_in_body;                     ///< Empty: 204.
    std::function<Answer(const Seen&)> take_over;  ///< Answers instead, if set.
    std::function<bool()> cut;                     ///< Called before every read: drop the link now?
    std::uint32_t ms_per_read = 1;
    std::size_t bytes_per_read = 1400;
    std::vector<Seen> requests;
    std::uint64_t image_bytes_sent = 0;

private:
    FakeClock& clock_;
    bool open_ = false;
    Answer current_;
    std::size_t position_ = 0;
};

/// Records what the manager tells its observer.
class Recorder final : public UpdateObserver {
public:
    struct Event {
        std::string name;
        std::string release_id;
        std::string version;
        Reason reason;
        std::int64_t value;
    };

    void on_event(const UpdateEvent& event) override;
    void on_status(const StatusMessage& status) override;
    bool self_test_passes() override { return passes; }

    [[nodiscard]] std::size_t count(const std::string& name) const;
    [[nodiscard]] std::size_t count(Reason reason) const;
    [[nodiscard]] bool saw(const std::string& name) const { return count(name) != 0; }
    [[nodiscard]] bool saw(Reason reason) const { return count(reason) != 0; }
    [[nodiscard]] bool saw_state(const std::string& state) const;
    [[nodiscard]] std::string names() const;

    bool passes = true;
    std::vector<Event> events;
    std::vector<std::string> states;  ///< "state" or "state:reason"
};

/// Reasons that any test of this program has seen.
std::set<Reason>& reasons_seen();

constexpr std::uint64_t kHour_ms = 3600 * 1000ULL;

/// One device and everything around it. Its flash survives its boots.
class World {
public:
    static constexpr std::size_t kImageSize = 98304 + 48;  ///< Not a multiple of a sector.
    static constexpr std::uint32_t kChunk = 8192;

    World();

    /// An image that this device can run.
    static std::vector<std::uint8_t> image(const std::string& version, std::size_t size = kImageSize);
    /// The release of version 2.0.0, served by the API.
    static Release release(const std::string& version = "2.0.0");
    void serve(const Release& release);

    /// Switches the power on. @return false if nothing boots.
    bool boot();
    /// Runs until `done`, until a restart is requested, or until the time is over. @return false for the
    /// last.
    bool run(const std::function<bool()>& done, std::uint64_t limit_ms = 48 * kHour_ms);
    /// Runs, restarting whenever the device requests it, until it has reported `state` and has nothing more
    /// to report.
    bool run_to_report(const std::string& state, std::uint64_t limit_ms = 48 * kHour_ms);
    /// Runs for a time, through restarts.
    void run_for(std::uint64_t ms);

    void notify(const std::string& notification);         ///< On the fleet's topic.
    void notify_device(const std::string& notification);  ///< On its own.

    [[nodiscard]] std::string running_version() const { return manager->running_version(); }
    [[nodiscard]] std::int64_t stored_sequence() const;
    /// Bytes that decide what boots: the running slot and otadata.
    [[nodiscard]] std::vector<std::uint8_t> boot_relevant_flash() const;
    [[nodiscard]] std::vector<std::uint8_t> update_slot_bytes() const;

    std::vector<std::uint8_t> bytes;
    std::shared_ptr<CuttableFlash> flash;
    FakeClock clock;
    FakeRandom random;
    FakeReboot reboot;
    FakeMqtt mqtt{clock};
    FakeServer server{clock};
    Recorder recorder;
    UpdateConfig config;
    std::vector<const char*> keys;

    std::unique_ptr<posix::FlashSlots> slots;
    std::unique_ptr<posix::KeyValueStore> store;
    std::unique_ptr<OTAUpdateManager> manager;
    int boots = 0;
};

}  // namespace ota::test

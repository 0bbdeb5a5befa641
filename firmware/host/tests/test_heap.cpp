// How much heap an update takes, TLS and sockets left out, and what happens when there is none. Counted in
// what malloc hands out, mbedTLS's RSA and SHA-256 included, on a machine whose pointers are twice as wide
// as the chip's.

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "fake_world.hpp"
#include "proof.hpp"

extern "C" {
void* __libc_malloc(std::size_t size);                     // NOLINT: names of the C library
void* __libc_calloc(std::size_t count, std::size_t size);  // NOLINT
void* __libc_realloc(void* block, std::size_t size);       // NOLINT
void __libc_free(void* block);                             // NOLINT
}

namespace {

std::atomic<bool> g_counting{false};
std::atomic<std::int64_t> g_used{0};
std::atomic<std::int64_t> g_peak{0};
/// Blocks of this size are refused, so many times.
std::atomic<std::size_t> g_refused_size{0};
std::atomic<int> g_refusals{0};
/// Blocks that calloc was asked for while it was counted, by mbedTLS. The one with this number is refused.
std::atomic<std::int64_t> g_callocs{0};
std::atomic<std::int64_t> g_refused_calloc{-1};

void count(std::int64_t change) {
    if (!g_counting) {
        return;
    }
    const std::int64_t used = g_used += change;
    std::int64_t peak = g_peak;
    while (used > peak && !g_peak.compare_exchange_weak(peak, used)) {
    }
}

void* counted(void* block) {
    if (block != nullptr) {
        count(static_cast<std::int64_t>(malloc_usable_size(block)));
    }
    return block;
}

}  // namespace

// Whatever library calls malloc in this program calls these.
extern "C" void* malloc(std::size_t size) {
    if (size == g_refused_size && g_refusals > 0) {
        --g_refusals;
        return nullptr;
    }
    return counted(__libc_malloc(size));
}

extern "C" void* calloc(std::size_t count, std::size_t size) {
    if (g_counting && g_callocs++ == g_refused_calloc) {
        return nullptr;
    }
    return counted(__libc_calloc(count, size));
}

extern "C" void free(void* block) {
    if (block != nullptr) {
        count(-static_cast<std::int64_t>(malloc_usable_size(block)));
    }
    __libc_free(block);
}

extern "C" void* realloc(void* block, std::size_t size) {
    const auto before = block == nullptr ? 0 : static_cast<std::int64_t>(malloc_usable_size(block));
    void* const moved = __libc_realloc(block, size);
    if (moved != nullptr) {
        count(static_cast<std::int64_t>(malloc_usable_size(moved)) - before);
    }
    return moved;
}

namespace ota::test {
namespace {

constexpr std::int64_t kLimit = 24576;

/// Suspends the count for what is test equipment in the middle of the update.
class NotCounted {
public:
    NotCounted() : before_(g_counting) { g_counting = false; }
    ~NotCounted() { g_counting = before_; }
    NotCounted(const NotCounted&) = delete;
    NotCounted& operator=(const NotCounted&) = delete;

private:
    bool before_;
};

/// The world's fakes without the memory that only fakes take. What a port must hold, it holds here too:
/// the payload that was received, and the head of an HTTP answer.
class LeanStore final : public KeyValueStore {
public:
    explicit LeanStore(KeyValueStore& store) : store_(store) {}
    PortResult get(const char* key, void* buffer, std::size_t& size) const override {
        const NotCounted pause;
        return store_.get(key, buffer, size);
    }
    PortResult set(const char* key, const void* value, std::size_t size) override {
        const NotCounted pause;
        return store_.set(key, value, size);
    }
    PortResult erase(const char* key) override {
        const NotCounted pause;
        return store_.erase(key);
    }

private:
    KeyValueStore& store_;
};

class LeanMqtt final : public MqttClient {
public:
    explicit LeanMqtt(FakeMqtt& mqtt) : mqtt_(mqtt) {}
    [[nodiscard]] bool connected() const override { return mqtt_.connected(); }
    bool publish(const char* topic, const char* payload, std::size_t size) override {
        const NotCounted pause;
        return mqtt_.publish(topic, payload, size);
    }
    [[nodiscard]] bool all_acknowledged() const override { return mqtt_.all_acknowledged(); }
    MqttMessage* waiting() override { return place_ ? &*place_ : nullptr; }
    bool claim() override {
        claimed_ = !place_;
        return claimed_;
    }
    void release() override {
        place_.reset();
        claimed_ = false;
    }
    void wait(std::uint32_t timeout_ms) override {
        mqtt_.wait(timeout_ms);
        arrive();
    }
    /// As in a port, a message takes its place at any time, and not when the manager looks.
    void arrive() {
        if (!place_ && !claimed_ && !mqtt_.inbox.empty()) {
            place_.emplace().topic = mqtt_.inbox.front().first;
            const std::string& payload = mqtt_.inbox.front().second;
            ASSERT_TRUE(place_->payload.allocate(payload.size()));
            std::copy(payload.begin(), payload.end(), place_->payload.data());
            const NotCounted pause;
            mqtt_.inbox.pop_front();
        }
    }

private:
    FakeMqtt& mqtt_;
    std::optional<MqttMessage> place_;
    bool claimed_ = false;
};

class LeanServer final : public HttpClient {
public:
    LeanServer(HttpClient& server, LeanMqtt& mqtt) : server_(server), mqtt_(mqtt) {}
    HttpResult get(const HttpRequest& request, HttpResponseHead& head) override {
        std::optional<HttpResponseHead> answered;
        HttpResult result = HttpResult::ok;
        {
            const NotCounted pause;
            result = server_.get(request, answered.emplace());
        }
        head = *answered;  // Counted: what the caller holds.
        const NotCounted pause;
        answered.reset();
        return result;
    }
    HttpResult read(void* buffer, std::size_t size, std::size_t& received) override {
        mqtt_.arrive();
        const NotCounted pause;
        return server_.read(buffer, size, received);
    }
    void close() override { server_.close(); }

private:
    HttpClient& server_;
    LeanMqtt& mqtt_;
};

class Quiet final : public UpdateObserver {
public:
    void on_event(const UpdateEvent& event) override {
        const NotCounted pause;
        names.emplace_back(event.name);
    }
    void on_status(const StatusMessage& /*status*/) override {}
    [[nodiscard]] bool saw(const std::string& name) const {
        return std::find(names.begin(), names.end(), name) != names.end();
    }

    std::vector<std::string> names;
};

/// The largest notification that there can be, with all its surplus in what is not signed.
std::string fill_up(Release release) {
    release.more_notification = R"(,"max_delay":0,"padding":"")";
    const std::size_t size = release.notification().size();
    release.more_notification =
        R"(,"max_delay":0,"padding":")" + std::string(kMaxNotificationSize - size, 'x') + '"';
    return release.notification();
}

/// The same with its surplus in the manifest, which stays in memory while its signature is verified.
std::string fill_up_manifest(Release release) {
    release.more_manifest = R"(,"padding":"")";
    const std::size_t room = kMaxNotificationSize - release.notification().size();
    release.more_manifest = R"(,"padding":")" + std::string(room / 4 * 3 - 3, 'x') + '"';
    return release.notification();
}

TEST(Heap, StaysBelowTheLimitDuringAWholeUpdate) {
    World world;
    world.config.chunk_size = 65536;
    ASSERT_TRUE(world.boot());
    Release release = World::release();
    release.signer = &second_trusted_key();  // 3072 bits, the default of ota-sign.
    release.image = World::image("2.0.0", 0x1E0000 - 4096);
    release.release_id = std::string(kMaxReleaseIdLength, 'r');
    world.serve(release);
    const std::string notification = fill_up(release);
    ASSERT_EQ(notification.size(), kMaxNotificationSize);
    Release next = World::release("2.0.1");
    next.expires = "2020-01-01T00:00:00Z";  // Refused, but only after all the work.
    next.signer = &second_trusted_key();
    const std::vector<std::string> during_download{fill_up(next), fill_up_manifest(next)};
    ASSERT_GT(during_download[1].size(), kMaxNotificationSize - 16);

    // The longest address that the API may redirect to.
    const std::string elsewhere = "http://bucket.test/firmware/" + std::string(2020, 'x');
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        if (seen.url.find("/firmware/") == std::string::npos) {
            return world.server.answer(seen);
        }
        if (seen.headers.count("x-api-key") == 0) {
            return FakeServer::range_answer(seen, release.image);
        }
        FakeServer::Answer answer;
        answer.head.status = 307;
        answer.head.location = elsewhere;
        return answer;
    };
    world.server.check_in_body = during_download[1];

    LeanStore store(*world.store);
    LeanMqtt mqtt(world.mqtt);
    LeanServer server(world.server, mqtt);
    Quiet observer;
    world.manager.reset();
    g_counting = true;
    auto manager = std::make_unique<OTAUpdateManager>(
        world.config, UpdatePorts{*world.slots, store, server, mqtt, world.clock, world.random, world.reboot},
        observer);
    manager->start();
    const std::int64_t at_rest = g_used;

    std::int64_t peak_so_far = 0;
    const auto peak_since = [&] {
        const std::int64_t peak = g_peak;
        peak_so_far = std::max(peak_so_far, peak);
        g_peak = g_used.load();
        return peak;
    };
    const auto run_until = [&](const char* event) {
        for (int steps = 0; steps < 20000 && !observer.saw(event); ++steps) {
            mqtt.wait(manager->step());
        }
        ASSERT_TRUE(observer.saw(event)) << event;
    };
    const auto deliver = [&](const std::string& message) {
        const NotCounted pause;
        world.notify(message);
    };
    while (world.clock.now_ms < 5000 + 10000 && !observer.saw("checked_in")) {
        mqtt.wait(manager->step());
        deliver(during_download[0]);  // So that one arrives while the check-in is under way.
    }
    run_until("checked_in");
    const std::int64_t checking_in = peak_since();
    deliver(notification);
    run_until("accepted");
    const std::int64_t deciding = peak_since();
    run_until("chunk_confirmed");
    const std::int64_t downloading = peak_since();
    for (std::size_t i = 0; i < 20; ++i) {
        deliver(during_download[i % 2]);
    }
    run_until("verified");
    const std::int64_t deciding_meanwhile = peak_since();
    run_until("activated");
    const std::int64_t activating = peak_since();
    EXPECT_EQ(world.mqtt.inbox.size(), 0U);
    manager.reset();
    mqtt.release();
    g_counting = false;
    EXPECT_LE(peak_so_far, kLimit);
    EXPECT_EQ(g_used, 0) << "leaked";
    std::printf(
        "[ HEAP     ] image of %zu bytes, RSA-3072, notifications of %zu bytes: at rest %lld, checking in "
        "%lld, "
        "deciding %lld, downloading %lld, both at once %lld, activating %lld bytes; limit %lld\n",
        release.image.size(), kMaxNotificationSize, static_cast<long long>(at_rest),
        static_cast<long long>(checking_in), static_cast<long long>(deciding),
        static_cast<long long>(downloading), static_cast<long long>(deciding_meanwhile),
        static_cast<long long>(activating), static_cast<long long>(kLimit));
}

TEST(OutOfMemory, DownloadGoesOnWhenThereIsMemoryAgain) {
    World world;
    ASSERT_TRUE(world.boot());
    const Release release = World::release();
    world.serve(release);
    world.notify(release.notification());
    g_refused_size = kFlashSectorSize;  // The buffer of a download.
    g_refusals = 2;
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(g_refusals, 0);
    const std::vector<std::string>& states = world.recorder.states;
    EXPECT_EQ(std::count(states.begin(), states.end(), "downloading:out_of_memory"), 2);
    EXPECT_EQ(world.running_version(), "2.0.0");
}

TEST(OutOfMemory, CheckInIsRepeatedWhenThereIsMemoryAgain) {
    World world;
    const Release release = World::release();
    world.serve(release);
    const std::string notification = release.notification();
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        FakeServer::Answer answer = world.server.answer(seen);
        if (seen.url.find("/devices/") != std::string::npos) {
            answer.head.status = 200;
            answer.head.content_length = -1;  // So that room for the largest is asked for.
            answer.body = notification;
        }
        return answer;
    };
    g_refused_size = kMaxNotificationSize + 1;
    g_refusals = 1;
    ASSERT_TRUE(world.boot());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(g_refusals, 0);
    const std::vector<Recorder::Event>& events = world.recorder.events;
    EXPECT_TRUE(std::any_of(events.begin(), events.end(), [](const Recorder::Event& event) {
        return event.name == "check_in_failed" && event.reason == Reason::out_of_memory;
    }));
}

TEST(OutOfMemory, AnyOneBlockThatMbedTlsLacksDelaysTheUpdateAtMost) {
    const Release release = World::release();
    const std::string notification = release.notification();
    const auto update = [&](std::int64_t refused) {
        World world;
        world.serve(release);
        world.server.check_in_body = notification;
        EXPECT_TRUE(world.boot());
        LeanStore store(*world.store);
        LeanMqtt mqtt(world.mqtt);
        LeanServer server(world.server, mqtt);
        Quiet observer;
        OTAUpdateManager manager(
            world.config,
            UpdatePorts{*world.slots, store, server, mqtt, world.clock, world.random, world.reboot},
            observer);
        g_callocs = 0;
        g_refused_calloc = refused;
        g_counting = true;
        manager.start();
        while (world.clock.now_ms < 48ULL * 3600 * 1000 && !observer.saw("activated")) {
            mqtt.wait(manager.step());
        }
        g_counting = false;
        g_refused_calloc = -1;
        EXPECT_TRUE(observer.saw("activated")) << "block " << refused;
        return g_callocs.load();
    };
    const std::int64_t blocks = update(-1);
    ASSERT_GT(blocks, 10);
    for (std::int64_t block = 0; block < blocks; ++block) {
        update(block);
    }
    std::printf("[ SWEEP    ] blocks of mbedTLS refused, one by one: %lld\n", static_cast<long long>(blocks));
    report_proof("cuts", "blocks of memory that mbedTLS asks for in an update, refused one by one",
                 static_cast<std::uint64_t>(blocks));
}

}  // namespace
}  // namespace ota::test

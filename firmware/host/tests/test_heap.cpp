// How much heap an update takes, without TLS and sockets, and that it follows the rules for running out of it
// (firmware/README.md, "Out of memory"). Counts what malloc allocates, mbedTLS's RSA and SHA-256 included, on
// a machine with pointers twice as wide as the chip's.

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <new>
#include <set>

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
/// This many blocks of this size are refused.
std::atomic<std::size_t> g_refused_size{0};
std::atomic<int> g_refusals{0};
/// Requests for blocks while counting is on, and the number of the one to refuse.
struct Requests {
    std::atomic<std::int64_t> count{0};
    std::atomic<std::int64_t> refused{-1};
    std::atomic<std::size_t> largest{0};

    /// Counts one. @return whether it is granted.
    bool ask(std::size_t size) {
        if (!g_counting) {
            return true;
        }
        largest = std::max(largest.load(), size);
        return count++ != refused;
    }
};
/// Requests that may fail: malloc, calloc, realloc and new (std::nothrow), by us and by mbedTLS.
Requests g_refusable;
/// Requests whose failure is an exception here, and abort() on a chip: new.
Requests g_throwing;

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

// Every library in this program calls these.
extern "C" void* malloc(std::size_t size) {
    if (size == g_refused_size && g_refusals > 0) {
        --g_refusals;
        return nullptr;
    }
    return g_refusable.ask(size) ? counted(__libc_malloc(size)) : nullptr;
}

extern "C" void* calloc(std::size_t count, std::size_t size) {
    return g_refusable.ask(count * size) ? counted(__libc_calloc(count, size)) : nullptr;
}

extern "C" void free(void* block) {
    if (block != nullptr) {
        count(-static_cast<std::int64_t>(malloc_usable_size(block)));
    }
    __libc_free(block);
}

extern "C" void* realloc(void* block, std::size_t size) {
    if (!g_refusable.ask(size)) {
        return nullptr;
    }
    const auto before = block == nullptr ? 0 : static_cast<std::int64_t>(malloc_usable_size(block));
    void* const moved = __libc_realloc(block, size);
    if (moved != nullptr) {
        count(static_cast<std::int64_t>(malloc_usable_size(moved)) - before);
    }
    return moved;
}

// Replaced, because the C++ library implements the nothrow forms with the throwing ones.
void* operator new(std::size_t size) {
    void* const block = g_throwing.ask(size) ? counted(__libc_malloc(size)) : nullptr;
    if (block == nullptr) {
        throw std::bad_alloc();
    }
    return block;
}

void* operator new[](std::size_t size) {
    return operator new(size);
}

void* operator new(std::size_t size, const std::nothrow_t& /*tag*/) noexcept {
    return std::malloc(size);
}

void* operator new[](std::size_t size, const std::nothrow_t& /*tag*/) noexcept {
    return std::malloc(size);
}

void operator delete(void* block) noexcept {
    std::free(block);
}

void operator delete[](void* block) noexcept {
    std::free(block);
}

void operator delete(void* block, std::size_t /*size*/) noexcept {
    std::free(block);
}

void operator delete[](void* block, std::size_t /*size*/) noexcept {
    std::free(block);
}

namespace ota::test {
namespace {

constexpr std::int64_t kLimit = 24576;

/// Suspends the count while test code runs in the middle of an update.
class NotCounted {
public:
    NotCounted() : before_(g_counting) { g_counting = false; }
    ~NotCounted() { g_counting = before_; }
    NotCounted(const NotCounted&) = delete;
    NotCounted& operator=(const NotCounted&) = delete;

private:
    bool before_;
};

/// The world's fakes, without the memory that only fakes need. What a real port holds counts here too: the
/// received payload, and the head of an HTTP answer.
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

class LeanSlots final : public FlashSlots {
public:
    explicit LeanSlots(FlashSlots& slots) : slots_(slots) {}
    [[nodiscard]] int running_slot() const override { return slots_.running_slot(); }
    [[nodiscard]] int update_slot() const override { return slots_.update_slot(); }
    [[nodiscard]] SlotState state(int slot) const override { return slots_.state(slot); }
    [[nodiscard]] std::size_t update_slot_size() const override { return slots_.update_slot_size(); }
    PortResult read(int slot, std::size_t offset, void* buffer, std::size_t size) const override {
        return slots_.read(slot, offset, buffer, size);
    }
    PortResult begin(std::size_t offset) override { return slots_.begin(offset); }
    PortResult write(const void* data, std::size_t size) override { return slots_.write(data, size); }
    PortResult activate() override {
        const NotCounted pause;  // The bootloader's SHA-256.
        return slots_.activate();
    }
    PortResult mark_running_valid() override { return slots_.mark_running_valid(); }
    PortResult mark_running_invalid() override { return slots_.mark_running_invalid(); }

private:
    FlashSlots& slots_;
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
    /// As in a port, a message may arrive at any time, not only when the manager looks.
    void arrive() {
        if (!place_ && !claimed_ && !mqtt_.inbox.empty()) {
            place_.emplace().topic = mqtt_.inbox.front().first;
            const std::string& payload = mqtt_.inbox.front().second;
            place_->size = payload.size();
            if (place_->payload.allocate(payload.size())) {
                std::copy(payload.begin(), payload.end(), place_->payload.data());
            }
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
        reasons.insert(event.reason);
    }
    void on_status(const StatusMessage& /*status*/) override {}
    [[nodiscard]] bool saw(const std::string& name) const {
        return std::find(names.begin(), names.end(), name) != names.end();
    }

    std::vector<std::string> names;
    std::set<Reason> reasons;
};

/// The largest possible notification, filled up with unsigned data.
std::string fill_up(Release release) {
    release.more_notification = R"(,"max_delay":0,"padding":"")";
    const std::size_t size = release.notification().size();
    release.more_notification =
        R"(,"max_delay":0,"padding":")" + std::string(kMaxNotificationSize - size, 'x') + '"';
    return release.notification();
}

/// The same, filled up in the manifest, which stays in memory while its signature is verified.
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
    world.serve(release);
    const std::string notification = fill_up(release);
    ASSERT_EQ(notification.size(), kMaxNotificationSize);
    Release next = World::release("2.0.1");
    next.expires = "2020-01-01T00:00:00Z";  // Refused, but only after all checks.
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
        deliver(during_download[0]);  // So that one arrives during the check-in.
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
            answer.head.content_length = -1;  // So that memory for the largest answer is requested.
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

TEST(OutOfMemory, VerifierAsksForNothingThatItCannotDoWithout) {
    const Release release = World::release();
    std::string text = release.notification();
    Notification notification;
    ASSERT_EQ(parse_notification(text.data(), text.size(), notification), Reason::none);
    Sha256Digest digest;
    ASSERT_EQ(decode_envelope(notification.envelope, digest), Reason::none);
    Manifest manifest;
    const char* const keys[] = {second_trusted_key().public_pem().c_str(),
                                trusted_key().public_pem().c_str()};
    SignatureVerifier verifier({keys, std::size(keys)});

    g_throwing.count = 0;
    g_counting = true;
    const Reason envelope = verifier.verify_envelope(notification.envelope, digest);
    verifier.begin_image();
    verifier.update_image(release.image.data(), release.image.size());
    g_counting = false;
    ASSERT_EQ(parse_manifest(notification.envelope.payload, {}, manifest), Reason::none);
    g_counting = true;
    const Reason image = verifier.finish_image(manifest.image_sha256, manifest.image_signature.data,
                                               manifest.image_signature.size);
    g_counting = false;
    EXPECT_EQ(envelope, Reason::none);
    EXPECT_EQ(image, Reason::none);
    EXPECT_EQ(g_throwing.count, 0);
}

/// Refuses one block during an update. The release comes by check-in, and most of its image is in the slot
/// from before a restart, so that the update goes through every step that there is.
class Refusal {
public:
    Refusal() {
        release.signer = &second_trusted_key();  // So that the first key tried does not match.
        release.more_notification = R"(,"cohort":{"percent":100,"salt":"salt"})";
        notification = release.notification();
    }

    /// @return the number of requests.
    std::int64_t update(Requests& requests, std::int64_t refused) {
        World world;
        world.serve(release);
        EXPECT_TRUE(world.boot());
        world.notify(notification);
        EXPECT_TRUE(world.run([&] { return world.server.image_bytes_sent > release.image.size() / 4 * 3; }));
        EXPECT_TRUE(world.boot());
        world.server.check_in_body = notification;
        requests.count = 0;
        requests.largest = 0;
        requests.refused = refused;
        bool restarted = false;
        {
            LeanSlots slots(*world.slots);
            LeanStore store(*world.store);
            LeanMqtt mqtt(world.mqtt);
            LeanServer server(world.server, mqtt);
            Quiet observer;
            OTAUpdateManager manager(
                world.config,
                UpdatePorts{slots, store, server, mqtt, world.clock, world.random, world.reboot}, observer);
            try {
                g_counting = true;
                manager.start();
                while (world.clock.now_ms < 48ULL * 3600 * 1000 && !observer.saw("activated")) {
                    mqtt.wait(manager.step());
                }
            } catch (const std::bad_alloc&) {
                restarted = true;
            }
            g_counting = false;
            reasons.insert(observer.reasons.begin(), observer.reasons.end());
            EXPECT_TRUE(restarted || observer.saw("activated")) << "block " << refused;
        }
        requests.refused = -1;
        restarts += restarted ? 1 : 0;
        EXPECT_TRUE(world.boot());
        EXPECT_TRUE(world.run_to_report("installed")) << "block " << refused << world.recorder.names();
        reasons.insert(reasons_seen().begin(), reasons_seen().end());
        return requests.count;
    }

    Release release = World::release();
    std::string notification;
    std::set<Reason> reasons;
    std::int64_t restarts = 0;
};

TEST(OutOfMemory, AnyOneBlockThatIsRefusedDelaysTheUpdateAtMost) {
    reasons_seen().clear();
    Refusal refusal;
    const std::int64_t blocks = refusal.update(g_refusable, -1);
    ASSERT_GT(blocks, 50);
    EXPECT_EQ(refusal.reasons, std::set<Reason>{Reason::none});
    for (std::int64_t block = 0; block < blocks; ++block) {
        refusal.update(g_refusable, block);
    }
    EXPECT_EQ(refusal.restarts, 0);
    // A lack of memory is not taken for a bad key, signature or image, or for the wrong cohort.
    const std::set<Reason> expected{Reason::none, Reason::out_of_memory};
    EXPECT_EQ(refusal.reasons, expected);
    std::printf("[ SWEEP    ] blocks of memory refused, one by one: %lld\n", static_cast<long long>(blocks));
    report_proof("cuts", "blocks of memory that an update asks for, refused one by one",
                 static_cast<std::uint64_t>(blocks));
}

TEST(OutOfMemory, TextWithoutMemoryIsARestartThatTheUpdateSurvives) {
    reasons_seen().clear();
    Refusal refusal;
    const std::int64_t texts = refusal.update(g_throwing, -1);
    ASSERT_GT(texts, 20);
    EXPECT_LE(g_throwing.largest, HttpResponseHead::kMaxLocationLength + 1) << "more than a short text";
    for (std::int64_t text = 0; text < texts; ++text) {
        refusal.update(g_throwing, text);
    }
    EXPECT_EQ(refusal.restarts, texts);
    EXPECT_EQ(refusal.reasons, std::set<Reason>{Reason::none});
    std::printf("[ SWEEP    ] texts without memory, one by one: %lld\n", static_cast<long long>(texts));
    report_proof("cuts", "restarts for want of memory for a text, at each text of an update",
                 static_cast<std::uint64_t>(texts));
}

}  // namespace
}  // namespace ota::test

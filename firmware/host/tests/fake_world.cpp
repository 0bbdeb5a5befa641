#include "fake_world.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "flash_layout.hpp"

namespace ota::test {

// CuttableFlash

void CuttableFlash::cut_at(std::uint64_t operation, Cut how) {
    cut_at_ = operations_ + operation;
    how_ = how;
}

bool CuttableFlash::count() {
    const bool now = cut_at_ && operations_ == *cut_at_;
    ++operations_;
    if (now && how_ == Cut::before) {
        cut_at_.reset();
        throw PowerCut{};
    }
    return now && how_ == Cut::torn;
}

void CuttableFlash::end_operation() {
    if (cut_at_ && operations_ == *cut_at_ + 1) {
        cut_at_.reset();
        throw PowerCut{};
    }
}

bool CuttableFlash::write(std::size_t offset, const void* source, std::size_t size) {
    const bool torn = count();
    const std::size_t done = torn ? size / 2 : size;
    bytes_written_ += done;
    const bool good = NorFlash::write(offset, source, done);
    if (torn && done < size) {
        // The byte being programmed got only some of its bits.
        const auto half = static_cast<std::uint8_t>(static_cast<const std::uint8_t*>(source)[done] | 0x5AU);
        NorFlash::write(offset + done, &half, 1);
    }
    end_operation();
    return good;
}

bool CuttableFlash::erase_sector(std::size_t offset) {
    const bool torn = count();
    if (contains(offset, kFlashSectorSize)) {
        ++erases_[offset / kFlashSectorSize];
    }
    if (torn && contains(offset, kFlashSectorSize)) {
        // Cells lose their charge at different rates: half an erase leaves some of the old zeros.
        for (std::size_t i = 0; i < kFlashSectorSize; ++i) {
            bytes_[offset + i] |= static_cast<std::uint8_t>(i * 37U);
        }
        end_operation();
    }
    const bool good = NorFlash::erase_sector(offset);
    end_operation();
    return good;
}

// FakeMqtt

bool FakeMqtt::publish(const char* topic, const char* payload, std::size_t size) {
    if (!is_connected) {
        return false;
    }
    published.emplace_back(topic, std::string(payload, size));
    ++unacknowledged;
    return true;
}

MqttMessage* FakeMqtt::waiting() {
    if (!place_ && !claimed_ && !is_arriving && !inbox.empty()) {
        const auto [topic, payload] = inbox.front();
        inbox.pop_front();
        place_.emplace().topic = topic;
        place_->size = payload.size();
        if (payload.size() <= kMaxNotificationSize && place_->payload.allocate(payload.size())) {
            std::copy(payload.begin(), payload.end(), place_->payload.data());
        }
    }
    return place_ ? &*place_ : nullptr;
}

bool FakeMqtt::claim() {
    claimed_ = waiting() == nullptr && !is_arriving;
    return claimed_;
}

void FakeMqtt::release() {
    place_.reset();
    claimed_ = false;
}

void FakeMqtt::deliver(const std::string& topic, const std::string& payload) {
    inbox.emplace_back(topic, payload);
}

// FakeServer

FakeServer::Answer FakeServer::range_answer(const Seen& request, const std::vector<std::uint8_t>& image) {
    Answer answer;
    unsigned long first = 0;
    unsigned long last = 0;
    answer.head.etag = '"' + sha256_hex(image) + '"';
    const auto range = request.headers.find("Range");
    if (range == request.headers.end() ||
        std::sscanf(range->second.c_str(), "bytes=%lu-%lu", &first, &last) != 2) {
        answer.head.status = 200;
        answer.body.assign(image.begin(), image.end());
    } else if (first >= image.size()) {
        answer.head.status = 416;
        answer.head.content_range = "bytes */" + std::to_string(image.size());
    } else {
        last = std::min<unsigned long>(last, image.size() - 1);
        answer.head.status = 206;
        answer.head.content_range = "bytes " + std::to_string(first) + "-" + std::to_string(last) + "/" +
                                    std::to_string(image.size());
        answer.body.assign(image.begin() + static_cast<std::ptrdiff_t>(first),
                           image.begin() + static_cast<std::ptrdiff_t>(last + 1));
    }
    answer.head.content_length = static_cast<std::int64_t>(answer.body.size());
    return answer;
}

FakeServer::Answer FakeServer::answer(const Seen& request) {
    Answer answer;
    const std::string firmware = "http://api.test/v1/firmware/";
    if (request.headers.count("x-api-key") == 0 || request.headers.at("x-api-key") != "key") {
        answer.head.status = 403;
    } else if (request.url.find("/update?") != std::string::npos) {
        answer.head.status = check_in_body.empty() ? 204 : 200;
        answer.body = check_in_body;
        answer.head.content_length = static_cast<std::int64_t>(answer.body.size());
    } else if (request.url.rfind(firmware, 0) == 0) {
        const std::string path = request.url.substr(0, request.url.find('?'));
        const auto found = images.find(path.substr(firmware.size()));
        if (found != images.end()) {
            return range_answer(request, found->second);
        }
        answer.head.status = 404;
    } else {
        answer.head.status = 404;
    }
    return answer;
}

HttpResult FakeServer::get(const HttpRequest& request, HttpResponseHead& head) {
    Seen seen{request.url, {}};
    for (std::size_t i = 0; i < request.header_count; ++i) {
        seen.headers[request.headers[i].name] = request.headers[i].value;
    }
    requests.push_back(seen);
    current_ = take_over ? take_over(seen) : answer(seen);
    position_ = 0;
    open_ = current_.result == HttpResult::ok;
    head = current_.head;
    return current_.result;
}

HttpResult FakeServer::read(void* buffer, std::size_t size, std::size_t& received) {
    received = 0;
    clock_.now_ms += ms_per_read;
    if (!open_ || (cut && cut())) {
        open_ = false;
        return HttpResult::link_lost;
    }
    received = std::min({size, current_.body.size() - position_, bytes_per_read});
    std::memcpy(buffer, current_.body.data() + position_, received);
    position_ += received;
    if (current_.head.status == 206 || requests.back().url.find("/firmware/") != std::string::npos) {
        image_bytes_sent += received;
    }
    return HttpResult::ok;
}

// Recorder

std::set<Reason>& reasons_seen() {
    static std::set<Reason> seen;
    return seen;
}

void Recorder::on_event(const UpdateEvent& event) {
    events.push_back(
        {event.name, std::string(event.release_id), std::string(event.version), event.reason, event.value});
    reasons_seen().insert(event.reason);
}

void Recorder::on_status(const StatusMessage& status) {
    std::string text(status.state);
    if (!status.reason.empty()) {
        text.append(":").append(status.reason);
    }
    states.push_back(text);
}

std::size_t Recorder::count(const std::string& name) const {
    return static_cast<std::size_t>(
        std::count_if(events.begin(), events.end(), [&](const Event& event) { return event.name == name; }));
}

std::size_t Recorder::count(Reason reason) const {
    return static_cast<std::size_t>(std::count_if(
        events.begin(), events.end(), [&](const Event& event) { return event.reason == reason; }));
}

bool Recorder::saw_state(const std::string& state) const {
    return std::find(states.begin(), states.end(), state) != states.end();
}

std::string Recorder::names() const {
    std::string text;
    for (const Event& event : events) {
        text += event.name;
        if (event.reason != Reason::none) {
            text.append(":").append(to_string(event.reason));
        }
        text += ' ';
    }
    return text;
}

// World

World::World() {
    bytes = host::build_flash(image("1.0.0"));
    flash = std::make_shared<CuttableFlash>(bytes);
    keys = {trusted_key().public_pem().c_str(), second_trusted_key().public_pem().c_str()};
    (void)parse_mac("AA:BB:CC:DD:EE:01", config.mac);
    config.product = "sensor";
    config.chip = "esp32";
    config.api_url = "http://api.test/v1";
    config.api_key = "key";
    config.trusted_keys = {keys.data(), keys.size()};
    config.chunk_size = kChunk;
}

std::vector<std::uint8_t> World::image(const std::string& version, std::size_t size) {
    // The sweeps make thousands of worlds.
    static std::map<std::pair<std::string, std::size_t>, std::vector<std::uint8_t>> built;
    std::vector<std::uint8_t>& image = built[{version, size}];
    if (image.empty()) {
        host::ImageSpec spec;
        spec.version = version;
        spec.size = size;
        spec.seed = static_cast<std::uint32_t>(std::hash<std::string>{}(version));
        image = host::build_image(spec);
    }
    return image;
}

Release World::release(const std::string& version) {
    Release release;
    release.version = version;
    release.image = image(version);
    return release;
}

void World::serve(const Release& release) {
    const std::string& version =
        release.announced_version.empty() ? release.version : release.announced_version;
    server.images[release.product + "/" + version] = release.image;
}

bool World::boot() {
    manager.reset();
    store.reset();
    slots.reset();
    reboot.requested = false;
    mqtt.unacknowledged = 0;
    mqtt.release();
    server.close();
    clock.now_ms = 5000;
    slots = posix::FlashSlots::boot(flash);
    if (!slots) {
        return false;
    }
    ++boots;
    store = std::make_unique<posix::KeyValueStore>(flash);
    manager = std::make_unique<OTAUpdateManager>(
        config, UpdatePorts{*slots, *store, server, mqtt, clock, random, reboot}, recorder);
    manager->start();
    return true;
}

bool World::run(const std::function<bool()>& done, std::uint64_t limit_ms) {
    const std::uint64_t end = clock.now_ms + limit_ms;
    while (clock.now_ms < end) {
        if (done()) {
            return true;
        }
        const std::uint64_t rest = manager->step();
        mqtt.wait(static_cast<std::uint32_t>(std::min(rest, end - std::min(end, clock.now_ms))));
        if (reboot.requested) {
            return true;
        }
    }
    return done();
}

bool World::run_to_report(const std::string& state, std::uint64_t limit_ms) {
    const auto reported = [&] { return recorder.saw_state(state) && !NVSStorageHandler(*store).report(); };
    for (int restarts = 0; restarts < 50; ++restarts) {
        if (!run(reported, limit_ms)) {
            return false;
        }
        if (!reboot.requested) {
            return true;
        }
        if (!boot()) {
            return false;
        }
    }
    return false;
}

void World::run_for(std::uint64_t ms) {
    std::uint64_t left = ms;
    while (left > 0) {
        const std::uint64_t before = clock.now_ms;
        run([] { return false; }, left);
        left -= std::min(left, clock.now_ms - before);
        if (reboot.requested && !boot()) {
            return;
        }
    }
}

void World::notify(const std::string& notification) {
    mqtt.deliver("/firmware_update", notification);
}

void World::notify_device(const std::string& notification) {
    mqtt.deliver("/firmware_update/AA:BB:CC:DD:EE:01", notification);
}

std::int64_t World::stored_sequence() const {
    const auto installed = NVSStorageHandler(*store).installed();
    return installed ? installed->sequence : 0;
}

std::vector<std::uint8_t> World::boot_relevant_flash() const {
    std::vector<std::uint8_t> relevant(posix::kOtaDataSize + posix::kSlotSize);
    (void)flash->read(posix::kOtaDataOffset, relevant.data(), posix::kOtaDataSize);
    (void)flash->read(posix::kSlotOffset[slots->running_slot()], relevant.data() + posix::kOtaDataSize,
                      posix::kSlotSize);
    return relevant;
}

std::vector<std::uint8_t> World::update_slot_bytes() const {
    const auto slot = bytes.begin() + static_cast<std::ptrdiff_t>(posix::kSlotOffset[slots->update_slot()]);
    return {slot, slot + static_cast<std::ptrdiff_t>(posix::kSlotSize)};
}

}  // namespace ota::test

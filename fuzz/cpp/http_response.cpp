// A server's answers, as text: a status, the fields that the update needs, an empty line, and the body.
// A line `---` separates answers.

#include <algorithm>
#include <string>

#include "ota/http_downloader.hpp"
#include "ota/notification.hpp"
#include "require.hpp"

using ota::HttpResult;
using ota::Reason;

namespace {

std::string_view take_until(std::string_view& text, std::string_view end) {
    const std::string_view taken = text.substr(0, text.find(end));
    text.remove_prefix(std::min(text.size(), taken.size() + end.size()));
    return taken;
}

class Server final : public ota::HttpClient {
public:
    explicit Server(std::string_view answers) : answers_(answers) {}

    HttpResult get(const ota::HttpRequest&, ota::HttpResponseHead& head) override {
        std::string_view answer = take_until(answers_, "\n---\n");
        std::string_view lines = take_until(answer, "\n\n");
        body_ = answer;
        const int status = std::atoi(std::string(take_until(lines, "\n").substr(0, 6)).c_str());
        if (status < 100 || status > 599) {
            return static_cast<HttpResult>(std::abs(status) % 5);
        }
        head.status = status;
        while (!lines.empty()) {
            std::string_view value = take_until(lines, "\n");
            const std::string_view name = take_until(value, ": ");
            if (name == "content-length") {
                head.content_length = std::strtoll(std::string(value.substr(0, 20)).c_str(), nullptr, 10);
            } else if (name == "content-range") {
                head.content_range = value;
            } else if (name == "etag") {
                head.etag = value;
            } else if (name == "retry-after") {
                head.retry_after = value;
            } else if (name == "location") {
                head.location = value.substr(0, ota::HttpResponseHead::kMaxLocationLength);
            }
        }
        return HttpResult::ok;
    }

    HttpResult read(void* buffer, std::size_t size, std::size_t& received) override {
        received = 0;
        if (!body_.empty() && body_.front() == '\x01') {  // Nothing arrived in time.
            body_.remove_prefix(1);
            return HttpResult::timed_out;
        }
        if (!body_.empty() && body_.front() == '\x02') {
            return HttpResult::link_lost;
        }
        received = std::min({size, body_.size(), std::size_t{13}});
        std::copy(body_.begin(), body_.begin() + static_cast<std::ptrdiff_t>(received),
                  static_cast<char*>(buffer));
        body_.remove_prefix(received);
        return HttpResult::ok;
    }

    void close() override { body_ = {}; }

private:
    std::string_view answers_;
    std::string_view body_;
};

/// Each call advances it by a second, so that nothing waits forever.
class Clock final : public ota::Clock {
public:
    [[nodiscard]] std::uint64_t uptime_ms() const override { return now_ms_ += 1000; }
    [[nodiscard]] std::optional<std::int64_t> unix_time() const override { return std::nullopt; }

private:
    mutable std::uint64_t now_ms_ = 0;
};

ota::UpdateConfig device_config() {
    ota::UpdateConfig config;
    config.product = "demo-sensor";
    config.chip = "esp32s3";
    config.api_url = "https://api.example";
    config.api_key = "key";
    return config;
}

void download(std::string_view answers, const ota::ByteRange& range) {
    Server server(answers);
    Clock clock;
    const ota::UpdateConfig config = device_config();
    ota::ApiClient api(server, clock, config);
    ota::HTTPDownloader downloader(server, api);
    const ota::Sha256Digest sha256{};
    for (int attempt = 0; attempt < 3; ++attempt) {
        Reason reason = downloader.open("0123456789abcdef0123456789abcdef", "1.4.0", sha256, range);
        REQUIRE(api.retry_after_s() <= 86400);
        std::size_t total = 0;
        while (reason == Reason::none && !downloader.at_end()) {
            char buffer[64];
            std::size_t received = 0;
            reason = downloader.read(buffer, sizeof(buffer), received);
            REQUIRE(received <= sizeof(buffer));
            total += received;
        }
        // A 200 has the whole image, and is accepted only for a request from its start.
        REQUIRE(total <= (range.begin == 0 ? range.image_size : range.end - range.begin));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
    const ota::HeapText text = own_copy(input, size);
    const std::string_view answers(text.data(), size);
    download(answers, {0, 100, 250});
    download(answers, {100, 200, 250});

    Server server(answers);
    Clock clock;
    const ota::UpdateConfig config = device_config();
    ota::ApiClient api(server, clock, config);
    ota::HeapText body;
    const Reason reason = api.check_in("1.3.0+5", body);
    REQUIRE(body.size() <= ota::kMaxNotificationSize);
    REQUIRE(reason == Reason::none || !body);
    return 0;
}

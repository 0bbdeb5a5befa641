#include "ota/port/http_client.hpp"

#include <curl/curl.h>
#include <strings.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <string_view>

namespace ota {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct CurlListDeleter {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

HttpResult result_of(CURLcode code) {
    switch (code) {
        case CURLE_OK:
            return HttpResult::ok;
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_CONNECT:
            return HttpResult::unreachable;
        case CURLE_OPERATION_TIMEDOUT:
            return HttpResult::timed_out;
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_SSL_CERTPROBLEM:
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_ISSUER_ERROR:
        case CURLE_SSL_CACERT_BADFILE:
            return HttpResult::tls_failed;
        default:
            return HttpResult::link_lost;
    }
}

/// libcurl pushes a body to a callback, but the update pulls it. So the transfer pauses until the last
/// piece has been read.
class CurlHttpClient final : public HttpClient {
public:
    explicit CurlHttpClient(const HttpClientConfig& config)
        : timeout_(config.timeout_ms), multi_(curl_multi_init()), easy_(curl_easy_init()) {
        curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, 1L);
        curl_easy_setopt(easy_, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(easy_, CURLOPT_PROTOCOLS_STR, "http,https");
        curl_easy_setopt(easy_, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
        curl_easy_setopt(easy_, CURLOPT_PROXY, "");  // A device does not use http_proxy.
        curl_easy_setopt(easy_, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(config.timeout_ms));
        curl_easy_setopt(easy_, CURLOPT_HEADERFUNCTION, &CurlHttpClient::on_header);
        curl_easy_setopt(easy_, CURLOPT_HEADERDATA, this);
        curl_easy_setopt(easy_, CURLOPT_WRITEFUNCTION, &CurlHttpClient::on_body);
        curl_easy_setopt(easy_, CURLOPT_WRITEDATA, this);
        if (config.ca_pem != nullptr) {
            curl_blob blob{const_cast<char*>(config.ca_pem), std::strlen(config.ca_pem), CURL_BLOB_COPY};
            curl_easy_setopt(easy_, CURLOPT_CAINFO_BLOB, &blob);
        }
    }

    ~CurlHttpClient() override {
        close();
        curl_easy_cleanup(easy_);
        curl_multi_cleanup(multi_);
    }

    CurlHttpClient(const CurlHttpClient&) = delete;
    CurlHttpClient& operator=(const CurlHttpClient&) = delete;

    HttpResult get(const HttpRequest& request, HttpResponseHead& head) override {
        close();
        curl_slist* list = nullptr;
        for (std::size_t i = 0; i < request.header_count; ++i) {
            const HttpHeader& header = request.headers[i];
            list = curl_slist_append(list, (std::string(header.name) + ": " + header.value).c_str());
        }
        headers_.reset(list);
        curl_easy_setopt(easy_, CURLOPT_HTTPHEADER, list);
        curl_easy_setopt(easy_, CURLOPT_URL, request.url);
        head_ = {};
        head_complete_ = false;
        done_ = false;
        paused_ = false;
        begin_ = end_ = 0;
        curl_multi_add_handle(multi_, easy_);
        open_ = true;
        const SteadyClock::time_point deadline = SteadyClock::now() + timeout_;
        while (!head_complete_ && !done_) {
            if (!run_until(deadline)) {
                close();
                return HttpResult::timed_out;
            }
        }
        if (!head_complete_) {
            const HttpResult result = result_of(code_);
            close();
            return result == HttpResult::ok ? HttpResult::link_lost : result;
        }
        head = head_;
        return HttpResult::ok;
    }

    HttpResult read(void* buffer, std::size_t size, std::size_t& received) override {
        received = 0;
        if (!open_) {
            return HttpResult::link_lost;
        }
        const SteadyClock::time_point deadline = SteadyClock::now() + timeout_;
        while (begin_ == end_ && !done_) {
            if (paused_) {
                paused_ = false;
                curl_easy_pause(easy_, CURLPAUSE_CONT);
            } else if (!run_until(deadline)) {
                return HttpResult::timed_out;
            }
        }
        if (begin_ == end_) {
            return result_of(code_);
        }
        received = std::min(size, end_ - begin_);
        std::memcpy(buffer, body_.data() + begin_, received);
        begin_ += received;
        return HttpResult::ok;
    }

    void close() override {
        if (open_) {
            // libcurl keeps the connection of a finished transfer and closes any other.
            curl_multi_remove_handle(multi_, easy_);
            open_ = false;
        }
    }

private:
    /// Continues the transfer. @return false when the deadline has passed.
    bool run_until(SteadyClock::time_point deadline) {
        int running = 0;
        curl_multi_perform(multi_, &running);
        int left = 0;
        while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
            if (message->msg == CURLMSG_DONE) {
                code_ = message->data.result;
                done_ = true;
            }
        }
        if (done_ || body_waits()) {
            return true;
        }
        const auto wait =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now());
        if (wait.count() <= 0) {
            return false;
        }
        curl_multi_poll(multi_, nullptr, 0, static_cast<int>(wait.count()), nullptr);
        return true;
    }

    [[nodiscard]] bool body_waits() const { return begin_ != end_ || paused_; }

    static std::size_t on_header(char* text, std::size_t unit, std::size_t count, void* self) {
        static_cast<CurlHttpClient*>(self)->take_header({text, unit * count});
        return unit * count;
    }

    void take_header(std::string_view line) {
        while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) {
            line.remove_suffix(1);
        }
        if (line.substr(0, 5) == "HTTP/") {
            long status = 0;
            curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status);
            head_ = {};
            head_.status = static_cast<int>(status);
            return;
        }
        if (line.empty()) {
            head_complete_ = head_.status >= 200;  // After a 1xx, the real head follows.
            return;
        }
        const std::size_t colon = line.find(':');
        if (colon == std::string_view::npos) {
            return;
        }
        std::string_view value = line.substr(colon + 1);
        value.remove_prefix(std::min(value.find_first_not_of(" \t"), value.size()));
        while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) {
            value.remove_suffix(1);
        }
        const std::string name(line.substr(0, colon));
        const auto is = [&name](const char* other) { return ::strcasecmp(name.c_str(), other) == 0; };
        if (is("content-length")) {
            head_.content_length = std::strtoll(std::string(value).c_str(), nullptr, 10);
        } else if (is("content-range")) {
            head_.content_range = value;
        } else if (is("etag")) {
            head_.etag = value;
        } else if (is("retry-after")) {
            head_.retry_after = value;
        } else if (is("location") && value.size() <= HttpResponseHead::kMaxLocationLength) {
            head_.location = value;
        }
    }

    static std::size_t on_body(char* bytes, std::size_t unit, std::size_t count, void* self) {
        return static_cast<CurlHttpClient*>(self)->take_body(bytes, unit * count);
    }

    std::size_t take_body(const char* bytes, std::size_t size) {
        if (begin_ != end_) {
            paused_ = true;
            return CURL_WRITEFUNC_PAUSE;
        }
        std::memcpy(body_.data(), bytes, size);
        begin_ = 0;
        end_ = size;
        return size;
    }

    std::chrono::milliseconds timeout_;
    CURLM* multi_;
    CURL* easy_;
    std::unique_ptr<curl_slist, CurlListDeleter> headers_;
    HttpResponseHead head_;
    bool open_ = false;
    bool head_complete_ = false;
    bool paused_ = false;
    bool done_ = false;
    CURLcode code_ = CURLE_OK;
    std::array<char, CURL_MAX_WRITE_SIZE> body_{};
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
};

}  // namespace

std::unique_ptr<HttpClient> make_http_client(const HttpClientConfig& config) {
    static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
    return initialised == CURLE_OK ? std::make_unique<CurlHttpClient>(config) : nullptr;
}

}  // namespace ota

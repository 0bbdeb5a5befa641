#include "ota/port/http_client.hpp"

#include <strings.h>

#include <string_view>

#include "esp_crt_bundle.h"
#include "esp_http_client.h"
#include "esp_log.h"
#include "esp_tls_errors.h"

namespace ota {
namespace {

constexpr char kTag[] = "ota_http";
constexpr int kReceiveBufferSize = 2048;
// The request line with the longest URL that a redirect may name, or any one header field.
constexpr int kSendBufferSize = HttpResponseHead::kMaxLocationLength + 256;
constexpr std::size_t kMaxFieldLength = 256;

/// `scheme://host:port` of an absolute URL (RFC 3986, section 3); empty when it is not one.
std::string_view origin_of(std::string_view url) {
    const std::size_t scheme_end = url.find("://");
    if (scheme_end == std::string_view::npos) {
        return {};
    }
    return url.substr(0, url.find_first_of("/?#", scheme_end + 3));
}

/// Why a connection failed, according to esp-tls, whose codes name the step that failed.
HttpResult connect_failure(esp_http_client_handle_t client) {
    int tls_code = 0;
    int verify_flags = 0;
    const esp_err_t error = esp_http_client_get_and_clear_last_tls_error(client, &tls_code, &verify_flags);
    ESP_LOGW(kTag, "Connection failed: %s, TLS -0x%04x, certificate flags 0x%x", esp_err_to_name(error),
             static_cast<unsigned>(-tls_code), static_cast<unsigned>(verify_flags));
    switch (error) {
        case ESP_ERR_ESP_TLS_CONNECTION_TIMEOUT:
        case ESP_ERR_ESP_TLS_SERVER_HANDSHAKE_TIMEOUT:
            return HttpResult::timed_out;
        case ESP_ERR_MBEDTLS_CERT_PARTLY_OK:
        case ESP_ERR_MBEDTLS_X509_CRT_PARSE_FAILED:
        case ESP_ERR_MBEDTLS_SSL_HANDSHAKE_FAILED:
            return HttpResult::tls_failed;
        default:
            return HttpResult::unreachable;
    }
}

class EspHttpClient final : public HttpClient {
public:
    explicit EspHttpClient(const HttpClientConfig& config) : config_(config) {}

    ~EspHttpClient() override { disconnect(); }
    EspHttpClient(const EspHttpClient&) = delete;
    EspHttpClient& operator=(const EspHttpClient&) = delete;

    HttpResult get(const HttpRequest& request, HttpResponseHead& head) override {
        close();
        if (!prepare(request)) {
            return HttpResult::unreachable;
        }
        const bool reused = connected_;
        HttpResult result = exchange(head);
        if (result == HttpResult::link_lost && reused) {
            result = prepare(request) ? exchange(head) : HttpResult::unreachable;
        }
        return result;
    }

    HttpResult read(void* buffer, std::size_t size, std::size_t& received) override {
        received = 0;
        if (!exchanging_) {
            return HttpResult::link_lost;
        }
        if (at_end_) {
            return HttpResult::ok;
        }
        // esp_http_client_read waits `timeout_ms` for each piece until the buffer is full. A trickling
        // server would block the caller for hours, so wait for one byte, then take whatever is there.
        auto* const bytes = static_cast<char*>(buffer);
        esp_http_client_set_timeout_ms(client_, static_cast<int>(config_.timeout_ms));
        const int first = esp_http_client_read(client_, bytes, 1);
        if (first == -ESP_ERR_HTTP_EAGAIN) {
            return HttpResult::timed_out;
        }
        if (first <= 0) {
            at_end_ = first == 0 && esp_http_client_is_complete_data_received(client_);
            return at_end_ ? HttpResult::ok : HttpResult::link_lost;
        }
        received = 1;
        if (size > 1) {
            esp_http_client_set_timeout_ms(client_, 0);
            // The next call will report a failure here.
            const int more = esp_http_client_read(client_, bytes + 1, static_cast<int>(size - 1));
            received += more > 0 ? static_cast<std::size_t>(more) : 0;
        }
        return HttpResult::ok;
    }

    void close() override {
        if (exchanging_ && !at_end_) {
            disconnect();
        }
        exchanging_ = false;
    }

private:
    bool prepare(const HttpRequest& request) {
        const std::string_view origin = origin_of(request.url);
        if (origin.empty()) {
            ESP_LOGE(kTag, "Not an absolute URL: %s", request.url);
            return false;
        }
        // esp_http_client would keep the connection if only the scheme changed.
        if (origin != origin_) {
            disconnect();
        }
        if (client_ == nullptr) {
            esp_http_client_config_t settings = {};
            settings.url = request.url;
            settings.cert_pem = config_.ca_pem;
            settings.crt_bundle_attach = config_.ca_pem == nullptr ? esp_crt_bundle_attach : nullptr;
            settings.timeout_ms = static_cast<int>(config_.timeout_ms);
            settings.buffer_size = kReceiveBufferSize;
            settings.buffer_size_tx = kSendBufferSize;
            settings.event_handler = on_event;
            settings.user_data = this;
            client_ = esp_http_client_init(&settings);
            if (client_ == nullptr) {
                ESP_LOGE(kTag, "Out of memory for the HTTP client");
                return false;
            }
        } else if (esp_http_client_set_url(client_, request.url) != ESP_OK) {
            return false;
        }
        origin_ = origin;

        // Otherwise the client keeps its header fields, and would send the API key to another host.
        esp_http_client_delete_all_headers(client_);
        const std::string authority = origin_.substr(origin_.find("://") + 3);
        bool prepared = esp_http_client_set_header(client_, "Host", authority.c_str()) == ESP_OK;
        for (std::size_t i = 0; i < request.header_count; ++i) {
            const HttpHeader& header = request.headers[i];
            prepared = prepared && esp_http_client_set_header(client_, header.name, header.value) == ESP_OK;
        }
        return prepared;
    }

    HttpResult exchange(HttpResponseHead& head) {
        head = HttpResponseHead{};
        head_ = &head;
        const HttpResult result = send_and_receive_head(head);
        head_ = nullptr;
        if (result != HttpResult::ok) {
            disconnect();
        }
        return result;
    }

    HttpResult send_and_receive_head(HttpResponseHead& head) {
        esp_http_client_set_timeout_ms(client_, static_cast<int>(config_.timeout_ms));
        const esp_err_t error = esp_http_client_open(client_, 0);
        if (error == ESP_ERR_HTTP_CONNECT) {
            return connect_failure(client_);
        }
        if (error != ESP_OK) {
            return HttpResult::link_lost;
        }
        connected_ = true;
        const std::int64_t length = esp_http_client_fetch_headers(client_);
        if (length == -ESP_ERR_HTTP_EAGAIN) {
            return HttpResult::timed_out;
        }
        head.status = esp_http_client_get_status_code(client_);
        if (length < 0 || head.status < 100) {
            return HttpResult::link_lost;
        }
        head.content_length = esp_http_client_get_content_length(client_);
        exchanging_ = true;
        // RFC 9110, section 6.4.1: these never have a body. A 304 may still announce the length of
        // the body of a 200, and esp_http_client would wait for that many bytes.
        at_end_ = head.status == 204 || head.status == 304;
        return HttpResult::ok;
    }

    /// Discards the client and its connection. Otherwise received but unread bytes of a body would
    /// become the start of the next one.
    void disconnect() {
        if (client_ != nullptr) {
            esp_http_client_cleanup(client_);
            client_ = nullptr;
        }
        connected_ = false;
        exchanging_ = false;
    }

    static esp_err_t on_event(esp_http_client_event_t* event) {
        auto* const self = static_cast<EspHttpClient*>(event->user_data);
        if (event->event_id == HTTP_EVENT_ON_HEADER && self->head_ != nullptr) {
            self->keep_field(event->header_key, event->header_value);
        }
        return ESP_OK;
    }

    void keep_field(const char* name, std::string_view value) {
        const struct {
            const char* name;
            std::string& value;
            std::size_t max_length;
        } kept[] = {
            {"Content-Range", head_->content_range, kMaxFieldLength},
            {"ETag", head_->etag, kMaxFieldLength},
            {"Retry-After", head_->retry_after, kMaxFieldLength},
            {"Location", head_->location, HttpResponseHead::kMaxLocationLength},
        };
        for (const auto& field : kept) {
            if (strcasecmp(name, field.name) == 0 && value.size() <= field.max_length) {
                field.value = value;
            }
        }
    }

    HttpClientConfig config_;
    esp_http_client_handle_t client_ = nullptr;
    HttpResponseHead* head_ = nullptr;  ///< Set while a head is being received.
    std::string origin_;                ///< The client's current target.
    bool connected_ = false;
    bool exchanging_ = false;  ///< Between a successful get() and close().
    bool at_end_ = false;      ///< Of the body.
};

}  // namespace

std::unique_ptr<HttpClient> make_http_client(const HttpClientConfig& config) {
    return std::make_unique<EspHttpClient>(config);
}

}  // namespace ota

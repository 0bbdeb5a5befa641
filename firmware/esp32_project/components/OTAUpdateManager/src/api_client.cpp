#include "ota/api_client.hpp"

#include <array>

#include "ota/hex.hpp"
#include "ota/http_response.hpp"
#include "ota/mac_address.hpp"
#include "ota/notification.hpp"

namespace ota {
namespace {

Reason reason_of(HttpResult result) {
    switch (result) {
        case HttpResult::ok:
            return Reason::none;
        case HttpResult::unreachable:
            return Reason::server_unreachable;
        case HttpResult::tls_failed:
            return Reason::tls_failed;
        case HttpResult::timed_out:
        case HttpResult::link_lost:
            break;
    }
    return Reason::connection_lost;
}

/// Percent-encodes a version for a query, where `+` would mean a space.
std::string encode_query(std::string_view text) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    std::string encoded;
    for (const char c : text) {
        const bool unreserved = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                                c == '-' || c == '.' || c == '_' || c == '~';
        if (unreserved) {
            encoded += c;
        } else {
            const auto byte = static_cast<unsigned char>(c);
            encoded += '%';
            encoded += kDigits[byte >> 4U];
            encoded += kDigits[byte & 0xFU];
        }
    }
    return encoded;
}

}  // namespace

Reason ApiClient::get(const char* url, const char* accept, const char* range, bool with_key,
                      HttpResponseHead& head) {
    std::array<HttpHeader, 3> headers{};
    std::size_t count = 0;
    headers[count++] = {"Accept", accept};
    if (range != nullptr) {
        headers[count++] = {"Range", range};
    }
    if (with_key) {
        headers[count++] = {"x-api-key", config_.api_key};
    }
    head = {};
    const Reason reason = reason_of(http_.get({url, headers.data(), count}, head));
    retry_after_s_ = reason == Reason::none ? parse_retry_after(head.retry_after) : 0;
    return reason;
}

bool ApiClient::may_redirect_to(std::string_view url) const {
    // Plain HTTP only if the API itself uses it, as a local cloud does.
    const bool api_is_plain = std::string_view(config_.api_url).substr(0, 7) == "http://";
    return url.substr(0, 8) == "https://" || (api_is_plain && url.substr(0, 7) == "http://");
}

std::string ApiClient::image_url(std::string_view release_id, std::string_view version) const {
    std::string url = config_.api_url;
    url.append("/firmware/").append(config_.product).append("/").append(version);
    url.append("?release=").append(release_id);
    url.append("&mac=").append(hex_encode(config_.mac.octets.data(), config_.mac.octets.size()));
    return url;
}

/// Fills `body`, which is as large as the answer may be, and cuts it to the received size.
Reason ApiClient::read_body(HeapText& body) {
    std::size_t size = 0;
    // Otherwise a trickling server could block the update task for hours.
    const std::uint64_t deadline = clock_.uptime_ms() + kCheckInLimit_ms;
    while (clock_.uptime_ms() < deadline) {
        std::size_t received = 0;
        char surplus = 0;
        const bool is_full = size == body.size();
        const HttpResult result = is_full ? http_.read(&surplus, 1, received)
                                          : http_.read(body.data() + size, body.size() - size, received);
        if (result == HttpResult::timed_out) {
            continue;
        }
        if (result != HttpResult::ok) {
            return Reason::connection_lost;
        }
        if (received == 0) {
            body.shrink(size);
            return Reason::none;
        }
        if (is_full) {
            return Reason::notification_too_large;
        }
        size += received;
    }
    return Reason::connection_lost;
}

Reason ApiClient::check_in(std::string_view running_version, HeapText& body) {
    body.reset();
    std::string url = config_.api_url;
    url.append("/devices/")
        .append(format_mac(config_.mac))
        .append("/update?product=")
        .append(config_.product)
        .append("&chip=")
        .append(config_.chip);
    url.append("&version=").append(encode_query(running_version));
    HttpResponseHead head;
    Reason reason = get(url.c_str(), "application/json", nullptr, true, head);
    if (reason == Reason::none && head.status != 200 && head.status != 204) {
        reason = reason_of_status(head.status);
    }
    if (reason == Reason::none && head.content_length > std::int64_t{kMaxNotificationSize}) {
        reason = Reason::notification_too_large;
    }
    if (reason == Reason::none && head.status == 200) {
        const std::size_t limit =
            head.content_length >= 0 ? static_cast<std::size_t>(head.content_length) : kMaxNotificationSize;
        reason = body.allocate(limit) ? read_body(body) : Reason::out_of_memory;
    }
    if (reason != Reason::none) {
        body.reset();
    }
    http_.close();
    return reason;
}

}  // namespace ota

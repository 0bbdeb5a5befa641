#include "ota/http_downloader.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

#include "ota/hex.hpp"
#include "ota/notification.hpp"

namespace ota {
namespace {

/// Takes a decimal number off the front. @return false when there is none, or it is over 32 bits.
bool take_number(std::string_view& text, std::uint32_t& value) {
    std::uint64_t number = 0;
    std::size_t digits = 0;
    while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') {
        number = number * 10 + static_cast<std::uint64_t>(text[digits] - '0');
        if (number > UINT32_MAX) {
            return false;
        }
        ++digits;
    }
    text.remove_prefix(digits);
    value = static_cast<std::uint32_t>(number);
    return digits > 0;
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
    if (text.substr(0, prefix.size()) != prefix) {
        return false;
    }
    text.remove_prefix(prefix.size());
    return true;
}

/// `bytes 0-99/1234` (RFC 9110, section 14.4). The unknown length `*` does not do: it must be signed.
bool parse_content_range(std::string_view text, ByteRange& range) {
    std::uint32_t last = 0;
    if (!take_prefix(text, "bytes ") || !take_number(text, range.begin) || !take_prefix(text, "-") ||
        !take_number(text, last) || !take_prefix(text, "/") || !take_number(text, range.image_size) ||
        !text.empty() || last < range.begin || last == UINT32_MAX) {
        return false;
    }
    range.end = last + 1;
    return true;
}

Reason reason_of_status(int status) {
    switch (status) {
        case 403:
            return Reason::http_forbidden;
        case 404:
            return Reason::http_not_found;
        case 410:
            return Reason::release_withdrawn;
        case 416:
            return Reason::http_range_not_satisfiable;
        case 429:
            return Reason::http_too_many_requests;
        default:
            return status >= 500 && status <= 599 ? Reason::http_server_error
                                                  : Reason::http_unexpected_status;
    }
}

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

/// Percent-encodes for a query: `+` in a version would be read as a space there.
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

Reason check_range_response(const HttpResponseHead& head, const ByteRange& range, std::string_view etag,
                            std::uint32_t& body_size) {
    if (head.status != 206 && head.status != 200) {
        return reason_of_status(head.status);
    }
    if (!etag.empty() && !head.etag.empty() && head.etag != etag) {
        return Reason::etag_mismatch;
    }
    if (head.status == 200) {
        // The whole image. Appended to a partial download it would corrupt the slot.
        if (range.begin != 0) {
            return Reason::range_ignored;
        }
        body_size = range.image_size;
    } else {
        ByteRange sent;
        if (!parse_content_range(head.content_range, sent) || sent.begin != range.begin ||
            sent.end > range.end || sent.image_size != range.image_size) {
            return Reason::content_range_mismatch;
        }
        body_size = sent.end - sent.begin;
    }
    if (head.content_length >= 0 && head.content_length != std::int64_t{body_size}) {
        return head.content_length > std::int64_t{body_size} ? Reason::too_many_bytes
                                                             : Reason::content_range_mismatch;
    }
    return Reason::none;
}

std::uint32_t parse_retry_after(std::string_view text) {
    constexpr std::uint32_t kDay_s = 86400;
    std::uint32_t seconds = 0;
    if (!take_number(text, seconds) || !text.empty()) {
        return 0;
    }
    return std::min(seconds, kDay_s);
}

Reason HTTPDownloader::get(const char* url, const char* accept, const char* range, bool with_key,
                           HttpResponseHead& head) {
    std::array<HttpHeader, 3> headers{};
    std::size_t count = 0;
    headers[count++] = {"Accept", accept};
    if (range != nullptr) {
        headers[count++] = {"Range", range};
    }
    if (with_key) {
        headers[count++] = {"x-api-key", api_key_};
    }
    head = {};
    const Reason reason = reason_of(http_.get({url, headers.data(), count}, head));
    retry_after_s_ = reason == Reason::none ? parse_retry_after(head.retry_after) : 0;
    return reason;
}

bool HTTPDownloader::may_redirect_to(std::string_view url) const {
    // Plain HTTP only where the API itself is plain HTTP: a local cloud on the same machine.
    const bool api_is_plain = std::string_view(api_url_).substr(0, 7) == "http://";
    return url.substr(0, 8) == "https://" || (api_is_plain && url.substr(0, 7) == "http://");
}

Reason HTTPDownloader::open(std::string_view product, std::string_view version, const Sha256Digest& sha256,
                            const ByteRange& range) {
    char range_value[48];
    std::snprintf(range_value, sizeof(range_value), "bytes=%lu-%lu", static_cast<unsigned long>(range.begin),
                  static_cast<unsigned long>(range.end - 1));
    constexpr char kAccept[] = "application/octet-stream";
    at_end_ = false;
    HttpResponseHead head;

    Reason reason = Reason::none;
    if (!redirect_url_.empty()) {
        // The other host's ETag is its own business (S3: an MD5), so it is not looked at.
        reason = get(redirect_url_.c_str(), kAccept, range_value, false, head);
        if (reason == Reason::none) {
            reason = check_range_response(head, range, {}, body_left_);
        }
        if (reason == Reason::none) {
            return Reason::none;
        }
        redirect_url_.clear();  // Such an address lives for minutes; the API gives the next one.
    }

    std::string url = api_url_;
    url.append("/firmware/").append(product).append("/").append(version);
    const std::string etag = '"' + hex_encode(sha256.data(), sha256.size()) + '"';
    reason = get(url.c_str(), kAccept, range_value, true, head);
    if (reason == Reason::none && head.status == 307) {
        if (!may_redirect_to(head.location)) {
            close();
            return Reason::http_redirect_refused;
        }
        redirect_url_ = std::move(head.location);
        reason = get(redirect_url_.c_str(), kAccept, range_value, false, head);
        if (reason == Reason::none) {
            reason = head.status >= 300 && head.status < 400
                         ? Reason::http_redirect_refused
                         : check_range_response(head, range, {}, body_left_);
        }
    } else if (reason == Reason::none) {
        reason = check_range_response(head, range, etag, body_left_);
    }
    if (reason != Reason::none) {
        redirect_url_.clear();
        close();
    }
    return reason;
}

Reason HTTPDownloader::read(void* buffer, std::size_t size, std::size_t& received) {
    HttpResult result = http_.read(buffer, std::min<std::size_t>(size, body_left_), received);
    if (result == HttpResult::timed_out) {
        return Reason::none;
    }
    if (result != HttpResult::ok || received == 0) {  // Also: ended before the length that it announced.
        close();
        return Reason::connection_lost;
    }
    body_left_ -= static_cast<std::uint32_t>(received);
    if (body_left_ > 0) {
        return Reason::none;
    }
    // One read beyond the end: it frees the connection, and shows a body that does not stop. When the
    // link breaks only now, the piece is whole all the same.
    char surplus = 0;
    std::size_t surplus_size = 0;
    result = http_.read(&surplus, 1, surplus_size);
    if (result != HttpResult::ok || surplus_size > 0) {
        close();
    }
    at_end_ = true;
    return surplus_size > 0 ? Reason::too_many_bytes : Reason::none;
}

void HTTPDownloader::close() {
    http_.close();
    body_left_ = 0;
}

/// Fills `body`, which is as large as the body may be, and cuts it to what came.
Reason HTTPDownloader::read_body(HeapText& body) {
    std::size_t size = 0;
    // A server that sends a byte now and then would otherwise hold the update task for hours.
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

Reason HTTPDownloader::check_in(const MacAddress& mac, std::string_view product,
                                std::string_view running_version, HeapText& body) {
    body.reset();
    std::string url = api_url_;
    url.append("/devices/").append(format_mac(mac)).append("/update?product=").append(product);
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

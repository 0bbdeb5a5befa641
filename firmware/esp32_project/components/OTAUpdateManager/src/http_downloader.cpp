#include "ota/http_downloader.hpp"

#include <algorithm>
#include <cstdio>

#include "ota/hex.hpp"

namespace ota {

Reason HTTPDownloader::open(std::string_view release_id, std::string_view version, const Sha256Digest& sha256,
                            const ByteRange& range) {
    char range_value[48];
    std::snprintf(range_value, sizeof(range_value), "bytes=%lu-%lu", static_cast<unsigned long>(range.begin),
                  static_cast<unsigned long>(range.end - 1));
    constexpr char kAccept[] = "application/octet-stream";
    at_end_ = false;
    HttpResponseHead head;

    Reason reason = Reason::none;
    if (!redirect_url_.empty()) {
        // The other host's ETag is not checked: in S3, for example, it is an MD5.
        reason = api_.get(redirect_url_.c_str(), kAccept, range_value, false, head);
        if (reason == Reason::none) {
            reason = check_range_response(head, range, {}, body_left_);
        }
        if (reason == Reason::none) {
            return Reason::none;
        }
        redirect_url_.clear();  // Such an address is valid for a minute; the API provides the next one.
    }

    const std::string url = api_.image_url(release_id, version);
    const std::string etag = '"' + hex_encode(sha256.data(), sha256.size()) + '"';
    reason = api_.get(url.c_str(), kAccept, range_value, true, head);
    if (reason == Reason::none && head.status == 307) {
        if (!api_.may_redirect_to(head.location)) {
            close();
            return Reason::http_redirect_refused;
        }
        redirect_url_ = std::move(head.location);
        reason = api_.get(redirect_url_.c_str(), kAccept, range_value, false, head);
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
    if (result != HttpResult::ok || received == 0) {  // Or the body is shorter than announced.
        close();
        return Reason::connection_lost;
    }
    body_left_ -= static_cast<std::uint32_t>(received);
    if (body_left_ > 0) {
        return Reason::none;
    }
    // Reading past the end frees the connection, and reveals a body that is too long. If the link breaks
    // only now, the piece is still complete.
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

}  // namespace ota

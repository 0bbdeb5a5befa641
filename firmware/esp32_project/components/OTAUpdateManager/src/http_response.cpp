#include "ota/http_response.hpp"

#include <algorithm>

namespace ota {
namespace {

/// Removes a decimal number from the front. @return false if it is missing or exceeds 32 bits.
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

/// `bytes 0-99/1234` (RFC 9110, section 14.4). Not `*` for the length, which must be the signed one.
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

}  // namespace

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

std::uint32_t parse_retry_after(std::string_view text) {
    constexpr std::uint32_t kDay_s = 86400;
    std::uint32_t seconds = 0;
    if (!take_number(text, seconds) || !text.empty()) {
        return 0;
    }
    return std::min(seconds, kDay_s);
}

Reason check_range_response(const HttpResponseHead& head, const ByteRange& range, std::string_view etag,
                            std::uint32_t& body_size) {
    if (head.status != 206 && head.status != 200) {
        return reason_of_status(head.status);
    }
    if (!etag.empty() && !head.etag.empty() && head.etag != etag) {
        return Reason::etag_mismatch;
    }
    if (head.status == 200) {
        // The whole image. Appending it to a partial download would corrupt the slot.
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

}  // namespace ota

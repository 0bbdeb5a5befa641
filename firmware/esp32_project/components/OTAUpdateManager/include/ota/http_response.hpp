#pragma once

#include <cstdint>
#include <string_view>

#include "ota/port/http_client.hpp"
#include "ota/reason.hpp"

// What the head of an HTTP answer means to the update (RFC 9110).

namespace ota {

/// What a status that is no success says against the request.
Reason reason_of_status(int status);

/// Seconds in a Retry-After field (RFC 9110, section 10.2.3), at most a day; 0 when it has none or
/// gives a date, which a device without a clock cannot use.
std::uint32_t parse_retry_after(std::string_view text);

/// A piece of an image: bytes `begin` to `end` - 1 of `image_size`.
struct ByteRange {
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    std::uint32_t image_size = 0;
};

/// Checks the head of the answer to a range request (RFC 9110, section 14).
/// @param etag the strong ETag that a 206 or 200 must have when it has one; empty: not looked at.
/// @param[out] body_size bytes that the body is to have: fewer than asked for when the server says so,
///             the whole image with a 200, which is only accepted for a range that starts at 0.
/// @return none, or the http_*, range_ignored, content_range_mismatch, etag_mismatch, too_many_bytes
///         or release_withdrawn that speaks against it.
Reason check_range_response(const HttpResponseHead& head, const ByteRange& range, std::string_view etag,
                            std::uint32_t& body_size);

}  // namespace ota

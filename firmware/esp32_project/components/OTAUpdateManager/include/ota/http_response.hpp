#pragma once

#include <cstdint>
#include <string_view>

#include "ota/port/http_client.hpp"
#include "ota/reason.hpp"

// What the head of an HTTP answer means for the update (RFC 9110).

namespace ota {

/// The reason for a status that is not a success.
Reason reason_of_status(int status);

/// Seconds in a Retry-After field (RFC 9110, section 10.2.3), at most a day; 0 if it is missing or has a
/// date, which a device without a clock cannot use.
std::uint32_t parse_retry_after(std::string_view text);

/// A piece of an image: bytes `begin` to `end` - 1 of `image_size`.
struct ByteRange {
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    std::uint32_t image_size = 0;
};

/// Checks the head of the answer to a range request (RFC 9110, section 14).
/// @param etag if the answer has an ETag, it must be this one; empty: not checked.
/// @param[out] body_size bytes that the body must have: fewer than requested if the server says so, and
///             the whole image for a 200, which is only accepted for a range that starts at 0.
/// @return none; http_*, range_ignored, content_range_mismatch, etag_mismatch, too_many_bytes or
///         release_withdrawn.
Reason check_range_response(const HttpResponseHead& head, const ByteRange& range, std::string_view etag,
                            std::uint32_t& body_size);

}  // namespace ota

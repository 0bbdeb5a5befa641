#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "ota/heap_text.hpp"
#include "ota/mac_address.hpp"
#include "ota/port/http_client.hpp"
#include "ota/port/system.hpp"
#include "ota/reason.hpp"
#include "ota/sha256.hpp"

namespace ota {

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

/// Seconds in a Retry-After field (RFC 9110, section 10.2.3), at most a day; 0 when it has none or
/// gives a date, which a device without a clock cannot use.
std::uint32_t parse_retry_after(std::string_view text);

/// Talks to the download API over one kept-alive connection.
///
/// The device builds its addresses from its own API base. The `url` of a notification is for other
/// clients: nobody who forges messages can send the device, and its API key, elsewhere.
class HTTPDownloader {
public:
    static constexpr std::uint64_t kCheckInLimit_ms = 30000;

    /// @param api_url base of the API without a slash at the end; @param api_key value of x-api-key.
    /// Both stay valid as long as this object.
    HTTPDownloader(HttpClient& http, Clock& clock, const char* api_url, const char* api_key)
        : http_(http), clock_(clock), api_url_(api_url), api_key_(api_key) {}

    /// Asks for a piece of an image; with `none`, read() gives its bytes. Follows one redirect (307)
    /// without showing the API key to the other host, and stays with that address for the pieces
    /// that follow until it refuses one.
    Reason open(std::string_view product, std::string_view version, const Sha256Digest& sha256,
                const ByteRange& range);

    /// Reads the next bytes of the piece; not to be called at_end().
    /// @param[out] received 0 with `none` when nothing came yet.
    /// @return none, connection_lost or too_many_bytes; with those the exchange is closed.
    Reason read(void* buffer, std::size_t size, std::size_t& received);

    /// The whole piece was read.
    [[nodiscard]] bool at_end() const { return at_end_; }

    void close();

    /// Forgets what it knows of the release's address.
    void reset() { redirect_url_.clear(); }

    /// Asks what this device should run; gives up after kCheckInLimit_ms.
    /// @param[out] body the notification; none of it with `none` when there is nothing to do (204).
    /// @return none; connection_lost, http_* and so on; notification_too_large; out_of_memory.
    Reason check_in(const MacAddress& mac, std::string_view product, std::string_view running_version,
                    HeapText& body);

    /// What the last refused request said in Retry-After, in seconds; 0: nothing.
    [[nodiscard]] std::uint32_t retry_after_s() const { return retry_after_s_; }

private:
    Reason get(const char* url, const char* accept, const char* range, bool with_key, HttpResponseHead& head);
    [[nodiscard]] bool may_redirect_to(std::string_view url) const;
    Reason read_body(HeapText& body);

    HttpClient& http_;
    Clock& clock_;
    const char* api_url_;
    const char* api_key_;
    std::string redirect_url_;
    std::uint32_t body_left_ = 0;
    bool at_end_ = true;
    std::uint32_t retry_after_s_ = 0;
};

}  // namespace ota

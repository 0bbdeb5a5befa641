#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "ota/api_client.hpp"
#include "ota/http_response.hpp"
#include "ota/port/http_client.hpp"
#include "ota/reason.hpp"
#include "ota/sha256.hpp"

namespace ota {

/// Owns the exchange that fetches a piece of an image, and the address to which the API redirects it.
class HTTPDownloader {
public:
    HTTPDownloader(HttpClient& http, ApiClient& api) : http_(http), api_(api) {}

    /// Requests a piece of a release's image; after `none`, read() returns its bytes. Follows one redirect
    /// (307) without sending the API key to the other host, and uses that address for later pieces until it
    /// refuses one.
    Reason open(std::string_view release_id, std::string_view version, const Sha256Digest& sha256,
                const ByteRange& range);

    /// Reads the next bytes of the piece. Do not call it at_end().
    /// @param[out] received 0 with `none` if nothing has arrived yet.
    /// @return none; connection_lost or too_many_bytes, which close the exchange.
    Reason read(void* buffer, std::size_t size, std::size_t& received);

    /// The whole piece was read.
    [[nodiscard]] bool at_end() const { return at_end_; }

    void close();

    /// Forgets the address to which the API redirected.
    void reset() { redirect_url_.clear(); }

private:
    HttpClient& http_;
    ApiClient& api_;
    std::string redirect_url_;
    std::uint32_t body_left_ = 0;
    bool at_end_ = true;
};

}  // namespace ota

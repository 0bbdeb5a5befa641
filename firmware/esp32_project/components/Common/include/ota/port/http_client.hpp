#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace ota {

struct HttpHeader {
    const char* name;
    const char* value;
};

struct HttpRequest {
    const char* url;            ///< Absolute, http or https, already percent-encoded.
    const HttpHeader* headers;  ///< `header_count` of them, sent unchanged.
    std::size_t header_count;
};

/// Head of a response, with the header fields that the update needs. A missing field is empty; one that
/// is longer than the port can hold counts as missing.
struct HttpResponseHead {
    int status = 0;                    ///< 100 to 599.
    std::int64_t content_length = -1;  ///< -1 if not announced.
    std::string content_range;
    std::string etag;
    std::string retry_after;
    std::string location;  ///< At most kMaxLocationLength bytes.

    static constexpr std::size_t kMaxLocationLength = 2048;
};

enum class [[nodiscard]] HttpResult{
    ok,
    unreachable,  ///< No connection: name, route, refused.
    tls_failed,   ///< The server's certificate or the handshake was not accepted.
    timed_out,
    link_lost,  ///< The connection broke, or the answer is not HTTP.
};

struct HttpClientConfig {
    const char* ca_pem = nullptr;      ///< Roots to trust; nullptr: the platform's certificate bundle.
    std::uint32_t timeout_ms = 10000;  ///< Longest wait for the next byte, connecting included.
};

/// An HTTP/1.1 client with one kept-alive connection and one exchange at a time.
///
/// `esp_idf`: esp_http_client (open, fetch_headers, read). `posix`: libcurl. A port follows no
/// redirect, decodes no content coding, retries nothing and verifies the server's certificate.
class HttpClient {
public:
    virtual ~HttpClient() = default;

    /// Sends a GET and reads the head of the answer. Reuses the connection of the previous exchange if
    /// scheme, host and port are the same; if the server has closed it meanwhile, one new connection is
    /// tried. Ends an exchange that is still open.
    virtual HttpResult get(const HttpRequest& request, HttpResponseHead& head) = 0;

    /// Reads the next bytes of the body. Waits at most `timeout_ms` for the first of them, and not until
    /// the buffer is full, so that the caller can watch the rate.
    /// @param[out] received bytes in `buffer`; 0 with ok at the end of the body.
    /// @return ok; timed_out if nothing arrived (the exchange stays open, and the caller may continue);
    ///         link_lost also if the body ended before its announced length.
    virtual HttpResult read(void* buffer, std::size_t size, std::size_t& received) = 0;

    /// Ends the exchange. If the body was not read to its end, this closes the connection.
    virtual void close() = 0;
};

/// The strings that `config` points to must outlive the client.
std::unique_ptr<HttpClient> make_http_client(const HttpClientConfig& config);

}  // namespace ota

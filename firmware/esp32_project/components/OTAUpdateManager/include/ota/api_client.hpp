#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "ota/heap_text.hpp"
#include "ota/port/http_client.hpp"
#include "ota/port/system.hpp"
#include "ota/reason.hpp"
#include "ota/update_config.hpp"

namespace ota {

/// Owns the access to the download API: its addresses, the API key, the check-in. HTTPDownloader fetches
/// images through it.
///
/// The device builds addresses from its own API base. The `url` of a notification is for other clients, so
/// that no forged message can direct the device, and its API key, elsewhere.
class ApiClient {
public:
    static constexpr std::uint64_t kCheckInLimit_ms = 30000;

    ApiClient(HttpClient& http, Clock& clock, const UpdateConfig& config)
        : http_(http), clock_(clock), config_(config) {}

    /// Asks what this device should run; gives up after kCheckInLimit_ms.
    /// @param[out] body the notification; empty with `none` if there is nothing to do (204).
    /// @return none; connection_lost, http_* and so on; notification_too_large; out_of_memory.
    Reason check_in(std::string_view running_version, HeapText& body);

    /// Address of the image of a release, with this device's MAC: the API serves only what it offers to it.
    [[nodiscard]] std::string image_url(std::string_view release_id, std::string_view version) const;

    /// Whether the API's redirect to this address is followed.
    [[nodiscard]] bool may_redirect_to(std::string_view url) const;

    /// Sends a GET and reads the head of the answer. @param range value of the Range field, or nullptr.
    Reason get(const char* url, const char* accept, const char* range, bool with_key, HttpResponseHead& head);

    /// Seconds in the Retry-After field of the last answer; 0: none.
    [[nodiscard]] std::uint32_t retry_after_s() const { return retry_after_s_; }

private:
    Reason read_body(HeapText& body);

    HttpClient& http_;
    Clock& clock_;
    const UpdateConfig& config_;
    std::uint32_t retry_after_s_ = 0;
};

}  // namespace ota

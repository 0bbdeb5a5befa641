#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "ota/api_client.hpp"
#include "ota/http_downloader.hpp"
#include "ota/port/flash_slots.hpp"
#include "ota/signature_verifier.hpp"
#include "ota/status_reporter.hpp"
#include "ota/update_context.hpp"

namespace ota {

/// A download under way. It survives a dropped link unchanged; after a restart, it is rebuilt from the
/// progress in NVS.
struct DownloadState {
    std::unique_ptr<std::uint8_t[]> buffer;
    std::uint32_t buffered = 0;
    std::uint32_t written = 0;               ///< Bytes in flash.
    std::uint32_t confirmed = 0;             ///< Bytes in flash according to NVS.
    std::uint32_t confirmed_before_try = 0;  ///< `confirmed` at the start of the current try.
    Sha256Digest image_head{};
    bool request_open = false;
    std::uint8_t reported_quarters = 0;
    std::uint32_t window_bytes = 0;
    std::uint64_t window_start_ms = 0;
};

/// Owns the download of an accepted release into the update slot: requests pieces, writes them, confirms
/// progress in NVS, verifies, activates, and decides what follows a failure.
class Download {
public:
    /// Size of the buffer: one flash sector, so that each sector is erased and written once.
    static constexpr std::size_t kBufferSize = kFlashSectorSize;
    /// Slowest acceptable download in bytes per second, over kRateWindow_ms.
    static constexpr std::uint32_t kMinRate = 256;
    static constexpr std::uint64_t kRateWindow_ms = 60000;

    struct Result {
        enum class Next : std::uint8_t {
            step,      ///< There is more to do.
            restart,   ///< The new image is activated.
            retry,     ///< Interrupted, for `reason`: try again after `delay_ms`.
            postpone,  ///< Nothing failed, but for `reason` it has to wait: ask again after `delay_ms`.
            drop,      ///< The release has expired or was withdrawn, as `reason` says.
            forget,    ///< The API does not offer the release: a check-in says what it offers.
            give_up,   ///< The release failed too often.
        };
        Next next = Next::step;
        Reason reason = Reason::none;
        std::uint32_t delay_ms = 0;
    };

    Download(UpdateContext& context, StatusReporter& reporter, SignatureVerifier& verifier, ApiClient& api)
        : context_(context),
          reporter_(reporter),
          verifier_(verifier),
          api_(api),
          downloader_(context.ports.http, api) {}

    /// Does the next piece of work for the release under way: at most one buffer, one request or one
    /// signature.
    [[nodiscard]] Result step(std::uint64_t now);

    /// Continues after a wait, which does not count for the rate.
    void resume(std::uint64_t now);

    /// Discards what is in RAM, but not what is in flash and NVS.
    void end();

    /// As end(), and forgets the address of the image: another release is under way.
    void begin_release();

    /// An answer from the server is being read, so there is no memory for a message.
    [[nodiscard]] bool is_receiving() const { return state_ && state_->request_open; }

    /// All bytes have arrived; only the verdict is missing.
    [[nodiscard]] bool is_whole() const { return state_ && received() == context_.release->size; }

    /// Frees the buffer to make room for a message. Its bytes are fetched again. Not while is_receiving().
    void give_up_buffer();

private:
    Reason work(std::uint64_t now);
    Reason begin();
    Reason resume_from_flash();
    Reason request_next_piece();
    Reason read_piece(std::uint64_t now);
    Reason flush_buffer();
    Reason check_head(const std::uint8_t* head, std::size_t size);
    Reason confirm_progress();
    Reason watch_rate(std::uint64_t now);
    Reason finish();
    Reason verify_and_activate();

    Result fail(Reason reason);
    Result fail_image(Reason reason);
    Result fail_try(Reason reason);
    void start_over();
    [[nodiscard]] std::uint32_t received() const;
    [[nodiscard]] int percent_received() const;
    [[nodiscard]] std::uint8_t quarters_written() const;

    UpdateContext& context_;
    StatusReporter& reporter_;
    SignatureVerifier& verifier_;
    ApiClient& api_;
    HTTPDownloader downloader_;
    std::optional<DownloadState> state_;
    bool activated_ = false;
};

}  // namespace ota

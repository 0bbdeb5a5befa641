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

/// A download under way. It survives a dropped link as it is; a restart begins it anew from the
/// progress in NVS.
struct DownloadState {
    std::unique_ptr<std::uint8_t[]> buffer;
    std::uint32_t buffered = 0;
    std::uint32_t written = 0;               ///< Bytes in flash.
    std::uint32_t confirmed = 0;             ///< Bytes that NVS knows to be in flash.
    std::uint32_t confirmed_before_try = 0;  ///< `confirmed` when the current try began.
    Sha256Digest image_head{};
    bool request_open = false;
    std::uint8_t reported_quarters = 0;
    std::uint32_t window_bytes = 0;
    std::uint64_t window_start_ms = 0;
};

/// Owns the way of an accepted release into the update slot: asks for pieces, writes them, confirms
/// progress in NVS, verifies and activates, and says what a failure on that way is followed by.
class Download {
public:
    /// Buffer, in bytes: one flash sector, so that each is erased and written once.
    static constexpr std::size_t kBufferSize = kFlashSectorSize;
    /// Slowest download that is put up with: bytes per second, over kRateWindow_ms.
    static constexpr std::uint32_t kMinRate = 256;
    static constexpr std::uint64_t kRateWindow_ms = 60000;

    struct Result {
        enum class Next : std::uint8_t {
            step,     ///< There is more to do.
            restart,  ///< The new image is activated.
            retry,    ///< Interrupted, for `reason`: again after `delay_ms`.
            drop,     ///< The release is over, for `reason`.
            give_up,  ///< It failed for good.
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

    /// Goes on after a wait, whose time does not count for the rate.
    void resume(std::uint64_t now);

    /// Forgets what is in RAM; flash and NVS keep theirs.
    void end();

    /// Forgets also the address of the image: another release is under way.
    void begin_release();

    /// An answer of the server is being read: there is no memory for a message now.
    [[nodiscard]] bool is_receiving() const { return state_ && state_->request_open; }

    /// All bytes are in flash, and the verdict waits for the memory that a message has.
    [[nodiscard]] bool is_whole() const { return state_ && received() == context_.release->size; }

    /// Gives the buffer's memory to a message. Bytes in it are fetched again. Not while is_receiving().
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

#include "ota/download.hpp"

#include <algorithm>
#include <new>
#include <string>

#include "ota/chip.hpp"
#include "ota/esp_image.hpp"

namespace ota {
namespace {

constexpr std::uint32_t kSecond_ms = 1000;
/// Between two checks whether the broker can be reached.
constexpr std::uint32_t kBrokerPoll_ms = 60 * kSecond_ms;

/// Faults of the image itself: to continue the download would not help.
bool is_about_image(Reason reason) {
    switch (reason) {
        case Reason::image_bad_header:
        case Reason::image_wrong_chip:
        case Reason::image_no_app_description:
        case Reason::app_version_mismatch:
        case Reason::image_sha256_mismatch:
        case Reason::image_bad_signature:
        case Reason::image_not_bootable:
            return true;
        default:
            return false;
    }
}

}  // namespace

Download::Result Download::step(std::uint64_t now) {
    const Reason reason = work(now);
    if (reason != Reason::none) {
        return fail(reason);
    }
    return {activated_ ? Result::Next::restart : Result::Next::step};
}

Reason Download::work(std::uint64_t now) {
    if (!is_receiving()) {
        // Checked before every request and before the verdict, because the release may expire during a
        // long back-off.
        const auto unix_time = context_.ports.clock.unix_time();
        if (unix_time && *unix_time >= context_.release->expires) {
            return Reason::release_expired;
        }
    }
    if (!state_) {
        if (const Reason reason = begin(); reason != Reason::none) {
            return reason;
        }
    }
    if (is_whole()) {
        return finish();
    }
    return is_receiving() ? read_piece(now) : request_next_piece();
}

Reason Download::begin() {
    const AcceptedRelease& release = *context_.release;
    if (const Reason reason = context_.patience.may_try(release.sequence); reason != Reason::none) {
        return reason;
    }
    DownloadState& state = state_.emplace();
    state.buffer.reset(new (std::nothrow) std::uint8_t[kBufferSize]);
    if (!state.buffer) {
        return Reason::out_of_memory;
    }
    verifier_.begin_image();
    if (const Reason reason = resume_from_flash(); reason != Reason::none) {
        return reason;
    }
    if (state.written < release.size) {
        if (const Reason reason = context_.patience.start(state.written); reason != Reason::none) {
            return reason;
        }
    }
    if (state.written == 0 && !context_.storage.set(DownloadProgress{release.sha256, 0})) {
        // Progress of another image in the slot must be forgotten before the slot is overwritten.
        return Reason::storage_error;
    }
    if (state.written < release.size && context_.ports.slots.begin(state.written) != PortResult::ok) {
        return Reason::flash_error;
    }
    state.window_start_ms = context_.ports.clock.uptime_ms();
    reporter_.event("download_started", "offset", state.written);
    reporter_.send_progress(UpdateStatus::downloading, percent_received());
    state.reported_quarters = quarters_written();
    return Reason::none;
}

/// Resumes a download of the same image that a restart interrupted. The bytes in the slot go through the
/// hash again, so that the signature is checked over what is in flash. If they cannot be read, or no
/// longer look like the start of an image, they are fetched again.
/// @return none or out_of_memory.
Reason Download::resume_from_flash() {
    const AcceptedRelease& release = *context_.release;
    const FlashSlots& slots = context_.ports.slots;
    DownloadState& state = *state_;
    const auto progress = context_.storage.progress();
    if (!progress || progress->image_sha256 != release.sha256 || progress->offset > release.size ||
        (progress->offset % kFlashSectorSize != 0 && progress->offset != release.size)) {
        return Reason::none;
    }
    std::uint32_t offset = 0;
    while (offset < progress->offset) {
        const std::size_t size = std::min<std::size_t>(kBufferSize, progress->offset - offset);
        const bool readable =
            slots.read(slots.update_slot(), offset, state.buffer.get(), size) == PortResult::ok;
        const Reason head = readable && offset == 0 ? check_head(state.buffer.get(), size) : Reason::none;
        if (!readable || head != Reason::none) {
            verifier_.begin_image();
            return head == Reason::out_of_memory ? head : Reason::none;
        }
        verifier_.update_image(state.buffer.get(), size);
        offset += static_cast<std::uint32_t>(size);
    }
    state.written = offset;
    state.confirmed = offset;
    state.confirmed_before_try = offset;
    return Reason::none;
}

Reason Download::request_next_piece() {
    const AcceptedRelease& release = *context_.release;
    const UpdateConfig& config = context_.config;
    const std::uint32_t begin = received();
    // Up to the next multiple of the chunk size, so that after an interruption the pieces, and with them
    // the confirmed offsets, are aligned again.
    const std::uint32_t end = std::min(release.size, (begin / config.chunk_size + 1) * config.chunk_size);
    const Reason reason =
        downloader_.open(release.id, release.version, release.sha256, {begin, end, release.size});
    state_->request_open = reason == Reason::none;
    return reason;
}

Reason Download::read_piece(std::uint64_t now) {
    DownloadState& state = *state_;
    if (!state.buffer) {
        state.buffer.reset(new (std::nothrow) std::uint8_t[kBufferSize]);
        if (!state.buffer) {
            return Reason::out_of_memory;
        }
    }
    std::size_t size = 0;
    const Reason reason =
        downloader_.read(state.buffer.get() + state.buffered, kBufferSize - state.buffered, size);
    if (reason != Reason::none) {
        return reason;
    }
    state.buffered += static_cast<std::uint32_t>(size);
    state.window_bytes += static_cast<std::uint32_t>(size);
    if (state.buffered == kBufferSize || (size > 0 && is_whole())) {
        if (const Reason flushed = flush_buffer(); flushed != Reason::none) {
            return flushed;
        }
    }
    if (downloader_.at_end()) {
        state.request_open = false;
    }
    return watch_rate(now);
}

Reason Download::flush_buffer() {
    DownloadState& state = *state_;
    if (state.written == 0) {
        const Reason reason = check_head(state.buffer.get(), state.buffered);
        if (reason != Reason::none) {
            return reason;
        }
    }
    verifier_.update_image(state.buffer.get(), state.buffered);
    if (context_.ports.slots.write(state.buffer.get(), state.buffered) != PortResult::ok) {
        return Reason::flash_error;
    }
    state.written += state.buffered;
    state.buffered = 0;
    if (const std::uint8_t quarters = quarters_written(); quarters > state.reported_quarters) {
        state.reported_quarters = quarters;
        reporter_.send_progress(UpdateStatus::downloading, quarters * 25);
    }
    return confirm_progress();
}

Reason Download::check_head(const std::uint8_t* head, std::size_t size) {
    const AcceptedRelease& release = *context_.release;
    if (size < kImageHeadSize) {
        return Reason::image_bad_header;
    }
    std::string app_version;
    const Reason reason =
        check_image_head(head, chip_id_of(context_.config.chip).value_or(kNoChip), app_version);
    if (reason != Reason::none) {
        return reason;
    }
    if (app_version != release.version) {
        // Usually only a warning: an image built with Arduino has the version of its core there.
        context_.observer.on_event(
            {"app_version_differs", release.id, app_version, Reason::app_version_mismatch});
        if (release.strict_app_version) {
            return Reason::app_version_mismatch;
        }
    }
    return sha256(head, kImageHeadSize, state_->image_head) ? Reason::none : Reason::out_of_memory;
}

Reason Download::confirm_progress() {
    AcceptedRelease& release = *context_.release;
    DownloadState& state = *state_;
    const bool whole = state.written == release.size;
    if (!whole && state.written - state.confirmed < context_.config.chunk_size) {
        return Reason::none;
    }
    if (!context_.storage.set(DownloadProgress{release.sha256, state.written})) {
        return Reason::storage_error;
    }
    state.confirmed = state.written;
    reporter_.event("chunk_confirmed", "offset", state.confirmed);
    if (state.confirmed <= release.furthest) {
        return Reason::none;  // Fetched before, for example from a server that makes the device start over.
    }
    release.furthest = state.confirmed;
    return context_.storage.forget_link_failures(release.sequence) ? Reason::none : Reason::storage_error;
}

/// Otherwise a trickling server could keep the device downloading forever.
Reason Download::watch_rate(std::uint64_t now) {
    DownloadState& state = *state_;
    if (now - state.window_start_ms < kRateWindow_ms) {
        return Reason::none;
    }
    const bool too_slow = state.window_bytes < kMinRate * (kRateWindow_ms / kSecond_ms);
    state.window_start_ms = now;
    state.window_bytes = 0;
    return too_slow ? Reason::download_too_slow : Reason::none;
}

Reason Download::finish() {
    MqttClient& mqtt = context_.ports.mqtt;
    if (!mqtt.connected()) {
        return Reason::broker_unreachable;  // The trial would be interrupted.
    }
    if (!mqtt.claim()) {
        return Reason::none;  // A message is arriving. It comes first, because the heap cannot hold both.
    }
    state_->buffer.reset();
    const Reason reason = verify_and_activate();
    mqtt.release();
    return reason;
}

Reason Download::verify_and_activate() {
    const AcceptedRelease& release = *context_.release;
    FlashSlots& slots = context_.ports.slots;
    reporter_.send_progress(UpdateStatus::verifying, 100);
    Reason reason =
        verifier_.finish_image(release.sha256, release.signature.data(), release.signature.size());
    if (reason != Reason::none) {
        return reason;
    }
    reporter_.event("verified");
    PendingUpdate pending;
    pending.release_id = release.id;
    pending.version = release.version;
    pending.version_is_authentic = release.version_is_authentic;
    pending.sequence = release.sequence;
    pending.image_head = state_->image_head;
    pending.slot = static_cast<std::uint8_t>(slots.update_slot());
    if (!context_.storage.set(pending)) {
        return Reason::storage_error;
    }
    const PortResult activated = slots.activate();
    if (activated != PortResult::ok) {
        reason = activated == PortResult::invalid ? Reason::image_not_bootable : Reason::flash_error;
        return context_.storage.clear_pending() ? reason : Reason::storage_error;
    }
    reporter_.event("activated", "slot", pending.slot);
    reporter_.send_progress(UpdateStatus::rebooting, 100);
    end();
    activated_ = true;
    return Reason::none;
}

Download::Result Download::fail(Reason reason) {
    switch (reason) {
        case Reason::release_expired:
        case Reason::release_withdrawn:
            return {Result::Next::drop, reason};
        case Reason::broker_unreachable:
            give_up_buffer();
            return {Result::Next::postpone, reason, kBrokerPoll_ms};
        case Reason::started_too_often:
        case Reason::trial_interrupted:
            end();
            return {Result::Next::postpone, reason,
                    context_.patience.until_tick_ms(context_.ports.clock.uptime_ms())};
        default:
            break;
    }
    Result result = is_about_image(reason) ? fail_image(reason) : fail_try(reason);
    if (reason == Reason::http_not_found) {
        result.next = Result::Next::forget;
    }
    return result;
}

/// Discards the image. It is fetched again from the start, unless it was bad too often.
Download::Result Download::fail_image(Reason reason) {
    AcceptedRelease& release = *context_.release;
    FailureRecord failure = context_.storage.failures_of(release.sequence);
    end();
    release.furthest = 0;
    ++failure.attempts;
    if (!context_.storage.clear_progress() || !context_.storage.set(failure)) {
        reporter_.storage_failed();
    }
    reporter_.report_outcome(release.id, release.version, UpdateStatus::failed, to_string(reason));
    if (failure.attempts >= kMaxAttempts) {
        reporter_.event("given_up", reason);
        return {Result::Next::give_up, reason};
    }
    return {Result::Next::retry, reason, context_.back_off.delay_ms(failure.attempts)};
}

/// The link, the server or this device failed, but the image may be good.
Download::Result Download::fail_try(Reason reason) {
    FailureRecord failure = context_.storage.failures_of(context_.release->sequence);
    bool made_progress = state_ && state_->confirmed > state_->confirmed_before_try;
    const int percent = state_ ? percent_received() : 0;
    if (reason == Reason::range_ignored || reason == Reason::http_range_not_satisfiable) {
        start_over();
        made_progress = false;
    } else if (reason == Reason::flash_error || reason == Reason::storage_error ||
               reason == Reason::out_of_memory) {
        end();  // RAM and flash may differ, so start again from the progress in NVS.
    } else {
        downloader_.close();
        if (state_) {
            state_->request_open = false;
            state_->confirmed_before_try = state_->confirmed;
        }
    }
    std::uint32_t delay = 0;
    if (made_progress) {
        // A poor link that still delivers a chunk each time is not a reason to back off.
        delay = kSecond_ms + context_.back_off.random_up_to(kSecond_ms);
    } else {
        ++failure.link_failures;
        delay = context_.back_off.delay_ms(failure.attempts + failure.link_failures);
        if (!context_.storage.set(failure)) {
            reporter_.storage_failed();
        }
    }
    reporter_.send_progress(UpdateStatus::downloading, percent, reason);
    return {Result::Next::retry, reason, std::max(delay, api_.retry_after_s() * kSecond_ms)};
}

/// The server cannot resume the download, so its progress is discarded: the next try asks for the whole
/// image, and then a 200 is a valid answer.
void Download::start_over() {
    end();
    if (!context_.storage.clear_progress()) {
        reporter_.storage_failed();
    }
}

void Download::resume(std::uint64_t now) {
    if (state_) {
        state_->window_start_ms = now;
        state_->window_bytes = 0;
    }
}

void Download::end() {
    if (state_) {
        downloader_.close();
        state_.reset();
    }
}

void Download::begin_release() {
    end();
    downloader_.reset();
}

void Download::give_up_buffer() {
    if (state_) {
        state_->buffer.reset();
        state_->buffered = 0;
    }
}

std::uint32_t Download::received() const {
    return state_->written + state_->buffered;
}

int Download::percent_received() const {
    return static_cast<int>(std::uint64_t{received()} * 100 / context_.release->size);
}

std::uint8_t Download::quarters_written() const {
    return static_cast<std::uint8_t>(std::uint64_t{state_->written} * 4 / context_.release->size);
}

}  // namespace ota

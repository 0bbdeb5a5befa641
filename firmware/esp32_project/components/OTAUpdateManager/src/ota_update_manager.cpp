#include "ota/ota_update_manager.hpp"

#include <algorithm>
#include <new>

#include "ota/chip.hpp"
#include "ota/semver.hpp"

namespace ota {
namespace {

constexpr std::uint64_t kSecond_ms = 1000;
/// Longest wait for the broker to acknowledge the last message before a restart.
constexpr std::uint64_t kRestartGrace_ms = 5000;
/// Spread of the first check-in, when a whole site gets its power back at once.
constexpr std::uint32_t kBootCheckInSpread_s = 10;
/// In this time one refusal of what nobody authentic signed is told, and no more of any kind than are
/// remembered, or a stranger who publishes on the fleet's topic could make every device write as often
/// as he likes: a genuine release of old can be sent under ever new ids, which are not signed.
constexpr std::uint64_t kRefusalInterval_ms = 3600 * kSecond_ms;
/// Between looks whether a message has arrived.
constexpr std::uint32_t kArrivalPoll_ms = 50;
/// Chip id that no image has.
constexpr std::uint16_t kNoChip = 0xFFFF;

/// Reasons that lie in the image itself, so that fetching on does not help.
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

/// FNV-1a, to tell refusals apart; a collision costs one report.
std::uint32_t hash_of(std::string_view release_id, Reason reason) {
    std::uint32_t hash = 2166136261U;
    for (const char c : release_id) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
    }
    return (hash ^ static_cast<std::uint32_t>(reason)) * 16777619U;
}

}  // namespace

UpdateTopics::UpdateTopics(std::string_view prefix, std::string_view product_name, const MacAddress& mac)
    : fleet(prefix), product(prefix), device(prefix) {
    product.append("/product/").append(product_name);
    device.append("/").append(format_mac(mac));
    status = device + "/status";
}

OTAUpdateManager::OTAUpdateManager(const UpdateConfig& config, const UpdatePorts& ports,
                                   UpdateObserver& observer)
    : config_(config),
      ports_(ports),
      observer_(observer),
      status_topic_(UpdateTopics(config.topic_prefix, config.product, config.mac).status),
      storage_(ports.store),
      verifier_(config.trusted_keys),
      downloader_(ports.http, ports.clock, config.api_url, config.api_key) {}

// After a restart

void OTAUpdateManager::start() {
    const std::optional<Sha256Digest> running_head = read_running_image();
    report_ = storage_.report();
    const std::uint32_t spread_s = std::min(kBootCheckInSpread_s, config_.max_delay_s);
    next_check_in_ms_ = ports_.clock.uptime_ms() + random_up_to(spread_s * kSecond_ms);
    settle_pending_update(running_head);
    event("booted", "slot", ports_.slots.running_slot());
}

/// Finds out what runs. The stored version holds for the image that it was stored with; an image that
/// came by cable since then speaks for itself. @return the digest of its head, when it can be read.
std::optional<Sha256Digest> OTAUpdateManager::read_running_image() {
    std::array<std::uint8_t, kImageHeadSize> head{};
    Sha256Digest digest{};
    std::string app_version;
    const bool readable =
        ports_.slots.read(ports_.slots.running_slot(), 0, head.data(), head.size()) == PortResult::ok &&
        sha256(head.data(), head.size(), digest);
    if (readable) {
        (void)check_image_head(head.data(), chip_id_of(config_.chip).value_or(kNoChip), app_version);
    }
    running_version_ = app_version;
    if (const auto installed = storage_.installed()) {
        stored_sequence_ = installed->sequence;
        if (installed->image_head == digest) {
            running_version_ = installed->version;
            running_version_is_authentic_ = installed->version_is_authentic;
        }
    }
    return readable ? std::optional<Sha256Digest>(digest) : std::nullopt;
}

void OTAUpdateManager::settle_pending_update(const std::optional<Sha256Digest>& running_head) {
    const int running = ports_.slots.running_slot();
    auto pending = storage_.pending();
    if (pending && pending->slot == running && running_head && *running_head != pending->image_head) {
        // Another image came into its slot by cable: nothing is known of the release any more, and its
        // bytes are nowhere.
        pending.reset();
        if (!storage_.clear_pending() || !storage_.clear_progress()) {
            event("storage_failed", Reason::storage_error);
        }
    }
    if (ports_.slots.state(running) == SlotState::pending_verify) {
        state_ = UpdateState::self_test;
        self_test_deadline_ms_ = ports_.clock.uptime_ms() + config_.self_test_limit_s * kSecond_ms;
        if (pending && pending->slot == running) {
            running_version_ = pending->version;
            running_version_is_authentic_ = pending->version_is_authentic;
            // Should the power fail while otadata is being rewritten, this still tells the old app
            // that the new one had its chance.
            pending->boots = 1;
            if (!storage_.set(*pending)) {
                event("storage_failed", Reason::storage_error);
            }
        }
        event("self_test_started", "limit_s", config_.self_test_limit_s);
        return;
    }
    if (!pending) {
        return;
    }
    const SlotState its_state = ports_.slots.state(pending->slot);
    const bool undone = its_state != SlotState::undefined && its_state != SlotState::valid;
    if (pending->slot == running && !undone) {
        commit(*pending);  // Marked valid, and then the power failed.
    } else if (pending->slot == running) {
        // It gave itself up, but the bootloader found nothing else that runs.
        running_version_ = pending->version;
        running_version_is_authentic_ = pending->version_is_authentic;
        record_failed_trial(*pending, UpdateStatus::failed);
    } else if (pending->boots > 0 || undone) {
        record_failed_trial(*pending, UpdateStatus::rolled_back);
    } else if (!storage_.clear_pending()) {  // The power failed before it was activated.
        event("storage_failed", Reason::storage_error);
    }
}

/// Makes the release on its trial the installed one. Ends with the pending record, so that a power cut
/// anywhere in between leads here again.
void OTAUpdateManager::commit(const PendingUpdate& pending) {
    const bool stored = storage_.set(InstalledRelease{pending.sequence, pending.version,
                                                      pending.version_is_authentic, pending.image_head});
    if (!stored) {
        // Without the sequence the way back to older releases would be open: try again at the next boot.
        event("storage_failed", Reason::storage_error);
        return;
    }
    stored_sequence_ = pending.sequence;
    running_version_ = pending.version;
    running_version_is_authentic_ = pending.version_is_authentic;
    report_finally(pending.release_id, pending.version, UpdateStatus::installed, {});
    if (!storage_.clear_failure() || !storage_.clear_progress() || !storage_.clear_pending()) {
        event("storage_failed", Reason::storage_error);
    }
    observer_.on_event(
        {"installed", pending.release_id, pending.version, Reason::none, "sequence", pending.sequence});
}

void OTAUpdateManager::record_failed_trial(const PendingUpdate& pending, UpdateStatus status) {
    FailureRecord failure = failures_of(pending.sequence);
    ++failure.attempts;
    std::string_view reason = pending.verdict;
    if (reason.empty()) {
        reason = to_string(Reason::boot_failed);
    }
    const bool stored = storage_.set(failure);
    report_finally(pending.release_id, pending.version, status, reason);
    if (!stored || !storage_.clear_pending()) {
        event("storage_failed", Reason::storage_error);
    }
    observer_.on_event(
        {to_string(status), pending.release_id, pending.version, Reason::none, "attempts", failure.attempts});
}

void OTAUpdateManager::step_self_test(std::uint64_t now) {
    if (!ports_.mqtt.connected()) {
        self_test_published_ = false;
    } else if (!self_test_published_) {
        const auto pending = storage_.pending();
        StatusMessage message;
        message.release_id = pending ? std::string_view(pending->release_id) : std::string_view();
        message.version = running_version_;
        message.state = to_string(UpdateStatus::rebooting);
        message.progress = 100;
        message.running_version = running_version_;
        self_test_published_ = publish(message);
    } else if (ports_.mqtt.all_acknowledged()) {
        if (!observer_.self_test_passes()) {
            fail_self_test(Reason::self_test_failed);
            return;
        }
        if (ports_.slots.mark_running_valid() == PortResult::ok) {
            state_ = UpdateState::idle;
            event("self_test_passed");
            const auto pending = storage_.pending();
            if (pending && pending->slot == ports_.slots.running_slot()) {
                commit(*pending);
            }
            next_check_in_ms_ = now;
            return;
        }
    }
    if (now >= self_test_deadline_ms_) {
        fail_self_test(Reason::self_test_timed_out);
    }
}

void OTAUpdateManager::fail_self_test(Reason reason) {
    event("self_test_failed", reason);
    auto pending = storage_.pending();
    if (pending) {
        pending->verdict = to_string(reason);
        if (!storage_.set(*pending)) {
            event("storage_failed", Reason::storage_error);
        }
    }
    if (ports_.slots.mark_running_invalid() != PortResult::ok) {
        // otadata knows no other app, as after a power cut on the very first boot. The bootloader undoes
        // an app on its trial at the next boot anyway, and then takes any image that it finds.
        event("not_marked_invalid", reason);
    }
    restart_soon(ports_.clock.uptime_ms());
}

void OTAUpdateManager::restart_soon(std::uint64_t now) {
    state_ = UpdateState::restarting;
    restart_at_ms_ = now + kRestartGrace_ms;
    event("restarting");
}

// Messages

/// Messages are taken between the pieces of a download only: a notification and what verifying its
/// signature takes leave no room for the download's buffer.
void OTAUpdateManager::receive_messages() {
    while (MqttMessage* const message = ports_.mqtt.waiting()) {
        if (download_) {
            if (download_->request_open) {
                return;
            }
            download_->buffer.reset();
            download_->buffered = 0;
        }
        const UpdateTopics topics(config_.topic_prefix, config_.product, config_.mac);
        const bool own = message->topic == topics.device;
        if (state_ == UpdateState::self_test) {
            // The check-in after the trial brings what is missed here.
        } else if (own || message->topic == topics.fleet || message->topic == topics.product) {
            if (message->payload && message->payload.size() <= kMaxNotificationSize) {
                handle_notification(message->payload,
                                    own ? NotificationSource::own_topic : NotificationSource::fleet_topic);
            } else {
                event("refused", Reason::notification_too_large);
            }
        }
        ports_.mqtt.release();
    }
}

void OTAUpdateManager::handle_notification(HeapText& text, NotificationSource source) {
    Notification notification;
    Reason reason = parse_notification(text.data(), text.size(), notification);
    if (reason == Reason::none && notification.withdrawn) {
        // Not signed, and it need not be: who can forge this can as well keep the release back. The
        // next check-in brings it again if it was a forgery.
        if (release_ && release_->id == notification.release_id) {
            drop_release(Reason::release_withdrawn);
        }
        return;
    }
    Sha256Digest digest;
    Manifest manifest;
    if (reason == Reason::none) {
        reason = decode_envelope(notification.envelope, digest);
    }
    if (reason == Reason::none) {
        shrink_notification(text, notification);
        reason = verifier_.verify_envelope(notification.envelope, digest);
    }
    if (reason == Reason::none) {
        reason = parse_manifest(notification.envelope.payload, config_.mac, manifest);
    }
    if (reason == Reason::none) {
        reason = compare_with_manifest(notification, manifest);
    }
    if (reason != Reason::none) {
        const std::uint64_t now = ports_.clock.uptime_ms();
        observer_.on_event({"refused", notification.release_id, notification.version, reason});
        if (now >= next_unverified_report_ms_ &&
            tell_refusal(notification.release_id, notification.version, reason, source)) {
            next_unverified_report_ms_ = now + kRefusalInterval_ms;
        }
        return;
    }

    bool corrected = false;
    if (manifest.product == config_.product) {
        // The API is who it says it is: of what is not signed, its word counts more than what was heard
        // before.
        corrected = source == NotificationSource::check_in && release_ &&
                    manifest.sequence == release_->sequence &&
                    (notification.release_id != release_->id || notification.version != release_->version ||
                     notification.max_delay_s != release_->max_delay_s);
        // What is installed or under way comes again with every reconnect, as a retained message.
        const bool known =
            manifest.sequence == stored_sequence_ || (release_ && manifest.sequence <= release_->sequence);
        if (known && !corrected) {
            observer_.on_event({"ignored", notification.release_id, notification.version});
            return;
        }
    }
    const DeviceFacts device = facts();
    reason = decide(manifest, notification, source, device);
    if (reason == Reason::none && failures_of(manifest.sequence).attempts >= kMaxAttempts) {
        reason = Reason::failed_before;
    }
    if (reason != Reason::none) {
        observer_.on_event({"refused", notification.release_id, notification.version, reason});
        if (is_addressed_to(manifest, notification, device)) {
            tell_refusal(notification.release_id, notification.version, reason, source);
        }
        if (corrected) {  // It was accepted for what it is not.
            event("dropped", reason);
            forget_release();
        }
        return;
    }
    // Failures at another address say nothing of what is really to be fetched.
    if (corrected && notification.version != release_->version && !forget_link_failures()) {
        event("storage_failed", Reason::storage_error);
    }
    accept(notification, manifest);
}

void OTAUpdateManager::accept(const Notification& notification, const Manifest& manifest) {
    end_download();
    downloader_.reset();
    const auto* const signature = reinterpret_cast<const std::uint8_t*>(manifest.image_signature.data);
    AcceptedRelease& release = release_.emplace();
    release.id = notification.release_id;
    release.version = notification.version;
    release.version_is_authentic = !manifest.version_is_auto();
    release.max_delay_s = notification.max_delay_s;
    release.strict_app_version = manifest.strict_app_version;
    release.sequence = manifest.sequence;
    release.expires = manifest.expires;
    release.size = manifest.image_size;
    release.sha256 = manifest.image_sha256;
    release.signature.assign(signature, signature + manifest.image_signature.size);

    const FailureRecord failure = failures_of(release.sequence);
    std::uint32_t delay = random_up_to(notification.max_delay_s.value_or(config_.max_delay_s) * kSecond_ms);
    if (const std::uint32_t failures = failure.attempts + failure.link_failures; failures > 0) {
        delay = std::max(delay, back_off_ms(failures));
    }
    start_at_ms_ = ports_.clock.uptime_ms() + delay;
    state_ = UpdateState::waiting;
    event("accepted", "delay_ms", delay);
}

/// Reports that a release will not be installed, if that was not told before. Of what anybody could
/// send, only so many are told in an hour.
/// @return whether it was reported.
bool OTAUpdateManager::tell_refusal(std::string_view release_id, std::string_view version, Reason reason,
                                    NotificationSource source) {
    const std::uint32_t hash = hash_of(release_id, reason);
    const auto now_s = static_cast<std::uint32_t>(ports_.clock.uptime_ms() / kSecond_ms);
    const bool told_before =
        std::any_of(told_.begin(), told_.end(), [hash](const Told& told) { return told.hash == hash; });
    Told& oldest = told_[told_next_ % told_.size()];
    const bool too_many = source != NotificationSource::check_in && told_next_ >= told_.size() &&
                          now_s - oldest.uptime_s < kRefusalInterval_ms / kSecond_ms;
    if (release_id.empty() || told_before || too_many) {
        return false;
    }
    StatusMessage message;
    message.release_id = release_id;
    message.version = is_semver(version) ? version : std::string_view();
    message.state = to_string(UpdateStatus::rejected);
    message.reason = to_string(reason);
    message.running_version = running_version_;
    if (!publish(message)) {
        return false;  // Nor told: it is when the release comes again, with the connection or the check-in.
    }
    oldest = {hash, now_s};
    ++told_next_;
    return true;
}

void OTAUpdateManager::check_in(std::uint64_t now) {
    if (!ports_.mqtt.claim()) {
        return;  // A message is arriving: first that one.
    }
    if (download_) {
        download_->buffer.reset();
        download_->buffered = 0;
    }
    HeapText body;
    const Reason reason = downloader_.check_in(config_.mac, config_.product, running_version_, body);
    const std::uint32_t interval = config_.check_in_interval_s * kSecond_ms;
    if (reason == Reason::none) {
        check_in_failures_ = 0;
        // Ten per cent either way, so that a fleet that was switched on together drifts apart.
        next_check_in_ms_ = now + interval - interval / 10 + random_up_to(interval / 5);
        event("checked_in", "update", body ? 1 : 0);
        if (body) {
            handle_notification(body, NotificationSource::check_in);
        }
        body.reset();
        ports_.mqtt.release();
        return;
    }
    ports_.mqtt.release();
    ++check_in_failures_;
    const std::uint32_t retry_after = downloader_.retry_after_s() * kSecond_ms;
    next_check_in_ms_ = now + std::max(std::min(back_off_ms(check_in_failures_), interval), retry_after);
    event("check_in_failed", reason);
}

// The download

void OTAUpdateManager::step_download(std::uint64_t now) {
    Reason reason = Reason::none;
    if (!download_ || !download_->request_open) {
        // Before every request and before the verdict, for the release may expire while a broken link is
        // waited for.
        const auto unix_time = ports_.clock.unix_time();
        if (unix_time && *unix_time >= release_->expires) {
            reason = Reason::release_expired;
        }
    }
    if (reason == Reason::none && !download_) {
        reason = begin_download();
    }
    if (reason == Reason::none) {
        if (download_->received() == release_->size) {
            reason = finish_download();
        } else if (!download_->request_open) {
            reason = request_next_piece();
        } else {
            reason = read_piece(now);
        }
    }
    if (reason != Reason::none) {
        handle_download_failure(reason, now);
    }
}

Reason OTAUpdateManager::begin_download() {
    DownloadState& download = download_.emplace();
    download.buffer.reset(new (std::nothrow) std::uint8_t[kBufferSize]);
    if (!download.buffer) {
        return Reason::out_of_memory;
    }
    verifier_.begin_image();
    const Reason resumed = resume_from_flash();
    if (resumed != Reason::none) {
        return resumed;
    }
    if (download.written == 0 && !storage_.set(DownloadProgress{release_->sha256, 0})) {
        // What the slot holds of another image must be forgotten before it is overwritten.
        return Reason::storage_error;
    }
    if (download.written < release_->size && ports_.slots.begin(download.written) != PortResult::ok) {
        return Reason::flash_error;
    }
    download.window_start_ms = ports_.clock.uptime_ms();
    event("download_started", "offset", download.written);
    publish(UpdateStatus::downloading,
            static_cast<int>(std::uint64_t{download.written} * 100 / release_->size), Reason::none);
    download.reported_quarter = static_cast<int>(std::uint64_t{download.written} * 4 / release_->size);
    return Reason::none;
}

/// Takes up what a download of the same image left in the slot before a restart: its bytes go through
/// the hash again, so that what is signed at the end is what is in flash. What cannot be read, or does
/// not look like the start of an image any more, is fetched again.
Reason OTAUpdateManager::resume_from_flash() {
    DownloadState& download = *download_;
    const auto progress = storage_.progress();
    if (!progress || progress->image_sha256 != release_->sha256 || progress->offset > release_->size ||
        (progress->offset % kFlashSectorSize != 0 && progress->offset != release_->size)) {
        return Reason::none;
    }
    std::uint32_t offset = 0;
    while (offset < progress->offset) {
        const std::size_t size = std::min<std::size_t>(kBufferSize, progress->offset - offset);
        const bool readable = ports_.slots.read(ports_.slots.update_slot(), offset, download.buffer.get(),
                                                size) == PortResult::ok;
        if (!readable || (offset == 0 && check_head(download.buffer.get(), size) != Reason::none)) {
            verifier_.begin_image();
            return Reason::none;
        }
        verifier_.update_image(download.buffer.get(), size);
        offset += static_cast<std::uint32_t>(size);
    }
    download.written = offset;
    download.confirmed = offset;
    download.confirmed_before_try = offset;
    return Reason::none;
}

Reason OTAUpdateManager::request_next_piece() {
    const std::uint32_t begin = download_->received();
    // To the next multiple of the chunk, so that after a cut in the middle the pieces, and with them
    // the confirmed offsets, fall back into step.
    const std::uint32_t end = std::min(release_->size, (begin / config_.chunk_size + 1) * config_.chunk_size);
    const Reason reason =
        downloader_.open(config_.product, release_->version, release_->sha256, {begin, end, release_->size});
    download_->request_open = reason == Reason::none;
    return reason;
}

Reason OTAUpdateManager::read_piece(std::uint64_t now) {
    DownloadState& download = *download_;
    if (!download.buffer) {
        download.buffer.reset(new (std::nothrow) std::uint8_t[kBufferSize]);
        if (!download.buffer) {
            return Reason::out_of_memory;
        }
    }
    std::size_t received = 0;
    const Reason reason = downloader_.read(download.buffer.get() + download.buffered,
                                           kBufferSize - download.buffered, received);
    if (reason != Reason::none) {
        return reason;
    }
    download.buffered += received;
    download.window_bytes += static_cast<std::uint32_t>(received);
    if (download.buffered == kBufferSize || (received > 0 && download.received() == release_->size)) {
        if (const Reason flushed = flush_buffer(); flushed != Reason::none) {
            return flushed;
        }
    }
    if (downloader_.at_end()) {
        download.request_open = false;
    }
    return watch_rate(now);
}

Reason OTAUpdateManager::flush_buffer() {
    DownloadState& download = *download_;
    if (download.written == 0) {
        const Reason reason = check_head(download.buffer.get(), download.buffered);
        if (reason != Reason::none) {
            return reason;
        }
    }
    verifier_.update_image(download.buffer.get(), download.buffered);
    if (ports_.slots.write(download.buffer.get(), download.buffered) != PortResult::ok) {
        return Reason::flash_error;
    }
    download.written += static_cast<std::uint32_t>(download.buffered);
    download.buffered = 0;
    const int quarter = static_cast<int>(std::uint64_t{download.written} * 4 / release_->size);
    if (quarter > download.reported_quarter) {
        download.reported_quarter = quarter;
        publish(UpdateStatus::downloading, quarter * 25, Reason::none);
    }
    return confirm_progress();
}

Reason OTAUpdateManager::check_head(const std::uint8_t* head, std::size_t size) {
    if (size < kImageHeadSize) {
        return Reason::image_bad_header;
    }
    std::string app_version;
    const Reason reason = check_image_head(head, chip_id_of(config_.chip).value_or(kNoChip), app_version);
    if (reason != Reason::none) {
        return reason;
    }
    if (app_version != release_->version) {
        // An Arduino-built image carries its core's version there, so this is a warning as a rule.
        observer_.on_event({"app_version_differs", release_->id, app_version, Reason::app_version_mismatch});
        if (release_->strict_app_version) {
            return Reason::app_version_mismatch;
        }
    }
    return sha256(head, kImageHeadSize, download_->image_head) ? Reason::none : Reason::out_of_memory;
}

Reason OTAUpdateManager::confirm_progress() {
    DownloadState& download = *download_;
    const bool whole = download.written == release_->size;
    if (!whole && download.written - download.confirmed < config_.chunk_size) {
        return Reason::none;
    }
    if (!storage_.set(DownloadProgress{release_->sha256, download.written})) {
        return Reason::storage_error;
    }
    download.confirmed = download.written;
    event("chunk_confirmed", "offset", download.confirmed);
    if (download.confirmed <= release_->furthest) {
        return Reason::none;  // Fetched again, as from a server that makes the device start over each time.
    }
    release_->furthest = download.confirmed;
    return forget_link_failures() ? Reason::none : Reason::storage_error;
}

/// A server that drips bytes would otherwise keep the device in the download for ever.
Reason OTAUpdateManager::watch_rate(std::uint64_t now) {
    DownloadState& download = *download_;
    if (now - download.window_start_ms < kRateWindow_ms) {
        return Reason::none;
    }
    const bool too_slow = download.window_bytes < kMinRate * (kRateWindow_ms / kSecond_ms);
    download.window_start_ms = now;
    download.window_bytes = 0;
    return too_slow ? Reason::download_too_slow : Reason::none;
}

Reason OTAUpdateManager::finish_download() {
    if (!ports_.mqtt.claim()) {
        return Reason::none;  // A message is arriving: first that one, for the heap does not hold both.
    }
    download_->buffer.reset();
    const Reason reason = verify_and_activate();
    ports_.mqtt.release();
    return reason;
}

Reason OTAUpdateManager::verify_and_activate() {
    publish(UpdateStatus::verifying, 100, Reason::none);
    Reason reason =
        verifier_.finish_image(release_->sha256, release_->signature.data(), release_->signature.size());
    if (reason != Reason::none) {
        return reason;
    }
    event("verified");
    PendingUpdate pending;
    pending.release_id = release_->id;
    pending.version = release_->version;
    pending.version_is_authentic = release_->version_is_authentic;
    pending.sequence = release_->sequence;
    pending.image_head = download_->image_head;
    pending.slot = static_cast<std::uint8_t>(ports_.slots.update_slot());
    if (!storage_.set(pending)) {
        return Reason::storage_error;
    }
    const PortResult activated = ports_.slots.activate();
    if (activated != PortResult::ok) {
        reason = activated == PortResult::invalid ? Reason::image_not_bootable : Reason::flash_error;
        return storage_.clear_pending() ? reason : Reason::storage_error;
    }
    event("activated", "slot", pending.slot);
    publish(UpdateStatus::rebooting, 100, Reason::none);
    end_download();
    restart_soon(ports_.clock.uptime_ms());
    return Reason::none;
}

void OTAUpdateManager::handle_download_failure(Reason reason, std::uint64_t now) {
    if (reason == Reason::release_expired || reason == Reason::release_withdrawn) {
        drop_release(reason);
        return;
    }
    FailureRecord failure = failures_of(release_->sequence);
    std::uint32_t delay = 0;
    if (is_about_image(reason)) {
        end_download();
        release_->furthest = 0;
        ++failure.attempts;
        if (!storage_.clear_progress() || !storage_.set(failure)) {
            event("storage_failed", Reason::storage_error);
        }
        report_finally(release_->id, release_->version, UpdateStatus::failed, to_string(reason));
        if (failure.attempts >= kMaxAttempts) {
            event("given_up", reason);
            forget_release();
            return;
        }
        delay = back_off_ms(failure.attempts);
    } else {
        bool made_progress = download_ && download_->confirmed > download_->confirmed_before_try;
        const int percent =
            download_ ? static_cast<int>(std::uint64_t{download_->received()} * 100 / release_->size) : 0;
        if (reason == Reason::range_ignored || reason == Reason::http_range_not_satisfiable) {
            restart_from_zero();
            made_progress = false;
        } else if (reason == Reason::flash_error || reason == Reason::storage_error ||
                   reason == Reason::out_of_memory) {
            end_download();  // What is in RAM may not be what is in flash: begin from what NVS confirms.
        } else {
            downloader_.close();
            if (download_) {
                download_->request_open = false;
                download_->confirmed_before_try = download_->confirmed;
            }
        }
        if (made_progress) {
            // A poor link that still gets a chunk through each time is not a reason to back off.
            delay = kSecond_ms + random_up_to(kSecond_ms);
        } else {
            ++failure.link_failures;
            delay = back_off_ms(failure.attempts + failure.link_failures);
            if (!storage_.set(failure)) {
                event("storage_failed", Reason::storage_error);
            }
        }
        delay = std::max<std::uint32_t>(delay, downloader_.retry_after_s() * kSecond_ms);
        publish(UpdateStatus::downloading, percent, reason);
    }
    start_at_ms_ = now + delay;
    state_ = UpdateState::waiting;
    event("download_failed", reason);
    event("retry", "delay_ms", delay);
}

/// The server cannot go on where the download stands. What is in the slot is given up: the next try
/// asks for the whole, and may then be answered with a 200.
void OTAUpdateManager::restart_from_zero() {
    end_download();
    if (!storage_.clear_progress()) {
        event("storage_failed", Reason::storage_error);
    }
}

/// A release that is over, which anybody could send again and again.
void OTAUpdateManager::drop_release(Reason reason) {
    tell_refusal(release_->id, release_->version, reason, NotificationSource::fleet_topic);
    event("dropped", reason);
    forget_release();
}

void OTAUpdateManager::forget_release() {
    end_download();
    release_.reset();
    state_ = UpdateState::idle;
}

void OTAUpdateManager::end_download() {
    if (download_) {
        downloader_.close();
        download_.reset();
    }
}

// Time

/// Doubles from the first back-off with every failure, up to the limit; then up to a quarter is added
/// at random, so that devices that lost the same server do not come back together.
std::uint32_t OTAUpdateManager::back_off_ms(std::uint32_t failures) {
    std::uint64_t delay_s = config_.first_back_off_s;
    for (std::uint32_t i = 1; i < failures && delay_s < config_.back_off_limit_s; ++i) {
        delay_s *= 2;
    }
    const auto delay =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(delay_s, config_.back_off_limit_s) * kSecond_ms);
    return delay + random_up_to(delay / 4);
}

std::uint32_t OTAUpdateManager::random_up_to(std::uint32_t limit) {
    // The bias of the modulo is below one in 49 for a day in milliseconds: of no account for a delay.
    return limit == 0 ? 0 : ports_.random.next() % limit;
}

FailureRecord OTAUpdateManager::failures_of(std::int64_t sequence) const {
    const auto failure = storage_.failure();
    return failure && failure->sequence == sequence ? *failure : FailureRecord{sequence, 0, 0};
}

/// Of the release under way. @return false when that could not be stored.
bool OTAUpdateManager::forget_link_failures() {
    FailureRecord failure = failures_of(release_->sequence);
    if (failure.link_failures == 0) {
        return true;
    }
    failure.link_failures = 0;
    return storage_.set(failure);
}

DeviceFacts OTAUpdateManager::facts() const {
    DeviceFacts device;
    device.mac = config_.mac;
    device.product = config_.product;
    device.chip = config_.chip;
    device.running_version = running_version_;
    device.running_version_is_authentic = running_version_is_authentic_;
    device.stored_sequence = stored_sequence_;
    device.slot_size = ports_.slots.update_slot_size();
    device.unix_time = ports_.clock.unix_time();
    return device;
}

// Reports

void OTAUpdateManager::publish(UpdateStatus status, int progress, Reason reason) {
    StatusMessage message;
    message.release_id = release_->id;
    message.version = release_->version;
    message.state = to_string(status);
    message.progress = progress;
    message.reason = reason == Reason::none ? "" : to_string(reason);
    message.running_version = running_version_;
    publish(message);
}

bool OTAUpdateManager::publish(const StatusMessage& message) {
    const std::string json = to_json(message);
    if (!ports_.mqtt.publish(status_topic_.c_str(), json.data(), json.size())) {
        return false;
    }
    observer_.on_status(message);
    return true;
}

/// A report that must arrive: kept in NVS until the broker has acknowledged it.
void OTAUpdateManager::report_finally(std::string_view release_id, std::string_view version,
                                      UpdateStatus status, std::string_view reason) {
    report_ =
        PendingReport{std::string(release_id), std::string(version), to_string(status), std::string(reason)};
    report_in_flight_ = false;
    if (!storage_.set(*report_)) {
        event("storage_failed", Reason::storage_error);
    }
}

void OTAUpdateManager::deliver_report() {
    if (!report_) {
        return;
    }
    if (!ports_.mqtt.connected()) {
        report_in_flight_ = false;
    } else if (!report_in_flight_) {
        StatusMessage message;
        message.release_id = report_->release_id;
        message.version = report_->version;
        message.state = report_->state;
        message.progress = report_->state == to_string(UpdateStatus::installed) ? 100 : 0;
        message.reason = report_->reason;
        message.running_version = running_version_;
        report_in_flight_ = publish(message);
    } else if (ports_.mqtt.all_acknowledged()) {
        report_.reset();
        if (!storage_.clear_report()) {
            event("storage_failed", Reason::storage_error);
        }
        event("report_delivered");
    }
}

void OTAUpdateManager::event(const char* name, Reason reason) {
    UpdateEvent event{name, {}, {}, reason, nullptr, 0};
    if (release_) {
        event.release_id = release_->id;
        event.version = release_->version;
    }
    observer_.on_event(event);
}

void OTAUpdateManager::event(const char* name, const char* value_name, std::int64_t value) {
    UpdateEvent event{name, {}, {}, Reason::none, value_name, value};
    if (release_) {
        event.release_id = release_->id;
        event.version = release_->version;
    }
    observer_.on_event(event);
}

// The loop

std::uint32_t OTAUpdateManager::step() {
    const std::uint64_t now = ports_.clock.uptime_ms();
    const auto until = [now](std::uint64_t when) {
        constexpr std::uint64_t kLongest_ms = 60 * kSecond_ms;
        return static_cast<std::uint32_t>(when <= now ? 0 : std::min(when - now, kLongest_ms));
    };
    if (state_ == UpdateState::restarting) {
        if (!ports_.mqtt.connected() || ports_.mqtt.all_acknowledged() || now >= restart_at_ms_) {
            ports_.reboot.restart();
        }
        return until(restart_at_ms_);
    }
    deliver_report();
    receive_messages();
    if (state_ == UpdateState::self_test) {
        step_self_test(now);
        return until(std::min(self_test_deadline_ms_, now + kSecond_ms));
    }
    if (state_ == UpdateState::waiting && now >= start_at_ms_) {
        state_ = UpdateState::downloading;
        if (download_) {
            download_->window_start_ms = now;
            download_->window_bytes = 0;
        }
    }
    if (state_ == UpdateState::downloading) {
        step_download(now);
        // With all bytes here and still downloading, a message that is arriving has the heap. Its task
        // needs time to receive it, and the watchdog of the idle task does too.
        const bool held_up =
            state_ == UpdateState::downloading && download_ && download_->received() == release_->size;
        return held_up ? kArrivalPoll_ms : 0;
    }
    if (now >= next_check_in_ms_) {
        check_in(now);
        return until(now >= next_check_in_ms_ ? now + kSecond_ms : now);
    }
    return until(state_ == UpdateState::waiting ? std::min(start_at_ms_, next_check_in_ms_)
                                                : next_check_in_ms_);
}

}  // namespace ota

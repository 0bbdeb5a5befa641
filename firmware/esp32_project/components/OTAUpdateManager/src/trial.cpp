#include "ota/trial.hpp"

#include <array>
#include <string>
#include <string_view>

#include "ota/chip.hpp"
#include "ota/esp_image.hpp"
#include "ota/sha256.hpp"

namespace ota {

bool Trial::begin() {
    return settle_pending_update(read_running_image());
}

/// Finds out what runs. The stored version counts only for the image that it was stored with; an image
/// flashed by cable since then has its own. @return the digest of its head, if it can be read.
std::optional<Sha256Digest> Trial::read_running_image() {
    const FlashSlots& slots = context_.ports.slots;
    std::array<std::uint8_t, kImageHeadSize> head{};
    Sha256Digest digest{};
    std::string app_version;
    const bool readable = slots.read(slots.running_slot(), 0, head.data(), head.size()) == PortResult::ok &&
                          sha256(head.data(), head.size(), digest);
    if (readable) {
        (void)check_image_head(head.data(), chip_id_of(context_.config.chip).value_or(kNoChip), app_version);
    }
    context_.running.version = app_version;
    if (const auto installed = context_.storage.installed()) {
        context_.running.sequence = installed->sequence;
        if (installed->image_head == digest) {
            context_.running.version = installed->version;
            context_.running.version_is_authentic = installed->version_is_authentic;
        }
    }
    return readable ? std::optional<Sha256Digest>(digest) : std::nullopt;
}

/// @return whether the running app is on trial.
bool Trial::settle_pending_update(const std::optional<Sha256Digest>& running_head) {
    const FlashSlots& slots = context_.ports.slots;
    const int running = slots.running_slot();
    auto pending = context_.storage.pending();
    if (pending && pending->slot == running && running_head && *running_head != pending->image_head) {
        // Another image was flashed into its slot by cable, so the pending release is gone.
        pending.reset();
        if (!context_.storage.clear_pending() || !context_.storage.clear_progress()) {
            reporter_.storage_failed();
        }
    }
    if (slots.state(running) == SlotState::pending_verify) {
        deadline_ms_ = context_.ports.clock.uptime_ms() + context_.config.self_test_limit_s * 1000ULL;
        if (pending && pending->slot == running) {
            run_as(*pending);
            // If the power fails while otadata is being rewritten, this still tells the old app that the
            // new one had its chance.
            pending->boots = 1;
            if (!context_.storage.set(*pending)) {
                reporter_.storage_failed();
            }
        }
        reporter_.event("self_test_started", "limit_s", context_.config.self_test_limit_s);
        return true;
    }
    if (!pending) {
        return false;
    }
    const SlotState its_state = slots.state(pending->slot);
    const bool undone = its_state != SlotState::undefined && its_state != SlotState::valid;
    if (pending->slot == running && !undone) {
        commit(*pending);  // The power failed after it was marked valid.
    } else if (pending->slot == running) {
        // It gave itself up, but the bootloader found no other app that runs.
        run_as(*pending);
        record_end(*pending, UpdateStatus::failed);
    } else if (pending->boots > 0 || undone) {
        record_end(*pending, UpdateStatus::rolled_back);
    } else if (!context_.storage.clear_pending()) {  // The power failed before it was activated.
        reporter_.storage_failed();
    }
    return false;
}

void Trial::run_as(const PendingUpdate& pending) {
    context_.running.version = pending.version;
    context_.running.version_is_authentic = pending.version_is_authentic;
}

/// Makes the release on trial the installed one. Clears the pending record last, so that after a power
/// cut the next boot comes here again.
void Trial::commit(const PendingUpdate& pending) {
    NVSStorageHandler& storage = context_.storage;
    const bool stored = storage.set(InstalledRelease{pending.sequence, pending.version,
                                                     pending.version_is_authentic, pending.image_head});
    if (!stored) {
        // Without the sequence, a rollback to older releases would be possible: retry at the next boot.
        reporter_.storage_failed();
        return;
    }
    context_.running.sequence = pending.sequence;
    run_as(pending);
    reporter_.report_outcome(pending.release_id, pending.version, UpdateStatus::installed, {});
    if (!storage.clear_failure() || !storage.clear_waits() || !storage.clear_progress() ||
        !storage.clear_pending()) {
        reporter_.storage_failed();
    }
    context_.observer.on_event(
        {"installed", pending.release_id, pending.version, Reason::none, "sequence", pending.sequence});
}

/// Records that the new app gave itself up or was undone.
void Trial::record_end(const PendingUpdate& pending, UpdateStatus if_failed) {
    std::string_view reason = pending.verdict;
    if (reason.empty()) {
        reason = to_string(Reason::boot_failed);
    }
    FailureRecord failure = context_.storage.failures_of(pending.sequence);
    const bool interrupted = reason == to_string(Reason::self_test_timed_out);
    bool stored = false;
    if (interrupted) {
        stored = context_.patience.interrupt(pending.sequence);
    } else {
        ++failure.attempts;
        stored = context_.storage.set(failure);
    }
    const UpdateStatus status = interrupted ? UpdateStatus::interrupted : if_failed;
    reporter_.report_outcome(pending.release_id, pending.version, status, reason);
    if (!stored || !context_.storage.clear_pending()) {
        reporter_.storage_failed();
    }
    context_.observer.on_event(
        {to_string(status), pending.release_id, pending.version, Reason::none, "attempts", failure.attempts});
}

Trial::Verdict Trial::step(std::uint64_t now) {
    const MqttClient& mqtt = context_.ports.mqtt;
    if (!mqtt.connected()) {
        published_ = false;
    } else if (!published_) {
        const auto pending = context_.storage.pending();
        StatusMessage message;
        message.release_id = pending ? std::string_view(pending->release_id) : std::string_view();
        message.version = context_.running.version;
        message.state = to_string(UpdateStatus::rebooting);
        message.progress = 100;
        message.running_version = context_.running.version;
        published_ = reporter_.send(message);
    } else if (mqtt.all_acknowledged()) {
        if (!context_.observer.self_test_passes()) {
            give_up(Reason::self_test_failed);
            return Verdict::failed;
        }
        if (context_.ports.slots.mark_running_valid() == PortResult::ok) {
            reporter_.event("self_test_passed");
            const auto pending = context_.storage.pending();
            if (pending && pending->slot == context_.ports.slots.running_slot()) {
                commit(*pending);
            }
            return Verdict::passed;
        }
    }
    if (now >= deadline_ms_) {
        give_up(Reason::self_test_timed_out);
        return Verdict::failed;
    }
    return Verdict::pending;
}

void Trial::give_up(Reason reason) {
    reporter_.event(reason == Reason::self_test_timed_out ? "self_test_interrupted" : "self_test_failed",
                    reason);
    auto pending = context_.storage.pending();
    if (pending) {
        pending->verdict = to_string(reason);
        if (!context_.storage.set(*pending)) {
            reporter_.storage_failed();
        }
    }
    if (context_.ports.slots.mark_running_invalid() != PortResult::ok) {
        // otadata has no other app, for example after a power cut during the very first boot. At the next
        // boot the bootloader undoes an app on trial anyway, and then takes any image that it finds.
        reporter_.event("not_marked_invalid", reason);
    }
}

}  // namespace ota

#include "ota/notification_intake.hpp"

#include <algorithm>
#include <utility>

#include "ota/envelope.hpp"

namespace ota {

std::optional<NotificationSource> NotificationIntake::source_of(std::string_view topic) const {
    const UpdateConfig& config = context_.config;
    const UpdateTopics topics(config.topic_prefix, config.product, config.mac);
    if (topic == topics.device) {
        return NotificationSource::own_topic;
    }
    if (topic == topics.fleet || topic == topics.product) {
        return NotificationSource::fleet_topic;
    }
    return std::nullopt;
}

NotificationIntake::Outcome NotificationIntake::take(MqttMessage& message) {
    const auto source = source_of(message.topic);
    if (!source) {
        return Outcome::nothing;
    }
    if (message.size > kMaxNotificationSize || !message.payload) {
        reporter_.event("refused", message.size > kMaxNotificationSize ? Reason::notification_too_large
                                                                       : Reason::out_of_memory);
        return Outcome::nothing;
    }
    return take(message.payload, *source);
}

NotificationIntake::Outcome NotificationIntake::take(HeapText& text, NotificationSource source) {
    Notification notification;
    Reason reason = parse_notification(text.data(), text.size(), notification);
    if (reason == Reason::none && notification.withdrawn) {
        // Not signed, and it need not be: anyone who can forge this can also hold the release back. If it
        // was forged, the next check-in brings the release again.
        const bool is_ours = context_.release && context_.release->id == notification.release_id;
        return is_ours ? Outcome::withdrawn : Outcome::nothing;
    }
    std::string release_id;
    Manifest manifest;
    if (reason == Reason::none) {
        reason = verify(text, notification, release_id, manifest);
    }
    if (reason != Reason::none) {
        context_.observer.on_event({"refused", release_id, notification.version, reason});
        refusals_.tell_unverified(release_id, notification.version, reason, source);
        return Outcome::nothing;
    }
    return judge(notification, manifest, source);
}

/// Checks the envelope's signature, and that the unsigned fields agree with the signed ones.
/// @param[out] release_id the id that the payload has, as soon as it is known: the only one that is reported.
Reason NotificationIntake::verify(HeapText& text, Notification& notification, std::string& release_id,
                                  Manifest& manifest) const {
    Sha256Digest digest;
    Reason reason = decode_envelope(notification.envelope, digest);
    if (reason == Reason::none) {
        shrink_notification(text, notification);
        // Before the manifest is parsed, which rewrites the payload.
        reason = release_id_of(notification.envelope.payload.view(), release_id) ? Reason::none
                                                                                 : Reason::out_of_memory;
    }
    if (reason == Reason::none) {
        reason = verifier_.verify_envelope(notification.envelope, digest);
    }
    if (reason == Reason::none) {
        reason = parse_manifest(notification.envelope.payload, context_.config.mac, manifest);
    }
    if (reason == Reason::none) {
        reason = notification.release_id == release_id ? compare_with_manifest(notification, manifest)
                                                       : Reason::notification_mismatch;
    }
    return reason;
}

/// Decides about a release whose manifest is authentic.
NotificationIntake::Outcome NotificationIntake::judge(const Notification& notification,
                                                      const Manifest& manifest, NotificationSource source) {
    const std::optional<AcceptedRelease>& release = context_.release;
    bool corrected = false;
    if (manifest.product == context_.config.product) {
        // TLS authenticates the API, so for unsigned fields its answer counts more than an earlier message.
        corrected = source == NotificationSource::check_in && release &&
                    manifest.sequence == release->sequence &&
                    (notification.release_id != release->id || notification.version != release->version ||
                     notification.max_delay_s != release->max_delay_s);
        // Retained messages bring a release that is installed or under way again at every reconnect.
        const bool known = manifest.sequence == context_.running.sequence ||
                           (release && manifest.sequence <= release->sequence);
        if (known && !corrected) {
            context_.observer.on_event({"ignored", notification.release_id, notification.version});
            return Outcome::nothing;
        }
    }
    const DeviceFacts device = facts();
    Reason reason = decide(manifest, notification, source, device);
    if (reason == Reason::none && context_.storage.failures_of(manifest.sequence).attempts >= kMaxAttempts) {
        reason = Reason::failed_before;
    }
    HeapText signature;
    if (reason == Reason::none && !signature.allocate(manifest.image_signature.size)) {
        reason = Reason::out_of_memory;
    }
    if (reason != Reason::none) {
        context_.observer.on_event({"refused", notification.release_id, notification.version, reason});
        if (is_addressed_to(manifest, notification, device)) {
            refusals_.tell(notification.release_id, notification.version, reason, source);
        }
        if (corrected) {
            reporter_.event("dropped", reason);
        }
        return corrected ? Outcome::disowned : Outcome::nothing;
    }
    // Failures at the wrong address say nothing about the right one.
    if (corrected && notification.version != release->version &&
        !context_.storage.forget_link_failures(release->sequence)) {
        reporter_.storage_failed();
    }
    accept(notification, manifest, std::move(signature));
    return Outcome::accepted;
}

/// @param signature already allocated in the size of the image's signature.
void NotificationIntake::accept(const Notification& notification, const Manifest& manifest,
                                HeapText signature) {
    std::copy_n(manifest.image_signature.data, signature.size(), signature.data());
    AcceptedRelease& release = context_.release.emplace();
    release.id = notification.release_id;
    release.version = notification.version;
    release.version_is_authentic = !manifest.version_is_auto();
    release.max_delay_s = notification.max_delay_s;
    release.strict_app_version = manifest.strict_app_version;
    release.sequence = manifest.sequence;
    release.expires = manifest.expires;
    release.size = manifest.image_size;
    release.sha256 = manifest.image_sha256;
    release.signature = std::move(signature);
}

DeviceFacts NotificationIntake::facts() const {
    DeviceFacts device;
    device.mac = context_.config.mac;
    device.product = context_.config.product;
    device.chip = context_.config.chip;
    device.running_version = context_.running.version;
    device.running_version_is_authentic = context_.running.version_is_authentic;
    device.stored_sequence = context_.running.sequence;
    device.slot_size = context_.ports.slots.update_slot_size();
    device.unix_time = context_.ports.clock.unix_time();
    return device;
}

}  // namespace ota

#include "ota/decision.hpp"

#include "ota/base64.hpp"
#include "ota/hex.hpp"
#include "ota/semver.hpp"

namespace ota {
namespace {

/// The version of the release: the signed one or, with "auto", the one in the notification.
std::string_view release_version(const Manifest& manifest, const Notification& notification) {
    return manifest.version_is_auto() ? notification.version : manifest.version;
}

bool version_is_newer(const Manifest& manifest, const Notification& notification, const DeviceFacts& device) {
    // An unsigned running version must not block a signed release. Otherwise anyone who forges
    // notifications could make the device call itself 999.0.0 and refuse all later releases. The
    // sequence, which is always signed, still prevents a rollback. A running version that is not SemVer
    // (an image flashed by cable) is older than any release.
    if (!device.running_version_is_authentic || !is_semver(device.running_version)) {
        return true;
    }
    return compare_semver(release_version(manifest, notification), device.running_version) > 0;
}

}  // namespace

Reason check_cohort(const Cohort& cohort, const MacAddress& mac) {
    const std::string text = format_mac(mac);
    Sha256 hash;
    Sha256Digest digest;
    hash.update(cohort.salt.data(), cohort.salt.size());
    hash.update(text.data(), text.size());
    if (!hash.finish(digest)) {
        return Reason::out_of_memory;
    }
    std::uint32_t fraction = 0;
    for (int i = 0; i < 4; ++i) {
        fraction = (fraction << 8U) | digest[static_cast<std::size_t>(i)];
    }
    constexpr double kTwoTo32 = 4294967296.0;
    // Both sides are exact in a double, so that device and pipeline agree at every boundary.
    const bool inside = static_cast<double>(fraction) * 100.0 < cohort.percent * kTwoTo32;
    return inside ? Reason::none : Reason::not_in_cohort;
}

Reason compare_with_manifest(Notification& notification, const Manifest& manifest) {
    const bool version_matches = manifest.version_is_auto() ? is_semver(notification.version)
                                                            : notification.version == manifest.version;
    Sha256Digest sha256{};
    const bool same = notification.product == manifest.product && version_matches &&
                      notification.size == std::int64_t{manifest.image_size} &&
                      hex_decode(notification.sha256, sha256.data(), sha256.size()) &&
                      sha256 == manifest.image_sha256 && base64_decode_in_place(notification.signature) &&
                      notification.signature.view() == manifest.image_signature.view();
    return same ? Reason::none : Reason::notification_mismatch;
}

bool is_addressed_to(const Manifest& manifest, const Notification& notification, const DeviceFacts& device) {
    return manifest.product == device.product && manifest.target != TargetMatch::unlisted &&
           (!notification.cohort || check_cohort(*notification.cohort, device.mac) == Reason::none);
}

Reason decide(const Manifest& manifest, const Notification& notification, NotificationSource source,
              const DeviceFacts& device) {
    if (device.unix_time && *device.unix_time >= manifest.expires) {
        return Reason::release_expired;
    }
    if (manifest.sequence <= device.stored_sequence) {
        return Reason::sequence_not_newer;
    }
    if (manifest.product != device.product) {
        return Reason::wrong_product;
    }
    if (manifest.chip != device.chip) {
        return Reason::wrong_chip;
    }
    if (!manifest.allow_downgrade && !version_is_newer(manifest, notification, device)) {
        return Reason::version_not_newer;
    }
    if (manifest.target == TargetMatch::unlisted) {
        return Reason::not_targeted;
    }
    if (manifest.target == TargetMatch::elsewhere && source == NotificationSource::fleet_topic) {
        return Reason::targets_not_verifiable;
    }
    if (notification.cohort) {
        if (const Reason reason = check_cohort(*notification.cohort, device.mac); reason != Reason::none) {
            return reason;
        }
    }
    if (manifest.image_size > device.slot_size) {
        return Reason::image_too_large;
    }
    return Reason::none;
}

}  // namespace ota

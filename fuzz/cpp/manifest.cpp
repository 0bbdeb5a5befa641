// The payload of an envelope with a good signature: what a signer can do by mistake or malice.

#include "ota/manifest.hpp"

#include <algorithm>

#include "ota/decision.hpp"
#include "ota/semver.hpp"
#include "ota/signature_verifier.hpp"
#include "require.hpp"

using ota::Reason;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
    const ota::HeapText text = own_copy(input, size);
    ota::Manifest manifest;
    const ota::MacAddress mac{{0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF}};
    const Reason reason = ota::parse_manifest({text.data(), text.size()}, mac, manifest);
    REQUIRE(reason == Reason::none || reason == Reason::manifest_malformed ||
            reason == Reason::manifest_unsupported_schema);
    if (reason != Reason::none) {
        return 0;
    }
    REQUIRE(!manifest.product.empty() && !manifest.chip.empty());
    REQUIRE(manifest.version_is_auto() || ota::is_semver(manifest.version));
    REQUIRE(manifest.sequence > 0 && manifest.image_size > 0);
    REQUIRE(manifest.image_signature.size > 0 &&
            manifest.image_signature.size <= ota::SignatureVerifier::kMaxSignatureSize);

    ota::Notification notification;
    notification.release_id = "release";
    notification.product = manifest.product;
    notification.version = manifest.version_is_auto() ? "1.4.0" : manifest.version;
    ota::DeviceFacts device;
    device.mac = mac;
    device.product = "demo-sensor";
    device.chip = "esp32s3";
    device.running_version = "1.3.0";
    device.stored_sequence = 5;
    device.slot_size = 0x1E0000;
    device.unix_time = 1769860800;
    if (ota::decide(manifest, notification, ota::NotificationSource::fleet_topic, device) == Reason::none) {
        REQUIRE(manifest.expires > *device.unix_time && manifest.sequence > device.stored_sequence);
        REQUIRE(manifest.product == device.product && manifest.chip == device.chip);
        REQUIRE(manifest.image_size <= device.slot_size);
        REQUIRE(manifest.target == ota::TargetMatch::all || manifest.target == ota::TargetMatch::listed);
        REQUIRE(manifest.allow_downgrade || ota::compare_semver(notification.version, "1.3.0") > 0);
        REQUIRE(ota::is_addressed_to(manifest, notification, device));
    }
    return 0;
}

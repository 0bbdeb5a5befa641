#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ota/decision.hpp"
#include "ota/manifest.hpp"
#include "ota/notification.hpp"
#include "ota/port/mqtt_client.hpp"
#include "ota/refusal_ledger.hpp"
#include "ota/signature_verifier.hpp"
#include "ota/status_reporter.hpp"
#include "ota/update_context.hpp"

namespace ota {

/// Owns the intake of notifications, from received bytes to an accepted release: verifies, decides, and
/// has refusals reported. Only this part sets `UpdateContext::release`.
class NotificationIntake {
public:
    enum class Outcome : std::uint8_t {
        nothing,    ///< No change: refused, already known, or not for this device.
        accepted,   ///< `UpdateContext::release` is a release to fetch from its start.
        withdrawn,  ///< The release under way was withdrawn.
        disowned,   ///< The check-in contradicts the release under way, which was forged in part.
    };

    NotificationIntake(UpdateContext& context, StatusReporter& reporter, RefusalLedger& refusals,
                       const SignatureVerifier& verifier)
        : context_(context), reporter_(reporter), refusals_(refusals), verifier_(verifier) {}

    /// Takes a received message, and rewrites its payload.
    [[nodiscard]] Outcome take(MqttMessage& message);

    /// Takes the answer to a check-in, and rewrites it.
    [[nodiscard]] Outcome take_check_in(HeapText& text) { return take(text, NotificationSource::check_in); }

private:
    [[nodiscard]] std::optional<NotificationSource> source_of(std::string_view topic) const;
    Outcome take(HeapText& text, NotificationSource source);
    Reason verify(HeapText& text, Notification& notification, std::string& release_id,
                  Manifest& manifest) const;
    Outcome judge(const Notification& notification, const Manifest& manifest, NotificationSource source);
    void accept(const Notification& notification, const Manifest& manifest, HeapText signature);
    [[nodiscard]] DeviceFacts facts() const;

    UpdateContext& context_;
    StatusReporter& reporter_;
    RefusalLedger& refusals_;
    const SignatureVerifier& verifier_;
};

}  // namespace ota

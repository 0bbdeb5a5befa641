#pragma once

#include <cstdint>
#include <optional>
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

/// Owns the way from a notification's bytes to the release under way: verifies, decides, and has refusals
/// told. It alone sets `UpdateContext::release`.
class NotificationIntake {
public:
    enum class Outcome : std::uint8_t {
        nothing,    ///< It changes nothing: refused, known already, or none of ours.
        accepted,   ///< `UpdateContext::release` is a release that is to be fetched from its start.
        withdrawn,  ///< The release under way was taken back.
        disowned,   ///< The release under way was accepted for what it is not.
    };

    NotificationIntake(UpdateContext& context, StatusReporter& reporter, RefusalLedger& refusals,
                       const SignatureVerifier& verifier)
        : context_(context), reporter_(reporter), refusals_(refusals), verifier_(verifier) {}

    /// Takes a message of a subscription. Its payload is rewritten.
    [[nodiscard]] Outcome take(MqttMessage& message);

    /// Takes the answer to a check-in, which is rewritten.
    [[nodiscard]] Outcome take_check_in(HeapText& text) { return take(text, NotificationSource::check_in); }

private:
    [[nodiscard]] std::optional<NotificationSource> source_of(std::string_view topic) const;
    Outcome take(HeapText& text, NotificationSource source);
    Reason verify(HeapText& text, Notification& notification, Manifest& manifest) const;
    Outcome judge(const Notification& notification, const Manifest& manifest, NotificationSource source);
    void accept(const Notification& notification, const Manifest& manifest, HeapText signature);
    [[nodiscard]] DeviceFacts facts() const;

    UpdateContext& context_;
    StatusReporter& reporter_;
    RefusalLedger& refusals_;
    const SignatureVerifier& verifier_;
};

}  // namespace ota

// Envelope, manifest, notification and decision: the rules, without a device around them.

#include <gtest/gtest.h>

#include <tuple>

#include "ota/decision.hpp"
#include "ota/esp_image.hpp"
#include "ota/signature_verifier.hpp"
#include "release_builder.hpp"

namespace ota::test {
namespace {

constexpr char kType[] = "application/vnd.esp32-ota.manifest+json";

class Verification : public ::testing::Test {
protected:
    Verification() {
        (void)parse_mac("AA:BB:CC:DD:EE:01", mac);
        release.image.assign(1000, 7);
    }

    Reason verify(std::string envelope_json) {
        text = std::move(envelope_json);
        JsonReader json(text.data(), text.size());
        Envelope envelope;
        if (!parse_envelope(json, envelope) || !json.finish()) {
            return Reason::envelope_malformed;
        }
        Sha256Digest digest{};
        const Reason reason = decode_envelope(envelope, digest);
        payload = envelope.payload;
        return reason != Reason::none
                   ? reason
                   : SignatureVerifier({keys.data(), keys.size()}).verify_envelope(envelope, digest);
    }

    Reason read_manifest(const std::string& manifest_json) {
        text = manifest_json;
        manifest = Manifest();
        return parse_manifest({text.data(), text.size()}, mac, manifest);
    }

    Reason read_notification(const std::string& notification_json) {
        text = notification_json;
        notification = Notification();
        return parse_notification(text.data(), text.size(), notification);
    }

    MacAddress mac;
    Release release;
    std::string text;
    TextSpan payload;
    Manifest manifest;
    Notification notification;
    std::vector<const char*> keys{trusted_key().public_pem().c_str(),
                                  second_trusted_key().public_pem().c_str()};
};

TEST_F(Verification, EnvelopeByEitherTrustedKeyIsAccepted) {
    EXPECT_EQ(verify(seal(trusted_key(), "payload")), Reason::none);
    EXPECT_EQ(payload.view(), "payload");
    EXPECT_EQ(verify(seal(second_trusted_key(), "payload")), Reason::none);
}

TEST_F(Verification, EnvelopeByAnotherKeyIsUntrusted) {
    EXPECT_EQ(verify(seal(attacker_key(), "payload")), Reason::envelope_untrusted_key);
}

TEST_F(Verification, EnvelopeThatClaimsATrustedKeyIsBad) {
    const std::string forged =
        replaced(seal(attacker_key(), "payload"), attacker_key().key_id(), trusted_key().key_id());
    EXPECT_EQ(verify(forged), Reason::envelope_bad_signature);
}

TEST_F(Verification, EnvelopeWithAnyBitOfPayloadChangedIsBad) {
    const std::string good = seal(trusted_key(), "payload");
    const std::string encoded = base64_encode("payload");
    for (std::size_t bit = 0; bit < 56; ++bit) {
        std::string changed = "payload";
        changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
        EXPECT_EQ(verify(replaced(good, encoded, base64_encode(changed))), Reason::envelope_bad_signature)
            << bit;
    }
}

TEST_F(Verification, SignatureDoesNotMoveBetweenTypeAndPayload) {
    // Without lengths in the encoding, type "a" and payload "b c" would sign as type "a b", payload "c".
    const std::string sealed = seal(trusted_key(), "x", std::string(kType) + " 1 x");
    EXPECT_EQ(verify(sealed), Reason::envelope_unknown_type);
    EXPECT_EQ(verify(replaced(sealed, std::string(kType) + " 1 x", kType)), Reason::envelope_bad_signature);
}

TEST_F(Verification, OneGoodSignatureAmongOthersIsEnough) {
    const std::string good = seal(trusted_key(), "payload");
    const std::string bad = R"({"keyid":")" + trusted_key().key_id() + R"(","sig":"AAAA"},)";
    EXPECT_EQ(verify(replaced(good, R"("signatures":[)", R"("signatures":[)" + bad)), Reason::none);
    // Signatures past the limit are ignored, so that a long list cannot cause work.
    EXPECT_EQ(verify(replaced(good, R"("signatures":[)", R"("signatures":[)" + bad + bad + bad + bad)),
              Reason::envelope_bad_signature);
}

TEST_F(Verification, EnvelopeWithEscapedSolidusIsTheSameEnvelope) {
    std::string sealed = seal(trusted_key(), "\xFF\xFF\xFF payload");
    ASSERT_NE(sealed.find("////"), std::string::npos);
    EXPECT_EQ(verify(replaced(sealed, "////", R"(\/\/\/\/)")), Reason::none);
}

TEST_F(Verification, EnvelopeThatLacksAFieldIsMalformed) {
    const std::string good = seal(trusted_key(), "payload");
    for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
             {R"("payload":)", R"("other":)"},
             {R"("payloadType":)", R"("other":)"},
             {R"("signatures":[)", R"("other":[)"},
             {R"("sig":)", R"("other":)"},
             {R"("payload":")", R"("payload":1,"p":")"},
             {R"("payload":")", R"("payload":"=","p":")"},
             {R"("payload":")", R"("payload":"","payload":")"},
             {R"("signatures":[)", R"("signatures":[],"signatures":[)"},
             {R"("sig":")", R"("sig":"*)"},
         }) {
        EXPECT_EQ(verify(replaced(good, from, to)), Reason::envelope_malformed) << to;
    }
}

TEST_F(Verification, KeyBelow2048BitsIsNotTrusted) {
    const SigningKey small(1024);
    keys = {small.public_pem().c_str()};
    EXPECT_EQ(verify(seal(small, "payload")), Reason::envelope_bad_signature);
}

TEST_F(Verification, TrustedTextThatIsNoKeyIsPassedOver) {
    keys = {"", "-----BEGIN PUBLIC KEY-----\n*\n-----END PUBLIC KEY-----\n",
            trusted_key().public_pem().c_str()};
    EXPECT_EQ(verify(seal(trusted_key(), "payload")), Reason::none);
    keys.pop_back();
    EXPECT_EQ(verify(seal(trusted_key(), "payload")), Reason::envelope_untrusted_key);
}

TEST_F(Verification, ManifestIsReadWhole) {
    EXPECT_EQ(read_manifest(release.manifest()), Reason::none);
    EXPECT_EQ(manifest.product, "sensor");
    EXPECT_EQ(manifest.version, "2.0.0");
    EXPECT_EQ(manifest.chip, "esp32");
    EXPECT_EQ(manifest.sequence, 100);
    EXPECT_EQ(manifest.expires, 1893456000);
    EXPECT_EQ(manifest.image_size, 1000U);
    EXPECT_EQ(manifest.image_signature.size, 256U);
    EXPECT_EQ(manifest.target, TargetMatch::all);
    EXPECT_FALSE(manifest.allow_downgrade);
    EXPECT_FALSE(manifest.strict_app_version);
}

TEST_F(Verification, ManifestMayHaveFieldsOfTheFuture) {
    release.more_manifest = R"(,"rollout":{"waves":[{"percent":1}]},"strict_app_version":true)";
    EXPECT_EQ(read_manifest(release.manifest()), Reason::none);
    EXPECT_TRUE(manifest.strict_app_version);
}

TEST_F(Verification, ManifestOfAnotherSchemaIsUnsupported) {
    release.schema = 2;
    EXPECT_EQ(read_manifest(release.manifest()), Reason::manifest_unsupported_schema);
    EXPECT_EQ(read_manifest(R"({"schema":2,"entirely":"different"})"), Reason::manifest_unsupported_schema);
}

TEST_F(Verification, ManifestWithAWrongOrMissingFieldIsMalformed) {
    const std::string good = release.manifest();
    for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
             {R"("schema":1)", R"("schema":"1")"},
             {R"("schema":1)", R"("s":1)"},
             {R"("product":")", R"("p":")"},
             {R"("product":"sensor")", R"("product":"")"},
             {R"("version":")", R"("v":")"},
             {R"("version":"2.0.0")", R"("version":"2.0")"},
             {R"("sequence":100)", R"("sequence":0)"},
             {R"("sequence":100)", R"("sequence":1e2)"},
             {R"("sequence":)", R"("s":)"},
             {R"("expires":")", R"("e":")"},
             {R"("expires":"2)", R"("expires":"x)"},
             {R"("chip":)", R"("c":)"},
             {R"("size":1000)", R"("size":0)"},
             {R"("size":1000)", R"("size":-1)"},
             {R"("size":1000)", R"("size":4294967296)"},
             {R"("size":)", R"("s":)"},
             {R"("sha256":")", R"("sha256":"0)"},
             {R"("sha256":)", R"("s":)"},
             {R"("signature":")", R"("signature":"*)"},
             {R"("signature":)", R"("s":)"},
             {R"("targets":"all")", R"("targets":"everything")"},
             {R"("targets":"all")", R"("targets":["nonsense"])"},
             {R"("targets":"all")", R"("targets":true)"},
             {R"("targets":)", R"("t":)"},
             {R"("allow_downgrade":false)", R"("allow_downgrade":0)"},
         }) {
        EXPECT_EQ(read_manifest(replaced(good, from, to)), Reason::manifest_malformed) << to;
    }
    EXPECT_EQ(read_manifest(good + "x"), Reason::manifest_malformed);
}

TEST_F(Verification, OwnMacIsFoundInASignedListInAnyForm) {
    for (const char* list : {R"(["00:00:00:00:00:01","AA:BB:CC:DD:EE:01"])", R"(["aabbccddee01"])",
                             R"(["aa-bb-cc-dd-ee-01","00:00:00:00:00:01"])"}) {
        release.targets = list;
        EXPECT_EQ(read_manifest(release.manifest()), Reason::none);
        EXPECT_EQ(manifest.target, TargetMatch::listed) << list;
    }
    for (const char* list : {"[]", R"(["AA:BB:CC:DD:EE:02"])"}) {
        release.targets = list;
        EXPECT_EQ(read_manifest(release.manifest()), Reason::none);
        EXPECT_EQ(manifest.target, TargetMatch::unlisted) << list;
    }
    release.targets = R"({"file_sha256":"00","count":3})";
    EXPECT_EQ(read_manifest(release.manifest()), Reason::none);
    EXPECT_EQ(manifest.target, TargetMatch::elsewhere);
}

TEST_F(Verification, NotificationIsReadWhole) {
    release.more_notification = R"(,"max_delay":300,"cohort":{"percent":12.5,"salt":"pepper"})";
    EXPECT_EQ(read_notification(release.notification()), Reason::none);
    EXPECT_EQ(notification.release_id, release.id());
    EXPECT_EQ(notification.version, "2.0.0");
    EXPECT_EQ(notification.size, 1000);
    EXPECT_EQ(notification.max_delay_s, 300U);
    ASSERT_TRUE(notification.cohort);
    EXPECT_EQ(notification.cohort->percent, 12.5);
    EXPECT_EQ(notification.cohort->salt, "pepper");
    EXPECT_EQ(notification.envelope.signature_count, 1U);
}

TEST_F(Verification, ShrunkNotificationSaysTheSame) {
    release.more_notification =
        R"(,"padding":")" + std::string(5000, 'x') + R"(","cohort":{"percent":5,"salt":"pepper"})";
    const std::string whole = release.notification();
    HeapText heap;
    ASSERT_TRUE(heap.allocate(whole.size()));
    std::copy(whole.begin(), whole.end(), heap.data());
    ASSERT_EQ(parse_notification(heap.data(), heap.size(), notification), Reason::none);
    Sha256Digest digest{};
    ASSERT_EQ(decode_envelope(notification.envelope, digest), Reason::none);
    shrink_notification(heap, notification);
    EXPECT_LT(heap.size(), whole.size() - 5000);
    EXPECT_EQ(notification.release_id, release.id());
    EXPECT_EQ(notification.product, "sensor");
    EXPECT_EQ(notification.version, "2.0.0");
    EXPECT_EQ(notification.cohort->salt, "pepper");
    EXPECT_EQ(SignatureVerifier({keys.data(), keys.size()}).verify_envelope(notification.envelope, digest),
              Reason::none);
    ASSERT_EQ(parse_manifest(notification.envelope.payload, mac, manifest), Reason::none);
    EXPECT_EQ(compare_with_manifest(notification, manifest), Reason::none);
}

TEST_F(Verification, NotificationWithoutEnvelopeOnlyWithdraws) {
    const std::string id = R"({"release_id":")" + std::string(kReleaseIdLength, '0');
    EXPECT_EQ(read_notification(id + "\"}"), Reason::notification_malformed);
    EXPECT_EQ(read_notification(id + R"(","withdrawn":true})"), Reason::none);
    EXPECT_TRUE(notification.withdrawn);
}

TEST_F(Verification, DelayOfANotificationIsAtMostADay) {
    release.more_notification = R"(,"max_delay":999999999)";
    EXPECT_EQ(read_notification(release.notification()), Reason::none);
    EXPECT_EQ(notification.max_delay_s, 86400U);
}

TEST_F(Verification, NotificationWithAWrongFieldIsMalformed) {
    for (const char* more :
         {R"(,"max_delay":-1)", R"(,"max_delay":"5")", R"(,"cohort":{"percent":101,"salt":""})",
          R"(,"cohort":{"percent":-1,"salt":""})", R"(,"cohort":{"percent":5})", R"(,"cohort":{"salt":""})",
          R"(,"cohort":5)", R"(,"release_id":"again")", R"(,"version":"1.0.0")", R"(,"manifest":{})", "x"}) {
        release.more_notification = more;
        EXPECT_EQ(read_notification(release.notification()), Reason::notification_malformed) << more;
    }
    release.more_notification = "";
    const std::string longer(kReleaseIdLength + 1, '0');
    const std::string shorter(kReleaseIdLength - 1, '0');
    for (const std::string& id : {shorter, longer, shorter + "g", shorter + "A", shorter + " "}) {
        release.claimed_id = id;
        EXPECT_EQ(read_notification(release.notification()), Reason::notification_malformed) << id;
    }
}

TEST_F(Verification, ImageHeadIsChecked) {
    host::ImageSpec spec;
    spec.chip_id = 9;
    spec.version = "3.1.4";
    const std::vector<std::uint8_t> image = host::build_image(spec);
    std::string version;
    EXPECT_EQ(check_image_head(image.data(), 9, version), Reason::none);
    EXPECT_EQ(version, "3.1.4");
    EXPECT_EQ(check_image_head(image.data(), 0, version), Reason::image_wrong_chip);
    for (const auto& [offset, value, reason] : std::vector<std::tuple<std::size_t, std::uint8_t, Reason>>{
             {0, 0xE8, Reason::image_bad_header},
             {1, 0, Reason::image_bad_header},
             {1, 17, Reason::image_bad_header},
             {12, 0, Reason::image_wrong_chip},
             {13, 1, Reason::image_wrong_chip},
             {0x20, 0, Reason::image_no_app_description}}) {
        std::vector<std::uint8_t> bad = image;
        bad[offset] = value;
        EXPECT_EQ(check_image_head(bad.data(), 9, version), reason) << offset;
    }
}

}  // namespace
}  // namespace ota::test

// An attacker who controls MQTT and HTTP and has every release ever signed, but not the key. Whatever they
// do, no byte reaches the running slot or otadata, and the device keeps running its app.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iterator>

#include "fake_world.hpp"
#include "proof.hpp"

namespace ota::test {
namespace {

class Attack : public ::testing::Test {
protected:
    Attack() {
        EXPECT_TRUE(world.boot());
        genuine = World::release();
        forged = genuine;
        forged.image = World::image("6.6.6");
        forged.signer = &attacker_key();
        world.serve(forged);
        boot_relevant = world.boot_relevant_flash();
        update_slot = world.update_slot_bytes();
    }

    void TearDown() override {
        EXPECT_EQ(world.boot_relevant_flash(), boot_relevant);
        EXPECT_EQ(world.boots, 1);
        ASSERT_TRUE(world.boot());
        EXPECT_EQ(world.running_version(), "1.0.0");
        EXPECT_EQ(world.stored_sequence(), 0);
    }

    /// The message is refused for this reason before a byte of the image is requested, on any way in.
    void refused_unheard(const std::string& message, Reason reason) {
        for (const char* topic :
             {"/firmware_update", "/firmware_update/product/sensor", "/firmware_update/AA:BB:CC:DD:EE:01"}) {
            world.recorder.events.clear();
            world.mqtt.deliver(topic, message);
            world.run_for(100);
            EXPECT_TRUE(world.recorder.saw(reason)) << topic << ": " << world.recorder.names();
        }
        world.recorder.events.clear();
        world.server.check_in_body = message;
        world.run_for(3 * kHour_ms);
        EXPECT_TRUE(world.recorder.saw(reason)) << "check-in: " << world.recorder.names();
        EXPECT_FALSE(world.recorder.saw("accepted"));
        EXPECT_EQ(world.server.image_bytes_sent, 0U);
        EXPECT_EQ(world.update_slot_bytes(), update_slot);
    }

    /// The release is genuine, but the server misbehaves: the update fails for this reason.
    void fails_while_streaming(Reason reason) {
        world.notify(genuine.notification());
        world.run([&] { return world.recorder.saw(reason); }, 24 * kHour_ms);
        EXPECT_TRUE(world.recorder.saw(reason)) << world.recorder.names();
        world.run_for(24 * kHour_ms);
        EXPECT_FALSE(world.recorder.saw("activated")) << world.recorder.names();
    }

    void answer_images(const std::function<FakeServer::Answer(const FakeServer::Seen&)>& answer) {
        world.server.take_over = [this, answer](const FakeServer::Seen& seen) {
            return seen.url.find("/firmware/") == std::string::npos ? world.server.answer(seen)
                                                                    : answer(seen);
        };
    }

    World world;
    Release genuine;
    Release forged;
    std::vector<std::uint8_t> boot_relevant;
    std::vector<std::uint8_t> update_slot;
};

// Unsigned data

TEST_F(Attack, EnvelopeByHisOwnKey) {
    refused_unheard(forged.notification(), Reason::envelope_untrusted_key);
}

TEST_F(Attack, EnvelopeByHisOwnKeyUnderATrustedName) {
    const std::string envelope = replaced(forged.envelope(), attacker_key().key_id(), trusted_key().key_id());
    refused_unheard(forged.notification_with(envelope), Reason::envelope_bad_signature);
}

TEST_F(Attack, GenuineSignatureOverAnotherPayload) {
    std::string envelope = genuine.envelope();
    envelope = replaced(envelope, base64_encode(genuine.manifest()), base64_encode(forged.manifest()));
    refused_unheard(forged.notification_with(envelope), Reason::envelope_bad_signature);
}

TEST_F(Attack, SignedDocumentOfAnotherType) {
    // Other data signed by the key must not pass as a manifest.
    const std::string envelope = seal(trusted_key(), genuine.manifest(), "application/vnd.in-toto+json");
    refused_unheard(genuine.notification_with(envelope), Reason::envelope_unknown_type);
}

TEST_F(Attack, NoSignatureAtAll) {
    const std::string envelope =
        R"({"payload":")" + base64_encode(genuine.manifest()) +
        R"(","payloadType":"application/vnd.esp32-ota.manifest+json","signatures":[]})";
    refused_unheard(genuine.notification_with(envelope), Reason::notification_malformed);
}

TEST_F(Attack, AsManySignaturesAsAreLookedAtBesideACohort) {
    // All pieces of a notification that are kept while its signature is verified.
    const std::string one = R"({"keyid":"none","sig":"AAAA"},)";
    forged.more_notification += R"(,"cohort":{"percent":100,"salt":"release-2"})";
    const std::string envelope =
        replaced(forged.envelope(), R"("signatures":[)", R"("signatures":[)" + one + one + one + one);
    refused_unheard(forged.notification_with(envelope), Reason::envelope_untrusted_key);
}

TEST_F(Attack, EnvelopeThatIsNotBase64) {
    const std::string envelope = replaced(genuine.envelope(), R"("payload":")", R"("payload":"!!!!)");
    refused_unheard(genuine.notification_with(envelope), Reason::envelope_malformed);
}

TEST_F(Attack, GenuineEnvelopeUnderOtherWords) {
    const std::string good = genuine.notification();
    for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
             {genuine.id(), forged.id()},
             {R"("product":"sensor")", R"("product":"lamp")"},
             {R"("version":"2.0.0")", R"("version":"6.6.6")"},
             {R"("size":)", R"("size":1)"},
             {sha256_hex(genuine.image), sha256_hex(forged.image)},
             {R"("signature":")", R"("signature":"AAAA)"},
         }) {
        refused_unheard(replaced(good, from, to), Reason::notification_mismatch);
    }
}

TEST_F(Attack, ManifestThatTheKeyHolderGotWrong) {
    genuine.more_manifest = R"(,"sequence":-1)";
    refused_unheard(genuine.notification(), Reason::manifest_malformed);
    genuine.more_manifest = "";
    genuine.schema = 9;
    refused_unheard(genuine.notification(), Reason::manifest_unsupported_schema);
}

TEST_F(Attack, MessagesThatAreNoNotification) {
    for (const std::string& message :
         {std::string(""), std::string("{"), std::string("[]"), std::string("null"), std::string(16384, '['),
          std::string(R"({"release_id":"r"})"), std::string(16384, '\xFF')}) {
        world.notify(message);
    }
    world.run_for(1000);
    EXPECT_EQ(world.recorder.count(Reason::notification_malformed), 7U) << world.recorder.names();
}

TEST_F(Attack, MessageThatIsTooLarge) {
    genuine.more_notification = R"(,"padding":")" + std::string(kMaxNotificationSize, 'x') + '"';
    world.notify(genuine.notification());
    world.run_for(1000);
    EXPECT_TRUE(world.recorder.saw(Reason::notification_too_large));
    world.server.check_in_body = genuine.notification();
    world.recorder.events.clear();
    world.run_for(kHour_ms);
    EXPECT_TRUE(world.recorder.saw(Reason::notification_too_large));
    EXPECT_FALSE(world.recorder.saw("accepted"));
}

TEST_F(Attack, FloodOfForgeriesMakesTheDeviceWriteOnceAnHour) {
    for (int i = 0; i < 100; ++i) {
        forged.sequence = 1000 + i;
        world.notify(forged.notification());
    }
    world.run_for(kHour_ms - 60000);
    EXPECT_EQ(world.mqtt.published.size(), 1U);
    EXPECT_LT(world.flash->operations(), 10U);
}

TEST_F(Attack, FloodOfOldReleasesIsToldEightTimesAnHour) {
    genuine.expires = "2026-09-01T00:00:00Z";
    const auto replay = [&] {
        for (int i = 0; i < 100; ++i) {
            genuine.sequence = 1000 + i;
            world.notify(genuine.notification());
        }
    };
    replay();
    world.run_for(kHour_ms - 60000);
    EXPECT_EQ(world.mqtt.published.size(), 8U);
    // What was not reported is reported later, when it comes again.
    world.run_for(120000);
    replay();
    world.run_for(1000);
    EXPECT_EQ(world.mqtt.published.size(), 16U);
    genuine.sequence = 1015;
    EXPECT_NE(world.mqtt.published.back().second.find(genuine.id()), std::string::npos);
}

TEST_F(Attack, GenuineReleaseUnderOtherIdsIsRefusedAndReportedUnderItsOwn) {
    for (int i = 0; i < 100; ++i) {
        const std::string id = std::to_string(i);
        genuine.claimed_id = std::string(kReleaseIdLength - id.size(), '0') + id;
        world.notify(genuine.notification());
    }
    world.run_for(kHour_ms - 60000);
    EXPECT_EQ(world.recorder.count(Reason::notification_mismatch), 100U);
    EXPECT_FALSE(world.recorder.saw("accepted"));
    ASSERT_EQ(world.mqtt.published.size(), 1U);
    EXPECT_NE(world.mqtt.published.back().second.find(genuine.id()), std::string::npos);
    for (const Recorder::Event& event : world.recorder.events) {
        EXPECT_TRUE(event.name != "refused" || event.release_id == genuine.id()) << event.release_id;
    }
}

TEST_F(Attack, FloodOfWithdrawalsIsToldEightTimesAnHour) {
    genuine.more_notification = R"(,"max_delay":86400)";
    for (int i = 0; i < 100; ++i) {
        genuine.sequence = 1000 + i;
        for (int again = 0; again < 2; ++again) {
            world.notify(genuine.notification());
            world.notify(R"({"release_id":")" + genuine.id() + R"(","withdrawn":true})");
        }
    }
    world.run_for(kHour_ms - 60000);
    EXPECT_EQ(world.recorder.count("dropped"), 200U);
    EXPECT_EQ(world.mqtt.published.size(), 8U);
}

TEST_F(Attack, FloodDoesNotSilenceWhatTheCheckInBrings) {
    Release old = genuine;
    old.expires = "2026-09-01T00:00:00Z";
    for (int i = 0; i < 100; ++i) {
        old.sequence = 1000 + i;
        world.notify(old.notification());
    }
    world.run_for(1000);
    ASSERT_EQ(world.mqtt.published.size(), 8U);
    genuine.chip = "esp32s3";
    world.server.check_in_body = genuine.notification();
    world.run_for(2 * kHour_ms);
    EXPECT_EQ(world.mqtt.published.size(), 9U);
    EXPECT_TRUE(world.recorder.saw_state("rejected:wrong_chip"));
}

// Signed data in the wrong place or at the wrong time: replay, freeze, mix-and-match, wrong recipient

TEST_F(Attack, ExpiredRelease) {
    genuine.expires = "2026-09-01T00:00:00Z";
    refused_unheard(genuine.notification(), Reason::release_expired);
}

TEST_F(Attack, ReleaseOfAnotherProduct) {
    genuine.product = "lamp";
    refused_unheard(genuine.notification(), Reason::wrong_product);
}

TEST_F(Attack, ReleaseForAnotherChip) {
    genuine.chip = "esp32s3";
    refused_unheard(genuine.notification(), Reason::wrong_chip);
}

TEST_F(Attack, OlderVersion) {
    for (const char* version : {"0.9.0", "1.0.0", "1.0.0-rc.1", "1.0.0+build.2"}) {
        Release older = World::release(version);
        refused_unheard(older.notification(), Reason::version_not_newer);
    }
}

TEST_F(Attack, ReleaseForOtherDevices) {
    genuine.targets = R"(["AA:BB:CC:DD:EE:02","AA:BB:CC:DD:EE:03"])";
    refused_unheard(genuine.notification(), Reason::not_targeted);
}

TEST_F(Attack, ReleaseForAListElsewhereOnTheFleetsTopic) {
    genuine.targets = R"({"file_sha256":"00","count":3})";
    for (const char* topic : {"/firmware_update", "/firmware_update/product/sensor"}) {
        world.mqtt.deliver(topic, genuine.notification());
        world.recorder.events.clear();
        world.run_for(100);
        EXPECT_TRUE(world.recorder.saw(Reason::targets_not_verifiable));
    }
    EXPECT_EQ(world.server.image_bytes_sent, 0U);
}

TEST_F(Attack, ReleaseOfAWaveThatIsNotYetHere) {
    genuine.more_notification = R"(,"cohort":{"percent":0.0001,"salt":"pepper"})";
    refused_unheard(genuine.notification(), Reason::not_in_cohort);
}

TEST_F(Attack, ImageThatDoesNotFitTheSlot) {
    genuine.image = World::image("2.0.0", 0x1E0000 + 16);
    refused_unheard(genuine.notification(), Reason::image_too_large);
}

// What the server sends

TEST_F(Attack, AnotherImageOfTheSameSize) {
    answer_images([&](const FakeServer::Seen& seen) {
        FakeServer::Answer answer = FakeServer::range_answer(seen, forged.image);
        answer.head.etag.clear();
        return answer;
    });
    fails_while_streaming(Reason::image_sha256_mismatch);
}

TEST_F(Attack, AnotherImageUnderItsOwnTag) {
    fails_while_streaming(Reason::etag_mismatch);
}

TEST_F(Attack, OneBitOfTheImageChanged) {
    std::vector<std::uint8_t> changed = genuine.image;
    changed[changed.size() / 2] ^= 0x10;
    answer_images([&, changed](const FakeServer::Seen& seen) {
        FakeServer::Answer answer = FakeServer::range_answer(seen, changed);
        answer.head.etag.clear();
        return answer;
    });
    fails_while_streaming(Reason::image_sha256_mismatch);
}

TEST_F(Attack, PiecesOfTwoImagesMixed) {
    int request = 0;
    answer_images([&](const FakeServer::Seen& seen) {
        FakeServer::Answer answer =
            FakeServer::range_answer(seen, ++request % 2 == 0 ? forged.image : genuine.image);
        answer.head.etag.clear();
        return answer;
    });
    fails_while_streaming(Reason::image_sha256_mismatch);
}

TEST_F(Attack, ImageSignatureByAnotherKey) {
    // Only the owner of the key can make this: a signed manifest for an image that someone else signed.
    genuine.image_signature =
        attacker_key().sign({reinterpret_cast<const char*>(genuine.image.data()), genuine.image.size()});
    world.serve(genuine);
    fails_while_streaming(Reason::image_bad_signature);
}

TEST_F(Attack, WhatIsNoImage) {
    for (const auto& [offset, reason] :
         std::vector<std::pair<std::size_t, Reason>>{{0, Reason::image_bad_header},
                                                     {12, Reason::image_wrong_chip},
                                                     {32, Reason::image_no_app_description}}) {
        Release bad = World::release();
        bad.sequence = 200 + static_cast<std::int64_t>(offset);
        bad.image[offset] ^= 0x55;
        world.serve(bad);
        world.recorder.events.clear();
        world.notify(bad.notification());
        world.run([&] { return world.recorder.saw("given_up"); }, 24 * kHour_ms);
        EXPECT_TRUE(world.recorder.saw(reason)) << world.recorder.names();
        EXPECT_TRUE(world.recorder.saw_state(std::string("failed:") + to_string(reason)));
        // Detected in the first bytes: nothing was written to the slot.
        EXPECT_EQ(world.update_slot_bytes(), update_slot);
        EXPECT_FALSE(world.recorder.saw("activated"));
    }
}

TEST_F(Attack, ImageThatIsShorterThanItsHead) {
    genuine.image.assign(100, 0xE9);
    world.serve(genuine);
    fails_while_streaming(Reason::image_bad_header);
}

TEST_F(Attack, SignedImageThatTheBootloaderWouldNotTake) {
    genuine.image[genuine.image.size() / 2] ^= 1;  // Its checksum and appended hash are wrong then.
    world.serve(genuine);
    fails_while_streaming(Reason::image_not_bootable);
}

TEST_F(Attack, MoreBytesThanSigned) {
    answer_images([&](const FakeServer::Seen& seen) {
        FakeServer::Answer answer = FakeServer::range_answer(seen, genuine.image);
        answer.body.append(1, 'x');
        answer.head.content_length = -1;
        return answer;
    });
    fails_while_streaming(Reason::too_many_bytes);
}

TEST_F(Attack, LargerLengthThanSigned) {
    answer_images([&](const FakeServer::Seen& seen) {
        FakeServer::Answer answer = FakeServer::range_answer(seen, genuine.image);
        answer.head.content_length = 1LL << 40;
        return answer;
    });
    fails_while_streaming(Reason::too_many_bytes);
    EXPECT_EQ(world.server.image_bytes_sent, 0U);
}

TEST_F(Attack, EndlessData) {
    answer_images([&](const FakeServer::Seen&) {
        FakeServer::Answer answer;
        answer.head.status = 200;
        answer.body.assign(genuine.image.begin(), genuine.image.end());
        answer.body.append(8U << 20U, 'x');
        return answer;
    });
    fails_while_streaming(Reason::too_many_bytes);
    // At most the image and one byte per try, and the tries back off.
    EXPECT_LT(world.server.image_bytes_sent, 20 * genuine.image.size());
}

TEST_F(Attack, SlowRetrieval) {
    answer_images([&](const FakeServer::Seen& seen) {
        world.server.bytes_per_read = 1;
        world.server.ms_per_read = 9000;  // Just below the port's time limit.
        return FakeServer::range_answer(seen, genuine.image);
    });
    world.notify(genuine.notification());
    world.run([&] { return world.recorder.saw(Reason::download_too_slow); }, kHour_ms);
    EXPECT_TRUE(world.recorder.saw(Reason::download_too_slow));
}

TEST_F(Attack, WholeImageInPlaceOfARange) {
    int request = 0;
    answer_images([&](const FakeServer::Seen& seen) {
        FakeServer::Seen whole = seen;
        if (++request > 3) {
            whole.headers.erase("Range");
        }
        FakeServer::Answer answer =
            FakeServer::range_answer(whole, request > 3 ? forged.image : genuine.image);
        answer.head.etag.clear();
        return answer;
    });
    fails_while_streaming(Reason::range_ignored);
}

TEST_F(Attack, RangeThatWasNotAskedFor) {
    answer_images([&](const FakeServer::Seen& seen) {
        FakeServer::Seen other = seen;
        other.headers["Range"] = "bytes=16-8207";
        return FakeServer::range_answer(other, genuine.image);
    });
    fails_while_streaming(Reason::content_range_mismatch);
}

TEST_F(Attack, EveryOtherFaultOfTheServer) {
    struct Fault {
        FakeServer::Answer answer;
        Reason reason;
    };
    const auto status = [](int code) {
        FakeServer::Answer answer;
        answer.head.status = code;
        return answer;
    };
    const auto broken = [](HttpResult result) {
        FakeServer::Answer answer;
        answer.result = result;
        return answer;
    };
    FakeServer::Answer elsewhere = status(307);
    elsewhere.head.location = "ftp://elsewhere.test/";
    const std::vector<Fault> faults{
        {status(403), Reason::http_forbidden},
        {status(416), Reason::http_range_not_satisfiable},
        {status(429), Reason::http_too_many_requests},
        {status(503), Reason::http_server_error},
        {status(304), Reason::http_unexpected_status},
        {status(301), Reason::http_unexpected_status},
        {status(100), Reason::http_unexpected_status},
        {status(418), Reason::http_unexpected_status},
        {status(206), Reason::content_range_mismatch},
        {elsewhere, Reason::http_redirect_refused},
        {broken(HttpResult::unreachable), Reason::server_unreachable},
        {broken(HttpResult::tls_failed), Reason::tls_failed},
        {broken(HttpResult::link_lost), Reason::connection_lost},
        {broken(HttpResult::timed_out), Reason::connection_lost},
    };
    world.notify(genuine.notification());
    for (const Fault& fault : faults) {
        world.recorder.events.clear();
        answer_images([&](const FakeServer::Seen&) { return fault.answer; });
        world.run([&] { return world.recorder.saw("retry"); }, 24 * kHour_ms);
        EXPECT_TRUE(world.recorder.saw(fault.reason)) << to_string(fault.reason);
    }
}

TEST_F(Attack, ReleaseThatTheApiDoesNotOffer) {
    // For another device, or one that has not started: only the API knows.
    answer_images([&](const FakeServer::Seen&) {
        FakeServer::Answer answer;
        answer.head.status = 404;
        return answer;
    });
    fails_while_streaming(Reason::http_not_found);
    EXPECT_EQ(world.manager->state(), UpdateState::idle);
    EXPECT_EQ(world.server.image_bytes_sent, 0U);
}

TEST_F(Attack, RedirectsWithoutEnd) {
    answer_images([&](const FakeServer::Seen&) {
        FakeServer::Answer answer;
        answer.head.status = 307;
        answer.head.location = "https://elsewhere.test/firmware/again";
        return answer;
    });
    world.notify(genuine.notification());
    world.run([&] { return world.recorder.saw(Reason::http_redirect_refused); }, kHour_ms);
    EXPECT_TRUE(world.recorder.saw(Reason::http_redirect_refused));
    EXPECT_LE(world.server.requests.size(), 3U);
}

TEST_F(Attack, RedirectFromHttpsToPlainHttp) {
    world.config.api_url = "https://api.test/v1";
    ASSERT_TRUE(world.boot());
    world.boots = 1;
    boot_relevant = world.boot_relevant_flash();
    answer_images([&](const FakeServer::Seen&) {
        FakeServer::Answer answer;
        answer.head.status = 307;
        answer.head.location = "http://elsewhere.test/";
        return answer;
    });
    fails_while_streaming(Reason::http_redirect_refused);
}

TEST_F(Attack, CheckInThatDripsDoesNotHoldTheDevice) {
    world.server.check_in_body = genuine.notification();
    world.server.bytes_per_read = 1;
    world.server.ms_per_read = 9000;
    const std::uint64_t before = world.clock.now_ms;
    world.run([&] { return world.recorder.saw("check_in_failed"); }, kHour_ms);
    EXPECT_TRUE(world.recorder.saw("check_in_failed"));
    EXPECT_LT(world.clock.now_ms - before, 60000U);
}

// Rollback: an older release that is genuine in every way

TEST(Replay, OlderReleaseIsRefusedAfterANewerOne) {
    World world;
    ASSERT_TRUE(world.boot());
    Release older = World::release("2.0.0");
    Release newer = World::release("2.1.0");
    newer.sequence = 101;
    world.serve(older);
    world.serve(newer);
    world.notify(newer.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    const std::vector<std::uint8_t> before = world.boot_relevant_flash();
    world.recorder.states.clear();

    // Even if it allows a downgrade, because its sequence is old.
    older.allow_downgrade = true;
    for (const Release& release : {older, newer}) {
        world.notify(release.notification());
        world.notify_device(release.notification());
        world.server.check_in_body = release.notification();
        world.run_for(2 * kHour_ms);
    }
    EXPECT_TRUE(world.recorder.saw(Reason::sequence_not_newer));
    EXPECT_EQ(world.recorder.states, std::vector<std::string>{"rejected:sequence_not_newer"});
    EXPECT_EQ(world.boot_relevant_flash(), before);
    EXPECT_EQ(world.running_version(), "2.1.0");
}

TEST(Replay, ReleaseWhoseImageIsBadIsGivenUpAfterThreeTries) {
    World world;
    ASSERT_TRUE(world.boot());
    Release release = World::release();
    Release other = release;
    other.image = World::image("6.6.6");
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        FakeServer::Answer answer = world.server.answer(seen);
        if (seen.url.find("/firmware/") != std::string::npos) {
            answer = FakeServer::range_answer(seen, other.image);
            answer.head.etag.clear();
        }
        return answer;
    };
    world.notify(release.notification());
    world.run_for(24 * kHour_ms);
    EXPECT_TRUE(world.recorder.saw("given_up"));
    EXPECT_EQ(world.server.image_bytes_sent, 3 * other.image.size());
    world.notify(release.notification());
    world.run_for(kHour_ms);
    EXPECT_TRUE(world.recorder.saw(Reason::failed_before));
    EXPECT_EQ(world.server.image_bytes_sent, 3 * other.image.size());
}

// Wear: a sector of flash survives about 100,000 erases

class Wear : public ::testing::Test {
protected:
    Wear() {
        EXPECT_TRUE(world.boot());
        for (std::int64_t i = 0; i < 2; ++i) {
            Release release = World::release(i == 0 ? "2.0.0" : "2.1.0");
            release.sequence += i;
            world.serve(release);
            announcements.push_back(release.notification());
            withdrawals.push_back(R"({"release_id":")" + release.id() + R"(","withdrawn":true})");
        }
        world.server.ms_per_read = 200;  // For 1400 bytes.
    }

    /// Announces one release after the other every four seconds, and withdraws each before its image is
    /// whole.
    void announce_and_withdraw(std::uint64_t ms) {
        for (std::uint64_t round = 0; round < ms / 4000; ++round) {
            world.notify(announcements[round % 2]);
            world.run_for(3900);
            world.notify(withdrawals[round % 2]);
            world.run_for(100);
        }
    }

    /// The same for half a day, with a restart every four hours.
    void attack_for_half_a_day() {
        for (int restart = 0; restart < 3; ++restart) {
            announce_and_withdraw(4 * kHour_ms);
            ASSERT_TRUE(world.boot());
        }
    }

    World world;
    std::vector<std::string> announcements;
    std::vector<std::string> withdrawals;
};

TEST_F(Wear, GenuineReleasesAnnouncedInTurnKeepTheDeviceNeitherBusyNorFromUpdating) {
    announce_and_withdraw(kHour_ms / 6);
    EXPECT_TRUE(world.recorder.saw(Reason::started_too_often));
    EXPECT_LE(world.flash->most_erases(), 8U);
    // The one that is begun is gone on with, whenever it is announced.
    EXPECT_EQ(world.running_version(), "2.1.0");
}

TEST_F(Wear, GenuineReleasesAnnouncedInTurnOverALinkThatIsCutStartAFewTimesADay) {
    int reads = 0;
    world.server.cut = [&] { return ++reads % 5 == 0; };  // Before the first chunk is complete.
    attack_for_half_a_day();
    EXPECT_LE(world.flash->most_erases(), 8U + 12 / 4);
    EXPECT_GE(world.flash->most_erases(), 8U);
}

TEST_F(Wear, GenuineReleasesAnnouncedInTurnWithoutAServerWriteLittle) {
    // Each failure to reach it is stored, and each other release begins to count anew.
    world.server.take_over = [](const FakeServer::Seen&) {
        FakeServer::Answer answer;
        answer.result = HttpResult::unreachable;
        return answer;
    };
    attack_for_half_a_day();
    EXPECT_LT(world.flash->operations(), 100U);
}

// A broker that is cut off

TEST(Cut, BrokerThatIsAwayDuringThreeTrialsDoesNotMakeTheReleaseFail) {
    World world;
    ASSERT_TRUE(world.boot());
    const Release release = World::release();
    world.serve(release);
    world.server.check_in_body = release.notification();
    for (int trial = 0; trial < 3; ++trial) {
        ASSERT_TRUE(world.run([] { return false; })) << world.recorder.names();
        ASSERT_TRUE(world.boot());
        ASSERT_EQ(world.manager->state(), UpdateState::self_test);
        world.mqtt.is_connected = false;
        ASSERT_TRUE(world.run([] { return false; }, 301 * 1000));
        ASSERT_TRUE(world.boot());
        EXPECT_EQ(world.running_version(), "1.0.0");
        world.mqtt.is_connected = true;
        world.run_for(60000);
    }
    EXPECT_TRUE(world.run_to_report("installed", 8 * 24 * kHour_ms)) << world.recorder.names();
    EXPECT_EQ(world.running_version(), "2.0.0");
    EXPECT_EQ(world.server.image_bytes_sent, release.image.size());
    for (const char* reason : {"self_test_timed_out", "boot_failed", "failed_before"}) {
        for (const char* state : {"failed:", "rolled_back:", "rejected:"}) {
            EXPECT_FALSE(world.recorder.saw_state(std::string(state) + reason)) << state << reason;
        }
    }
}

TEST(Cut, ReleasesInTurnDoNotShortenTheWaitsForATrial) {
    World world;
    ASSERT_TRUE(world.boot());
    NVSStorageHandler storage(*world.store);
    BackOff back_off(world.config, world.random);
    Patience patience(storage, back_off);
    for (const std::int64_t sequence : {100, 101, 100, 101, 100}) {
        ASSERT_TRUE(patience.interrupt(sequence));
    }
    EXPECT_GE(storage.waits().trial_min, 7 * 24 * 60);
    EXPECT_EQ(patience.may_try(100), Reason::trial_interrupted);
    EXPECT_EQ(patience.may_try(101), Reason::trial_interrupted);
    EXPECT_EQ(patience.may_try(102), Reason::none);
}

TEST(Cut, NewAppIsNotStartedWithoutABroker) {
    World world;
    ASSERT_TRUE(world.boot());
    const Release release = World::release();
    world.serve(release);
    world.server.check_in_body = release.notification();
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("chunk_confirmed"); }));
    world.mqtt.is_connected = false;
    world.run_for(24 * kHour_ms);
    EXPECT_EQ(world.boots, 1);
    EXPECT_TRUE(world.recorder.saw(Reason::broker_unreachable));
    EXPECT_GT(world.recorder.count("checked_in"), 20U);
    world.mqtt.is_connected = true;
    EXPECT_TRUE(world.run_to_report("installed", 120 * 1000));
    EXPECT_EQ(world.boots, 2);
    EXPECT_EQ(world.server.image_bytes_sent, release.image.size());
}

// Each reason for a refusal is provoked above or in test_update.cpp.

TEST(Reasons, EveryOneOfARefusalIsReachedInThisFile) {
    const std::set<Reason> elsewhere{Reason::none,
                                     Reason::release_withdrawn,
                                     Reason::app_version_mismatch,
                                     Reason::out_of_memory,
                                     Reason::flash_error,
                                     Reason::storage_error,
                                     Reason::self_test_timed_out,
                                     Reason::self_test_failed,
                                     Reason::boot_failed};
    if (::testing::GTEST_FLAG(filter) != "*") {
        GTEST_SKIP() << "Only part of the attacks ran.";
    }
    std::uint64_t provoked = 0;
    for (const Reason reason : kReasons) {
        if (elsewhere.count(reason) == 0) {  // One of those may also occur here, as a warning.
            EXPECT_TRUE(reasons_seen().count(reason) != 0) << to_string(reason);
            ++provoked;
        }
    }
    std::printf("[ ATTACKS  ] refusals and failures provoked: %d of %d reasons\n", static_cast<int>(provoked),
                static_cast<int>(std::size(kReasons)) - 1);
    report_proof("attacks", "refusals and failures that a device is brought to", provoked);
}

}  // namespace
}  // namespace ota::test

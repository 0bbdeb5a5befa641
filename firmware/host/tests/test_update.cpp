// The life of an update on one device, with a fake broker, API, clock and flash around it.

#include <gtest/gtest.h>

#include <algorithm>

#include "fake_world.hpp"
#include "flash_layout.hpp"

namespace ota::test {
namespace {

class Update : public ::testing::Test {
protected:
    Update() {
        EXPECT_TRUE(world.boot());
        release = World::release();
        world.serve(release);
    }

    World world;
    Release release;
};

TEST_F(Update, GoesFromNotificationToInstalled) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed")) << world.recorder.names();
    EXPECT_EQ(world.running_version(), "2.0.0");
    EXPECT_EQ(world.stored_sequence(), 100);
    EXPECT_EQ(world.slots->running_slot(), 1);
    EXPECT_EQ(world.slots->state(1), SlotState::valid);
    EXPECT_EQ(world.boots, 2);
    EXPECT_EQ(world.server.image_bytes_sent, release.image.size());
    const std::vector<std::string> expected{"downloading", "downloading", "downloading",
                                            "downloading", "downloading", "verifying",
                                            "rebooting",   "rebooting",   "installed"};
    EXPECT_EQ(world.recorder.states, expected);
}

TEST_F(Update, StatusMessagesAreAsInTheContract) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.mqtt.published.front().first, "/firmware_update/AA:BB:CC:DD:EE:01/status");
    EXPECT_EQ(world.mqtt.published.front().second,
              R"({"release_id":")" + release.id() +
                  R"(","version":"2.0.0","state":"downloading","progress":0,)"
                  R"("reason":null,"running_version":"1.0.0"})");
    EXPECT_EQ(world.mqtt.published.back().second,
              R"({"release_id":")" + release.id() +
                  R"(","version":"2.0.0","state":"installed","progress":100,)"
                  R"("reason":null,"running_version":"2.0.0"})");
}

TEST_F(Update, UpdatesAgainFromTheOtherSlot) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    Release next = World::release("2.1.0");
    next.sequence = 101;
    next.signer = &second_trusted_key();
    world.serve(next);
    world.recorder.states.clear();
    world.notify(next.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.running_version(), "2.1.0");
    EXPECT_EQ(world.slots->running_slot(), 0);
}

TEST_F(Update, RequestsCarryTheKeyAndStayWithinTheApi) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    ASSERT_GT(world.server.requests.size(), 10U);
    for (const FakeServer::Seen& request : world.server.requests) {
        EXPECT_EQ(request.url.rfind("http://api.test/v1/", 0), 0U) << request.url;
        EXPECT_EQ(request.headers.at("x-api-key"), "key");
    }
    EXPECT_EQ(world.server.requests[1].url,
              "http://api.test/v1/firmware/sensor/2.0.0?release=" + release.id() + "&mac=aabbccddee01");
    EXPECT_EQ(world.server.requests[1].headers.at("Range"), "bytes=8192-16383");
    EXPECT_EQ(world.server.requests[1].headers.at("Accept"), "application/octet-stream");
}

TEST_F(Update, FlashIsWrittenOncePerByte) {
    const std::uint64_t before = world.flash->bytes_written();
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("verified"); }));
    const std::uint64_t written = world.flash->bytes_written() - before;
    EXPECT_GE(written, release.image.size());
    EXPECT_LT(written, release.image.size() + 2048);  // The rest is the progress in NVS.
}

TEST_F(Update, WaitsTheRandomDelayOfTheNotification) {
    release.more_notification = R"(,"max_delay":600)";
    world.notify(release.notification());
    const std::uint64_t accepted_at = world.clock.now_ms;
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("accepted"); }));
    const auto delay = static_cast<std::uint64_t>(world.recorder.events.back().value);
    EXPECT_GT(delay, 0U);
    EXPECT_LT(delay, 600000U);
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("download_started"); }));
    EXPECT_GE(world.clock.now_ms, accepted_at + delay);
}

TEST_F(Update, DelaysSpreadOverTheDefaultMinute) {
    release.more_notification = "";
    std::uint64_t least = UINT64_MAX;
    std::uint64_t most = 0;
    for (unsigned seed = 0; seed < 40; ++seed) {
        World one;
        one.random.generator.seed(seed);
        ASSERT_TRUE(one.boot());
        one.notify(release.notification());
        ASSERT_TRUE(one.run([&] { return one.recorder.saw("accepted"); }));
        const auto delay = static_cast<std::uint64_t>(one.recorder.events.back().value);
        least = std::min(least, delay);
        most = std::max(most, delay);
    }
    EXPECT_LT(least, 10000U);
    EXPECT_GT(most, 50000U);
    EXPECT_LT(most, 60000U);
}

TEST_F(Update, ChecksInOnBootAndEveryHourOrSo) {
    world.run_for(10 * kHour_ms);
    std::size_t check_ins = 0;
    for (const FakeServer::Seen& request : world.server.requests) {
        EXPECT_EQ(
            request.url,
            "http://api.test/v1/devices/AA:BB:CC:DD:EE:01/update?product=sensor&chip=esp32&version=1.0.0");
        ++check_ins;
    }
    EXPECT_GE(check_ins, 10U);
    EXPECT_LE(check_ins, 12U);
}

TEST_F(Update, DeviceThatWasOffLearnsByCheckIn) {
    world.server.check_in_body = release.notification();
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.running_version(), "2.0.0");
}

TEST_F(Update, ListOfTargetsElsewhereIsTakenFromTheOwnTopicAndTheCheckInOnly) {
    release.targets = R"({"file_sha256":"00","count":3})";
    world.notify(release.notification());
    world.run_for(1000);
    EXPECT_TRUE(world.recorder.saw(Reason::targets_not_verifiable));
    EXPECT_FALSE(world.recorder.saw("accepted"));
    world.notify_device(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));

    World other;
    ASSERT_TRUE(other.boot());
    other.serve(release);
    other.server.check_in_body = release.notification();
    ASSERT_TRUE(other.run_to_report("installed"));
}

TEST_F(Update, RetainedMessageThatComesAgainIsIgnored) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    const std::size_t published = world.mqtt.published.size();
    const std::size_t requests = world.server.requests.size();
    for (int i = 0; i < 5; ++i) {
        world.notify(release.notification());
    }
    world.run_for(60000);
    EXPECT_EQ(world.mqtt.published.size(), published);
    EXPECT_LE(world.server.requests.size(), requests + 1);  // The check-in after the trial.
}

TEST_F(Update, RefusalIsReportedOncePerRelease) {
    release.expires = "2020-01-01T00:00:00Z";
    for (int i = 0; i < 5; ++i) {
        world.notify(release.notification());
    }
    world.run_for(1000);
    EXPECT_EQ(world.recorder.states, std::vector<std::string>{"rejected:release_expired"});
}

TEST_F(Update, RefusalOfARetainedMessageIsReportedBeforeTheSubscriptionsAreAcknowledged) {
    Release older = World::release("0.9.0");
    world.mqtt.is_connected = false;
    world.mqtt.is_subscribed = false;
    world.server.check_in_body = older.notification();
    world.run_for(60000);
    ASSERT_TRUE(world.recorder.saw(Reason::version_not_newer)) << world.recorder.names();
    EXPECT_EQ(world.recorder.states, std::vector<std::string>{});
    world.mqtt.is_connected = true;
    world.notify(older.notification());
    world.run_for(1000);
    const std::vector<std::string> once{"rejected:version_not_newer"};
    EXPECT_EQ(world.recorder.states, once);
    for (int connection = 0; connection < 3; ++connection) {
        world.mqtt.is_subscribed = true;
        world.run_for(1000);
        world.mqtt.is_subscribed = false;
        world.notify(older.notification());
        world.run_for(1000);
    }
    EXPECT_EQ(world.recorder.states, once);
}

TEST_F(Update, ReleaseForOthersIsNobodysNews) {
    for (const char* targets : {R"(["AA:BB:CC:DD:EE:02"])", R"("all")"}) {
        Release other = release;
        other.targets = targets;
        if (other.targets == R"("all")") {
            other.product = "lamp";
        }
        world.notify(other.notification());
    }
    release.more_notification = R"(,"cohort":{"percent":0,"salt":"x"})";
    world.notify(release.notification());
    world.run_for(1000);
    EXPECT_TRUE(world.recorder.saw(Reason::not_targeted));
    EXPECT_TRUE(world.recorder.saw(Reason::wrong_product));
    EXPECT_TRUE(world.recorder.saw(Reason::not_in_cohort));
    EXPECT_TRUE(world.mqtt.published.empty());
}

TEST_F(Update, LaterWaveOfTheSameReleaseReachesTheDevice) {
    release.more_notification = R"(,"max_delay":0,"cohort":{"percent":0,"salt":"x"})";
    world.notify(release.notification());
    world.run_for(1000);
    EXPECT_FALSE(world.recorder.saw("accepted"));
    release.more_notification = R"(,"max_delay":0,"cohort":{"percent":100,"salt":"x"})";
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
}

TEST_F(Update, NewerReleaseTakesOverFromOneUnderWay) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("chunk_confirmed"); }));
    Release next = World::release("2.1.0");
    next.sequence = 101;
    world.serve(next);
    world.notify(next.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.running_version(), "2.1.0");
    EXPECT_EQ(world.boots, 2);
}

TEST_F(Update, WithdrawnReleaseIsDroppedWhileItWaits) {
    release.more_notification = R"(,"max_delay":3600)";
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("accepted"); }));
    world.notify(R"({"release_id":")" + std::string(kReleaseIdLength, '0') + R"(","withdrawn":true})");
    world.run_for(10);
    EXPECT_EQ(world.manager->state(), UpdateState::waiting);
    world.notify(R"({"release_id":")" + release.id() + R"(","withdrawn":true})");
    world.run_for(2 * kHour_ms);
    EXPECT_TRUE(world.recorder.saw_state("rejected:release_withdrawn"));
    EXPECT_FALSE(world.recorder.saw("download_started"));
}

TEST_F(Update, VersionAutoIsTakenFromTheNotification) {
    release.version = "auto";
    release.announced_version = "1.0.1";
    release.image = World::image("1.0.1");
    world.serve(release);
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.running_version(), "1.0.1");
}

TEST_F(Update, VersionNobodySignedDoesNotStandInTheWayOfASignedOne) {
    // The attack: announce a genuine "auto" manifest as 999.0.0, so that nothing is ever newer.
    release.version = "auto";
    release.announced_version = "999.0.0";
    world.serve(release);
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.running_version(), "999.0.0");
    Release next = World::release("2.1.0");
    next.sequence = 101;
    world.serve(next);
    world.recorder.states.clear();
    world.notify(next.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.running_version(), "2.1.0");
}

// Unsigned fields of a genuine release, forged in a message before the check-in

TEST_F(Update, CheckInCorrectsAForgedVersion) {
    release.version = "auto";
    release.announced_version = "9.9.9";
    for (std::size_t i = 1; i <= 6; ++i) {
        world.notify(release.notification());
        ASSERT_TRUE(world.run([&] { return world.recorder.count("dropped") == i; }));
    }
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.count("accepted") == 7; }));
    release.announced_version = "2.0.0";
    world.server.check_in_body = release.notification();
    world.recorder.events.clear();
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("accepted"); }, 2 * kHour_ms));
    EXPECT_EQ(world.recorder.events.back().value, 0) << "delayed by failures at the forged address";
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.running_version(), "2.0.0");
}

TEST_F(Update, CheckInCorrectsAForgedDelay) {
    Release slow = release;
    slow.more_notification = R"(,"max_delay":86400)";
    world.notify(slow.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("accepted"); }));
    ASSERT_GT(world.recorder.events.back().value, 60000);
    world.server.check_in_body = release.notification();
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("download_started"); }, 60000));
    // The forgery comes again, but the check-in counts.
    world.notify(slow.notification());
    ASSERT_TRUE(world.run_to_report("installed", 60000));
}

TEST_F(Update, CheckInThatBringsAnotherManifestOfTheSameSequenceKeepsTheBackOff) {
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        FakeServer::Answer answer = world.server.answer(seen);
        if (seen.url.find("/firmware/") != std::string::npos) {
            answer.result = HttpResult::unreachable;
        }
        return answer;
    };
    Release unreleased = release;
    unreleased.expires = "2031-01-01T00:00:00Z";
    world.notify(unreleased.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.count("retry") == 6; }));
    world.server.check_in_body = release.notification();
    world.recorder.events.clear();
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("accepted"); }, 2 * kHour_ms));
    EXPECT_EQ(world.recorder.events.back().release_id, release.id());
    EXPECT_GE(world.recorder.events.back().value, 32 * 60000);
}

TEST_F(Update, CheckInEndsWhatWasAcceptedForAForgedVersionOnly) {
    release.version = "auto";
    release.announced_version = "9.9.9";
    world.serve(release);
    world.server.cut = [&] {
        return world.server.image_bytes_sent > 50000 &&
               world.server.requests.back().url.find("/firmware/") != std::string::npos;
    };
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("retry"); }));
    release.announced_version = "0.9.0";
    world.server.check_in_body = release.notification();
    world.run_for(2 * kHour_ms);
    EXPECT_TRUE(world.recorder.saw(Reason::version_not_newer));
    world.server.cut = nullptr;
    world.run_for(24 * kHour_ms);
    EXPECT_EQ(world.manager->state(), UpdateState::idle);
    EXPECT_EQ(world.boots, 1);
}

TEST_F(Update, CheckInThatSaysTheSameChangesNothing) {
    int left = 5;  // The link breaks once, and the server is unavailable until after the next check-in.
    world.server.cut = [&] { return world.server.image_bytes_sent > 50000 && --left == 0; };
    world.notify(release.notification());
    world.server.check_in_body = release.notification();
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("retry"); }));
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        FakeServer::Answer answer = world.server.answer(seen);
        if (seen.url.find("/firmware/") != std::string::npos) {
            answer.result = HttpResult::unreachable;
        }
        return answer;
    };
    world.run_for(3 * kHour_ms);
    ASSERT_TRUE(world.recorder.saw("ignored"));
    world.server.take_over = nullptr;
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.recorder.count("accepted"), 1U);
    EXPECT_EQ(world.recorder.count("download_started"), 1U);
    // The check-in took the buffer, and nothing else was fetched again.
    EXPECT_LE(world.server.image_bytes_sent, release.image.size() + kFlashSectorSize);
}

TEST_F(Update, SignedManifestMayAllowADowngrade) {
    release = World::release("0.9.0");
    release.allow_downgrade = true;
    world.serve(release);
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.running_version(), "0.9.0");
}

TEST_F(Update, AppVersionIsAWarningUnlessTheManifestIsStrict) {
    release.image = World::image("arduino-core-3.2");
    world.serve(release);
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_TRUE(world.recorder.saw("app_version_differs"));
    EXPECT_EQ(world.running_version(), "2.0.0");

    Release strict = World::release("2.1.0");
    strict.sequence = 101;
    strict.image = World::image("arduino-core-3.3");
    strict.more_manifest = R"(,"strict_app_version":true)";
    world.serve(strict);
    world.notify(strict.notification());
    ASSERT_TRUE(world.run_to_report("failed:app_version_mismatch"));
}

TEST_F(Update, ImageByCableSpeaksForItself) {
    release.image = World::image("arduino-core-3.2");
    world.serve(release);
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    ASSERT_EQ(world.running_version(), "2.0.0");
    const std::vector<std::uint8_t> flashed = World::image("5.0.0");
    std::copy(flashed.begin(), flashed.end(),
              world.bytes.begin() + static_cast<std::ptrdiff_t>(posix::kSlotOffset[1]));
    ASSERT_TRUE(world.boot());
    EXPECT_EQ(world.running_version(), "5.0.0");
    EXPECT_EQ(world.stored_sequence(), 100);
}

TEST_F(Update, ImageByCableIsNotTheReleaseThatWasOnItsTrialThere) {
    for (const bool marked_valid : {false, true}) {
        World one;
        ASSERT_TRUE(one.boot());
        one.serve(release);
        one.notify(release.notification());
        ASSERT_TRUE(one.run([] { return false; }));
        if (marked_valid) {  // The power failed right after.
            ASSERT_TRUE(one.boot());
            ASSERT_EQ(one.slots->mark_running_valid(), PortResult::ok);
        }
        const std::vector<std::uint8_t> flashed = World::image("1.5.0");
        std::copy(flashed.begin(), flashed.end(),
                  one.bytes.begin() + static_cast<std::ptrdiff_t>(posix::kSlotOffset[1]));
        ASSERT_TRUE(one.boot());
        one.run_for(60000);
        EXPECT_EQ(one.slots->running_slot(), 1);
        EXPECT_EQ(one.running_version(), "1.5.0");
        EXPECT_EQ(one.stored_sequence(), 0);
        EXPECT_FALSE(one.recorder.saw_state("installed"));
        EXPECT_FALSE(NVSStorageHandler(*one.store).pending());
        // The device does not look for its bytes in the other slot.
        one.notify(release.notification());
        ASSERT_TRUE(one.run_to_report("installed"));
        EXPECT_FALSE(one.recorder.saw(Reason::image_sha256_mismatch));
        EXPECT_EQ(one.running_version(), "2.0.0");
    }
}

TEST_F(Update, ClockThatIsNotSetDoesNotExpireARelease) {
    world.clock.is_set = false;
    release.expires = "2020-01-01T00:00:00Z";
    world.notify(release.notification());
    EXPECT_TRUE(world.run_to_report("installed"));
}

TEST_F(Update, ReleaseThatExpiresWhileItWaitsIsDropped) {
    release.expires = "2026-09-21T14:20:00Z";  // 1790000400: under seven minutes from now.
    release.more_notification = R"(,"max_delay":86400)";
    world.notify(release.notification());
    EXPECT_TRUE(world.run([&] { return world.recorder.saw("accepted"); }));
    EXPECT_TRUE(world.run([&] { return world.recorder.saw(Reason::release_expired); }));
    EXPECT_FALSE(world.recorder.saw("download_started"));
}

TEST_F(Update, ReleaseThatExpiresWhileItsDownloadIsBrokenIsDropped) {
    release.expires = "2026-09-21T14:20:00Z";
    bool away = false;
    world.server.cut = [&] {
        away = away || world.server.image_bytes_sent > 50000;
        return away;
    };
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("retry"); }));
    world.run_for(kHour_ms);
    ASSERT_TRUE(world.recorder.saw("download_started"));
    world.server.cut = nullptr;
    world.run_for(24 * kHour_ms);
    EXPECT_TRUE(world.recorder.saw_state("rejected:release_expired"));
    EXPECT_EQ(world.manager->state(), UpdateState::idle);
    EXPECT_EQ(world.boots, 1);
}

TEST_F(Update, VersionOfAnAppThatGitDescribesIsRead) {
    World one;
    one.bytes = host::build_flash(World::image("v1.9.0"));
    one.flash = std::make_shared<CuttableFlash>(one.bytes);
    ASSERT_TRUE(one.boot());
    EXPECT_EQ(one.running_version(), "1.9.0");
}

// The trial of a new app

TEST_F(Update, VersionAndSequenceAreStoredOnlyAfterTheSelfTest) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([] { return false; }));
    world.mqtt.acknowledges = false;
    ASSERT_TRUE(world.boot());
    world.run_for(60000);
    EXPECT_EQ(world.manager->state(), UpdateState::self_test);
    EXPECT_EQ(world.running_version(), "2.0.0");
    EXPECT_EQ(world.stored_sequence(), 0);
    EXPECT_EQ(world.slots->state(1), SlotState::pending_verify);
    world.mqtt.acknowledges = true;
    world.run_for(2000);
    EXPECT_EQ(world.stored_sequence(), 100);
    EXPECT_EQ(world.slots->state(1), SlotState::valid);
}

TEST_F(Update, AppThatHearsNoBrokerGoesBack) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([] { return false; }));
    world.mqtt.is_connected = false;
    ASSERT_TRUE(world.boot());
    EXPECT_EQ(world.running_version(), "2.0.0");
    const std::uint64_t started = world.clock.now_ms;
    ASSERT_TRUE(world.run([] { return false; }));
    EXPECT_GE(world.clock.now_ms - started, 300000U);
    ASSERT_TRUE(world.boot());
    EXPECT_EQ(world.running_version(), "1.0.0");
    EXPECT_EQ(world.slots->running_slot(), 0);
    EXPECT_EQ(world.slots->state(1), SlotState::invalid);
    world.mqtt.is_connected = true;
    ASSERT_TRUE(world.run_to_report("interrupted:self_test_timed_out"));
    EXPECT_EQ(world.stored_sequence(), 0);
    EXPECT_FALSE(NVSStorageHandler(*world.store).failure());
}

TEST_F(Update, TrialThatReachesNoBrokerIsRepeatedEverLaterButAlwaysAgain) {
    world.server.check_in_body = release.notification();
    ASSERT_TRUE(world.run([] { return false; }));
    for (const std::uint64_t hours : {1U, 8U, 24U, 168U, 168U}) {
        world.mqtt.is_connected = false;
        ASSERT_TRUE(world.boot());
        ASSERT_TRUE(world.run([] { return false; }));
        world.mqtt.is_connected = true;
        ASSERT_TRUE(world.boot());
        // Even a device that is restarted every 50 minutes gets through the wait: three quarters of an hour
        // of them count.
        std::uint64_t restarts = 0;
        while (!world.run([] { return false; }, 50 * 60000)) {
            ASSERT_TRUE(world.boot());
            ++restarts;
        }
        EXPECT_GE(restarts, hours * 60 / 45 - 1);
        EXPECT_LE(restarts, hours * 60 / 45 * 5 / 4 + 1);
    }
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.server.image_bytes_sent, release.image.size());

    // The next release does not wait.
    Release next = World::release("2.1.0");
    next.sequence = 101;
    world.serve(next);
    world.server.check_in_body = next.notification();
    EXPECT_TRUE(world.run_to_report("installed", 2 * kHour_ms));
}

TEST_F(Update, NewerReleaseDoesNotWaitForTheInterruptedTrialOfAnother) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([] { return false; }));
    world.mqtt.is_connected = false;
    ASSERT_TRUE(world.boot());
    ASSERT_TRUE(world.run([] { return false; }));
    world.mqtt.is_connected = true;
    ASSERT_TRUE(world.boot());
    world.notify(release.notification());
    world.run_for(60000);
    EXPECT_TRUE(world.recorder.saw(Reason::trial_interrupted));
    Release next = World::release("2.1.0");
    next.sequence = 101;
    world.serve(next);
    world.notify(next.notification());
    EXPECT_TRUE(world.run_to_report("installed", 60000));
    EXPECT_EQ(world.running_version(), "2.1.0");
}

TEST_F(Update, AppThatFailsItsOwnTestGoesBack) {
    world.recorder.passes = false;
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("rolled_back:self_test_failed"));
    EXPECT_EQ(world.running_version(), "1.0.0");
}

TEST_F(Update, AppThatCrashesBeforeItsVerdictIsUndoneByTheBootloader) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([] { return false; }));
    ASSERT_TRUE(world.boot());
    ASSERT_EQ(world.manager->state(), UpdateState::self_test);
    ASSERT_TRUE(world.boot());  // It crashed.
    EXPECT_EQ(world.running_version(), "1.0.0");
    ASSERT_TRUE(world.run_to_report("rolled_back:boot_failed"));
}

TEST_F(Update, TrialThatOtadataHasForgottenStillCounts) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([] { return false; }));
    ASSERT_TRUE(world.boot());
    ASSERT_EQ(world.manager->state(), UpdateState::self_test);
    // The power fails while the bootloader rewrites the entry to undo it: it is erased, but not yet written.
    ASSERT_TRUE(world.flash->erase_sector(posix::kOtaDataOffset + kFlashSectorSize));
    ASSERT_TRUE(world.boot());
    EXPECT_EQ(world.running_version(), "1.0.0");
    ASSERT_TRUE(world.run_to_report("rolled_back:boot_failed"));
    EXPECT_EQ(NVSStorageHandler(*world.store).failure()->attempts, 1);
}

TEST_F(Update, AppThatFailsStaysWhenThereIsNoOther) {
    world.recorder.passes = false;
    world.notify(release.notification());
    ASSERT_TRUE(world.run([] { return false; }));
    ASSERT_TRUE(world.boot());
    world.bytes[posix::kSlotOffset[0] + 5000] ^= 1;  // Meanwhile, the old app is damaged.
    ASSERT_TRUE(world.run_to_report("failed:self_test_failed"));
    EXPECT_EQ(world.slots->running_slot(), 1);
    EXPECT_EQ(world.running_version(), "2.0.0");
    EXPECT_EQ(world.stored_sequence(), 0);

    world.recorder.passes = true;
    Release next = World::release("2.1.0");
    next.sequence = 101;
    world.serve(next);
    world.notify(next.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.running_version(), "2.1.0");
}

TEST_F(Update, FailedReleaseIsTriedAgainWithBackOffAndThenNoMore) {
    world.recorder.passes = false;
    std::vector<std::uint64_t> delays;
    for (int i = 0; i < 6; ++i) {
        world.notify(release.notification());
        world.recorder.events.clear();
        world.run([&] { return world.recorder.saw("accepted") || world.recorder.saw("refused"); });
        if (world.recorder.saw("refused")) {
            break;
        }
        delays.push_back(static_cast<std::uint64_t>(world.recorder.events.back().value));
        world.recorder.states.clear();
        ASSERT_TRUE(world.run_to_report("rolled_back:self_test_failed"));
    }
    ASSERT_EQ(delays.size(), 3U);
    EXPECT_EQ(delays[0], 0U);
    EXPECT_GE(delays[1], 60000U);
    EXPECT_LT(delays[1], 75000U);
    EXPECT_GE(delays[2], 120000U);
    EXPECT_LT(delays[2], 150000U);
    EXPECT_TRUE(world.recorder.saw(Reason::failed_before));

    // The next release starts from zero.
    world.recorder.passes = true;
    Release next = World::release("2.1.0");
    next.sequence = 101;
    world.serve(next);
    world.notify(next.notification());
    EXPECT_TRUE(world.run_to_report("installed"));
}

TEST_F(Update, SecondTryAfterARollbackFetchesNothingAgain) {
    world.recorder.passes = false;
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("rolled_back:self_test_failed"));
    world.recorder.passes = true;
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.server.image_bytes_sent, release.image.size());
}

TEST_F(Update, FinalReportSurvivesARestartWithoutBroker) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("activated"); }));
    ASSERT_TRUE(world.boot());
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("installed"); }));
    world.mqtt.is_connected = false;
    world.run_for(5000);
    ASSERT_TRUE(world.boot());
    world.mqtt.is_connected = true;
    world.recorder.states.clear();
    EXPECT_TRUE(world.run_to_report("installed"));
}

// The download

TEST_F(Update, PowerLossLosesAtMostAChunk) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.server.image_bytes_sent > 50000; }));
    ASSERT_TRUE(world.boot());
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_LE(world.server.image_bytes_sent, release.image.size() + World::kChunk);
    EXPECT_GT(world.server.image_bytes_sent, release.image.size());
}

TEST_F(Update, ProgressOfAnotherImageIsNotGoneOnWith) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.server.image_bytes_sent > 50000; }));
    ASSERT_TRUE(world.boot());
    Release next = World::release("2.1.0");
    next.sequence = 101;
    world.serve(next);
    world.server.image_bytes_sent = 0;
    world.notify(next.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.server.image_bytes_sent, next.image.size());
}

TEST_F(Update, SlotThatAnotherImageHasOverwrittenIsNotGoneOnWith) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.server.image_bytes_sent > 50000; }));
    ASSERT_TRUE(world.boot());
    Release next = World::release("2.1.0");
    next.sequence = 101;
    world.serve(next);
    world.notify(next.notification());
    world.server.image_bytes_sent = 0;
    ASSERT_TRUE(world.run([&] { return world.server.image_bytes_sent > 5000; }));  // Less than a chunk.
    ASSERT_TRUE(world.boot());
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_FALSE(world.recorder.saw(Reason::image_sha256_mismatch));
    EXPECT_EQ(world.running_version(), "2.0.0");
}

TEST_F(Update, DamageToTheSlotDuringPowerLossIsFound) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.server.image_bytes_sent > 50000; }));
    world.bytes[posix::kSlotOffset[1] + 20000] ^= 1;
    ASSERT_TRUE(world.boot());
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_TRUE(world.recorder.saw_state("failed:image_sha256_mismatch"));
}

TEST_F(Update, ReleasesAFewTimesADayAreNeverDelayed) {
    std::uint64_t cut_at = 0;  // None gets further than three chunks.
    world.server.cut = [&] { return world.server.image_bytes_sent > cut_at; };
    constexpr int kReleases = 60;
    for (int number = 0; number < kReleases; ++number) {
        Release next = World::release("2.0." + std::to_string(number));
        next.sequence = 100 + number;
        world.serve(next);
        cut_at = world.server.image_bytes_sent + 3 * World::kChunk;
        const std::size_t started = world.recorder.count("download_started");
        world.notify(next.notification());
        world.run_for(1000);
        EXPECT_EQ(world.recorder.count("download_started"), started + 1) << number;
        world.run_for(4 * kHour_ms);
    }
    EXPECT_FALSE(world.recorder.saw(Reason::started_too_often));
}

TEST_F(Update, StartsThatGetNowhereAreCountedThroughRestarts) {
    world.config.chunk_size = 32768;
    world.server.check_in_body = release.notification();
    // Switches the device off and on, and off when this many bytes have arrived. @return where it started.
    const auto start = [&](std::uint64_t bytes) -> std::int64_t {
        world.recorder.events.clear();
        world.server.image_bytes_sent = 0;
        EXPECT_TRUE(world.boot());
        world.run([&] { return world.server.image_bytes_sent > bytes; }, 60000);
        for (const Recorder::Event& event : world.recorder.events) {
            if (event.name == "download_started") {
                return event.value;
            }
        }
        return -1;
    };
    EXPECT_EQ(start(40000), 0);  // One chunk is confirmed, so the next start is free.
    for (int i = 0; i < 8; ++i) {
        EXPECT_EQ(start(20000), 32768) << i;
    }
    EXPECT_EQ(start(20000), -1);
    EXPECT_TRUE(world.recorder.saw(Reason::started_too_often));
    EXPECT_FALSE(world.run([&] { return world.recorder.saw("download_started"); }, 3 * kHour_ms));
    EXPECT_TRUE(world.run_to_report("installed", kHour_ms));
    EXPECT_EQ(NVSStorageHandler(*world.store).waits().starts_min, 0);
}

TEST_F(Update, ServerErrorsAreWaitedOutAsItAsks) {
    int left = 3;
    const std::vector<std::pair<int, Reason>> statuses{{503, Reason::http_server_error},
                                                       {429, Reason::http_too_many_requests},
                                                       {500, Reason::http_server_error}};
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        if (left == 0 || seen.url.find("/firmware/") == std::string::npos) {
            return world.server.answer(seen);
        }
        FakeServer::Answer answer;
        answer.head.status = statuses[static_cast<std::size_t>(--left)].first;
        answer.head.retry_after = "1000";
        return answer;
    };
    world.notify(release.notification());
    const std::uint64_t started = world.clock.now_ms;
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("verified"); }));
    EXPECT_GE(world.clock.now_ms - started, 3000000U);
    for (const auto& [status, reason] : statuses) {
        EXPECT_TRUE(world.recorder.saw(reason)) << status;
    }
    EXPECT_TRUE(world.recorder.saw_state("downloading:http_server_error"));
}

TEST_F(Update, BackOffDoublesUpToItsLimitWhileTheServerIsAway) {
    world.server.take_over = [](const FakeServer::Seen&) {
        FakeServer::Answer answer;
        answer.result = HttpResult::unreachable;
        return answer;
    };
    world.notify(release.notification());
    world.run_for(24 * kHour_ms);
    std::vector<std::int64_t> delays;
    for (const Recorder::Event& event : world.recorder.events) {
        if (event.name == "retry") {
            delays.push_back(event.value);
        }
    }
    ASSERT_GE(delays.size(), 10U);
    std::int64_t base = 60000;
    for (const std::int64_t delay : delays) {
        EXPECT_GE(delay, base);
        EXPECT_LE(delay, base + base / 4);
        base = std::min(base * 2, static_cast<std::int64_t>(6 * kHour_ms));
    }
    // The count survives a restart.
    const auto failure = NVSStorageHandler(*world.store).failure();
    ASSERT_TRUE(failure);
    EXPECT_EQ(failure->link_failures, delays.size());
}

TEST_F(Update, BackOffBeginsAnewAfterAChunk) {
    for (const bool after_bad_image : {false, true}) {
        World one;
        ASSERT_TRUE(one.boot());
        one.serve(release);
        const std::vector<std::uint8_t> good = release.image;
        std::vector<std::uint8_t>& served = one.server.images.begin()->second;
        if (after_bad_image) {
            served[50000] ^= 1;
            one.server.take_over = [&](const FakeServer::Seen& seen) {
                FakeServer::Answer answer = one.server.answer(seen);
                answer.head.etag.clear();
                return answer;
            };
            one.notify(release.notification());
            ASSERT_TRUE(one.run([&] { return one.recorder.saw(Reason::image_sha256_mismatch); }));
            served = good;
        }
        bool away = true;
        std::uint64_t cut_at = UINT64_MAX;
        one.server.take_over = [&](const FakeServer::Seen& seen) {
            FakeServer::Answer answer = one.server.answer(seen);
            if (away && seen.url.find("/firmware/") != std::string::npos) {
                answer.result = HttpResult::unreachable;
            }
            return answer;
        };
        one.server.cut = [&] { return one.server.image_bytes_sent > cut_at; };
        const auto next_delay = [&]() -> std::int64_t {
            one.recorder.events.clear();
            EXPECT_TRUE(one.run([&] { return one.recorder.saw("retry"); }, 24 * kHour_ms));
            return one.recorder.events.back().value;
        };
        one.notify(release.notification());
        for (int i = 0; i < 5; ++i) {
            next_delay();
        }
        EXPECT_GE(next_delay(), 32 * 60000);
        away = false;
        cut_at = one.server.image_bytes_sent + World::kChunk + 1000;
        EXPECT_LE(next_delay(), 2000);
        EXPECT_TRUE(one.recorder.saw("chunk_confirmed"));
        away = true;
        // A bad image keeps counting.
        const std::int64_t first = after_bad_image ? 120000 : 60000;
        const std::int64_t delay = next_delay();
        EXPECT_GE(delay, first);
        EXPECT_LE(delay, first + first / 4);
    }
}

TEST_F(Update, CheckInsBackOffAndHonourRetryAfter) {
    int status = 503;
    world.server.take_over = [&](const FakeServer::Seen&) {
        FakeServer::Answer answer;
        answer.head.status = status;
        answer.head.retry_after = "7200";
        return answer;
    };
    world.run_for(6 * kHour_ms);
    EXPECT_LE(world.server.requests.size(), 4U);
    EXPECT_TRUE(world.recorder.saw("check_in_failed"));
}

TEST_F(Update, ServerWithoutRangesIsReadInOneGo) {
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        FakeServer::Seen whole = seen;
        whole.headers.erase("Range");
        return world.server.answer(whole);
    };
    int reads = 0;
    world.server.cut = [&] { return ++reads == 40; };
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_TRUE(world.recorder.saw(Reason::range_ignored));
}

TEST_F(Update, SmallerPiecesThanAskedForAreTaken) {
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        FakeServer::Seen less = seen;
        unsigned long first = 0;
        unsigned long last = 0;
        if (seen.headers.count("Range") != 0 &&
            std::sscanf(seen.headers.at("Range").c_str(), "bytes=%lu-%lu", &first, &last) == 2) {
            last = std::min(last, first + 2999);
            less.headers["Range"] = "bytes=" + std::to_string(first) + "-" + std::to_string(last);
        }
        return world.server.answer(less);
    };
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.server.image_bytes_sent, release.image.size());
}

TEST_F(Update, FollowsOneRedirectWithoutShowingTheKey) {
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        if (seen.url.find("/firmware/") == std::string::npos) {
            return world.server.answer(seen);
        }
        FakeServer::Answer answer;
        if (seen.headers.count("x-api-key") != 0) {
            answer.head.status = 307;
            answer.head.location = "http://bucket.test/firmware/presigned?signature=1";
            return answer;
        }
        answer = FakeServer::range_answer(seen, release.image);
        answer.head.etag = "\"another-kind-of-tag\"";
        return answer;
    };
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    int to_api = 0;
    for (const FakeServer::Seen& request : world.server.requests) {
        const bool is_api = request.url.rfind("http://api.test/", 0) == 0;
        EXPECT_EQ(request.headers.count("x-api-key"), is_api ? 1U : 0U) << request.url;
        to_api += is_api && request.url.find("/firmware/") != std::string::npos ? 1 : 0;
    }
    EXPECT_EQ(to_api, 1);  // Later pieces use the same address.
}

TEST_F(Update, PresignedAddressThatHasExpiredIsAskedForAgain) {
    int uses = 0;
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        FakeServer::Answer answer;
        if (seen.url.find("/firmware/") == std::string::npos) {
            return world.server.answer(seen);
        }
        if (seen.headers.count("x-api-key") != 0) {
            uses = 0;
            answer.head.status = 307;
            answer.head.location = "https://bucket.test/firmware/presigned";
            return answer;
        }
        if (++uses > 3) {
            answer.head.status = 403;
            return answer;
        }
        return FakeServer::range_answer(seen, release.image);
    };
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_FALSE(world.recorder.saw("download_failed"));
}

TEST_F(Update, ReleaseThatTheServerWithdrewIsDropped) {
    world.server.take_over = [&](const FakeServer::Seen& seen) {
        FakeServer::Answer answer = world.server.answer(seen);
        if (seen.url.find("/firmware/") != std::string::npos) {
            answer.head.status = 410;
        }
        return answer;
    };
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("rejected:release_withdrawn"));
    EXPECT_EQ(world.manager->state(), UpdateState::idle);
}

TEST_F(Update, ReleaseThatTheApiDoesNotOfferIsForgottenUntilItDoes) {
    Release other = World::release("2.1.0");
    other.sequence = 101;
    world.serve(other);
    world.server.images.erase("sensor/2.0.0");
    release.sequence = 102;
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("dropped"); }));
    EXPECT_EQ(world.recorder.events.back().reason, Reason::http_not_found);
    EXPECT_EQ(world.manager->state(), UpdateState::idle);
    const std::vector<std::string> states{"downloading", "downloading:http_not_found"};
    EXPECT_EQ(world.recorder.states, states);
    // It does not stand in the way of another release, whatever its sequence.
    world.server.check_in_body = other.notification();
    ASSERT_TRUE(world.run_to_report("installed", 2 * kHour_ms));
    EXPECT_EQ(world.running_version(), "2.1.0");
    // When it is offered, it comes, after a back-off.
    release.version = "2.2.0";
    release.image = World::image("2.2.0");
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.count("dropped") == 2; }));
    world.serve(release);
    world.server.check_in_body = release.notification();
    world.recorder.events.clear();
    world.recorder.states.clear();
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("accepted"); }, 2 * kHour_ms));
    EXPECT_GE(world.recorder.events.back().value, 60000);
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_EQ(world.running_version(), "2.2.0");
}

TEST_F(Update, FlashThatFailsIsTriedAgainFromWhatIsConfirmed) {
    class FailingFlash final : public posix::NorFlash {
    public:
        explicit FailingFlash(std::vector<std::uint8_t>& flash) : NorFlash(flash.data(), flash.size()) {}
        bool write(std::size_t offset, const void* source, std::size_t size) override {
            if (offset >= posix::kSlotOffset[1] + 40960 && failures > 0) {
                --failures;
                return false;
            }
            return NorFlash::write(offset, source, size);
        }
        int failures = 2;
    };
    auto failing = std::make_shared<FailingFlash>(world.bytes);
    world.slots = posix::FlashSlots::boot(failing);
    world.manager =
        std::make_unique<OTAUpdateManager>(world.config,
                                           UpdatePorts{*world.slots, *world.store, world.server, world.mqtt,
                                                       world.clock, world.random, world.reboot},
                                           world.recorder);
    world.manager->start();
    world.notify(release.notification());
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_TRUE(world.recorder.saw(Reason::flash_error));
}

TEST_F(Update, StoreThatFailsIsReported) {
    class FailingStore final : public KeyValueStore {
    public:
        PortResult get(const char*, void*, std::size_t&) const override { return PortResult::io_error; }
        PortResult set(const char*, const void*, std::size_t) override { return PortResult::io_error; }
        PortResult erase(const char*) override { return PortResult::io_error; }
    };
    FailingStore store;
    world.manager = std::make_unique<OTAUpdateManager>(
        world.config,
        UpdatePorts{*world.slots, store, world.server, world.mqtt, world.clock, world.random, world.reboot},
        world.recorder);
    world.manager->start();
    const std::vector<std::uint8_t> before = world.boot_relevant_flash();
    world.notify(release.notification());
    world.run_for(10 * kHour_ms);
    EXPECT_TRUE(world.recorder.saw(Reason::storage_error));
    EXPECT_EQ(world.boot_relevant_flash(), before);
}

TEST_F(Update, MessageThatIsArrivingIsWaitedForBeforeTheVerdict) {
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.recorder.saw("download_started"); }));
    world.mqtt.is_arriving = true;
    world.notify(release.notification());
    ASSERT_TRUE(world.run([&] { return world.server.image_bytes_sent == release.image.size(); }));
    int steps = 0;
    const std::uint64_t before = world.clock.now_ms;
    world.run([&] { return ++steps > 1000 || world.recorder.saw("verified"); }, 5000);
    EXPECT_GE(world.clock.now_ms - before, 5000U);
    EXPECT_LE(steps, 102) << "the task spins";
    EXPECT_FALSE(world.recorder.saw("verified"));
    world.mqtt.is_arriving = false;
    ASSERT_TRUE(world.run_to_report("installed"));
    EXPECT_TRUE(world.recorder.saw("ignored"));
}

TEST_F(Update, MessageOfAForeignTopicIsNotRead) {
    world.mqtt.deliver("/firmware_update/product/lamp", release.notification());
    world.mqtt.deliver("elsewhere", release.notification());
    world.run_for(1000);
    EXPECT_FALSE(world.recorder.saw("accepted"));
    world.mqtt.deliver("/firmware_update/product/sensor", release.notification());
    EXPECT_TRUE(world.run_to_report("installed"));
}

// The table of states

constexpr auto kStates = {UpdateState::self_test, UpdateState::idle, UpdateState::waiting,
                          UpdateState::downloading, UpdateState::restarting};
constexpr auto kTriggers = {
    UpdateTrigger::trial_began,      UpdateTrigger::trial_passed,    UpdateTrigger::trial_failed,
    UpdateTrigger::release_accepted, UpdateTrigger::release_dropped, UpdateTrigger::wait_over,
    UpdateTrigger::download_failed,  UpdateTrigger::postponed,       UpdateTrigger::image_activated};
static_assert(kStates.size() == kUpdateStateCount && kTriggers.size() == kUpdateTriggerCount);

UpdateState after(std::initializer_list<UpdateTrigger> triggers) {
    UpdateState state = UpdateState::idle;
    for (const UpdateTrigger trigger : triggers) {
        state = next_state(state, trigger);
    }
    return state;
}

TEST(UpdateStateTable, LeadsFromBootToRestart) {
    using T = UpdateTrigger;
    EXPECT_EQ(after({T::release_accepted}), UpdateState::waiting);
    EXPECT_EQ(after({T::release_accepted, T::wait_over}), UpdateState::downloading);
    EXPECT_EQ(after({T::release_accepted, T::wait_over, T::image_activated}), UpdateState::restarting);
    EXPECT_EQ(after({T::release_accepted, T::wait_over, T::download_failed}), UpdateState::waiting);
    EXPECT_EQ(after({T::release_accepted, T::wait_over, T::postponed}), UpdateState::waiting);
    EXPECT_EQ(after({T::release_accepted, T::wait_over, T::release_accepted}), UpdateState::waiting);
    EXPECT_EQ(after({T::release_accepted, T::release_dropped}), UpdateState::idle);
    EXPECT_EQ(after({T::release_accepted, T::wait_over, T::release_dropped}), UpdateState::idle);
    EXPECT_EQ(after({T::trial_began}), UpdateState::self_test);
    EXPECT_EQ(after({T::trial_began, T::trial_passed}), UpdateState::idle);
    EXPECT_EQ(after({T::trial_began, T::trial_failed}), UpdateState::restarting);
}

TEST(UpdateStateTable, NothingStopsARestartAndOnlyItsVerdictEndsATrial) {
    for (const UpdateTrigger trigger : kTriggers) {
        EXPECT_EQ(next_state(UpdateState::restarting, trigger), UpdateState::restarting);
        const bool verdict = trigger == UpdateTrigger::trial_passed || trigger == UpdateTrigger::trial_failed;
        EXPECT_EQ(next_state(UpdateState::self_test, trigger) == UpdateState::self_test, !verdict);
    }
}

TEST(UpdateStateTable, OnlyAnImageUnderWayIsActivated) {
    for (const UpdateState state : kStates) {
        const bool restarts = next_state(state, UpdateTrigger::image_activated) == UpdateState::restarting;
        EXPECT_EQ(restarts, state == UpdateState::downloading || state == UpdateState::restarting);
    }
}

TEST(UpdateTopicsTest, AreThoseOfTheContract) {
    MacAddress mac;
    ASSERT_TRUE(parse_mac("AABBCCDDEE01", mac));
    const UpdateTopics topics("/firmware_update", "sensor", mac);
    EXPECT_EQ(topics.fleet, "/firmware_update");
    EXPECT_EQ(topics.product, "/firmware_update/product/sensor");
    EXPECT_EQ(topics.device, "/firmware_update/AA:BB:CC:DD:EE:01");
    EXPECT_EQ(topics.status, "/firmware_update/AA:BB:CC:DD:EE:01/status");
}

}  // namespace
}  // namespace ota::test

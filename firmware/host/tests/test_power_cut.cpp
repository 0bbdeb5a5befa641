// Cuts the power at every write and every erase of an update, NVS and otadata included: just before it,
// in the middle of it, and just after it. After each cut the next boot must run a whole image, and the
// update must then complete.

#include <gtest/gtest.h>

#include "fake_world.hpp"
#include "proof.hpp"

namespace ota::test {
namespace {

using Cut = CuttableFlash::Cut;

/// A device with a release announced by its check-in, as it is after any restart.
class SweptWorld : public World {
public:
    SweptWorld() {
        Release release = World::release();
        release.image = World::image("2.0.0");
        serve(release);
        static const std::string notification = release.notification();
        server.check_in_body = notification;
        total_bytes = release.image.size();
    }

    /// Boots and runs until the update is installed and reported, through any cut. Each boot must find an
    /// image.
    void live() {
        bool on = false;
        for (int lives = 0; lives < 60; ++lives) {
            try {
                if (!on) {
                    ASSERT_TRUE(boot()) << "nothing to boot";
                    ASSERT_TRUE(posix::is_bootable(*flash, slots->running_slot()));
                }
                on = true;
                if (run_to_report("installed", 12 * kHour_ms)) {
                    return;
                }
                ASSERT_TRUE(slots) << "nothing to boot after a restart";
                FAIL() << "did not complete: " << recorder.names();
            } catch (const PowerCut&) {
                on = false;
                ++cuts;
            }
        }
        FAIL() << "too many boots";
    }

    void check_installed(const std::string& where) {
        EXPECT_EQ(running_version(), "2.0.0") << where;
        EXPECT_EQ(stored_sequence(), 100) << where;
        EXPECT_EQ(slots->state(slots->running_slot()), SlotState::valid) << where;
        EXPECT_FALSE(NVSStorageHandler(*store).pending()) << where;
        // After a cut, at most one chunk is fetched again.
        EXPECT_LE(server.image_bytes_sent, total_bytes + static_cast<std::uint64_t>(cuts) * kChunk) << where;
    }

    std::uint64_t total_bytes = 0;
    int cuts = 0;
};

std::uint64_t operations_of_an_update() {
    SweptWorld world;
    world.live();
    return world.flash->operations();
}

TEST(PowerCut, AtEveryWriteAndErase) {
    const std::uint64_t operations = operations_of_an_update();
    ASSERT_GT(operations, 60U);
    std::uint64_t swept = 0;
    std::uint64_t rolled_back = 0;
    for (const Cut how : {Cut::before, Cut::torn, Cut::after}) {
        for (std::uint64_t at = 0; at < operations; ++at) {
            SweptWorld world;
            world.flash->cut_at(at, how);
            const std::string where =
                "operation " + std::to_string(at) + ", cut " + std::to_string(static_cast<int>(how));
            SCOPED_TRACE(where);
            world.live();
            if (HasFatalFailure()) {
                return;
            }
            EXPECT_EQ(world.cuts, 1);
            world.check_installed(where);
            ++swept;
            rolled_back += world.recorder.saw("rolled_back") ? 1 : 0;
        }
    }
    std::printf(
        "[ SWEEP    ] power cuts: %llu (%llu writes and erases, three ways each); every boot ran a whole "
        "image and every update completed, %llu of them in a second try after going back\n",
        static_cast<unsigned long long>(swept), static_cast<unsigned long long>(operations),
        static_cast<unsigned long long>(rolled_back));
    report_proof("cuts", "power cuts at the writes and erases of an update, slot 0 to 1", swept);
}

TEST(PowerCut, TwiceInOneUpdate) {
    const std::uint64_t operations = operations_of_an_update();
    std::mt19937 generator(7);
    constexpr int kPairs = 400;
    int pairs = 0;
    for (int run = 0; pairs < kPairs; ++run) {
        ASSERT_LT(run, 2 * kPairs) << "the second cut is hardly ever reached: " << pairs << " pairs";
        SweptWorld world;
        const auto how = [&] { return static_cast<Cut>(generator() % 3); };
        const std::uint64_t first = generator() % operations;
        const std::uint64_t second = generator() % (operations - first);  // At least this many are left.
        const std::string where = "operations " + std::to_string(first) + " and " + std::to_string(second) +
                                  ", run " + std::to_string(run);
        SCOPED_TRACE(where);
        world.flash->cut_at(first, how());
        try {
            world.boot();
            world.run_to_report("installed");
        } catch (const PowerCut&) {
            ++world.cuts;
        }
        world.flash->cut_at(second, how());
        world.live();
        if (HasFatalFailure()) {
            return;
        }
        // The first try is lost only if the two cuts are close together.
        EXPECT_EQ(world.running_version(), "2.0.0");
        EXPECT_EQ(world.stored_sequence(), 100);
        pairs += world.cuts == 2 ? 1 : 0;
    }
    std::printf("[ SWEEP    ] pairs of power cuts: %d\n", pairs);
    report_proof("cuts", "pairs of power cuts in one update", static_cast<std::uint64_t>(pairs));
}

TEST(PowerCut, DuringTheUpdateOfAnUpdatedDevice) {
    // From slot 1 back to slot 0, whose otadata entry is still there.
    const auto prepare = [](SweptWorld& world, Release& next) {
        world.live();
        next = World::release("2.1.0");
        next.sequence = 101;
        next.image = World::image("2.1.0");
        world.serve(next);
        static const std::string notification = next.notification();
        world.server.check_in_body = notification;
        world.recorder.states.clear();
    };
    std::uint64_t operations = 0;
    {
        SweptWorld world;
        Release next;
        prepare(world, next);
        const std::uint64_t before = world.flash->operations();
        ASSERT_TRUE(world.run_to_report("installed"));
        operations = world.flash->operations() - before;
    }
    std::uint64_t swept = 0;
    for (const Cut how : {Cut::before, Cut::torn, Cut::after}) {
        for (std::uint64_t at = 0; at < operations; ++at) {
            SweptWorld world;
            Release next;
            prepare(world, next);
            SCOPED_TRACE("operation " + std::to_string(at) + ", cut " +
                         std::to_string(static_cast<int>(how)));
            world.flash->cut_at(at, how);
            try {
                world.run_to_report("installed");
            } catch (const PowerCut&) {
                ++world.cuts;
            }
            EXPECT_EQ(world.cuts, 1);
            world.live();
            if (HasFatalFailure()) {
                return;
            }
            EXPECT_EQ(world.running_version(), "2.1.0");
            EXPECT_EQ(world.stored_sequence(), 101);
            EXPECT_EQ(world.slots->running_slot(), 0);
            ++swept;
        }
    }
    std::printf("[ SWEEP    ] power cuts from slot 1 to slot 0: %llu\n",
                static_cast<unsigned long long>(swept));
    report_proof("cuts", "power cuts at the writes and erases of an update, slot 1 to 0", swept);
}

TEST(PowerCut, WhileGoingBackFromAnAppThatFails) {
    const auto count = [] {
        SweptWorld world;
        world.recorder.passes = false;
        EXPECT_TRUE(world.boot());
        EXPECT_TRUE(world.run_to_report("rolled_back:self_test_failed"));
        return world.flash->operations();
    };
    const std::uint64_t operations = count();
    std::uint64_t swept = 0;
    for (const Cut how : {Cut::before, Cut::torn, Cut::after}) {
        for (std::uint64_t at = 0; at < operations; ++at) {
            SweptWorld world;
            world.recorder.passes = false;
            SCOPED_TRACE("operation " + std::to_string(at) + ", cut " +
                         std::to_string(static_cast<int>(how)));
            world.flash->cut_at(at, how);
            bool reported = false;
            for (int lives = 0; lives < 3 && !reported; ++lives) {
                try {
                    ASSERT_TRUE(world.boot());
                    const auto back = [&] {
                        return world.recorder.saw("rolled_back") && !NVSStorageHandler(*world.store).report();
                    };
                    while (!reported) {
                        ASSERT_TRUE(world.run(back));
                        reported = !world.reboot.requested;
                        if (!reported) {
                            ASSERT_TRUE(world.boot());
                        }
                    }
                } catch (const PowerCut&) {
                }
            }
            EXPECT_TRUE(reported);
            EXPECT_EQ(world.running_version(), "1.0.0");
            EXPECT_EQ(world.slots->running_slot(), 0);
            EXPECT_EQ(world.stored_sequence(), 0);
            ++swept;
        }
    }
    std::printf("[ SWEEP    ] power cuts on the way there and back: %llu\n",
                static_cast<unsigned long long>(swept));
    report_proof("cuts", "power cuts on the way to an app that fails, and back", swept);
}

}  // namespace
}  // namespace ota::test

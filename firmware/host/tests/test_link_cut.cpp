// Drops the connection after every chunk, within every chunk, and at random. The device never fetches more
// than one chunk twice, and the image always arrives intact.

#include <gtest/gtest.h>

#include "fake_world.hpp"
#include "proof.hpp"

namespace ota::test {
namespace {

class LinkCutWorld : public World {
public:
    LinkCutWorld() {
        release = World::release();
        serve(release);
    }

    /// Runs the update to its end. @return bytes of the image that were sent more than once.
    std::uint64_t update() {
        EXPECT_TRUE(boot());
        static const std::string notification = release.notification();
        notify(notification);
        EXPECT_TRUE(run_to_report("installed", 720 * kHour_ms)) << recorder.names();
        EXPECT_EQ(running_version(), "2.0.0");
        return server.image_bytes_sent - release.image.size();
    }

    Release release;
};

TEST(LinkCut, AfterEveryChunk) {
    std::uint64_t most = 0;
    const std::size_t chunks = (World::kImageSize + World::kChunk - 1) / World::kChunk;
    for (std::size_t chunk = 1; chunk < chunks; ++chunk) {
        LinkCutWorld world;
        bool cut = false;
        world.server.cut = [&] {
            const bool now = !cut && world.server.image_bytes_sent >= chunk * World::kChunk;
            cut = cut || now;
            return now;
        };
        most = std::max(most, world.update());
        EXPECT_TRUE(cut);
    }
    EXPECT_LE(most, World::kChunk);
    std::printf("[ SWEEP    ] link cuts after each of %zu chunks: at most %llu bytes fetched twice\n",
                chunks - 1, static_cast<unsigned long long>(most));
    report_proof("cuts", "link cuts after each chunk of a download", chunks - 1);
}

TEST(LinkCut, AfterEveryChunkInOneDownload) {
    LinkCutWorld world;
    std::uint64_t next = World::kChunk;
    int cuts = 0;
    world.server.cut = [&] {
        const bool now = world.server.image_bytes_sent >= next;
        if (now) {
            next = world.server.image_bytes_sent + World::kChunk;
            ++cuts;
        }
        return now;
    };
    const std::uint64_t twice = world.update();
    EXPECT_GE(cuts, 10);
    EXPECT_LE(twice, World::kChunk);
    std::printf("[ SWEEP    ] %d link cuts in one download: %llu bytes fetched twice\n", cuts,
                static_cast<unsigned long long>(twice));
    report_proof("cuts", "link cuts in one download", static_cast<std::uint64_t>(cuts));
}

TEST(LinkCut, AtEveryRead) {
    int reads = 0;
    {
        LinkCutWorld world;
        world.server.cut = [&] {
            ++reads;
            return false;
        };
        world.update();
    }
    std::uint64_t most = 0;
    for (int at = 1; at <= reads; ++at) {
        LinkCutWorld world;
        int read = 0;
        world.server.cut = [&] { return ++read == at; };
        most = std::max(most, world.update());
    }
    EXPECT_LE(most, World::kChunk);
    std::printf("[ SWEEP    ] link cuts at each of %d reads: at most %llu bytes fetched twice\n", reads,
                static_cast<unsigned long long>(most));
    report_proof("cuts", "link cuts at each read of a download", static_cast<std::uint64_t>(reads));
}

TEST(LinkCut, AtRandom) {
    std::uint64_t most = 0;
    int cuts = 0;
    constexpr unsigned kRuns = 100;
    for (unsigned seed = 0; seed < kRuns; ++seed) {
        LinkCutWorld world;
        std::mt19937 generator(seed);
        world.server.cut = [&] {
            const bool now = generator() % 25 == 0;
            cuts += now ? 1 : 0;
            return now;
        };
        most = std::max(most, world.update());
    }
    EXPECT_LE(most, World::kChunk);
    std::printf(
        "[ SWEEP    ] %d link cuts at random in %u downloads: at most %llu bytes of a download fetched "
        "twice\n",
        cuts, kRuns, static_cast<unsigned long long>(most));
    report_proof("cuts", "link cuts at random", static_cast<std::uint64_t>(cuts));
}

}  // namespace
}  // namespace ota::test

// The flash on a PC: otadata and booting as in ESP-IDF, and values that survive any power cut.

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>

#include "crc32.hpp"
#include "fake_world.hpp"
#include "flash_layout.hpp"
#include "proof.hpp"

namespace ota::test {
namespace {

using posix::OtaSelectEntry;

class Slots : public ::testing::Test {
protected:
    Slots() { power_on(); }

    void power_on() { slots = posix::FlashSlots::boot(flash); }

    [[nodiscard]] OtaSelectEntry entry(std::size_t index) const {
        OtaSelectEntry read{};
        EXPECT_TRUE(flash->read(posix::kOtaDataOffset + index * kFlashSectorSize, &read, sizeof(read)));
        return read;
    }

    void write_update(const std::vector<std::uint8_t>& image) {
        ASSERT_EQ(slots->begin(0), PortResult::ok);
        for (std::size_t at = 0; at < image.size(); at += kFlashSectorSize) {
            const std::size_t size = std::min(kFlashSectorSize, image.size() - at);
            ASSERT_EQ(slots->write(image.data() + at, size), PortResult::ok);
        }
    }

    std::vector<std::uint8_t> bytes = host::build_flash(World::image("1.0.0"));
    std::shared_ptr<CuttableFlash> flash = std::make_shared<CuttableFlash>(bytes);
    std::unique_ptr<posix::FlashSlots> slots;
};

TEST(FlashLayout, IsThatOfThePartitionTable) {
    std::ifstream file(std::string(OTA_FIRMWARE) + "/esp32_project/partitions.csv");
    std::map<std::string, std::pair<std::size_t, std::size_t>> partitions;
    for (std::string line; std::getline(file, line);) {
        std::vector<std::string> fields;
        std::istringstream columns(line.substr(0, line.find('#')));
        for (std::string field; std::getline(columns, field, ',');) {
            field.erase(0, field.find_first_not_of(' '));
            fields.push_back(field);
        }
        if (fields.size() >= 5) {
            partitions[fields[0]] = {std::stoul(fields[3], nullptr, 0), std::stoul(fields[4], nullptr, 0)};
        }
    }
    using Range = std::pair<std::size_t, std::size_t>;
    EXPECT_EQ(partitions["nvs"], Range(posix::kNvsOffset, posix::kNvsSize));
    EXPECT_EQ(partitions["otadata"], Range(posix::kOtaDataOffset, posix::kOtaDataSize));
    EXPECT_EQ(partitions["ota_0"], Range(posix::kSlotOffset[0], posix::kSlotSize));
    EXPECT_EQ(partitions["ota_1"], Range(posix::kSlotOffset[1], posix::kSlotSize));
}

TEST(Crc32, IsThatOfTheRom) {
    // otadata of a board whose first update was activated: ota_seq 1 has this CRC (otatool.py).
    const std::uint32_t sequence = 1;
    EXPECT_EQ(posix::crc32_le(UINT32_MAX, &sequence, sizeof(sequence)), 0x4743989AU);
    EXPECT_EQ(posix::crc32_le(0, "123456789", 9), 0xCBF43926U);
}

TEST_F(Slots, FirstBootWritesTheFirstEntry) {
    ASSERT_TRUE(slots);
    EXPECT_EQ(slots->running_slot(), 0);
    EXPECT_EQ(slots->state(0), SlotState::valid);
    EXPECT_EQ(slots->state(1), SlotState::undefined);
    EXPECT_EQ(entry(0).ota_seq, 1U);
    EXPECT_EQ(entry(0).crc, 0x4743989AU);
    EXPECT_EQ(entry(1).ota_seq, UINT32_MAX);
}

TEST_F(Slots, ActivatedImageIsOnTrialAndThenKept) {
    write_update(World::image("2.0.0"));
    ASSERT_EQ(slots->activate(), PortResult::ok);
    EXPECT_EQ(slots->state(1), SlotState::new_image);
    EXPECT_EQ(slots->running_slot(), 0);
    power_on();
    EXPECT_EQ(slots->running_slot(), 1);
    EXPECT_EQ(slots->state(1), SlotState::pending_verify);
    EXPECT_EQ(slots->begin(0), PortResult::invalid) << "the app to go back to must not be overwritten";
    ASSERT_EQ(slots->mark_running_valid(), PortResult::ok);
    power_on();
    power_on();
    EXPECT_EQ(slots->running_slot(), 1);
    EXPECT_EQ(entry(1).ota_seq, 2U);
}

TEST_F(Slots, ImageThatIsNotMarkedValidIsUndoneAtTheNextBoot) {
    write_update(World::image("2.0.0"));
    ASSERT_EQ(slots->activate(), PortResult::ok);
    power_on();
    power_on();
    EXPECT_EQ(slots->running_slot(), 0);
    EXPECT_EQ(slots->state(1), SlotState::aborted);
}

TEST_F(Slots, ImageThatIsMarkedInvalidIsLeft) {
    write_update(World::image("2.0.0"));
    ASSERT_EQ(slots->activate(), PortResult::ok);
    power_on();
    ASSERT_EQ(slots->mark_running_invalid(), PortResult::ok);
    power_on();
    EXPECT_EQ(slots->running_slot(), 0);
    EXPECT_EQ(slots->state(1), SlotState::invalid);
    EXPECT_EQ(slots->mark_running_invalid(), PortResult::invalid) << "there is no other app now";
}

TEST_F(Slots, BadImageIsNotActivated) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{1}, std::size_t{28}, std::size_t{60000},
                                 World::kImageSize - 33, World::kImageSize - 1}) {
        std::vector<std::uint8_t> image = World::image("2.0.0");
        image[at] ^= 0x40;
        write_update(image);
        EXPECT_EQ(slots->activate(), PortResult::invalid) << at;
        EXPECT_EQ(slots->state(1), SlotState::undefined);
    }
}

TEST_F(Slots, ImageThatDecayedAfterActivationIsNotBooted) {
    write_update(World::image("2.0.0"));
    ASSERT_EQ(slots->activate(), PortResult::ok);
    bytes[posix::kSlotOffset[1] + 1000] ^= 1;
    power_on();
    EXPECT_EQ(slots->running_slot(), 0);
}

/// Cuts the power at each write and erase of `work`, in three ways. After each cut, `check` examines the
/// device when it is switched on again. @return the number of cuts.
std::uint64_t cut_everywhere(std::vector<std::uint8_t>& bytes, CuttableFlash& flash,
                             const std::function<void()>& power_on, const std::function<void()>& work,
                             const std::function<void()>& check) {
    const std::vector<std::uint8_t> start = bytes;
    const std::uint64_t before = flash.operations();
    power_on();
    work();
    const std::uint64_t operations = flash.operations() - before;
    for (const auto how : {CuttableFlash::Cut::before, CuttableFlash::Cut::torn, CuttableFlash::Cut::after}) {
        for (std::uint64_t at = 0; at < operations; ++at) {
            SCOPED_TRACE("operation " + std::to_string(at) + ", cut " +
                         std::to_string(static_cast<int>(how)));
            std::copy(start.begin(), start.end(), bytes.begin());
            flash.cut_at(at, how);
            EXPECT_THROW(
                {
                    power_on();
                    work();
                },
                PowerCut);
            power_on();
            check();
        }
    }
    return 3 * operations;
}

TEST_F(Slots, InterruptedActivationFallsBackToTheOtherEntry) {
    write_update(World::image("2.0.0"));
    const OtaSelectEntry running = entry(0);
    const auto cuts = cut_everywhere(
        bytes, *flash, [this] { power_on(); }, [this] { ASSERT_EQ(slots->activate(), PortResult::ok); },
        [&] {
            ASSERT_TRUE(slots);
            const OtaSelectEntry now = entry(0);
            EXPECT_EQ(std::memcmp(&running, &now, sizeof(now)), 0);
            if (slots->running_slot() == 0) {
                EXPECT_EQ(slots->state(0), SlotState::valid);
                ASSERT_EQ(slots->activate(), PortResult::ok);
                power_on();
            }
            EXPECT_EQ(slots->running_slot(), 1);
            EXPECT_EQ(slots->state(1), SlotState::pending_verify);
        });
    report_proof("cuts", "power cuts in otadata while an image is activated", cuts);
}

TEST_F(Slots, InterruptedVerdictFallsBackToTheOtherEntry) {
    write_update(World::image("2.0.0"));
    ASSERT_EQ(slots->activate(), PortResult::ok);
    const auto cuts = cut_everywhere(
        bytes, *flash, [this] { power_on(); },
        [this] { ASSERT_EQ(slots->mark_running_valid(), PortResult::ok); },
        [&] {
            // Still on trial, or back on the old app if the verdict was lost. It can always try again.
            ASSERT_TRUE(slots);
            ASSERT_EQ(slots->mark_running_valid(), PortResult::ok);
            EXPECT_EQ(slots->state(slots->running_slot()), SlotState::valid);
            EXPECT_EQ(slots->begin(0), PortResult::ok);
        });
    report_proof("cuts", "power cuts in otadata while an app is marked valid", cuts);
}

TEST_F(Slots, OtadataThatNamesAnotherAppThanTheRunningOneIsRestored) {
    write_update(World::image("2.0.0"));
    ASSERT_EQ(slots->activate(), PortResult::ok);
    power_on();
    ASSERT_EQ(slots->mark_running_valid(), PortResult::ok);
    bytes[posix::kSlotOffset[1] + 1000] ^=
        1;  // The bootloader takes the other app, and does not change otadata.
    power_on();
    ASSERT_EQ(slots->running_slot(), 0);
    ASSERT_EQ(entry(1).ota_seq, 2U);
    const auto cuts = cut_everywhere(
        bytes, *flash, [this] { power_on(); }, [this] { ASSERT_EQ(slots->begin(0), PortResult::ok); },
        [&] {
            ASSERT_TRUE(slots);
            EXPECT_EQ(slots->running_slot(), 0);
            ASSERT_EQ(slots->mark_running_valid(),
                      PortResult::ok);  // Its new entry may say that it is on trial.
            write_update(World::image("2.0.0"));
            ASSERT_EQ(slots->activate(), PortResult::ok);
            power_on();
            EXPECT_EQ(slots->running_slot(), 1);
            power_on();
            EXPECT_EQ(slots->running_slot(), 0) << "restored otadata has the app to go back to";
        });
    report_proof("cuts", "power cuts while otadata is made to name the running app", cuts);
}

TEST_F(Slots, FlashWithoutImageDoesNotBoot) {
    bytes.assign(bytes.size(), 0xFF);
    power_on();
    EXPECT_FALSE(slots);
    EXPECT_EQ(make_flash_slots("/nonexistent"), nullptr);
    EXPECT_EQ(make_key_value_store("/nonexistent"), nullptr);
}

TEST_F(Slots, NewImageForgetsTheEntryOfTheOneItOverwrites) {
    write_update(World::image("2.0.0"));
    ASSERT_EQ(slots->activate(), PortResult::ok);
    power_on();
    ASSERT_EQ(slots->mark_running_valid(), PortResult::ok);
    EXPECT_EQ(slots->state(0), SlotState::valid);
    ASSERT_EQ(slots->begin(0), PortResult::ok);
    EXPECT_EQ(slots->state(0), SlotState::undefined);
}

TEST_F(Slots, WritesOnlyWithinTheUpdateSlot) {
    const std::vector<std::uint8_t> sector(kFlashSectorSize, 0);
    EXPECT_EQ(slots->write(sector.data(), sector.size()), PortResult::invalid);
    EXPECT_EQ(slots->begin(1), PortResult::invalid);
    EXPECT_EQ(slots->begin(posix::kSlotSize + kFlashSectorSize), PortResult::invalid);
    ASSERT_EQ(slots->begin(posix::kSlotSize - kFlashSectorSize), PortResult::ok);
    EXPECT_EQ(slots->write(sector.data(), sector.size()), PortResult::ok);
    EXPECT_EQ(slots->write(sector.data(), 1), PortResult::no_space);
    std::uint8_t byte = 0;
    EXPECT_EQ(slots->read(1, posix::kSlotSize, &byte, 1), PortResult::invalid);
    EXPECT_EQ(slots->read(2, 0, &byte, 1), PortResult::invalid);
}

TEST_F(Slots, WritingGoesOnAtASectorAndErasesIt) {
    const std::vector<std::uint8_t> image = World::image("2.0.0");
    write_update(image);
    power_on();
    ASSERT_EQ(slots->begin(8192), PortResult::ok);
    ASSERT_EQ(slots->write(image.data() + 8192, image.size() - 8192), PortResult::ok);
    EXPECT_EQ(slots->activate(), PortResult::ok);
}

class Store : public ::testing::Test {
protected:
    static std::string get(const posix::KeyValueStore& store, const char* key) {
        std::array<char, KeyValueStore::kMaxValueSize> buffer{};
        std::size_t size = buffer.size();
        return store.get(key, buffer.data(), size) == PortResult::ok ? std::string(buffer.data(), size)
                                                                     : "(none)";
    }

    std::vector<std::uint8_t> bytes = std::vector<std::uint8_t>(posix::kFlashSize, 0xFF);
    std::shared_ptr<CuttableFlash> flash = std::make_shared<CuttableFlash>(bytes);
};

TEST_F(Store, KeepsValuesOverRestarts) {
    {
        posix::KeyValueStore store(flash);
        EXPECT_EQ(get(store, "a"), "(none)");
        EXPECT_EQ(store.set("a", "one", 3), PortResult::ok);
        EXPECT_EQ(store.set("b", "", 0), PortResult::ok);
        EXPECT_EQ(store.set("a", "two", 3), PortResult::ok);
        EXPECT_EQ(store.set("c", "x", 1), PortResult::ok);
        EXPECT_EQ(store.erase("c"), PortResult::ok);
        EXPECT_EQ(store.erase("never"), PortResult::ok);
    }
    const posix::KeyValueStore store(flash);
    EXPECT_EQ(get(store, "a"), "two");
    EXPECT_EQ(get(store, "b"), "");
    EXPECT_EQ(get(store, "c"), "(none)");
}

TEST_F(Store, RefusesWhatNvsWouldRefuse) {
    posix::KeyValueStore store(flash);
    const std::string large(KeyValueStore::kMaxValueSize + 1, 'x');
    EXPECT_EQ(store.set("sixteen-letters!", "x", 1), PortResult::invalid);
    EXPECT_EQ(store.set("", "x", 1), PortResult::invalid);
    EXPECT_EQ(store.set("a", large.data(), large.size()), PortResult::invalid);
    EXPECT_EQ(store.set("a", large.data(), large.size() - 1), PortResult::ok);
    char small = 0;
    std::size_t size = 1;
    EXPECT_EQ(store.get("a", &small, size), PortResult::no_space);
}

TEST_F(Store, OutlivesThousandsOfWrites) {
    posix::KeyValueStore store(flash);
    for (int i = 0; i < 5000; ++i) {
        const std::string value = std::to_string(i);
        ASSERT_EQ(store.set(i % 2 == 0 ? "even" : "odd", value.data(), value.size()), PortResult::ok);
    }
    const posix::KeyValueStore again(flash);
    EXPECT_EQ(get(again, "even"), "4998");
    EXPECT_EQ(get(again, "odd"), "4999");
}

TEST_F(Store, GivesTheOldValueOrTheNewOneAfterAnyCut) {
    // Enough writes to fill sectors and move from one to the other several times.
    constexpr int kWrites = 120;
    const auto value = [](int i) { return std::string(100, 'v') + std::to_string(i); };
    const auto run = [&](posix::KeyValueStore& store, int& done) {
        for (done = 0; done < kWrites; ++done) {
            const std::string text = value(done);
            ASSERT_EQ(store.set("key", text.data(), text.size()), PortResult::ok);
        }
    };
    {
        posix::KeyValueStore store(flash);
        ASSERT_EQ(store.set("other", "kept", 4), PortResult::ok);
    }
    const std::vector<std::uint8_t> start = bytes;
    const std::uint64_t before = flash->operations();
    int done = 0;
    {
        posix::KeyValueStore store(flash);
        run(store, done);
    }
    const std::uint64_t operations = flash->operations() - before;
    for (const CuttableFlash::Cut how :
         {CuttableFlash::Cut::before, CuttableFlash::Cut::torn, CuttableFlash::Cut::after}) {
        for (std::uint64_t at = 0; at < operations; ++at) {
            bytes = start;
            posix::KeyValueStore store(flash);
            flash->cut_at(at, how);
            EXPECT_THROW(run(store, done), PowerCut);
            posix::KeyValueStore after(flash);
            const std::string found = get(after, "key");
            const std::string old = done == 0 ? "(none)" : value(done - 1);
            EXPECT_TRUE(found == old || found == value(done)) << at << ": " << found;
            EXPECT_EQ(get(after, "other"), "kept");
            EXPECT_EQ(after.set("key", "new", 3), PortResult::ok);
            EXPECT_EQ(get(posix::KeyValueStore(flash), "key"), "new");
        }
    }
    std::printf("[ SWEEP    ] power cuts of the key-value store: %s\n",
                std::to_string(3 * operations).c_str());
    report_proof("cuts", "power cuts of the device's key-value store", 3 * operations);
}

TEST_F(Store, AnyBytesAreAStoreOrNone) {
    std::mt19937 generator(3);
    for (int run = 0; run < 500; ++run) {
        for (std::size_t i = 0; i < 2 * kFlashSectorSize; ++i) {
            bytes[posix::kNvsOffset + i] = static_cast<std::uint8_t>(generator());
        }
        posix::KeyValueStore store(flash);
        EXPECT_EQ(store.set("a", "b", 1), PortResult::ok);
        EXPECT_EQ(get(posix::KeyValueStore(flash), "a"), "b");
    }
}

// The records in the store

TEST(StoredRecords, AreReadAsTheyWereWritten) {
    std::vector<std::uint8_t> bytes(posix::kFlashSize, 0xFF);
    posix::KeyValueStore store(std::make_shared<CuttableFlash>(bytes));
    NVSStorageHandler storage(store);
    EXPECT_FALSE(storage.installed() || storage.pending() || storage.progress() || storage.failure() ||
                 storage.report());
    PendingUpdate pending;
    pending.release_id = std::string(kReleaseIdLength, 'r');
    pending.version = std::string(64, 'v');
    pending.version_is_authentic = false;
    pending.sequence = INT64_MAX;
    pending.image_head.fill(7);
    pending.slot = 1;
    pending.boots = 2;
    pending.verdict = "self_test_failed";
    ASSERT_TRUE(storage.set(pending));
    const auto read = storage.pending();
    ASSERT_TRUE(read);
    EXPECT_EQ(read->release_id, pending.release_id);
    EXPECT_EQ(read->version, pending.version);
    EXPECT_FALSE(read->version_is_authentic);
    EXPECT_EQ(read->sequence, INT64_MAX);
    EXPECT_EQ(read->image_head, pending.image_head);
    EXPECT_EQ(read->slot, 1);
    EXPECT_EQ(read->boots, 2);
    EXPECT_EQ(read->verdict, "self_test_failed");
    ASSERT_TRUE(storage.clear_pending());
    EXPECT_FALSE(storage.pending());
}

TEST(StoredRecords, OfAnotherFormatOrLengthCountAsAbsent) {
    std::vector<std::uint8_t> bytes(posix::kFlashSize, 0xFF);
    posix::KeyValueStore store(std::make_shared<CuttableFlash>(bytes));
    NVSStorageHandler storage(store);
    ASSERT_TRUE(storage.set(InstalledRelease{5, "1.0.0", true, {}}));
    std::array<std::uint8_t, KeyValueStore::kMaxValueSize> record{};
    std::size_t size = record.size();
    ASSERT_EQ(store.get("installed", record.data(), size), PortResult::ok);
    InstalledRelease installed;
    EXPECT_TRUE(decode(record.data(), size, installed));
    for (std::size_t length = 0; length < size; ++length) {
        EXPECT_FALSE(decode(record.data(), length, installed)) << length;
    }
    EXPECT_FALSE(decode(record.data(), size + 1, installed));
    record[0] = 2;
    EXPECT_FALSE(decode(record.data(), size, installed));
}

}  // namespace
}  // namespace ota::test

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "ota/port/key_value_store.hpp"
#include "ota/sha256.hpp"

namespace ota {

/// The release that runs, stored once it has proven itself.
struct InstalledRelease {
    std::int64_t sequence = 0;
    std::string version;
    bool version_is_authentic = true;  ///< See DeviceFacts.
    Sha256Digest image_head{};         ///< SHA-256 of the image's head: tells whether it still is what runs.
};

/// The release that was written to a slot and is to be booted, or is on its trial.
struct PendingUpdate {
    std::string release_id;
    std::string version;
    bool version_is_authentic = true;
    std::int64_t sequence = 0;
    Sha256Digest image_head{};
    std::uint8_t slot = 0;
    std::uint8_t boots = 0;  ///< How often it was booted: more than 0 and not running means undone.
    std::string verdict;     ///< Reason code that the new app left when it gave itself up, or empty.
};

/// How far the image with this SHA-256 has been written to the update slot.
struct DownloadProgress {
    Sha256Digest image_sha256{};
    std::uint32_t offset = 0;  ///< Bytes from the start that are in flash.
};

/// What went wrong with the release of this sequence so far.
struct FailureRecord {
    std::int64_t sequence = 0;
    std::uint16_t attempts = 0;       ///< Images that were bad, did not boot or failed their self-test.
    std::uint16_t link_failures = 0;  ///< Failed tries to fetch since the last new chunk.
};

/// A final status that the cloud has not acknowledged yet.
struct PendingReport {
    std::string release_id;
    std::string version;
    std::string state;
    std::string reason;
};

/// What the update keeps across restarts. Reasons and states are kept as text and every record says
/// its format, because another version of this firmware reads them next.
///
/// A record that cannot be read (absent, of another format, damaged) counts as absent. The setters
/// answer false when it did not reach the flash.
class NVSStorageHandler {
public:
    explicit NVSStorageHandler(KeyValueStore& store) : store_(store) {}

    [[nodiscard]] std::optional<InstalledRelease> installed() const;
    [[nodiscard]] std::optional<PendingUpdate> pending() const;
    [[nodiscard]] std::optional<DownloadProgress> progress() const;
    [[nodiscard]] std::optional<FailureRecord> failure() const;
    [[nodiscard]] std::optional<PendingReport> report() const;

    /// The failures of this release so far: none when the record is of another.
    [[nodiscard]] FailureRecord failures_of(std::int64_t sequence) const;

    [[nodiscard]] bool set(const InstalledRelease& record);
    [[nodiscard]] bool set(const PendingUpdate& record);
    [[nodiscard]] bool set(const DownloadProgress& record);
    [[nodiscard]] bool set(const FailureRecord& record);
    [[nodiscard]] bool set(const PendingReport& record);

    [[nodiscard]] bool clear_pending();
    [[nodiscard]] bool clear_progress();
    [[nodiscard]] bool clear_failure();
    [[nodiscard]] bool clear_report();
    [[nodiscard]] bool forget_link_failures(std::int64_t sequence);

private:
    KeyValueStore& store_;
};

/// Parsers of the stored records, for any bytes. @return false when they are not such a record.
bool decode(const std::uint8_t* bytes, std::size_t size, InstalledRelease& record);
bool decode(const std::uint8_t* bytes, std::size_t size, PendingUpdate& record);
bool decode(const std::uint8_t* bytes, std::size_t size, DownloadProgress& record);
bool decode(const std::uint8_t* bytes, std::size_t size, FailureRecord& record);
bool decode(const std::uint8_t* bytes, std::size_t size, PendingReport& record);

}  // namespace ota

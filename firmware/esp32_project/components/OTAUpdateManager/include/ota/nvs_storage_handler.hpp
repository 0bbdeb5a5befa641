#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "ota/port/key_value_store.hpp"
#include "ota/sha256.hpp"

namespace ota {

/// The running release, stored when it has proven itself.
struct InstalledRelease {
    std::int64_t sequence = 0;
    std::string version;
    bool version_is_authentic = true;  ///< See DeviceFacts.
    Sha256Digest image_head{};         ///< SHA-256 of the image's head, to recognize the image.
};

/// The release that was written to a slot and will be booted, or is on trial.
struct PendingUpdate {
    std::string release_id;
    std::string version;
    bool version_is_authentic = true;
    std::int64_t sequence = 0;
    Sha256Digest image_head{};
    std::uint8_t slot = 0;
    std::uint8_t boots = 0;  ///< How often it was booted. More than 0 and not running: it was undone.
    std::string verdict;     ///< Why the new app gave itself up, as a reason code, or empty.
};

/// How far the image with this SHA-256 has been written to the update slot.
struct DownloadProgress {
    Sha256Digest image_sha256{};
    std::uint32_t offset = 0;  ///< Bytes in flash, from the start.
};

/// Failures of the release with this sequence so far.
struct FailureRecord {
    std::int64_t sequence = 0;
    std::uint16_t attempts = 0;       ///< Bad images, failed boots and failed self-tests.
    std::uint16_t link_failures = 0;  ///< Failed tries to download since the last new chunk.
};

/// What is left of the waits of hours and days; see Patience.
struct WaitRecord {
    std::uint16_t starts_min = 0;    ///< Minutes until all starts of a download are free again.
    std::uint32_t start_offset = 0;  ///< Where the last start began to write.
    std::int64_t sequence = 0;       ///< The newest release with an interrupted trial.
    std::uint8_t interruptions = 0;  ///< Of trials since that one; not counted beyond the longest wait.
    std::uint16_t trial_min = 0;     ///< Minutes until the next trial of it, or of an older one.
};

/// A final status that the cloud has not acknowledged yet.
struct PendingReport {
    std::string release_id;
    std::string version;
    std::string state;
    std::string reason;
};

/// What the update keeps across restarts. Another version of this firmware may read it next, so reasons
/// and states are stored as text, and every record has the number of its format.
///
/// A record that cannot be read (missing, damaged or in another format) counts as missing. The setters
/// return false if the record did not reach the flash.
class NVSStorageHandler {
public:
    explicit NVSStorageHandler(KeyValueStore& store) : store_(store) {}

    [[nodiscard]] std::optional<InstalledRelease> installed() const;
    [[nodiscard]] std::optional<PendingUpdate> pending() const;
    [[nodiscard]] std::optional<DownloadProgress> progress() const;
    [[nodiscard]] std::optional<FailureRecord> failure() const;
    [[nodiscard]] WaitRecord waits() const;  ///< No waits if there is no record.
    [[nodiscard]] std::optional<PendingReport> report() const;

    /// The failures of this release so far: none if the record is of another release.
    [[nodiscard]] FailureRecord failures_of(std::int64_t sequence) const;

    [[nodiscard]] bool set(const InstalledRelease& record);
    [[nodiscard]] bool set(const PendingUpdate& record);
    [[nodiscard]] bool set(const DownloadProgress& record);
    [[nodiscard]] bool set(const FailureRecord& record);
    [[nodiscard]] bool set(const WaitRecord& record);
    [[nodiscard]] bool set(const PendingReport& record);

    [[nodiscard]] bool clear_pending();
    [[nodiscard]] bool clear_progress();
    [[nodiscard]] bool clear_failure();
    [[nodiscard]] bool clear_waits();
    [[nodiscard]] bool clear_report();
    [[nodiscard]] bool forget_link_failures(std::int64_t sequence);

private:
    KeyValueStore& store_;
};

/// Parsers of the stored records, safe for any bytes. @return false if they are not such a record.
bool decode(const std::uint8_t* bytes, std::size_t size, InstalledRelease& record);
bool decode(const std::uint8_t* bytes, std::size_t size, PendingUpdate& record);
bool decode(const std::uint8_t* bytes, std::size_t size, DownloadProgress& record);
bool decode(const std::uint8_t* bytes, std::size_t size, FailureRecord& record);
bool decode(const std::uint8_t* bytes, std::size_t size, WaitRecord& record);
bool decode(const std::uint8_t* bytes, std::size_t size, PendingReport& record);

}  // namespace ota

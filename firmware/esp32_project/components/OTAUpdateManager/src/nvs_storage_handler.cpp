#include "ota/nvs_storage_handler.hpp"

#include <array>
#include <cstring>
#include <string_view>

namespace ota {
namespace {

constexpr char kInstalledKey[] = "installed";
constexpr char kPendingKey[] = "pending";
constexpr char kProgressKey[] = "progress";
constexpr char kFailureKey[] = "failure";
constexpr char kWaitsKey[] = "waits";
constexpr char kReportKey[] = "report";

/// First byte of every record. Increase it when the layout of any record changes.
constexpr std::uint8_t kFormat = 1;

/// Writes a record into a buffer of the maximum size, and fails if the record does not fit.
class RecordWriter {
public:
    RecordWriter() { number(kFormat, 1); }

    void number(std::uint64_t value, std::size_t bytes) {
        if (!room(bytes)) {
            return;
        }
        for (std::size_t i = 0; i < bytes; ++i) {
            buffer_[size_++] = static_cast<std::uint8_t>(value >> (8 * i));
        }
    }

    void text(std::string_view value) {
        if (value.size() > UINT8_MAX) {
            ok_ = false;
            return;
        }
        number(value.size(), 1);
        raw(value.data(), value.size());
    }

    void digest(const Sha256Digest& value) { raw(value.data(), value.size()); }

    [[nodiscard]] bool store(KeyValueStore& store, const char* key) const {
        return ok_ && store.set(key, buffer_.data(), size_) == PortResult::ok;
    }

private:
    bool room(std::size_t bytes) {
        ok_ = ok_ && bytes <= buffer_.size() - size_;
        return ok_;
    }

    void raw(const void* bytes, std::size_t size) {
        if (room(size)) {
            std::memcpy(buffer_.data() + size_, bytes, size);
            size_ += size;
        }
    }

    std::array<std::uint8_t, KeyValueStore::kMaxValueSize> buffer_;
    std::size_t size_ = 0;
    bool ok_ = true;
};

class RecordReader {
public:
    RecordReader(const std::uint8_t* bytes, std::size_t size) : next_(bytes), left_(size) {
        ok_ = number<std::uint8_t>() == kFormat && ok_;
    }

    template <typename Integer>
    Integer number() {
        std::uint64_t value = 0;
        if (!take(sizeof(Integer))) {
            return 0;
        }
        for (std::size_t i = 0; i < sizeof(Integer); ++i) {
            value |= static_cast<std::uint64_t>(next_[i]) << (8 * i);
        }
        advance(sizeof(Integer));
        return static_cast<Integer>(value);
    }

    std::string text() {
        const std::size_t size = number<std::uint8_t>();
        if (!take(size)) {
            return {};
        }
        std::string value(reinterpret_cast<const char*>(next_), size);
        advance(size);
        return value;
    }

    Sha256Digest digest() {
        Sha256Digest value{};
        if (take(value.size())) {
            std::memcpy(value.data(), next_, value.size());
            advance(value.size());
        }
        return value;
    }

    [[nodiscard]] bool finish() const { return ok_ && left_ == 0; }

private:
    bool take(std::size_t bytes) {
        ok_ = ok_ && bytes <= left_;
        return ok_;
    }

    void advance(std::size_t bytes) {
        next_ += bytes;
        left_ -= bytes;
    }

    const std::uint8_t* next_;
    std::size_t left_;
    bool ok_ = true;
};

template <typename Record>
std::optional<Record> load(const KeyValueStore& store, const char* key) {
    std::array<std::uint8_t, KeyValueStore::kMaxValueSize> buffer;
    std::size_t size = buffer.size();
    Record record;
    if (store.get(key, buffer.data(), size) != PortResult::ok || !decode(buffer.data(), size, record)) {
        return std::nullopt;
    }
    return record;
}

}  // namespace

bool decode(const std::uint8_t* bytes, std::size_t size, InstalledRelease& record) {
    RecordReader reader(bytes, size);
    record.sequence = reader.number<std::int64_t>();
    record.version = reader.text();
    record.version_is_authentic = reader.number<std::uint8_t>() != 0;
    record.image_head = reader.digest();
    return reader.finish();
}

bool decode(const std::uint8_t* bytes, std::size_t size, PendingUpdate& record) {
    RecordReader reader(bytes, size);
    record.release_id = reader.text();
    record.version = reader.text();
    record.version_is_authentic = reader.number<std::uint8_t>() != 0;
    record.sequence = reader.number<std::int64_t>();
    record.image_head = reader.digest();
    record.slot = reader.number<std::uint8_t>();
    record.boots = reader.number<std::uint8_t>();
    record.verdict = reader.text();
    return reader.finish();
}

bool decode(const std::uint8_t* bytes, std::size_t size, DownloadProgress& record) {
    RecordReader reader(bytes, size);
    record.image_sha256 = reader.digest();
    record.offset = reader.number<std::uint32_t>();
    return reader.finish();
}

bool decode(const std::uint8_t* bytes, std::size_t size, FailureRecord& record) {
    RecordReader reader(bytes, size);
    record.sequence = reader.number<std::int64_t>();
    record.attempts = reader.number<std::uint16_t>();
    record.link_failures = reader.number<std::uint16_t>();
    return reader.finish();
}

bool decode(const std::uint8_t* bytes, std::size_t size, WaitRecord& record) {
    RecordReader reader(bytes, size);
    record.starts_min = reader.number<std::uint16_t>();
    record.start_offset = reader.number<std::uint32_t>();
    record.sequence = reader.number<std::int64_t>();
    record.interruptions = reader.number<std::uint8_t>();
    record.trial_min = reader.number<std::uint16_t>();
    return reader.finish();
}

bool decode(const std::uint8_t* bytes, std::size_t size, PendingReport& record) {
    RecordReader reader(bytes, size);
    record.release_id = reader.text();
    record.version = reader.text();
    record.state = reader.text();
    record.reason = reader.text();
    return reader.finish();
}

std::optional<InstalledRelease> NVSStorageHandler::installed() const {
    return load<InstalledRelease>(store_, kInstalledKey);
}

std::optional<PendingUpdate> NVSStorageHandler::pending() const {
    return load<PendingUpdate>(store_, kPendingKey);
}

std::optional<DownloadProgress> NVSStorageHandler::progress() const {
    return load<DownloadProgress>(store_, kProgressKey);
}

std::optional<FailureRecord> NVSStorageHandler::failure() const {
    return load<FailureRecord>(store_, kFailureKey);
}

WaitRecord NVSStorageHandler::waits() const {
    return load<WaitRecord>(store_, kWaitsKey).value_or(WaitRecord{});
}

std::optional<PendingReport> NVSStorageHandler::report() const {
    return load<PendingReport>(store_, kReportKey);
}

FailureRecord NVSStorageHandler::failures_of(std::int64_t sequence) const {
    const auto record = failure();
    return record && record->sequence == sequence ? *record : FailureRecord{sequence, 0, 0};
}

bool NVSStorageHandler::set(const InstalledRelease& record) {
    RecordWriter writer;
    writer.number(static_cast<std::uint64_t>(record.sequence), 8);
    writer.text(record.version);
    writer.number(record.version_is_authentic ? 1 : 0, 1);
    writer.digest(record.image_head);
    return writer.store(store_, kInstalledKey);
}

bool NVSStorageHandler::set(const PendingUpdate& record) {
    RecordWriter writer;
    writer.text(record.release_id);
    writer.text(record.version);
    writer.number(record.version_is_authentic ? 1 : 0, 1);
    writer.number(static_cast<std::uint64_t>(record.sequence), 8);
    writer.digest(record.image_head);
    writer.number(record.slot, 1);
    writer.number(record.boots, 1);
    writer.text(record.verdict);
    return writer.store(store_, kPendingKey);
}

bool NVSStorageHandler::set(const DownloadProgress& record) {
    RecordWriter writer;
    writer.digest(record.image_sha256);
    writer.number(record.offset, 4);
    return writer.store(store_, kProgressKey);
}

bool NVSStorageHandler::set(const FailureRecord& record) {
    RecordWriter writer;
    writer.number(static_cast<std::uint64_t>(record.sequence), 8);
    writer.number(record.attempts, 2);
    writer.number(record.link_failures, 2);
    return writer.store(store_, kFailureKey);
}

bool NVSStorageHandler::set(const WaitRecord& record) {
    RecordWriter writer;
    writer.number(record.starts_min, 2);
    writer.number(record.start_offset, 4);
    writer.number(static_cast<std::uint64_t>(record.sequence), 8);
    writer.number(record.interruptions, 1);
    writer.number(record.trial_min, 2);
    return writer.store(store_, kWaitsKey);
}

bool NVSStorageHandler::set(const PendingReport& record) {
    RecordWriter writer;
    writer.text(record.release_id);
    writer.text(record.version);
    writer.text(record.state);
    writer.text(record.reason);
    return writer.store(store_, kReportKey);
}

bool NVSStorageHandler::clear_pending() {
    return store_.erase(kPendingKey) == PortResult::ok;
}

bool NVSStorageHandler::clear_progress() {
    return store_.erase(kProgressKey) == PortResult::ok;
}

bool NVSStorageHandler::clear_failure() {
    return store_.erase(kFailureKey) == PortResult::ok;
}

bool NVSStorageHandler::clear_waits() {
    return store_.erase(kWaitsKey) == PortResult::ok;
}

bool NVSStorageHandler::clear_report() {
    return store_.erase(kReportKey) == PortResult::ok;
}

bool NVSStorageHandler::forget_link_failures(std::int64_t sequence) {
    FailureRecord record = failures_of(sequence);
    if (record.link_failures == 0) {
        return true;
    }
    record.link_failures = 0;
    return set(record);
}

}  // namespace ota

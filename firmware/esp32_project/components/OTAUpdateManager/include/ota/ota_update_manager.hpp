#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ota/decision.hpp"
#include "ota/esp_image.hpp"
#include "ota/http_downloader.hpp"
#include "ota/mac_address.hpp"
#include "ota/nvs_storage_handler.hpp"
#include "ota/port/flash_slots.hpp"
#include "ota/port/http_client.hpp"
#include "ota/port/key_value_store.hpp"
#include "ota/port/mqtt_client.hpp"
#include "ota/port/system.hpp"
#include "ota/reason.hpp"
#include "ota/signature_verifier.hpp"
#include "ota/status_message.hpp"

namespace ota {

/// Something that happened, for logs and tests. The texts are valid during the call only.
struct UpdateEvent {
    const char* name;
    std::string_view release_id;
    std::string_view version;
    Reason reason = Reason::none;
    const char* value_name = nullptr;  ///< What `value` is, with its unit; nullptr: there is none.
    std::int64_t value = 0;
};

class UpdateObserver {
public:
    virtual ~UpdateObserver() = default;

    virtual void on_event(const UpdateEvent& event) = 0;

    /// A status message was handed to MQTT.
    virtual void on_status(const StatusMessage& status) = 0;

    /// What the application itself has to say against the new image on its first boot: sensors,
    /// storage, whatever makes it useful. Asked once, when the broker has acknowledged the device's
    /// first message.
    virtual bool self_test_passes() { return true; }
};

/// What does not change while a firmware runs. It and its texts stay valid as long as the manager.
struct UpdateConfig {
    MacAddress mac;
    const char* product = nullptr;
    const char* chip = nullptr;     ///< Name as in a manifest, for example "esp32s3".
    const char* api_url = nullptr;  ///< Base of the download API, without a slash at the end.
    const char* api_key = nullptr;
    const char* topic_prefix = "/firmware_update";
    TrustedKeys trusted_keys;

    /// Bytes asked for in one request and lost at most to a power cut; a multiple of kFlashSectorSize.
    std::uint32_t chunk_size = 65536;
    std::uint32_t max_delay_s = 60;  ///< Of the random delay before a download, unless the notification says.
    std::uint32_t check_in_interval_s = 3600;
    std::uint32_t self_test_limit_s = 300;
    std::uint32_t first_back_off_s = 60;
    std::uint32_t back_off_limit_s = 21600;
};

/// The topics of a device.
struct UpdateTopics {
    UpdateTopics(std::string_view prefix, std::string_view product, const MacAddress& mac);

    std::string fleet;
    std::string product;
    std::string device;
    std::string status;
};

/// The parts of the world that the manager uses.
struct UpdatePorts {
    FlashSlots& slots;
    KeyValueStore& store;
    HttpClient& http;
    MqttClient& mqtt;
    Clock& clock;
    RandomSource& random;
    Reboot& reboot;
};

enum class UpdateState : std::uint8_t {
    self_test,  ///< A new app on its trial.
    idle,       ///< Nothing to do.
    waiting,    ///< A release was accepted; its random delay or back-off runs.
    downloading,
    restarting,  ///< Until the last message is out.
};

/// The release that was accepted: what the download needs of the manifest.
struct AcceptedRelease {
    std::string id;
    std::string version;
    bool version_is_authentic = true;
    bool strict_app_version = false;
    std::optional<std::uint32_t> max_delay_s;
    std::int64_t sequence = 0;
    std::int64_t expires = 0;
    std::uint32_t size = 0;
    std::uint32_t furthest = 0;  ///< Most bytes of it that a download has confirmed.
    Sha256Digest sha256{};
    std::vector<std::uint8_t> signature;
};

/// A download under way. It survives a dropped link as it is; a restart begins it anew from the
/// progress in NVS.
struct DownloadState {
    std::unique_ptr<std::uint8_t[]> buffer;  ///< Given up while a message needs the heap.
    std::size_t buffered = 0;
    std::uint32_t written = 0;               ///< Bytes in flash.
    std::uint32_t confirmed = 0;             ///< Bytes that NVS knows to be in flash.
    std::uint32_t confirmed_before_try = 0;  ///< `confirmed` when the current try began.
    Sha256Digest image_head{};
    bool request_open = false;
    std::uint64_t window_start_ms = 0;
    std::uint32_t window_bytes = 0;
    int reported_quarter = 0;

    [[nodiscard]] std::uint32_t received() const { return written + static_cast<std::uint32_t>(buffered); }
};

/// The update of one device: hears of releases, decides, downloads, verifies, activates, restarts,
/// and after the restart proves itself or goes back. All of it runs in one task:
///
///     manager.start();
///     for (;;) { mqtt.wait(manager.step()); }
///
/// A step does a bounded piece of work (at most one buffer of the download, one request or one
/// signature) and never sleeps.
class OTAUpdateManager {
public:
    /// Buffer of the download, in bytes: one flash sector, so that each is erased and written once.
    static constexpr std::size_t kBufferSize = kFlashSectorSize;
    /// Times that an image of one release may turn out bad before it is refused for good.
    static constexpr std::uint16_t kMaxAttempts = 3;
    /// Slowest download that is put up with: bytes per second, over kRateWindow_ms.
    static constexpr std::uint32_t kMinRate = 256;
    static constexpr std::uint64_t kRateWindow_ms = 60000;

    OTAUpdateManager(const UpdateConfig& config, const UpdatePorts& ports, UpdateObserver& observer);

    /// Settles what the last boot left: starts the trial of a new app, completes one that had passed,
    /// or reports one that was undone. Call once.
    void start();

    /// Does the next piece of work. @return milliseconds until there is more, unless a message comes.
    std::uint32_t step();

    [[nodiscard]] UpdateState state() const { return state_; }
    [[nodiscard]] const std::string& running_version() const { return running_version_; }
    /// A final report waits for the broker's acknowledgement.
    [[nodiscard]] bool has_report() const { return report_.has_value(); }

private:
    // After a restart.
    std::optional<Sha256Digest> read_running_image();
    void settle_pending_update(const std::optional<Sha256Digest>& running_head);
    void commit(const PendingUpdate& pending);
    void record_failed_trial(const PendingUpdate& pending, UpdateStatus status);
    void step_self_test(std::uint64_t now);
    void fail_self_test(Reason reason);

    // Messages.
    void receive_messages();
    void handle_notification(HeapText& text, NotificationSource source);
    void accept(const Notification& notification, const Manifest& manifest);
    bool tell_refusal(std::string_view release_id, std::string_view version, Reason reason,
                      NotificationSource source);
    void check_in(std::uint64_t now);

    // The download.
    void step_download(std::uint64_t now);
    Reason begin_download();
    Reason resume_from_flash();
    Reason request_next_piece();
    Reason read_piece(std::uint64_t now);
    Reason flush_buffer();
    Reason check_head(const std::uint8_t* head, std::size_t size);
    Reason confirm_progress();
    Reason finish_download();
    Reason verify_and_activate();
    Reason watch_rate(std::uint64_t now);
    void handle_download_failure(Reason reason, std::uint64_t now);
    void restart_from_zero();
    void drop_release(Reason reason);
    void forget_release();
    void end_download();

    // Time.
    [[nodiscard]] std::uint32_t back_off_ms(std::uint32_t failures);
    [[nodiscard]] std::uint32_t random_up_to(std::uint32_t limit);
    [[nodiscard]] FailureRecord failures_of(std::int64_t sequence) const;
    [[nodiscard]] bool forget_link_failures();
    [[nodiscard]] DeviceFacts facts() const;

    // Reports.
    void publish(UpdateStatus status, int progress, Reason reason);
    bool publish(const StatusMessage& message);
    void report_finally(std::string_view release_id, std::string_view version, UpdateStatus status,
                        std::string_view reason);
    void deliver_report();
    void event(const char* name, Reason reason = Reason::none);
    void event(const char* name, const char* value_name, std::int64_t value);
    void restart_soon(std::uint64_t now);

    const UpdateConfig& config_;
    const UpdatePorts ports_;
    UpdateObserver& observer_;
    const std::string status_topic_;
    NVSStorageHandler storage_;
    SignatureVerifier verifier_;
    HTTPDownloader downloader_;

    UpdateState state_ = UpdateState::idle;
    std::string running_version_;
    bool running_version_is_authentic_ = true;
    std::int64_t stored_sequence_ = 0;

    std::optional<AcceptedRelease> release_;
    std::optional<DownloadState> download_;
    std::uint64_t start_at_ms_ = 0;  ///< End of the delay or back-off.

    std::uint64_t self_test_deadline_ms_ = 0;
    bool self_test_published_ = false;
    std::uint64_t restart_at_ms_ = 0;

    std::uint64_t next_check_in_ms_ = 0;
    std::uint32_t check_in_failures_ = 0;

    std::optional<PendingReport> report_;
    bool report_in_flight_ = false;

    struct Told {
        std::uint32_t hash;  ///< Of release and reason.
        std::uint32_t uptime_s;
    };
    /// Refusals told already, so that a retained message that comes with every reconnect is answered
    /// once. The oldest is overwritten, once it is old enough.
    std::array<Told, 8> told_{};
    std::size_t told_next_ = 0;
    std::uint64_t next_unverified_report_ms_ = 0;
};

}  // namespace ota

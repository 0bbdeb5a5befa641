#include "ota/status_message.hpp"

#include "ota/json_writer.hpp"

namespace ota {

const char* to_string(UpdateStatus status) {
    switch (status) {
#define OTA_CASE(name)       \
    case UpdateStatus::name: \
        return #name;
        OTA_UPDATE_STATUSES(OTA_CASE)
#undef OTA_CASE
    }
    return "unknown";
}

std::string to_json(const StatusMessage& message) {
    constexpr std::size_t kNames = 96;  // Including quotes, the progress and `null`.
    JsonWriter json(kNames + message.release_id.size() + message.version.size() + message.state.size() +
                    message.reason.size() + message.running_version.size());
    json.member("release_id", message.release_id)
        .member("version", message.version)
        .member("state", message.state)
        .member("progress", message.progress);
    if (message.reason.empty()) {
        json.null_member("reason");
    } else {
        json.member("reason", message.reason);
    }
    json.member("running_version", message.running_version);
    return json.finish();
}

}  // namespace ota

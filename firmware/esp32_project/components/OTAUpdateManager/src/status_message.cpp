#include "ota/status_message.hpp"

#include "ota/json_writer.hpp"

namespace ota {

const char* to_string(UpdateStatus status) {
    switch (status) {
        case UpdateStatus::downloading:
            return "downloading";
        case UpdateStatus::verifying:
            return "verifying";
        case UpdateStatus::rebooting:
            return "rebooting";
        case UpdateStatus::installed:
            return "installed";
        case UpdateStatus::failed:
            return "failed";
        case UpdateStatus::rolled_back:
            return "rolled_back";
        case UpdateStatus::rejected:
            return "rejected";
    }
    return "unknown";
}

std::string to_json(const StatusMessage& message) {
    JsonWriter json;
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

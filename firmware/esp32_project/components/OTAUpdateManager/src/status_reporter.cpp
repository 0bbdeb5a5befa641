#include "ota/status_reporter.hpp"

namespace ota {

StatusReporter::StatusReporter(UpdateContext& context)
    : context_(context),
      topic_(UpdateTopics(context.config.topic_prefix, context.config.product, context.config.mac).status) {}

void StatusReporter::report_outcome(std::string_view release_id, std::string_view version,
                                    UpdateStatus status, std::string_view reason) {
    report_ =
        PendingReport{std::string(release_id), std::string(version), to_string(status), std::string(reason)};
    report_in_flight_ = false;
    if (!context_.storage.set(*report_)) {
        storage_failed();
    }
}

void StatusReporter::deliver_report() {
    if (!report_) {
        return;
    }
    if (!context_.ports.mqtt.connected()) {
        report_in_flight_ = false;
    } else if (!report_in_flight_) {
        StatusMessage message;
        message.release_id = report_->release_id;
        message.version = report_->version;
        message.state = report_->state;
        message.progress = report_->state == to_string(UpdateStatus::installed) ? 100 : 0;
        message.reason = report_->reason;
        message.running_version = context_.running.version;
        report_in_flight_ = send(message);
    } else if (context_.ports.mqtt.all_acknowledged()) {
        report_.reset();
        if (!context_.storage.clear_report()) {
            storage_failed();
        }
        event("report_delivered");
    }
}

void StatusReporter::send_progress(UpdateStatus status, int percent, Reason reason) {
    StatusMessage message;
    message.release_id = context_.release->id;
    message.version = context_.release->version;
    message.state = to_string(status);
    message.progress = percent;
    message.reason = reason == Reason::none ? "" : to_string(reason);
    message.running_version = context_.running.version;
    send(message);
}

bool StatusReporter::send(const StatusMessage& message) {
    const std::string json = to_json(message);
    if (!context_.ports.mqtt.publish(topic_.c_str(), json.data(), json.size())) {
        return false;
    }
    context_.observer.on_status(message);
    return true;
}

void StatusReporter::event(const char* name, Reason reason) {
    tell(UpdateEvent{name, {}, {}, reason, nullptr, 0});
}

void StatusReporter::event(const char* name, const char* value_name, std::int64_t value) {
    tell(UpdateEvent{name, {}, {}, Reason::none, value_name, value});
}

void StatusReporter::tell(UpdateEvent event) {
    if (context_.release) {
        event.release_id = context_.release->id;
        event.version = context_.release->version;
    }
    context_.observer.on_event(event);
}

}  // namespace ota

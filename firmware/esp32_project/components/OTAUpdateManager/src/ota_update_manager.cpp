#include "ota/ota_update_manager.hpp"

#include <algorithm>

namespace ota {
namespace {

constexpr std::uint64_t kSecond_ms = 1000;
/// Longest wait for the broker to acknowledge the last message before a restart.
constexpr std::uint64_t kRestartGrace_ms = 5000;
/// Between two checks whether a message has arrived.
constexpr std::uint32_t kArrivalPoll_ms = 50;
/// Longest rest, in case a port fails to wake the task.
constexpr std::uint64_t kLongestRest_ms = 60 * kSecond_ms;

std::uint32_t rest(std::uint64_t now, std::uint64_t until) {
    return static_cast<std::uint32_t>(until <= now ? 0 : std::min(until - now, kLongestRest_ms));
}

}  // namespace

OTAUpdateManager::OTAUpdateManager(const UpdateConfig& config, const UpdatePorts& ports,
                                   UpdateObserver& observer)
    : context_{config,
               ports,
               observer,
               NVSStorageHandler(ports.store),
               BackOff(config, ports.random),
               Patience(context_.storage, context_.back_off),
               {},
               {}},
      reporter_(context_),
      verifier_(config.trusted_keys),
      api_(ports.http, ports.clock, config),
      trial_(context_, reporter_),
      refusals_(context_, reporter_),
      intake_(context_, reporter_, refusals_, verifier_),
      download_(context_, reporter_, verifier_, api_),
      check_in_(context_, reporter_, api_) {}

void OTAUpdateManager::start() {
    reporter_.load_report();
    check_in_.begin();
    if (trial_.begin()) {
        go(UpdateTrigger::trial_began);
    }
    reporter_.event("booted", "slot", context_.ports.slots.running_slot());
}

std::uint32_t OTAUpdateManager::step() {
    const std::uint64_t now = context_.ports.clock.uptime_ms();
    if (state_ == UpdateState::restarting) {
        return step_restart(now);
    }
    context_.patience.tick(now);
    reporter_.deliver_report();
    receive_messages();
    if (state_ == UpdateState::waiting && now >= start_at_ms_) {
        go(UpdateTrigger::wait_over);
        download_.resume(now);
    }
    switch (state_) {
        case UpdateState::self_test:
            return step_trial(now);
        case UpdateState::downloading:
            return step_download(now);
        case UpdateState::waiting:
            return now >= check_in_.next_ms() ? step_check_in(now)
                                              : rest(now, std::min(start_at_ms_, check_in_.next_ms()));
        case UpdateState::idle:
        case UpdateState::restarting:
            break;
    }
    return now >= check_in_.next_ms() ? step_check_in(now) : rest(now, check_in_.next_ms());
}

void OTAUpdateManager::go(UpdateTrigger trigger) {
    state_ = next_state(state_, trigger);
}

std::uint32_t OTAUpdateManager::step_restart(std::uint64_t now) {
    const MqttClient& mqtt = context_.ports.mqtt;
    if (!mqtt.connected() || mqtt.all_acknowledged() || now >= restart_at_ms_) {
        context_.ports.reboot.restart();
    }
    return rest(now, restart_at_ms_);
}

std::uint32_t OTAUpdateManager::step_trial(std::uint64_t now) {
    switch (trial_.step(now)) {
        case Trial::Verdict::pending:
            break;
        case Trial::Verdict::passed:
            go(UpdateTrigger::trial_passed);
            check_in_.hurry(now);
            break;
        case Trial::Verdict::failed:
            restart_soon(UpdateTrigger::trial_failed);
            break;
    }
    return rest(now, std::min(trial_.deadline_ms(), now + kSecond_ms));
}

std::uint32_t OTAUpdateManager::step_download(std::uint64_t now) {
    const Download::Result result = download_.step(now);
    switch (result.next) {
        case Download::Result::Next::step:
            // An arriving message has the heap. The receiving task needs time for it, and so does the
            // idle task, whose watchdog would otherwise fire.
            return download_.is_whole() ? kArrivalPoll_ms : 0;
        case Download::Result::Next::restart:
            restart_soon(UpdateTrigger::image_activated);
            break;
        case Download::Result::Next::retry:
            start_at_ms_ = now + result.delay_ms;
            go(UpdateTrigger::download_failed);
            reporter_.event("download_failed", result.reason);
            reporter_.event("retry", "delay_ms", result.delay_ms);
            break;
        case Download::Result::Next::postpone:
            start_at_ms_ = now + result.delay_ms;
            go(UpdateTrigger::postponed);
            reporter_.event("postponed", result.reason);
            break;
        case Download::Result::Next::drop:
            drop_release(result.reason);
            break;
        case Download::Result::Next::forget:
            reporter_.event("dropped", result.reason);
            forget_release();
            break;
        case Download::Result::Next::give_up:
            forget_release();
            break;
    }
    return 0;
}

std::uint32_t OTAUpdateManager::step_check_in(std::uint64_t now) {
    if (!context_.ports.mqtt.claim()) {
        return rest(now, now + kSecond_ms);  // A message is arriving, which comes first.
    }
    download_.give_up_buffer();
    HeapText body;
    check_in_.ask(now, body);
    if (body) {
        follow(intake_.take_check_in(body));
        body.reset();
    }
    context_.ports.mqtt.release();
    return 0;
}

/// Takes messages only between the pieces of a download: a notification, and the memory to verify its
/// signature, leave no room for the download's buffer.
void OTAUpdateManager::receive_messages() {
    while (MqttMessage* const message = context_.ports.mqtt.waiting()) {
        if (download_.is_receiving()) {
            return;
        }
        download_.give_up_buffer();
        if (state_ != UpdateState::self_test) {  // The check-in after the trial makes up for it.
            follow(intake_.take(*message));
        }
        context_.ports.mqtt.release();
    }
}

void OTAUpdateManager::follow(NotificationIntake::Outcome outcome) {
    switch (outcome) {
        case NotificationIntake::Outcome::nothing:
            break;
        case NotificationIntake::Outcome::accepted:
            wait_for_download();
            break;
        case NotificationIntake::Outcome::withdrawn:
            drop_release(Reason::release_withdrawn);
            break;
        case NotificationIntake::Outcome::disowned:
            forget_release();
            break;
    }
}

void OTAUpdateManager::wait_for_download() {
    const AcceptedRelease& release = *context_.release;
    download_.begin_release();
    const FailureRecord failure = context_.storage.failures_of(release.sequence);
    const std::uint32_t limit_s = release.max_delay_s.value_or(context_.config.max_delay_s);
    std::uint32_t delay = context_.back_off.random_up_to(limit_s * static_cast<std::uint32_t>(kSecond_ms));
    if (const std::uint32_t failures = failure.attempts + failure.link_failures; failures > 0) {
        delay = std::max(delay, context_.back_off.delay_ms(failures));
    }
    start_at_ms_ = context_.ports.clock.uptime_ms() + delay;
    go(UpdateTrigger::release_accepted);
    reporter_.event("accepted", "delay_ms", delay);
}

/// For a release that expired or was withdrawn. Anyone could send it again, so the report is limited.
void OTAUpdateManager::drop_release(Reason reason) {
    refusals_.tell(context_.release->id, context_.release->version, reason, NotificationSource::fleet_topic);
    reporter_.event("dropped", reason);
    forget_release();
}

void OTAUpdateManager::forget_release() {
    download_.end();
    context_.release.reset();
    go(UpdateTrigger::release_dropped);
}

void OTAUpdateManager::restart_soon(UpdateTrigger trigger) {
    restart_at_ms_ = context_.ports.clock.uptime_ms() + kRestartGrace_ms;
    go(trigger);
    reporter_.event("restarting");
}

}  // namespace ota

#include "ota/notification.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "ota/json_reader.hpp"

namespace ota {
namespace {

bool is_release_id(std::string_view text) {
    return text.size() == kReleaseIdLength && std::all_of(text.begin(), text.end(), [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           });
}

bool read_cohort(JsonReader& json, Cohort& cohort) {
    bool has_percent = false;
    bool has_salt = false;
    std::string_view name;
    for (json.begin_object(); json.next_member(name);) {
        if (name == "percent") {
            has_percent = json.number(cohort.percent) &&
                          ((cohort.percent >= 0 && cohort.percent <= 100) || json.fail());
        } else if (name == "salt") {
            TextSpan text;
            has_salt = json.string(text);
            cohort.salt = text.view();
        } else {
            json.skip();
        }
    }
    return (has_percent && has_salt) || json.fail();
}

/// Reads a text field that may occur once.
void read_once(JsonReader& json, std::string_view& field) {
    TextSpan text;
    if (field.data() != nullptr) {
        json.fail();
    } else if (json.string(text)) {
        field = text.view();
    }
}

}  // namespace

Reason parse_notification(char* text, std::size_t size, Notification& notification) {
    JsonReader json(text, size);
    std::string_view name;
    for (json.begin_object(); json.next_member(name);) {
        if (name == "release_id") {
            std::string_view id;
            read_once(json, id);
            if (notification.release_id.data() != nullptr || !is_release_id(id)) {
                json.fail();
            } else {
                notification.release_id = id;
            }
        } else if (name == "product") {
            read_once(json, notification.product);
        } else if (name == "version") {
            read_once(json, notification.version);
        } else if (name == "sha256") {
            read_once(json, notification.sha256);
        } else if (name == "signature") {
            if (notification.signature.data != nullptr) {
                json.fail();
            }
            json.string(notification.signature);
        } else if (name == "size") {
            std::int64_t value = 0;
            json.integer(value);
            notification.size = value;
        } else if (name == "max_delay") {
            std::int64_t seconds = 0;
            if (json.integer(seconds) && seconds >= 0) {
                notification.max_delay_s = static_cast<std::uint32_t>(std::min(seconds, kMaxDelayLimit_s));
            } else {
                json.fail();
            }
        } else if (name == "cohort") {
            Cohort cohort;
            read_cohort(json, cohort);
            notification.cohort = cohort;
        } else if (name == "withdrawn") {
            json.boolean(notification.withdrawn);
        } else if (name == "manifest") {
            if (notification.has_envelope || !parse_envelope(json, notification.envelope)) {
                json.fail();
            }
            notification.has_envelope = true;
        } else {
            json.skip();
        }
    }
    const bool whole = json.finish() && notification.release_id.data() != nullptr &&
                       (notification.has_envelope || notification.withdrawn);
    return whole ? Reason::none : Reason::notification_malformed;
}

void shrink_notification(HeapText& text, Notification& notification) {
    struct Piece {
        TextSpan from;
        TextSpan* span;
        std::string_view* view;
        std::size_t offset;
    };
    std::array<Piece, 7 + 2 * Envelope::kMaxSignatures> pieces{};  // One for each piece kept below.
    std::size_t count = 0;
    const auto keep_span = [&](TextSpan& span) { pieces[count++] = {span, &span, nullptr, 0}; };
    const auto keep_view = [&](std::string_view& view) {
        if (view.data() != nullptr) {
            char* const start = text.data() + (view.data() - text.data());
            pieces[count++] = {{start, view.size()}, nullptr, &view, 0};
        }
    };
    keep_view(notification.release_id);
    keep_view(notification.product);
    keep_view(notification.version);
    keep_view(notification.sha256);
    keep_span(notification.signature);
    keep_span(notification.envelope.payload);
    if (notification.cohort) {
        keep_view(notification.cohort->salt);
    }
    for (std::size_t i = 0; i < notification.envelope.signature_count; ++i) {
        keep_span(notification.envelope.signatures[i].keyid);
        keep_span(notification.envelope.signatures[i].sig);
    }
    const auto end = pieces.begin() + static_cast<std::ptrdiff_t>(count);
    std::sort(pieces.begin(), end, [](const Piece& a, const Piece& b) { return a.from.data < b.from.data; });
    std::size_t used = 0;
    for (auto piece = pieces.begin(); piece != end; ++piece) {
        if (piece->from.size > 0) {
            std::memmove(text.data() + used, piece->from.data, piece->from.size);
        }
        piece->offset = used;
        used += piece->from.size;
    }
    text.shrink(used);
    for (auto piece = pieces.begin(); piece != end; ++piece) {
        const TextSpan moved{text.data() + piece->offset, piece->from.size};
        if (piece->span != nullptr) {
            *piece->span = moved;
        } else {
            *piece->view = moved.view();
        }
    }
}

}  // namespace ota

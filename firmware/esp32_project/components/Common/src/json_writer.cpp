#include "ota/json_writer.hpp"

#include <cstdio>

namespace ota {

void JsonWriter::quote(std::string_view text) {
    text_ += '"';
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            text_ += '\\';
            text_ += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof(escape), "\\u%04x", static_cast<unsigned>(c));
            text_ += escape;
        } else {
            text_ += c;
        }
    }
    text_ += '"';
}

void JsonWriter::begin_member(std::string_view name) {
    if (text_.size() > 1) {
        text_ += ',';
    }
    quote(name);
    text_ += ':';
}

JsonWriter& JsonWriter::member(std::string_view name, std::string_view value) {
    begin_member(name);
    quote(value);
    return *this;
}

JsonWriter& JsonWriter::member(std::string_view name, std::int64_t value) {
    char digits[24];
    std::snprintf(digits, sizeof(digits), "%lld", static_cast<long long>(value));
    begin_member(name);
    text_ += digits;
    return *this;
}

JsonWriter& JsonWriter::null_member(std::string_view name) {
    begin_member(name);
    text_ += "null";
    return *this;
}

std::string JsonWriter::finish() {
    text_ += '}';
    return std::move(text_);
}

}  // namespace ota

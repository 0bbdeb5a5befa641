#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ota {

/// Builds one flat JSON object.
class JsonWriter {
public:
    JsonWriter() = default;
    /// Reserves `capacity` bytes, so that a text of known size is allocated once.
    explicit JsonWriter(std::size_t capacity) { text_.reserve(capacity); }

    JsonWriter& member(std::string_view name, std::string_view value);
    JsonWriter& member(std::string_view name, std::int64_t value);
    JsonWriter& null_member(std::string_view name);

    /// Closes the object and returns it. Do not use the writer afterwards.
    std::string finish();

private:
    void begin_member(std::string_view name);
    void quote(std::string_view text);

    std::string text_ = "{";
};

}  // namespace ota

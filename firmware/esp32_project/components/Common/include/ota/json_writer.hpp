#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ota {

/// Builds one flat JSON object.
class JsonWriter {
public:
    JsonWriter& member(std::string_view name, std::string_view value);
    JsonWriter& member(std::string_view name, std::int64_t value);
    JsonWriter& null_member(std::string_view name);

    /// Closes the object and returns it; the writer is then used up.
    std::string finish();

private:
    void begin_member(std::string_view name);
    void quote(std::string_view text);

    std::string text_ = "{";
};

}  // namespace ota

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ota/text_span.hpp"

namespace ota {

/// Reads JSON (RFC 8259) from a buffer, value by value, without allocating: strings are unescaped in
/// place, so a text can be read only once. Strict, with at most kMaxDepth open containers.
///
/// The first error is final: every later call returns false, so a caller may check once, at the end,
/// with finish().
///
///     JsonReader json(text, size);
///     std::string_view name;
///     for (json.begin_object(); json.next_member(name);) { … one value … }
///     if (!json.finish()) { … }
class JsonReader {
public:
    static constexpr int kMaxDepth = 16;

    JsonReader(char* text, std::size_t size) : next_(text), end_(text + size) {}

    enum class Type : std::uint8_t { object, array, string, number, boolean, null, none };

    /// Type of the next value; `none` after an error and where no value begins.
    Type peek();

    /// Enters an object. @return false if the next value is not an object.
    bool begin_object() { return begin('{', true); }

    /// Goes to the next member of the innermost object. Read or skip its value before the next call.
    /// @return false at the end of the object, which leaves it, or on error.
    bool next_member(std::string_view& name);

    /// Enters an array. @return false if the next value is not an array.
    bool begin_array() { return begin('[', false); }

    /// Goes to the next element of the innermost array. @return false at its end, which leaves it, or
    /// on error.
    bool next_element();

    /// Reads a string.
    bool string(TextSpan& value);

    /// Reads an integer of at most 18 digits; `1.0` and `1e3` are errors here.
    bool integer(std::int64_t& value);

    /// Reads a number.
    bool number(double& value);

    bool boolean(bool& value);

    /// Reads any value and discards it.
    bool skip();

    /// @return true if no error occurred and only white space is left.
    bool finish();

    [[nodiscard]] bool failed() const { return failed_; }

    /// Marks the text as invalid, for callers that find a value they cannot accept.
    bool fail();

private:
    bool begin(char bracket, bool is_object);
    bool next_in_container(bool is_object, char close);
    bool consume(char expected);
    bool literal(std::string_view word);
    bool number_text(std::string_view& text, bool& is_integer);
    bool skip_string();
    bool unescape_unicode(char*& out);
    bool hex4(std::uint32_t& code_unit);
    void skip_space();

    char* next_;
    char* end_;
    bool failed_ = false;
    int depth_ = 0;
    std::uint32_t object_mask_ = 0;  ///< Bit d: the container at depth d is an object.
    std::uint32_t filled_mask_ = 0;  ///< Bit d: the container at depth d has had an element.
};

}  // namespace ota

#include "ota/json_reader.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "ota/hex.hpp"

namespace ota {

namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

}  // namespace

bool JsonReader::fail() {
    failed_ = true;
    return false;
}

void JsonReader::skip_space() {
    while (next_ < end_ && (*next_ == ' ' || *next_ == '\t' || *next_ == '\n' || *next_ == '\r')) {
        ++next_;
    }
}

bool JsonReader::consume(char expected) {
    skip_space();
    if (failed_ || next_ == end_ || *next_ != expected) {
        return fail();
    }
    ++next_;
    return true;
}

JsonReader::Type JsonReader::peek() {
    skip_space();
    if (failed_ || next_ == end_) {
        return Type::none;
    }
    switch (*next_) {
        case '{':
            return Type::object;
        case '[':
            return Type::array;
        case '"':
            return Type::string;
        case 't':
        case 'f':
            return Type::boolean;
        case 'n':
            return Type::null;
        default:
            return (*next_ == '-' || is_digit(*next_)) ? Type::number : Type::none;
    }
}

bool JsonReader::begin(char bracket, bool is_object) {
    if (!consume(bracket)) {
        return false;
    }
    if (depth_ == kMaxDepth) {
        return fail();
    }
    const std::uint32_t bit = 1U << static_cast<unsigned>(depth_);
    object_mask_ = is_object ? (object_mask_ | bit) : (object_mask_ & ~bit);
    filled_mask_ &= ~bit;
    ++depth_;
    return true;
}

bool JsonReader::next_in_container(bool is_object, char close) {
    if (failed_ || depth_ == 0) {
        return fail();
    }
    const std::uint32_t bit = 1U << static_cast<unsigned>(depth_ - 1);
    if (((object_mask_ & bit) != 0) != is_object) {
        return fail();
    }
    skip_space();
    if (next_ < end_ && *next_ == close) {
        ++next_;
        --depth_;
        return false;
    }
    if ((filled_mask_ & bit) != 0 && !consume(',')) {
        return false;
    }
    filled_mask_ |= bit;
    return true;
}

bool JsonReader::next_member(std::string_view& name) {
    if (!next_in_container(true, '}')) {
        return false;
    }
    TextSpan text;
    if (!string(text) || !consume(':')) {
        return false;
    }
    name = text.view();
    return true;
}

bool JsonReader::next_element() {
    return next_in_container(false, ']');
}

bool JsonReader::hex4(std::uint32_t& code_unit) {
    if (end_ - next_ < 4) {
        return fail();
    }
    code_unit = 0;
    for (int i = 0; i < 4; ++i) {
        const int value = hex_digit_value(*next_++);
        if (value < 0) {
            return fail();
        }
        code_unit = code_unit * 16 + static_cast<std::uint32_t>(value);
    }
    return true;
}

/// After `\u`: writes the character as UTF-8. The shortest escape has six characters and the longest
/// encoding of it three bytes, so the output never overtakes the input.
bool JsonReader::unescape_unicode(char*& out) {
    std::uint32_t code = 0;
    if (!hex4(code)) {
        return false;
    }
    if (code >= 0xD800 && code < 0xDC00) {
        std::uint32_t low = 0;
        if (end_ - next_ < 2 || next_[0] != '\\' || next_[1] != 'u') {
            return fail();
        }
        next_ += 2;
        if (!hex4(low) || low < 0xDC00 || low > 0xDFFF) {
            return fail();
        }
        code = 0x10000 + ((code - 0xD800) << 10U) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code <= 0xDFFF) {
        return fail();
    }
    if (code < 0x80) {
        *out++ = static_cast<char>(code);
    } else if (code < 0x800) {
        *out++ = static_cast<char>(0xC0U | (code >> 6U));
        *out++ = static_cast<char>(0x80U | (code & 0x3FU));
    } else if (code < 0x10000) {
        *out++ = static_cast<char>(0xE0U | (code >> 12U));
        *out++ = static_cast<char>(0x80U | ((code >> 6U) & 0x3FU));
        *out++ = static_cast<char>(0x80U | (code & 0x3FU));
    } else {
        *out++ = static_cast<char>(0xF0U | (code >> 18U));
        *out++ = static_cast<char>(0x80U | ((code >> 12U) & 0x3FU));
        *out++ = static_cast<char>(0x80U | ((code >> 6U) & 0x3FU));
        *out++ = static_cast<char>(0x80U | (code & 0x3FU));
    }
    return true;
}

bool JsonReader::string(TextSpan& value) {
    if (!consume('"')) {
        return false;
    }
    char* const start = next_;
    char* out = next_;
    while (next_ < end_) {
        const char c = *next_++;
        if (c == '"') {
            value = {start, static_cast<std::size_t>(out - start)};
            return true;
        }
        if (static_cast<unsigned char>(c) < 0x20) {
            return fail();
        }
        if (c != '\\') {
            *out++ = c;
            continue;
        }
        if (next_ == end_) {
            return fail();
        }
        const char escape = *next_++;
        constexpr char kEscapes[] = "\"\\/bfnrt";
        constexpr char kCharacters[] = "\"\\/\b\f\n\r\t";
        if (escape == 'u') {
            if (!unescape_unicode(out)) {
                return false;
            }
        } else if (const char* found = escape == '\0' ? nullptr : std::strchr(kEscapes, escape)) {
            *out++ = kCharacters[found - kEscapes];
        } else {
            return fail();
        }
    }
    return fail();
}

bool JsonReader::number_text(std::string_view& text, bool& is_integer) {
    skip_space();
    const char* const start = next_;
    const auto digits = [this] {
        const char* const first = next_;
        while (next_ < end_ && is_digit(*next_)) {
            ++next_;
        }
        return next_ - first;
    };
    if (failed_) {
        return false;
    }
    is_integer = true;
    if (next_ < end_ && *next_ == '-') {
        ++next_;
    }
    const char* const whole = next_;
    const auto whole_digits = digits();
    if (whole_digits == 0 || (whole_digits > 1 && *whole == '0')) {
        return fail();
    }
    if (next_ < end_ && *next_ == '.') {
        is_integer = false;
        ++next_;
        if (digits() == 0) {
            return fail();
        }
    }
    if (next_ < end_ && (*next_ == 'e' || *next_ == 'E')) {
        is_integer = false;
        ++next_;
        if (next_ < end_ && (*next_ == '+' || *next_ == '-')) {
            ++next_;
        }
        if (digits() == 0) {
            return fail();
        }
    }
    text = {start, static_cast<std::size_t>(next_ - start)};
    return true;
}

bool JsonReader::integer(std::int64_t& value) {
    std::string_view text;
    bool is_integer = false;
    if (!number_text(text, is_integer)) {
        return false;
    }
    // 18 digits always fit an int64; nothing in the contracts is larger.
    const bool negative = text.front() == '-';
    text.remove_prefix(negative ? 1 : 0);
    if (!is_integer || text.size() > 18) {
        return fail();
    }
    value = 0;
    for (const char digit : text) {
        value = value * 10 + (digit - '0');
    }
    value = negative ? -value : value;
    return true;
}

bool JsonReader::number(double& value) {
    std::string_view text;
    bool is_integer = false;
    char copy[32];  // strtod needs a terminator, and no number in the contracts is longer.
    if (!number_text(text, is_integer)) {
        return false;
    }
    if (text.size() >= sizeof(copy)) {
        return fail();
    }
    std::memcpy(copy, text.data(), text.size());
    copy[text.size()] = '\0';
    value = std::strtod(copy, nullptr);
    return true;
}

bool JsonReader::literal(std::string_view word) {
    skip_space();
    if (failed_ || static_cast<std::size_t>(end_ - next_) < word.size() ||
        std::string_view(next_, word.size()) != word) {
        return fail();
    }
    next_ += word.size();
    return true;
}

bool JsonReader::boolean(bool& value) {
    skip_space();
    value = next_ < end_ && *next_ == 't';
    return literal(value ? "true" : "false");
}

bool JsonReader::skip_string() {
    TextSpan ignored;
    return string(ignored);
}

bool JsonReader::skip() {
    const int outer_depth = depth_;
    // A loop and not recursion, because a task on the chip has a small stack.
    do {
        if (depth_ > outer_depth) {
            const bool is_object = (object_mask_ & (1U << static_cast<unsigned>(depth_ - 1))) != 0;
            std::string_view name;
            const bool more = is_object ? next_member(name) : next_element();
            if (failed_) {
                return false;
            }
            if (!more) {
                continue;
            }
        }
        bool is_integer = false;
        bool truth = false;
        std::string_view text;
        switch (peek()) {
            case Type::object:
                begin_object();
                break;
            case Type::array:
                begin_array();
                break;
            case Type::string:
                skip_string();
                break;
            case Type::number:
                number_text(text, is_integer);
                break;
            case Type::boolean:
                boolean(truth);
                break;
            case Type::null:
                literal("null");
                break;
            case Type::none:
                fail();
                break;
        }
        if (failed_) {
            return false;
        }
    } while (depth_ > outer_depth);
    return true;
}

bool JsonReader::finish() {
    skip_space();
    return !failed_ && depth_ == 0 && next_ == end_;
}

}  // namespace ota

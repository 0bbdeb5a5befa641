#include "ota/semver.hpp"

#include <algorithm>
#include <cstddef>

namespace ota {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool is_numeric(std::string_view text) {
    return std::all_of(text.begin(), text.end(), is_digit);
}

/// Removes the text before the next `separator` from the front, together with the separator, and returns it.
std::string_view take_until(std::string_view& text, char separator) {
    const std::size_t at = std::min(text.find(separator), text.size());
    const std::string_view head = text.substr(0, at);
    text.remove_prefix(std::min(at + 1, text.size()));
    return head;
}

bool is_number_without_leading_zero(std::string_view text) {
    return !text.empty() && is_numeric(text) && (text.size() == 1 || text.front() != '0');
}

/// Dot-separated identifiers of a pre-release or of build metadata (SemVer 2.0.0, sections 9, 10).
bool are_identifiers(std::string_view text, bool leading_zeros_allowed) {
    if (text.empty() || text.back() == '.') {
        return false;
    }
    while (!text.empty()) {
        const std::string_view identifier = take_until(text, '.');
        const bool characters_ok = std::all_of(identifier.begin(), identifier.end(), [](char c) {
            return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
        });
        if (identifier.empty() || !characters_ok) {
            return false;
        }
        if (!leading_zeros_allowed && is_numeric(identifier) && !is_number_without_leading_zero(identifier)) {
            return false;
        }
    }
    return true;
}

struct Parts {
    std::string_view core;
    std::string_view pre_release;
};

Parts split(std::string_view version) {
    const std::string_view without_build = version.substr(0, version.find('+'));
    const std::size_t dash = without_build.find('-');
    if (dash == std::string_view::npos) {
        return {without_build, {}};
    }
    return {without_build.substr(0, dash), without_build.substr(dash + 1)};
}

/// Numbers may be of any length, so they are compared as text: longer, then lexically.
int compare_numbers(std::string_view a, std::string_view b) {
    if (a.size() != b.size()) {
        return a.size() < b.size() ? -1 : 1;
    }
    return a.compare(b);
}

int compare_identifiers(std::string_view a, std::string_view b) {
    const bool a_numeric = is_numeric(a);
    const bool b_numeric = is_numeric(b);
    if (a_numeric && b_numeric) {
        return compare_numbers(a, b);
    }
    if (a_numeric != b_numeric) {
        return a_numeric ? -1 : 1;
    }
    return a.compare(b);
}

}  // namespace

bool is_semver(std::string_view text) {
    if (text.empty() || text.size() > kMaxVersionLength) {
        return false;
    }
    const std::size_t plus = text.find('+');
    if (plus != std::string_view::npos && !are_identifiers(text.substr(plus + 1), true)) {
        return false;
    }
    const std::string_view without_build = text.substr(0, plus);
    const Parts parts = split(text);
    if (parts.core.size() != without_build.size() && !are_identifiers(parts.pre_release, false)) {
        return false;
    }
    std::string_view core = parts.core;
    if (std::count(core.begin(), core.end(), '.') != 2) {
        return false;
    }
    for (int i = 0; i < 3; ++i) {
        if (!is_number_without_leading_zero(take_until(core, '.'))) {
            return false;
        }
    }
    return true;
}

int compare_semver(std::string_view a, std::string_view b) {
    Parts pa = split(a);
    Parts pb = split(b);
    for (int i = 0; i < 3; ++i) {
        if (const int order = compare_numbers(take_until(pa.core, '.'), take_until(pb.core, '.'))) {
            return order;
        }
    }
    if (pa.pre_release.empty() || pb.pre_release.empty()) {
        return static_cast<int>(pa.pre_release.empty()) - static_cast<int>(pb.pre_release.empty());
    }
    while (!pa.pre_release.empty() && !pb.pre_release.empty()) {
        const int order =
            compare_identifiers(take_until(pa.pre_release, '.'), take_until(pb.pre_release, '.'));
        if (order != 0) {
            return order;
        }
    }
    return static_cast<int>(pb.pre_release.empty()) - static_cast<int>(pa.pre_release.empty());
}

}  // namespace ota

#include "ota/rfc3339.hpp"

namespace ota {
namespace {

/// Removes `count` digits from the front. @return their value, or -1 if there are fewer.
int take_digits(std::string_view& text, std::size_t count) {
    if (text.size() < count) {
        return -1;
    }
    int value = 0;
    for (std::size_t i = 0; i < count; ++i) {
        if (text[i] < '0' || text[i] > '9') {
            return -1;
        }
        value = value * 10 + (text[i] - '0');
    }
    text.remove_prefix(count);
    return value;
}

bool take(std::string_view& text, char upper, char other) {
    if (text.empty() || (text.front() != upper && text.front() != other)) {
        return false;
    }
    text.remove_prefix(1);
    return true;
}

bool is_leap(int year) {
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

int days_in_month(int year, int month) {
    constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && is_leap(year) ? 29 : kDays[month - 1];
}

/// Days from 1970-01-01 to the given day of the proleptic Gregorian calendar.
std::int64_t days_since_epoch(int year, int month, int day) {
    const auto leap_days_before = [](std::int64_t y) { return (y - 1) / 4 - (y - 1) / 100 + (y - 1) / 400; };
    std::int64_t days = (std::int64_t{year} - 1970) * 365;
    days += year > 0 ? leap_days_before(year) - leap_days_before(1970) : -478;
    for (int m = 1; m < month; ++m) {
        days += days_in_month(year, m);
    }
    return days + day - 1;
}

}  // namespace

bool parse_rfc3339(std::string_view text, std::int64_t& unix_time) {
    const int year = take_digits(text, 4);
    const bool dash1 = take(text, '-', '-');
    const int month = take_digits(text, 2);
    const bool dash2 = take(text, '-', '-');
    const int day = take_digits(text, 2);
    const bool separator = take(text, 'T', 't');
    const int hour = take_digits(text, 2);
    const bool colon1 = take(text, ':', ':');
    const int minute = take_digits(text, 2);
    const bool colon2 = take(text, ':', ':');
    const int second = take_digits(text, 2);
    if (!dash1 || !dash2 || !separator || !colon1 || !colon2) {
        return false;
    }
    // 60 is a leap second (RFC 3339, section 5.7).
    if (year < 0 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour < 0 ||
        hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) {
        return false;
    }
    if (take(text, '.', '.')) {
        if (take_digits(text, 1) < 0) {
            return false;
        }
        while (take_digits(text, 1) >= 0) {
        }
    }
    std::int64_t offset = 0;
    if (!take(text, 'Z', 'z')) {
        const bool ahead = !text.empty() && text.front() == '+';
        if (!take(text, '+', '-')) {
            return false;
        }
        const int offset_hour = take_digits(text, 2);
        const bool colon = take(text, ':', ':');
        const int offset_minute = take_digits(text, 2);
        if (!colon || offset_hour < 0 || offset_hour > 23 || offset_minute < 0 || offset_minute > 59) {
            return false;
        }
        offset = (std::int64_t{offset_hour} * 60 + offset_minute) * 60 * (ahead ? 1 : -1);
    }
    if (!text.empty()) {
        return false;
    }
    unix_time = ((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second - offset;
    return true;
}

}  // namespace ota

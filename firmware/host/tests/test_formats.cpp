// The small formats: each value has only one valid spelling.

#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "ota/base64.hpp"
#include "ota/decision.hpp"
#include "ota/hex.hpp"
#include "ota/json_reader.hpp"
#include "ota/json_writer.hpp"
#include "ota/mac_address.hpp"
#include "ota/reason.hpp"
#include "ota/rfc3339.hpp"
#include "ota/semver.hpp"
#include "ota/status_message.hpp"
#include "signing_key.hpp"

namespace ota {
namespace {

std::string read_vectors(const char* name) {
    std::ifstream file(std::string(OTA_VECTORS) + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string text(JsonReader& json) {
    TextSpan span;
    EXPECT_TRUE(json.string(span));
    return std::string(span.view());
}

/// The values of `member` in the list `list` of device_status.json.
std::vector<std::string> names_in_vectors(std::string_view list, std::string_view member) {
    std::string vectors = read_vectors("device_status.json");
    JsonReader json(vectors.data(), vectors.size());
    std::vector<std::string> names;
    std::string_view name;
    for (json.begin_object(); json.next_member(name);) {
        if (name != list) {
            EXPECT_TRUE(json.skip());
            continue;
        }
        for (json.begin_array(); json.next_element();) {
            for (json.begin_object(); json.next_member(name);) {
                if (name == member) {
                    names.push_back(text(json));
                } else {
                    EXPECT_TRUE(json.skip());
                }
            }
        }
    }
    EXPECT_TRUE(json.finish());
    return names;
}

template <typename Enum, std::size_t Size>
std::vector<std::string> names_of(const Enum (&values)[Size]) {
    std::vector<std::string> names;
    names.reserve(Size);
    for (const Enum value : values) {
        names.emplace_back(to_string(value));
    }
    return names;
}

bool decodes(std::string base64, std::string& bytes) {
    TextSpan span{base64.data(), base64.size()};
    const bool good = base64_decode_in_place(span);
    bytes = span.view();
    return good;
}

TEST(Base64, GivesBackWhatWasEncoded) {
    std::string bytes;
    std::string decoded;
    for (int size = 0; size < 200; ++size) {
        EXPECT_TRUE(decodes(test::base64_encode(bytes), decoded));
        EXPECT_EQ(decoded, bytes);
        bytes += static_cast<char>(size * 7 + 250);
    }
}

TEST(Base64, TakesTheUrlSafeAlphabetToo) {
    std::string decoded;
    EXPECT_TRUE(decodes("-_-_", decoded));
    EXPECT_EQ(decoded, "\xFB\xFF\xBF");
}

TEST(Base64, RefusesEveryOtherSpelling) {
    std::string decoded;
    for (const char* bad : {"A", "AA", "AAA", "AA=A", "AA==AAAA", "A===", "====", "AB==", "AAB=", "AA\n=",
                            "AAA ", "AA==\n", "AAAA=", "\xFF\xFF\xFF\xFF"}) {
        EXPECT_FALSE(decodes(bad, decoded)) << bad;
    }
}

TEST(Hex, DecodesExactlyTheSizeAskedFor) {
    std::uint8_t bytes[2];
    EXPECT_TRUE(hex_decode("aB0f", bytes, 2));
    EXPECT_EQ(bytes[0], 0xAB);
    EXPECT_EQ(bytes[1], 0x0F);
    EXPECT_EQ(hex_encode(bytes, 2), "ab0f");
    for (const char* bad : {"", "ab", "ab0", "ab0f0", "ab0g", "ab 0"}) {
        EXPECT_FALSE(hex_decode(bad, bytes, 2)) << bad;
    }
}

TEST(MacAddress, IsReadInEveryUsualForm) {
    MacAddress mac;
    for (const char* form : {"24:6F:28:AE:10:9C", "24-6f-28-ae-10-9c", "246f28ae109c", "246F28AE109C"}) {
        EXPECT_TRUE(parse_mac(form, mac)) << form;
        EXPECT_EQ(format_mac(mac), "24:6F:28:AE:10:9C");
    }
    for (const char* bad : {"", "24:6F:28:AE:10", "24:6F:28:AE:10:9C:", "24:6F-28:AE:10:9C",
                            "24.6F.28.AE.10.9C", "246F28AE109", "24:6F:28:AE:10:9G", "2:46:F2:8A:E1:09:C"}) {
        EXPECT_FALSE(parse_mac(bad, mac)) << bad;
    }
}

TEST(Rfc3339, GivesSecondsSince1970) {
    std::int64_t seconds = 0;
    EXPECT_TRUE(parse_rfc3339("1970-01-01T00:00:00Z", seconds));
    EXPECT_EQ(seconds, 0);
    EXPECT_TRUE(parse_rfc3339("2024-02-29T23:59:60.123456Z", seconds));
    EXPECT_EQ(seconds, 1709251200);
    EXPECT_TRUE(parse_rfc3339("2026-03-01T01:30:00+01:30", seconds));
    EXPECT_EQ(seconds, 1772323200);
    EXPECT_TRUE(parse_rfc3339("2026-02-28t20:00:00-04:00", seconds));
    EXPECT_EQ(seconds, 1772323200);
    EXPECT_TRUE(parse_rfc3339("0000-01-01T00:00:00Z", seconds));
    EXPECT_EQ(seconds, -62167219200);
    EXPECT_TRUE(parse_rfc3339("9999-12-31T23:59:59Z", seconds));
    EXPECT_EQ(seconds, 253402300799);
    for (const char* bad :
         {"", "2026-03-01", "2026-03-01T00:00:00", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
          "2026-02-29T00:00:00Z", "2026-03-01T24:00:00Z", "2026-03-01T00:60:00Z", "2026-03-01T00:00:61Z",
          "2026-03-01T00:00:00.Z", "2026-03-01T00:00:00+24:00", "2026-03-01T00:00:00+0100",
          "26-03-01T00:00:00Z", "2026-03-01 00:00:00Z", "2026-03-01T00:00:00ZZ", "2026-3-1T00:00:00Z"}) {
        EXPECT_FALSE(parse_rfc3339(bad, seconds)) << bad;
    }
}

TEST(SemVer, AgreesWithTheSharedVectors) {
    std::string vectors = read_vectors("semver.json");
    JsonReader json(vectors.data(), vectors.size());
    std::string_view name;
    int checked = 0;
    for (json.begin_object(); json.next_member(name);) {
        std::vector<std::string> ascending;
        for (json.begin_array(); json.next_element(); ++checked) {
            if (name == "equal") {
                json.begin_array();
                json.next_element();
                const std::string a = text(json);
                json.next_element();
                const std::string b = text(json);
                EXPECT_FALSE(json.next_element());
                EXPECT_EQ(compare_semver(a, b), 0) << a << " " << b;
                continue;
            }
            const std::string version = text(json);
            EXPECT_EQ(is_semver(version), name != "invalid") << version;
            for (std::size_t i = 0; name == "ascending" && i < ascending.size(); ++i) {
                EXPECT_LT(compare_semver(ascending[i], version), 0) << ascending[i] << " " << version;
                EXPECT_GT(compare_semver(version, ascending[i]), 0) << ascending[i] << " " << version;
            }
            ascending.push_back(version);
        }
    }
    EXPECT_TRUE(json.finish());
    EXPECT_GT(checked, 50);
}

TEST(SemVer, HasALimitOfLength) {
    EXPECT_TRUE(is_semver("1.0.0-" + std::string(kMaxVersionLength - 6, 'a')));
    EXPECT_FALSE(is_semver("1.0.0-" + std::string(kMaxVersionLength - 5, 'a')));
}

TEST(Cohort, AgreesWithTheSharedVectors) {
    std::string vectors = read_vectors("cohort.json");
    JsonReader json(vectors.data(), vectors.size());
    int checked = 0;
    for (json.begin_array(); json.next_element(); ++checked) {
        Cohort cohort;
        MacAddress mac;
        std::string salt;
        bool expected = false;
        std::string_view name;
        for (json.begin_object(); json.next_member(name);) {
            if (name == "salt") {
                salt = text(json);
            } else if (name == "mac") {
                EXPECT_TRUE(parse_mac(text(json), mac));
            } else if (name == "percent") {
                EXPECT_TRUE(json.number(cohort.percent));
            } else if (name == "in") {
                EXPECT_TRUE(json.boolean(expected));
            } else {
                EXPECT_TRUE(json.skip());
            }
        }
        cohort.salt = salt;
        EXPECT_EQ(check_cohort(cohort, mac), expected ? Reason::none : Reason::not_in_cohort)
            << salt << " " << format_mac(mac) << " " << cohort.percent;
    }
    EXPECT_TRUE(json.finish());
    EXPECT_GT(checked, 200);
}

TEST(Status, StatesAndReasonsAreTheSharedVectors) {
    EXPECT_EQ(names_of(kUpdateStatuses), names_in_vectors("states", "state"));

    // A message without a reason has null, so the pipeline knows no such code.
    std::vector<std::string> reasons{"none"};
    for (const std::string& reason : names_in_vectors("reasons", "reason")) {
        reasons.push_back(reason);
    }
    EXPECT_EQ(names_of(kReasons), reasons);
}

TEST(JsonReader, ReadsEveryKindOfValue) {
    std::string source = R"( {"s":"a\"\\\/\b\f\n\r\t\u00e9\u20ac\ud83d\ude00","i":-42,"n":1.5e2,"t":true,)"
                         R"("f":false,"z":null,"a":[1,[2],{}],"o":{"k":[]}} )";
    JsonReader json(source.data(), source.size());
    std::string_view name;
    std::string order;
    for (json.begin_object(); json.next_member(name);) {
        order += name;
        std::int64_t integer = 0;
        double number = 0;
        bool boolean = false;
        if (name == "s") {
            EXPECT_EQ(text(json), "a\"\\/\b\f\n\r\t\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
        } else if (name == "i") {
            EXPECT_TRUE(json.integer(integer));
            EXPECT_EQ(integer, -42);
        } else if (name == "n") {
            EXPECT_TRUE(json.number(number));
            EXPECT_EQ(number, 150);
        } else if (name == "t") {
            EXPECT_TRUE(json.boolean(boolean));
            EXPECT_TRUE(boolean);
        } else {
            EXPECT_TRUE(json.skip()) << name;
        }
    }
    EXPECT_TRUE(json.finish());
    EXPECT_EQ(order, "sintfzao");
}

TEST(JsonReader, RefusesWhatIsNotJson) {
    for (const char* bad : {"",
                            " ",
                            "{",
                            "}",
                            "[",
                            "]",
                            "{]",
                            "[}",
                            R"({"a"})",
                            R"({"a":})",
                            R"({"a":1,})",
                            R"({,"a":1})",
                            R"({"a":1 "b":2})",
                            "[1,]",
                            "[,1]",
                            "[1 2]",
                            R"({a:1})",
                            R"({'a':1})",
                            "01",
                            "-",
                            "+1",
                            "1.",
                            ".5",
                            "1e",
                            "1e+",
                            "0x1",
                            "NaN",
                            "tru",
                            "nul",
                            R"("a)",
                            R"("\x")",
                            R"("\u12")",
                            R"("\ud800")",
                            R"("\ud800\u0041")",
                            R"("\udc00")",
                            "\"\n\"",
                            "\"\\",
                            "1 2",
                            "[1]]",
                            R"({"a":1}{)",
                            R"({"a":1:2})",
                            "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]"}) {
        std::string source = bad;
        JsonReader json(source.data(), source.size());
        json.skip();
        EXPECT_FALSE(json.finish()) << bad;
    }
}

TEST(JsonReader, ReadsAnIntegerOnlyFromOne) {
    for (const char* bad : {"1.0", "1e3", "1234567890123456789", R"("1")", "true", "null", "[]"}) {
        std::string source = bad;
        JsonReader json(source.data(), source.size());
        std::int64_t value = 0;
        EXPECT_FALSE(json.integer(value)) << bad;
        EXPECT_FALSE(json.finish()) << bad;
    }
}

TEST(JsonReader, KeepsItsFirstError) {
    std::string source = R"({"a":x,"b":1})";
    JsonReader json(source.data(), source.size());
    std::string_view name;
    std::int64_t value = 0;
    json.begin_object();
    EXPECT_TRUE(json.next_member(name));
    EXPECT_FALSE(json.integer(value));
    EXPECT_FALSE(json.next_member(name));
    EXPECT_EQ(json.peek(), JsonReader::Type::none);
    EXPECT_FALSE(json.finish());
}

TEST(JsonWriter, EscapesWhatJsonForbids) {
    JsonWriter json;
    json.member("a", "x\"\\\n\x01").member("b", -5).null_member("c");
    EXPECT_EQ(json.finish(), R"({"a":"x\"\\\u000a\u0001","b":-5,"c":null})");
}

/// The first allocation in a line of code that firmware/README.md, "Out of memory", does not allow.
std::string forbidden_allocation(std::string_view code) {
    for (const std::string_view header : {"<deque>", "<functional>", "<list>", "<map>", "<set>", "<sstream>",
                                          "<unordered_map>", "<unordered_set>", "<vector>"}) {
        if (code.substr(0, 8) == "#include" && code.find(header) != std::string_view::npos) {
            return std::string(header);
        }
    }
    const auto is_part_of_name = [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '<';
    };
    for (const std::string_view word :
         {"new", "make_unique", "make_shared", "malloc", "calloc", "realloc", "strdup"}) {
        for (std::size_t at = code.find(word); at != std::string_view::npos; at = code.find(word, at + 1)) {
            const std::string_view after = code.substr(at + word.size());
            const bool is_word = (at == 0 || !is_part_of_name(code[at - 1])) &&
                                 (after.empty() || after.front() == '<' || !is_part_of_name(after.front()));
            if (is_word && (word != "new" || after.substr(0, 15) != " (std::nothrow)")) {
                return std::string(word);
            }
        }
    }
    return {};
}

/// A line without its comments, which on one line begin and end or reach its end.
std::string without_comments(std::string line) {
    for (std::size_t begin = line.find("/*"); begin != std::string::npos; begin = line.find("/*")) {
        const std::size_t end = line.find("*/", begin + 2);
        line.erase(begin, end == std::string::npos ? end : end + 2 - begin);
    }
    return line.substr(0, line.find("//"));
}

TEST(Allocation, PortableCodeAllocatesInTheAllowedWaysOnly) {
    EXPECT_EQ(without_comments("X(a) /* new */ new /* new"), "X(a)  new ");
    EXPECT_EQ(forbidden_allocation("hash = std::make_unique<Sha256>();"), "make_unique");
    EXPECT_EQ(forbidden_allocation("#include <vector>"), "<vector>");
    EXPECT_EQ(forbidden_allocation("buffer.reset(new (std::nothrow) char[4]); storage.set(new char);"),
              "new");
    EXPECT_EQ(forbidden_allocation("buffer.reset(new (std::nothrow) char[4]); store(new_one);"), "");
    const std::filesystem::path components = std::string(OTA_FIRMWARE) + "/esp32_project/components";
    int sources = 0;
    for (const char* folder : {"Common/include", "Common/src", "OTAUpdateManager"}) {
        for (const auto& entry : std::filesystem::recursive_directory_iterator(components / folder)) {
            const std::string name = entry.path().filename();
            const bool is_source = entry.path().extension() == ".cpp" || entry.path().extension() == ".hpp";
            if (!is_source || name == "heap_text.hpp") {
                continue;
            }
            ++sources;
            std::ifstream file(entry.path());
            for (std::string line; std::getline(file, line);) {
                EXPECT_EQ(forbidden_allocation(without_comments(line)), "") << name << ": " << line;
            }
        }
    }
    EXPECT_GT(sources, 40);
}

}  // namespace
}  // namespace ota

#pragma once

#include <gtest/gtest.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

/// Records a row of the project's proof (tools/prove.py) when OTA_PROOF_DIR names its folder.
/// @param kind attacks, inputs, cuts, outages or objects.
/// @param what description for people: ASCII without `"` and `\`.
/// @param tried how many there were, all of them withstood: if any test of the program has failed so far,
///        nothing is recorded.
inline void report_proof(const std::string& kind, const std::string& what, std::uint64_t tried) {
    const char* folder = std::getenv("OTA_PROOF_DIR");
    if (folder == nullptr || !testing::UnitTest::GetInstance()->Passed()) {
        return;
    }
    const std::string path =
        std::string(folder) + "/" + kind + "-" + std::to_string(std::hash<std::string>{}(what)) + ".json";
    std::FILE* file = std::fopen(path.c_str(), "w");
    ASSERT_NE(file, nullptr) << path;
    std::fprintf(file, R"({"kind": "%s", "what": "%s", "tried": %)" PRIu64 R"(, "withstood": %)" PRIu64 "}\n",
                 kind.c_str(), what.c_str(), tried, tried);
    std::fclose(file);
}

#pragma once

#include <fstream>
#include <iterator>
#include <string>

#include "require.hpp"

/// Content of a file next to fuzz/python/seeds.py: a public key whose private half is gone, and the only
/// payload that it ever signed.
inline std::string signed_once(const char* name) {
    std::ifstream file(std::string(SIGNED) + "/" + name, std::ios::binary);
    REQUIRE(file.good());
    return {std::istreambuf_iterator<char>(file), {}};
}

#pragma once

#include <fstream>
#include <iterator>
#include <string>

#include "require.hpp"

/// Content of a file beside fuzz/python/seeds.py: the public key whose other half is gone, and the one
/// payload that it ever signed.
inline std::string signed_once(const char* name) {
    std::ifstream file(std::string(SIGNED) + "/" + name, std::ios::binary);
    REQUIRE(file.good());
    return {std::istreambuf_iterator<char>(file), {}};
}

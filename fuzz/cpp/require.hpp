#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "ota/heap_text.hpp"

/// A condition that must hold for every input; libFuzzer reports an input for which it does not.
#define REQUIRE(condition)                                                                      \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            std::abort();                                                                       \
        }                                                                                       \
    } while (false)

/// The input in a block of exactly its size, because parsers rewrite it and must not read past it.
inline ota::HeapText own_copy(const std::uint8_t* input, std::size_t size) {
    ota::HeapText text;
    REQUIRE(text.allocate(size));
    // allocate() takes one more byte, which nothing may read.
    text.shrink(size);
    if (size > 0) {
        std::copy(input, input + size, text.data());
    }
    return text;
}

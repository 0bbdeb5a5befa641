#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "mbedtls/md.h"

namespace ota {

using Sha256Digest = std::array<std::uint8_t, 32>;

/// SHA-256 over a stream, by mbedTLS (on the chip in hardware). It uses `md.h`, the only hash interface
/// that mbedTLS 2.28, 3.6 and 4 share.
class Sha256 {
public:
    Sha256();
    ~Sha256();
    Sha256(const Sha256&) = delete;
    Sha256& operator=(const Sha256&) = delete;

    void update(const void* bytes, std::size_t size);

    /// @return false if mbedTLS has failed since construction (out of memory, hardware).
    [[nodiscard]] bool finish(Sha256Digest& digest);

private:
    mbedtls_md_context_t context_;
    bool ok_;
};

/// @return false if mbedTLS failed.
[[nodiscard]] bool sha256(const void* bytes, std::size_t size, Sha256Digest& digest);

}  // namespace ota

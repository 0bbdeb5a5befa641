// How the device reads manifests: takes payloads in hex, one per line, and writes what it understood of
// each, or the reason why not. A test compares that with the pipeline's reader.

#include <cinttypes>
#include <cstdio>
#include <iostream>
#include <string>

#include "ota/hex.hpp"
#include "ota/manifest.hpp"

int main() {
    const ota::MacAddress mac{{0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF}};
    for (std::string line; std::getline(std::cin, line);) {
        std::string payload(line.size() / 2, '\0');
        if (!ota::hex_decode(line, reinterpret_cast<std::uint8_t*>(payload.data()), payload.size())) {
            std::fprintf(stderr, "read_manifests: not hex: %s\n", line.c_str());
            return 1;
        }
        ota::Manifest manifest;
        const ota::Reason reason = ota::parse_manifest({payload.data(), payload.size()}, mac, manifest);
        if (reason != ota::Reason::none) {
            std::printf("%s\n", ota::to_string(reason));
            continue;
        }
        const std::string product(manifest.product);
        const std::string version(manifest.version);
        const std::string chip(manifest.chip);
        std::printf("none %s %s %s %" PRId64 " %" PRId64 " %" PRIu32 " %s %s %d %d %d\n", product.c_str(),
                    version.c_str(), chip.c_str(), manifest.sequence, manifest.expires, manifest.image_size,
                    ota::hex_encode(manifest.image_sha256.data(), manifest.image_sha256.size()).c_str(),
                    ota::hex_encode(reinterpret_cast<const std::uint8_t*>(manifest.image_signature.data),
                                    manifest.image_signature.size)
                        .c_str(),
                    manifest.allow_downgrade, manifest.strict_app_version, static_cast<int>(manifest.target));
    }
    return 0;
}

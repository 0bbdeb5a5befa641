#include "esp_image_builder.hpp"

#include <algorithm>
#include <cstring>
#include <random>

#include "flash_layout.hpp"
#include "ota/sha256.hpp"

namespace ota::host {
namespace {

template <typename Integer>
void put(std::vector<std::uint8_t>& bytes, std::size_t offset, Integer value) {
    std::memcpy(bytes.data() + offset, &value, sizeof(value));  // Both sides are little-endian.
}

void put_text(std::vector<std::uint8_t>& bytes, std::size_t offset, const std::string& text) {
    constexpr std::size_t kMaxText = 31;
    std::memcpy(bytes.data() + offset, text.data(), std::min(text.size(), kMaxText));
}

}  // namespace

std::vector<std::uint8_t> build_image(const ImageSpec& spec) {
    constexpr std::size_t kSegmentStart = 32;
    constexpr std::size_t kAppDescriptionSize = 256;
    constexpr std::size_t kHashSize = 32;
    const std::size_t padded = spec.size - kHashSize;
    const std::size_t segment_size = padded - 16 - kSegmentStart;  // The checksum takes the last 16 bytes.

    std::vector<std::uint8_t> bytes(padded, 0);
    bytes[0] = 0xE9;
    bytes[1] = 1;     // segments
    bytes[2] = 2;     // SPI mode: DIO
    bytes[3] = 0x2F;  // 4 MB, 80 MHz
    put<std::uint32_t>(bytes, 4, 0x40080000);
    bytes[8] = 0xEE;
    put<std::uint16_t>(bytes, 12, spec.chip_id);
    put<std::uint16_t>(bytes, 17, 0xFFFF);  // Any later chip revision.
    bytes[23] = 1;                          // SHA-256 appended
    put<std::uint32_t>(bytes, 24, 0x3F400020);
    put<std::uint32_t>(bytes, 28, static_cast<std::uint32_t>(segment_size));

    std::mt19937 filling(spec.seed);
    std::generate(bytes.begin() + kSegmentStart + kAppDescriptionSize,
                  bytes.begin() + static_cast<std::ptrdiff_t>(kSegmentStart + segment_size),
                  [&filling] { return static_cast<std::uint8_t>(filling()); });

    put<std::uint32_t>(bytes, kSegmentStart, 0xABCD5432);
    put_text(bytes, kSegmentStart + 16, spec.version);
    put_text(bytes, kSegmentStart + 48, spec.project);
    put_text(bytes, kSegmentStart + 80, "12:00:00");
    put_text(bytes, kSegmentStart + 96, "Jan  1 2026");
    put_text(bytes, kSegmentStart + 112, "v5.5.5");
    put<std::uint32_t>(bytes, kSegmentStart + 144, spec.seed);

    std::uint8_t checksum = 0xEF;
    for (std::size_t i = kSegmentStart; i < kSegmentStart + segment_size; ++i) {
        checksum ^= bytes[i];
    }
    bytes[padded - 1] = checksum;

    Sha256Digest digest;
    if (!sha256(bytes.data(), bytes.size(), digest)) {
        return {};
    }
    bytes.insert(bytes.end(), digest.begin(), digest.end());
    return bytes;
}

std::vector<std::uint8_t> build_flash(const std::vector<std::uint8_t>& image) {
    std::vector<std::uint8_t> flash(posix::kFlashSize, 0xFF);
    std::copy(image.begin(), image.end(), flash.begin() + static_cast<std::ptrdiff_t>(posix::kSlotOffset[0]));
    return flash;
}

}  // namespace ota::host

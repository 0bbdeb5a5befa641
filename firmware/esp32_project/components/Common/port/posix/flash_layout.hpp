#pragma once

#include <cstddef>

namespace ota::posix {

// The flash as partitions.csv divides it (a test compares the two).
inline constexpr std::size_t kFlashSize = 0x400000;
inline constexpr std::size_t kNvsOffset = 0x9000;
inline constexpr std::size_t kNvsSize = 0x5000;
inline constexpr std::size_t kOtaDataOffset = 0xE000;
inline constexpr std::size_t kOtaDataSize = 0x2000;
inline constexpr std::size_t kSlotOffset[] = {0x10000, 0x1F0000};
inline constexpr std::size_t kSlotSize = 0x1E0000;

}  // namespace ota::posix

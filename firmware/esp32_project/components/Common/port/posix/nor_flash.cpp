#include "nor_flash.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "flash_layout.hpp"
#include "ota/port/flash_slots.hpp"

namespace ota::posix {

bool NorFlash::read(std::size_t offset, void* buffer, std::size_t size) const {
    if (!contains(offset, size)) {
        return false;
    }
    std::memcpy(buffer, bytes_ + offset, size);
    return true;
}

bool NorFlash::write(std::size_t offset, const void* bytes, std::size_t size) {
    if (!contains(offset, size)) {
        return false;
    }
    const auto* const source = static_cast<const std::uint8_t*>(bytes);
    for (std::size_t i = 0; i < size; ++i) {
        bytes_[offset + i] &= source[i];
    }
    return true;
}

bool NorFlash::erase_sector(std::size_t offset) {
    if (offset % kFlashSectorSize != 0 || !contains(offset, kFlashSectorSize)) {
        return false;
    }
    std::memset(bytes_ + offset, 0xFF, kFlashSectorSize);
    return true;
}

FileFlash::FileFlash(const char* path) : NorFlash(nullptr, kFlashSize) {
    const int file = ::open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) {
        return;
    }
    struct stat status {};
    if (::fstat(file, &status) == 0 && static_cast<std::size_t>(status.st_size) == kFlashSize) {
        void* const mapped = ::mmap(nullptr, kFlashSize, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (mapped != MAP_FAILED) {
            bytes_ = static_cast<std::uint8_t*>(mapped);
        }
    }
    ::close(file);
}

FileFlash::~FileFlash() {
    if (is_open()) {
        ::munmap(bytes_, kFlashSize);
    }
}

}  // namespace ota::posix

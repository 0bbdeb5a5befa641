#pragma once

#include <cstddef>
#include <cstdint>

namespace ota::posix {

/// NOR flash in memory or in a mapped file: erasing a sector sets all its bits, and writing can only
/// clear them. Virtual, so that a test can cut the power in the middle of an operation.
class NorFlash {
public:
    NorFlash(std::uint8_t* bytes, std::size_t size) : bytes_(bytes), size_(size) {}
    virtual ~NorFlash() = default;
    NorFlash(const NorFlash&) = delete;
    NorFlash& operator=(const NorFlash&) = delete;

    /// These three return false if the range exceeds the flash.
    bool read(std::size_t offset, void* buffer, std::size_t size) const;
    virtual bool write(std::size_t offset, const void* bytes, std::size_t size);
    /// @param offset start of a sector.
    virtual bool erase_sector(std::size_t offset);

protected:
    [[nodiscard]] bool contains(std::size_t offset, std::size_t size) const {
        return offset <= size_ && size <= size_ - offset;
    }

    std::uint8_t* bytes_;
    std::size_t size_;
};

/// A file of kFlashSize bytes, as `esptool read-flash` would write it.
class FileFlash : public NorFlash {
public:
    /// Maps the file. Check is_open() before anything else.
    explicit FileFlash(const char* path);
    ~FileFlash() override;
    FileFlash(const FileFlash&) = delete;
    FileFlash& operator=(const FileFlash&) = delete;

    [[nodiscard]] bool is_open() const { return bytes_ != nullptr; }
};

}  // namespace ota::posix

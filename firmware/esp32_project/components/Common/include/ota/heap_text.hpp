#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace ota {

/// A text on the heap that can be cut: with a notification of 16 KiB in memory, there is no room to copy
/// the part that is still needed.
///
/// While the device runs, this and `new (std::nothrow)` are the only ways to allocate more than a short
/// text: see "Out of memory" in firmware/README.md.
class HeapText {
public:
    /// Allocates `size` bytes, after freeing the old ones. @return false if there is no memory.
    [[nodiscard]] bool allocate(std::size_t size) {
        reset();
        // One byte more, so that an empty text is not nullptr.
        bytes_.reset(static_cast<char*>(std::malloc(size + 1)));
        size_ = bytes_ ? size : 0;
        return bytes_ != nullptr;
    }

    /// Keeps the first `size` bytes. They may move.
    void shrink(std::size_t size) {
        if (void* const smaller = std::realloc(bytes_.get(), size + 1)) {
            (void)bytes_.release();
            bytes_.reset(static_cast<char*>(smaller));
        }
        size_ = size;
    }

    void reset() {
        bytes_.reset();
        size_ = 0;
    }

    [[nodiscard]] char* data() const { return bytes_.get(); }
    [[nodiscard]] std::size_t size() const { return size_; }
    explicit operator bool() const { return bytes_ != nullptr; }

private:
    struct Free {
        void operator()(char* bytes) const { std::free(bytes); }
    };

    std::unique_ptr<char, Free> bytes_;
    std::size_t size_ = 0;
};

}  // namespace ota

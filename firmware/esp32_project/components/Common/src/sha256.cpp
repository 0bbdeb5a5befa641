#include "ota/sha256.hpp"

namespace ota {

Sha256::Sha256() {
    mbedtls_md_init(&context_);
    ok_ = mbedtls_md_setup(&context_, mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), 0) == 0 &&
          mbedtls_md_starts(&context_) == 0;
}

Sha256::~Sha256() {
    mbedtls_md_free(&context_);
}

void Sha256::update(const void* bytes, std::size_t size) {
    ok_ = ok_ && mbedtls_md_update(&context_, static_cast<const unsigned char*>(bytes), size) == 0;
}

bool Sha256::finish(Sha256Digest& digest) {
    ok_ = ok_ && mbedtls_md_finish(&context_, digest.data()) == 0;
    return ok_;
}

bool sha256(const void* bytes, std::size_t size, Sha256Digest& digest) {
    Sha256 hash;
    hash.update(bytes, size);
    return hash.finish(digest);
}

}  // namespace ota

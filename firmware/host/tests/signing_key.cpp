#include "signing_key.hpp"

#include <random>
#include <stdexcept>
#include <vector>

#include "mbedtls/rsa.h"
#include "mbedtls/version.h"
#include "ota/hex.hpp"
#include "ota/signature_verifier.hpp"

namespace ota::test {
namespace {

int random_bytes(void* /*context*/, unsigned char* bytes, std::size_t size) {
    static std::random_device source;
    for (std::size_t i = 0; i < size; ++i) {
        bytes[i] = static_cast<unsigned char>(source());
    }
    return 0;
}

void check(int result, const char* what) {
    if (result != 0) {
        throw std::runtime_error(std::string(what) + " failed: " + std::to_string(result));
    }
}

}  // namespace

SigningKey::SigningKey(unsigned bits) {
    constexpr int kExponent = 65537;
    mbedtls_pk_init(&key_);
    check(mbedtls_pk_setup(&key_, mbedtls_pk_info_from_type(MBEDTLS_PK_RSA)), "mbedtls_pk_setup");
    check(mbedtls_rsa_gen_key(mbedtls_pk_rsa(key_), random_bytes, nullptr, bits, kExponent),
          "mbedtls_rsa_gen_key");
    std::vector<unsigned char> pem(2048);
    check(mbedtls_pk_write_pubkey_pem(&key_, pem.data(), pem.size()), "mbedtls_pk_write_pubkey_pem");
    public_pem_ = reinterpret_cast<const char*>(pem.data());
    Sha256Digest id;
    if (ota::key_id(public_pem_.c_str(), id) != ota::Reason::none) {
        throw std::runtime_error("key_id failed");
    }
    key_id_ = hex_encode(id.data(), id.size());
}

SigningKey::~SigningKey() {
    mbedtls_pk_free(&key_);
}

std::string SigningKey::sign(std::string_view bytes) const {
    Sha256Digest digest;
    if (!sha256(bytes.data(), bytes.size(), digest)) {
        throw std::runtime_error("sha256 failed");
    }
    std::string signature(MBEDTLS_PK_SIGNATURE_MAX_SIZE, '\0');
    std::size_t size = 0;
    auto* const out = reinterpret_cast<unsigned char*>(signature.data());
#if MBEDTLS_VERSION_MAJOR >= 3
    check(mbedtls_pk_sign(&key_, MBEDTLS_MD_SHA256, digest.data(), digest.size(), out, signature.size(),
                          &size, random_bytes, nullptr),
          "mbedtls_pk_sign");
#else
    check(mbedtls_pk_sign(&key_, MBEDTLS_MD_SHA256, digest.data(), digest.size(), out, &size, random_bytes,
                          nullptr),
          "mbedtls_pk_sign");
#endif
    return base64_encode(std::string_view(signature).substr(0, size));
}

const SigningKey& trusted_key() {
    static const SigningKey key;
    return key;
}

const SigningKey& second_trusted_key() {
    static const SigningKey key(3072);
    return key;
}

const SigningKey& attacker_key() {
    static const SigningKey key;
    return key;
}

std::string base64_encode(std::string_view bytes) {
    constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string text;
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::uint32_t bits = 0;
        for (std::size_t j = 0; j < 3; ++j) {
            bits = bits << 8U | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0U);
        }
        for (std::size_t j = 0; j < 4; ++j) {
            text += i + j <= bytes.size() ? kDigits[(bits >> (18 - 6 * j)) & 63U] : '=';
        }
    }
    return text;
}

}  // namespace ota::test

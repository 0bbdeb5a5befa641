#include "ota/signature_verifier.hpp"

#include <cstring>
#include <vector>

#include "mbedtls/pk.h"
#include "ota/base64.hpp"
#include "ota/hex.hpp"

namespace ota {
namespace {

/// The DER inside a PEM public key (RFC 7468, section 13); empty when it is none.
std::vector<std::uint8_t> der_of_pem(const char* pem) {
    constexpr std::string_view kBegin = "-----BEGIN PUBLIC KEY-----";
    constexpr std::string_view kEnd = "-----END PUBLIC KEY-----";
    const std::string_view text = pem;
    const std::size_t begin = text.find(kBegin);
    const std::size_t end = text.find(kEnd);
    if (begin == std::string_view::npos || end == std::string_view::npos || end < begin + kBegin.size()) {
        return {};
    }
    std::vector<std::uint8_t> der;
    der.reserve(end - begin - kBegin.size());
    for (const char c : text.substr(begin + kBegin.size(), end - begin - kBegin.size())) {
        if (c != '\n' && c != '\r' && c != ' ') {
            der.push_back(static_cast<std::uint8_t>(c));
        }
    }
    TextSpan span{reinterpret_cast<char*>(der.data()), der.size()};
    if (!base64_decode_in_place(span)) {
        return {};
    }
    der.resize(span.size);
    return der;
}

/// Whether the SubjectPublicKeyInfo is of rsaEncryption (RFC 8017, appendix A.1). Asked of the DER,
/// because mbedTLS 4 no longer has `mbedtls_pk_get_type`.
bool is_rsa_key(const std::vector<std::uint8_t>& der) {
    // AlgorithmIdentifier: SEQUENCE { OBJECT IDENTIFIER 1.2.840.113549.1.1.1, NULL }
    constexpr std::uint8_t kRsaEncryption[] = {0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86,
                                               0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00};
    constexpr std::size_t kOffset = 4;  // After the outer SEQUENCE, whose length has two bytes at 2048 bits.
    return der.size() > kOffset + sizeof(kRsaEncryption) &&
           std::memcmp(der.data() + kOffset, kRsaEncryption, sizeof(kRsaEncryption)) == 0;
}

/// Parses a public key. @return false unless it is RSA of 2048 bits or more.
bool parse_key(const char* pem, mbedtls_pk_context& key) {
    const std::vector<std::uint8_t> der = der_of_pem(pem);
    return is_rsa_key(der) && mbedtls_pk_parse_public_key(&key, der.data(), der.size()) == 0 &&
           mbedtls_pk_get_bitlen(&key) >= SignatureVerifier::kMinKeyBits;
}

bool verify_digest(const char* pem, const Sha256Digest& digest, const void* signature,
                   std::size_t signature_size) {
    mbedtls_pk_context key;
    mbedtls_pk_init(&key);
    const bool good = parse_key(pem, key) &&
                      mbedtls_pk_verify(&key, MBEDTLS_MD_SHA256, digest.data(), digest.size(),
                                        static_cast<const unsigned char*>(signature), signature_size) == 0;
    mbedtls_pk_free(&key);
    return good;
}

bool keyid_matches(const Sha256Digest& id, std::string_view text) {
    Sha256Digest named;
    return hex_decode(text, named.data(), named.size()) && named == id;
}

}  // namespace

bool key_id(const char* pem, Sha256Digest& id) {
    const std::vector<std::uint8_t> der = der_of_pem(pem);
    return !der.empty() && sha256(der.data(), der.size(), id);
}

Reason SignatureVerifier::verify_envelope(const Envelope& envelope, const Sha256Digest& digest) const {
    Reason result = Reason::envelope_untrusted_key;
    for (std::size_t k = 0; k < keys_.count; ++k) {
        Sha256Digest id;
        if (!key_id(keys_.pem[k], id)) {
            continue;
        }
        for (std::size_t i = 0; i < envelope.signature_count; ++i) {
            const Envelope::Signature& signature = envelope.signatures[i];
            if (!keyid_matches(id, signature.keyid.view())) {
                continue;
            }
            if (verify_digest(keys_.pem[k], digest, signature.sig.data, signature.sig.size)) {
                return Reason::none;
            }
            result = Reason::envelope_bad_signature;
        }
    }
    return result;
}

void SignatureVerifier::begin_image() {
    image_hash_ = std::make_unique<Sha256>();
}

void SignatureVerifier::update_image(const void* bytes, std::size_t size) {
    image_hash_->update(bytes, size);
}

Reason SignatureVerifier::finish_image(const Sha256Digest& expected, const std::uint8_t* signature,
                                       std::size_t signature_size) {
    Sha256Digest digest;
    const bool hashed = image_hash_->finish(digest);
    image_hash_.reset();
    if (!hashed) {
        return Reason::out_of_memory;
    }
    if (digest != expected) {
        return Reason::image_sha256_mismatch;
    }
    for (std::size_t k = 0; k < keys_.count; ++k) {
        if (verify_digest(keys_.pem[k], digest, signature, signature_size)) {
            return Reason::none;
        }
    }
    return Reason::image_bad_signature;
}

}  // namespace ota

#include "ota/signature_verifier.hpp"

#include <cstring>

#include "mbedtls/md.h"
#include "mbedtls/pk.h"
#include "ota/base64.hpp"
#include "ota/heap_text.hpp"
#include "ota/hex.hpp"

namespace ota {
namespace {

/// What one key says about a signature.
enum class Verdict : std::uint8_t { good, bad, no_memory };

/// The DER inside a PEM public key (RFC 7468, section 13).
/// @return none; envelope_untrusted_key if the text is not a public key; out_of_memory.
Reason der_of_pem(const char* pem, HeapText& der) {
    constexpr std::string_view kBegin = "-----BEGIN PUBLIC KEY-----";
    constexpr std::string_view kEnd = "-----END PUBLIC KEY-----";
    std::string_view text = pem;
    const std::size_t begin = text.find(kBegin);
    const std::size_t end = text.find(kEnd);
    if (begin == std::string_view::npos || end == std::string_view::npos || end < begin + kBegin.size()) {
        return Reason::envelope_untrusted_key;
    }
    text = text.substr(begin + kBegin.size(), end - begin - kBegin.size());
    if (!der.allocate(text.size())) {
        return Reason::out_of_memory;
    }
    TextSpan span{der.data(), 0};
    for (const char c : text) {
        if (c != '\n' && c != '\r' && c != ' ') {
            span.data[span.size++] = c;
        }
    }
    if (!base64_decode_in_place(span) || span.size == 0) {
        return Reason::envelope_untrusted_key;
    }
    der.shrink(span.size);
    return Reason::none;
}

/// Whether the SubjectPublicKeyInfo is of rsaEncryption (RFC 8017, appendix A.1). Looks at the DER,
/// because mbedTLS 4 no longer has `mbedtls_pk_get_type`.
bool is_rsa_key(const HeapText& der) {
    // AlgorithmIdentifier: SEQUENCE { OBJECT IDENTIFIER 1.2.840.113549.1.1.1, NULL }
    constexpr std::uint8_t kRsaEncryption[] = {0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86,
                                               0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00};
    constexpr std::size_t kOffset = 4;  // After the outer SEQUENCE, whose length has two bytes at 2048 bits.
    return der.size() > kOffset + sizeof(kRsaEncryption) &&
           std::memcmp(der.data() + kOffset, kRsaEncryption, sizeof(kRsaEncryption)) == 0;
}

/// Whether mbedTLS ran out of memory. Up to 3.6, an error is a module's code plus a low-level one in the
/// last seven bits (mbedtls/error.h); version 4 has a single code for all modules.
bool lacks_memory(int error) {
    constexpr int kMpiAllocFailed = 0x10;  // From bignum.h, which is private in mbedTLS 4.
    constexpr int kPkAllocFailed = 0x3F80;
    return error == MBEDTLS_ERR_MD_ALLOC_FAILED || -error == kPkAllocFailed ||
           (-error & 0x7F) == kMpiAllocFailed;
}

/// Parses a public key. @return good; bad if it is not RSA with 2048 bits or more; no_memory.
Verdict parse_key(const char* pem, mbedtls_pk_context& key) {
    HeapText der;
    const Reason reason = der_of_pem(pem, der);
    if (reason == Reason::out_of_memory) {
        return Verdict::no_memory;
    }
    if (reason != Reason::none || !is_rsa_key(der)) {
        return Verdict::bad;
    }
    if (mbedtls_pk_parse_public_key(&key, reinterpret_cast<const unsigned char*>(der.data()), der.size()) !=
        0) {
        // mbedTLS does not always say why. The key is RSA and was built into the firmware, so the key
        // is not the cause. Calling a good signature bad would give up a good image.
        return Verdict::no_memory;
    }
    return mbedtls_pk_get_bitlen(&key) >= SignatureVerifier::kMinKeyBits ? Verdict::good : Verdict::bad;
}

Verdict verify_digest(const char* pem, const Sha256Digest& digest, const void* signature,
                      std::size_t signature_size) {
    mbedtls_pk_context key;
    mbedtls_pk_init(&key);
    Verdict verdict = parse_key(pem, key);
    if (verdict == Verdict::good) {
        const int error = mbedtls_pk_verify(&key, MBEDTLS_MD_SHA256, digest.data(), digest.size(),
                                            static_cast<const unsigned char*>(signature), signature_size);
        verdict = error == 0 ? Verdict::good : lacks_memory(error) ? Verdict::no_memory : Verdict::bad;
    }
    mbedtls_pk_free(&key);
    return verdict;
}

bool keyid_matches(const Sha256Digest& id, std::string_view text) {
    Sha256Digest named;
    return hex_decode(text, named.data(), named.size()) && named == id;
}

}  // namespace

Reason key_id(const char* pem, Sha256Digest& id) {
    HeapText der;
    const Reason reason = der_of_pem(pem, der);
    if (reason != Reason::none) {
        return reason;
    }
    return sha256(der.data(), der.size(), id) ? Reason::none : Reason::out_of_memory;
}

Reason SignatureVerifier::verify_envelope(const Envelope& envelope, const Sha256Digest& digest) const {
    Reason result = Reason::envelope_untrusted_key;
    bool lacked_memory = false;
    for (std::size_t k = 0; k < keys_.count; ++k) {
        Sha256Digest id;
        if (const Reason reason = key_id(keys_.pem[k], id); reason != Reason::none) {
            lacked_memory = lacked_memory || reason == Reason::out_of_memory;
            continue;
        }
        for (std::size_t i = 0; i < envelope.signature_count; ++i) {
            const Envelope::Signature& signature = envelope.signatures[i];
            if (!keyid_matches(id, signature.keyid.view())) {
                continue;
            }
            switch (verify_digest(keys_.pem[k], digest, signature.sig.data, signature.sig.size)) {
                case Verdict::good:
                    return Reason::none;
                case Verdict::bad:
                    result = Reason::envelope_bad_signature;
                    break;
                case Verdict::no_memory:
                    lacked_memory = true;
                    break;
            }
        }
    }
    return lacked_memory ? Reason::out_of_memory : result;
}

void SignatureVerifier::begin_image() {
    image_hash_.emplace();
}

void SignatureVerifier::update_image(const void* bytes, std::size_t size) {
    image_hash_->update(bytes, size);
}

Reason SignatureVerifier::finish_image(const Sha256Digest& expected, const void* signature,
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
    bool lacked_memory = false;
    for (std::size_t k = 0; k < keys_.count; ++k) {
        const Verdict verdict = verify_digest(keys_.pem[k], digest, signature, signature_size);
        if (verdict == Verdict::good) {
            return Reason::none;
        }
        lacked_memory = lacked_memory || verdict == Verdict::no_memory;
    }
    return lacked_memory ? Reason::out_of_memory : Reason::image_bad_signature;
}

}  // namespace ota

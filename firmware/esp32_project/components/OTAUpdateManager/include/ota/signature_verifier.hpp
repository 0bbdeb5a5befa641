#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "ota/envelope.hpp"
#include "ota/reason.hpp"
#include "ota/sha256.hpp"

namespace ota {

/// Public keys that this firmware trusts, as PEM (`-----BEGIN PUBLIC KEY-----`). At least two, so that
/// the one in use can be retired.
struct TrustedKeys {
    const char* const* pem = nullptr;
    std::size_t count = 0;
};

/// Checks signatures: of the manifest in its DSSE envelope, and of the image while it is downloaded.
/// RSASSA-PKCS1-v1_5 with SHA-256 and keys of 2048 bits or more.
class SignatureVerifier {
public:
    static constexpr std::size_t kMinKeyBits = 2048;
    static constexpr std::size_t kMaxSignatureSize = 512;  ///< Bytes: RSA-4096.

    explicit SignatureVerifier(TrustedKeys keys) : keys_(keys) {}

    /// Checks that one of the signatures is by the trusted key that its `keyid` names, over the digest
    /// from decode_envelope().
    /// @return none, envelope_untrusted_key (no signature names a trusted key), envelope_bad_signature,
    ///         or out_of_memory if that may be why no key confirmed a signature.
    [[nodiscard]] Reason verify_envelope(const Envelope& envelope, const Sha256Digest& digest) const;

    /// Starts over with a new image.
    void begin_image();

    /// The next bytes of the image, in order.
    void update_image(const void* bytes, std::size_t size);

    /// Ends the image.
    /// @return none; image_sha256_mismatch; image_bad_signature if no trusted key made `signature` over
    ///         the image's bytes; out_of_memory if the hash or the signature could not be checked.
    Reason finish_image(const Sha256Digest& expected, const void* signature, std::size_t signature_size);

private:
    TrustedKeys keys_;
    std::optional<Sha256> image_hash_;
};

/// SHA-256 of the key's DER SubjectPublicKeyInfo: its keyid.
/// @return none; envelope_untrusted_key if `pem` is not a public key; out_of_memory.
[[nodiscard]] Reason key_id(const char* pem, Sha256Digest& id);

}  // namespace ota

// An envelope: only the one that was signed passes.

#include "ota/envelope.hpp"

#include <algorithm>

#include "ota/signature_verifier.hpp"
#include "require.hpp"
#include "signed_once.hpp"

using ota::Reason;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
    static const std::string public_key = signed_once("signer.pub.pem");
    static const std::string payload = signed_once("signed_payload.json");
    static const char* const keys[] = {public_key.c_str()};
    static const ota::SignatureVerifier verifier({keys, 1});

    const ota::HeapText text = own_copy(input, size);
    ota::JsonReader json(text.data(), text.size());
    ota::Envelope envelope;
    if (!ota::parse_envelope(json, envelope)) {
        return 0;
    }
    REQUIRE(envelope.signature_count <= ota::Envelope::kMaxSignatures);
    ota::Sha256Digest digest;
    const Reason decoded = ota::decode_envelope(envelope, digest);
    REQUIRE(decoded == Reason::none || decoded == Reason::envelope_malformed ||
            decoded == Reason::envelope_unknown_type);
    if (decoded != Reason::none) {
        return 0;
    }
    const Reason verified = verifier.verify_envelope(envelope, digest);
    REQUIRE(verified == Reason::none || verified == Reason::envelope_untrusted_key ||
            verified == Reason::envelope_bad_signature);
    REQUIRE(verified != Reason::none || envelope.payload.view() == payload);
    return 0;
}

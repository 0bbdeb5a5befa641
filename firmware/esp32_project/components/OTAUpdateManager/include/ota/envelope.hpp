#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "ota/json_reader.hpp"
#include "ota/reason.hpp"
#include "ota/sha256.hpp"
#include "ota/text_span.hpp"

namespace ota {

/// A DSSE envelope (https://github.com/secure-systems-lab/dsse/blob/master/envelope.md) in its buffer:
/// still base64, and not verified.
struct Envelope {
    /// Further signatures are ignored, to limit the work that an attacker can cause.
    static constexpr std::size_t kMaxSignatures = 4;

    struct Signature {
        TextSpan keyid;
        TextSpan sig;
    };

    TextSpan payload;
    TextSpan payload_type;
    std::array<Signature, kMaxSignatures> signatures;
    std::size_t signature_count = 0;
};

/// Reads the next value of `json` as an envelope.
/// @return false if a field is missing, duplicated or of the wrong type.
[[nodiscard]] bool parse_envelope(JsonReader& json, Envelope& envelope);

/// Decodes payload and signatures in place, and hashes what is signed.
/// @param[out] digest SHA-256 of DSSE's pre-authentication encoding (PAE) of type and payload.
/// @return none, envelope_unknown_type, envelope_malformed or out_of_memory.
Reason decode_envelope(Envelope& envelope, Sha256Digest& digest);

/// The id of the release that a manifest's payload describes: 32 hex digits of the payload's SHA-256, as in
/// the pipeline. So whatever the payload's signature covers, the id covers too.
/// @return false if mbedTLS failed.
[[nodiscard]] bool release_id_of(std::string_view payload, std::string& release_id);

}  // namespace ota

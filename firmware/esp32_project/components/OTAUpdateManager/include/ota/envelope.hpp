#pragma once

#include <array>
#include <cstddef>

#include "ota/json_reader.hpp"
#include "ota/reason.hpp"
#include "ota/sha256.hpp"
#include "ota/text_span.hpp"

namespace ota {

/// A DSSE envelope (https://github.com/secure-systems-lab/dsse/blob/master/envelope.md) as it stands
/// in its buffer: still base64, nothing of it verified.
struct Envelope {
    /// More signatures than this are ignored, which bounds the work that a stranger can cause.
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

/// Reads the envelope that is the next value of `json`.
/// @return false when a field is missing, twice there or of the wrong type.
[[nodiscard]] bool parse_envelope(JsonReader& json, Envelope& envelope);

/// Decodes payload and signatures where they stand, and hashes what is signed.
/// @param[out] digest SHA-256 of DSSE's pre-authentication encoding (PAE) of type and payload.
/// @return none, envelope_unknown_type, envelope_malformed or out_of_memory.
Reason decode_envelope(Envelope& envelope, Sha256Digest& digest);

}  // namespace ota

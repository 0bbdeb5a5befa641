#include "ota/envelope.hpp"

#include <cstdio>

#include "ota/base64.hpp"
#include "ota/hex.hpp"

namespace ota {
namespace {

constexpr std::string_view kManifestType = "application/vnd.esp32-ota.manifest+json";

bool parse_signature(JsonReader& json, Envelope::Signature& signature) {
    std::string_view name;
    for (json.begin_object(); json.next_member(name);) {
        TextSpan* const field = name == "keyid" ? &signature.keyid : name == "sig" ? &signature.sig : nullptr;
        if (field == nullptr) {
            json.skip();
        } else if (field->data != nullptr) {
            json.fail();
        } else {
            json.string(*field);
        }
    }
    return !json.failed() && signature.sig.data != nullptr;
}

/// Hash of DSSE's pre-authentication encoding: `DSSEv1 <length> <type> <length> <payload>`.
bool hash_of_pae(std::string_view type, std::string_view payload, Sha256Digest& digest) {
    char length[32];
    Sha256 hash;
    const auto update = [&hash](std::string_view text) { hash.update(text.data(), text.size()); };
    std::snprintf(length, sizeof(length), "DSSEv1 %zu ", type.size());
    update(length);
    update(type);
    std::snprintf(length, sizeof(length), " %zu ", payload.size());
    update(length);
    update(payload);
    return hash.finish(digest);
}

}  // namespace

bool parse_envelope(JsonReader& json, Envelope& envelope) {
    std::string_view name;
    bool has_signatures = false;
    for (json.begin_object(); json.next_member(name);) {
        if (name == "signatures") {
            if (has_signatures) {
                return json.fail();
            }
            has_signatures = true;
            for (json.begin_array(); json.next_element();) {
                Envelope::Signature signature;
                if (!parse_signature(json, signature)) {
                    return json.fail();
                }
                if (envelope.signature_count < Envelope::kMaxSignatures) {
                    envelope.signatures[envelope.signature_count++] = signature;
                }
            }
            continue;
        }
        TextSpan* const field = name == "payload"       ? &envelope.payload
                                : name == "payloadType" ? &envelope.payload_type
                                                        : nullptr;
        if (field == nullptr) {
            json.skip();
        } else if (field->data != nullptr) {
            json.fail();
        } else {
            json.string(*field);
        }
    }
    return !json.failed() && envelope.payload.data != nullptr && envelope.payload_type.data != nullptr &&
           envelope.signature_count > 0;
}

Reason decode_envelope(Envelope& envelope, Sha256Digest& digest) {
    if (envelope.payload_type.view() != kManifestType) {
        return Reason::envelope_unknown_type;
    }
    if (!base64_decode_in_place(envelope.payload)) {
        return Reason::envelope_malformed;
    }
    for (std::size_t i = 0; i < envelope.signature_count; ++i) {
        if (!base64_decode_in_place(envelope.signatures[i].sig)) {
            return Reason::envelope_malformed;
        }
    }
    return hash_of_pae(envelope.payload_type.view(), envelope.payload.view(), digest) ? Reason::none
                                                                                      : Reason::out_of_memory;
}

bool release_id_of(std::string_view payload, std::string& release_id) {
    Sha256Digest digest;
    if (!sha256(payload.data(), payload.size(), digest)) {
        return false;
    }
    release_id = hex_encode(digest.data(), digest.size() / 2);
    return true;
}

}  // namespace ota

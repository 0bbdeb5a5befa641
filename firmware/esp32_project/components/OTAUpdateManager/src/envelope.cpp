#include "ota/envelope.hpp"

namespace ota {
namespace {

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
        TextSpan* const field =
            name == "payload" ? &envelope.payload : name == "payloadType" ? &envelope.payload_type : nullptr;
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

}  // namespace ota

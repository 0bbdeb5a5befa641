#include "ota/manifest.hpp"

#include <algorithm>

#include "ota/base64.hpp"
#include "ota/hex.hpp"
#include "ota/json_reader.hpp"
#include "ota/rfc3339.hpp"
#include "ota/semver.hpp"
#include "ota/signature_verifier.hpp"

namespace ota {
namespace {

/// Reads a string, and fails if it is empty, as no field of the manifest may be.
bool read_text(JsonReader& json, std::string_view& value) {
    TextSpan text;
    if (!json.string(text) || text.size == 0) {
        return json.fail();
    }
    value = text.view();
    return true;
}

bool read_firmware(JsonReader& json, Manifest& manifest) {
    bool has_size = false;
    bool has_sha256 = false;
    std::string_view name;
    for (json.begin_object(); json.next_member(name);) {
        if (name == "size") {
            std::int64_t size = 0;
            if (!json.integer(size) || size <= 0 || size > UINT32_MAX) {
                return json.fail();
            }
            manifest.image_size = static_cast<std::uint32_t>(size);
            has_size = true;
        } else if (name == "sha256") {
            std::string_view digits;
            if (!read_text(json, digits) ||
                !hex_decode(digits, manifest.image_sha256.data(), manifest.image_sha256.size())) {
                return json.fail();
            }
            has_sha256 = true;
        } else if (name == "signature") {
            if (!json.string(manifest.image_signature) || !base64_decode_in_place(manifest.image_signature) ||
                manifest.image_signature.size == 0 ||
                manifest.image_signature.size > SignatureVerifier::kMaxSignatureSize) {
                return json.fail();
            }
        } else {
            json.skip();
        }
    }
    return (has_size && has_sha256 && manifest.image_signature.data != nullptr) || json.fail();
}

bool read_targets(JsonReader& json, const MacAddress& device, TargetMatch& match) {
    switch (json.peek()) {
        case JsonReader::Type::string: {
            std::string_view word;
            if (!read_text(json, word) || word != "all") {
                return json.fail();
            }
            match = TargetMatch::all;
            return true;
        }
        case JsonReader::Type::array:
            match = TargetMatch::unlisted;
            for (json.begin_array(); json.next_element();) {
                std::string_view text;
                MacAddress mac;
                if (!read_text(json, text) || !parse_mac(text, mac)) {
                    return json.fail();
                }
                if (mac == device) {
                    match = TargetMatch::listed;
                }
            }
            return !json.failed();
        case JsonReader::Type::object:
            match = TargetMatch::elsewhere;
            return json.skip();
        default:
            return json.fail();
    }
}

bool read_chip_or_product_or_version(JsonReader& json, std::string_view name, Manifest& manifest) {
    if (name == "product") {
        return read_text(json, manifest.product);
    }
    if (name == "chip") {
        return read_text(json, manifest.chip);
    }
    return read_text(json, manifest.version) &&
           (manifest.version_is_auto() || is_semver(manifest.version) || json.fail());
}

}  // namespace

Reason parse_manifest(TextSpan payload, const MacAddress& device, Manifest& manifest) {
    JsonReader json(payload.data, payload.size);
    std::int64_t schema = -1;
    bool has_sequence = false;
    bool has_expires = false;
    bool has_targets = false;
    std::string_view name;
    for (json.begin_object(); json.next_member(name);) {
        if (name == "schema") {
            json.integer(schema);
        } else if (name == "product" || name == "chip" || name == "version") {
            read_chip_or_product_or_version(json, name, manifest);
        } else if (name == "sequence") {
            has_sequence = json.integer(manifest.sequence) && (manifest.sequence > 0 || json.fail());
        } else if (name == "expires") {
            std::string_view text;
            has_expires = read_text(json, text) && (parse_rfc3339(text, manifest.expires) || json.fail());
        } else if (name == "allow_downgrade") {
            json.boolean(manifest.allow_downgrade);
        } else if (name == "strict_app_version") {
            json.boolean(manifest.strict_app_version);
        } else if (name == "firmware") {
            if (manifest.image_signature.data != nullptr) {
                json.fail();
            }
            read_firmware(json, manifest);
        } else if (name == "targets") {
            has_targets = read_targets(json, device, manifest.target);
        } else {
            json.skip();
        }
    }
    if (!json.finish()) {
        return Reason::manifest_malformed;
    }
    // Checked before missing fields, because another schema may have other fields.
    if (schema != 1) {
        return schema == -1 ? Reason::manifest_malformed : Reason::manifest_unsupported_schema;
    }
    const bool complete = !manifest.product.empty() && !manifest.chip.empty() && !manifest.version.empty() &&
                          has_sequence && has_expires && has_targets &&
                          manifest.image_signature.data != nullptr;
    return complete ? Reason::none : Reason::manifest_malformed;
}

}  // namespace ota

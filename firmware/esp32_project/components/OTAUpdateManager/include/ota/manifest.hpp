#pragma once

#include <cstdint>
#include <string_view>

#include "ota/mac_address.hpp"
#include "ota/reason.hpp"
#include "ota/sha256.hpp"
#include "ota/text_span.hpp"

namespace ota {

/// What the signed manifest says about this device as a target.
enum class TargetMatch : std::uint8_t {
    all,        ///< Every device of the product.
    listed,     ///< Its MAC is in the signed list.
    unlisted,   ///< Its MAC is not in the signed list.
    elsewhere,  ///< The list is a file or tags, which only the server can resolve.
};

/// The signed manifest. Texts stay in the buffer that it was parsed from.
struct Manifest {
    std::string_view product;
    std::string_view version;  ///< SemVer, or "auto".
    std::string_view chip;
    std::int64_t sequence = 0;
    std::int64_t expires = 0;  ///< Seconds since 1970 UTC.
    bool allow_downgrade = false;
    bool strict_app_version = false;
    std::uint32_t image_size = 0;
    Sha256Digest image_sha256{};
    TextSpan image_signature;  ///< Decoded: the bytes of the signature.
    TargetMatch target = TargetMatch::unlisted;

    [[nodiscard]] bool version_is_auto() const { return version == "auto"; }
};

/// Reads the payload of a verified envelope, rewriting it in place. Ignores unknown fields, so that a
/// manifest may say more than this firmware understands.
/// @param device the MAC to look for among the targets.
/// @return none, manifest_malformed or manifest_unsupported_schema.
Reason parse_manifest(TextSpan payload, const MacAddress& device, Manifest& manifest);

}  // namespace ota

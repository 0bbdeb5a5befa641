#pragma once

#include <cstddef>

#include "ota/text_span.hpp"

namespace ota {

/// Decodes base64 (RFC 4648, section 4, or the URL-safe alphabet of section 5) in place. Strict: padded
/// to a multiple of four, no white space, unused bits zero, so that each alphabet has only one spelling
/// of a value.
/// @param[in,out] text in: the base64 text; out: the bytes, at the same address.
/// @return false if it is not base64; the buffer's content is then unspecified.
[[nodiscard]] bool base64_decode_in_place(TextSpan& text);

}  // namespace ota

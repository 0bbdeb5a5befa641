#include "release_builder.hpp"

#include <stdexcept>

#include "ota/hex.hpp"
#include "ota/sha256.hpp"

namespace ota::test {
namespace {

std::string image_signature_of(const Release& release) {
    if (!release.image_signature.empty()) {
        return release.image_signature;
    }
    return release.signer->sign({reinterpret_cast<const char*>(release.image.data()), release.image.size()});
}

}  // namespace

std::string sha256_hex(const std::vector<std::uint8_t>& bytes) {
    Sha256Digest digest;
    if (!sha256(bytes.data(), bytes.size(), digest)) {
        throw std::runtime_error("sha256 failed");
    }
    return hex_encode(digest.data(), digest.size());
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    if (at == std::string::npos) {
        throw std::runtime_error("nothing to replace: " + from);
    }
    return text.replace(at, from.size(), to);
}

std::string seal(const SigningKey& key, const std::string& payload, const std::string& type) {
    const std::string encoding = "DSSEv1 " + std::to_string(type.size()) + " " + type + " " +
                                 std::to_string(payload.size()) + " " + payload;
    return R"({"payload":")" + base64_encode(payload) + R"(","payloadType":")" + type +
           R"(","signatures":[{"keyid":")" + key.key_id() + R"(","sig":")" + key.sign(encoding) + R"("}]})";
}

std::string Release::manifest() const {
    return R"({"schema":)" + std::to_string(schema) + R"(,"product":")" + product + R"(","version":")" +
           version + R"(","sequence":)" + std::to_string(sequence) + R"(,"expires":")" + expires +
           R"(","changelog":"Mend the clock \u2014 \"really\"","chip":")" + chip +
           R"(","firmware":{"size":)" + std::to_string(image.size()) + R"(,"sha256":")" + sha256_hex(image) +
           R"(","signature":")" + image_signature_of(*this) + R"("},"targets":)" + targets +
           R"(,"allow_downgrade":)" + (allow_downgrade ? "true" : "false") + more_manifest + "}";
}

std::string Release::id() const {
    const std::string payload = manifest();
    return sha256_hex({payload.begin(), payload.end()}).substr(0, 32);
}

std::string Release::envelope() const {
    return seal(*signer, manifest());
}

std::string Release::notification() const {
    return notification_with(envelope());
}

std::string Release::notification_with(const std::string& envelope) const {
    return R"({"release_id":")" + (claimed_id.empty() ? id() : claimed_id) + R"(","product":")" + product +
           R"(","version":")" + (announced_version.empty() ? version : announced_version) +
           R"(","url":"https://elsewhere.example/firmware","size":)" + std::to_string(image.size()) +
           R"(,"sha256":")" + sha256_hex(image) + R"(","signature":")" + image_signature_of(*this) +
           R"(","changelog":"Mend the clock","manifest":)" + envelope + more_notification + "}";
}

}  // namespace ota::test

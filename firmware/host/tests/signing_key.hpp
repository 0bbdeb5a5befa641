#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "mbedtls/pk.h"

namespace ota::test {

/// An RSA key that signs as a build server does. Every run makes a new one.
class SigningKey {
public:
    explicit SigningKey(unsigned bits = 2048);
    ~SigningKey();
    SigningKey(const SigningKey&) = delete;
    SigningKey& operator=(const SigningKey&) = delete;

    [[nodiscard]] const std::string& public_pem() const { return public_pem_; }
    [[nodiscard]] const std::string& key_id() const { return key_id_; }

    /// RSASSA-PKCS1-v1_5 with SHA-256 over `bytes`, in base64.
    [[nodiscard]] std::string sign(std::string_view bytes) const;

private:
    mutable mbedtls_pk_context key_;
    std::string public_pem_;
    std::string key_id_;
};

/// The two keys that devices trust, and one that they do not.
const SigningKey& trusted_key();
const SigningKey& second_trusted_key();
const SigningKey& attacker_key();

std::string base64_encode(std::string_view bytes);

}  // namespace ota::test

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "child_process.hpp"

namespace ota::test {

/// mosquitto on loopback with mutual TLS, and certificates for one run.
class Broker {
public:
    Broker();
    ~Broker();
    Broker(const Broker&) = delete;
    Broker& operator=(const Broker&) = delete;

    /// PEM certificate and key for a client with this id.
    struct Identity {
        std::string certificate;
        std::string key;
    };
    Identity identity(const std::string& client_id);

    void start();
    void stop();

    [[nodiscard]] int port() const { return port_; }
    [[nodiscard]] const std::string& directory() const { return directory_; }
    [[nodiscard]] std::string ca_path() const { return directory_ + "/ca.pem"; }
    [[nodiscard]] const std::string& ca() const { return ca_; }

private:
    void openssl(const std::string& arguments) const;

    std::string directory_;
    std::string ca_;
    int port_;
    std::unique_ptr<ChildProcess> process_;
};

}  // namespace ota::test

#include "broker.hpp"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <thread>

namespace ota::test {
namespace {

bool answers(int port) {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    const bool open = ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    ::close(socket);
    return open;
}

}  // namespace

Broker::Broker() : directory_(make_directory()), port_(free_port()) {
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem");
    openssl("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr");
    write_file(directory_ + "/server.ext", "subjectAltName=DNS:localhost\n");
    openssl(
        "x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile server.ext "
        "-out server.pem");
    ca_ = read_file(ca_path());
    // As in AWS IoT Core: the certificate says who the client is, and it may use only that name.
    write_file(directory_ + "/acl",
               "pattern write /firmware_update/%u/status\n"
               "pattern read /firmware_update/%u\n"
               "pattern read /firmware_update\n"
               "pattern read /firmware_update/product/sensor\n"
               "user publisher\ntopic readwrite #\n");
    write_file(
        directory_ + "/mosquitto.conf",
        "listener " + std::to_string(port_) + " 127.0.0.1\n" + "user root\n" + "cafile " + ca_path() +
            "\ncertfile " + directory_ + "/server.pem\nkeyfile " + directory_ +
            "/server.key\nrequire_certificate true\nuse_identity_as_username true\nallow_anonymous false\n"
            "acl_file " +
            directory_ + "/acl\nlog_type none\n");
    start();
}

Broker::~Broker() {
    stop();
    std::filesystem::remove_all(directory_);
}

void Broker::openssl(const std::string& arguments) const {
    if (std::system(("cd " + directory_ + " && openssl " + arguments + " 2>/dev/null >/dev/null").c_str()) !=
        0) {
        throw std::runtime_error("openssl " + arguments);
    }
}

Broker::Identity Broker::identity(const std::string& client_id) {
    openssl("req -newkey rsa:2048 -nodes -subj '/CN=" + client_id + "' -keyout client.key -out client.csr");
    openssl("x509 -req -days 2 -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out client.pem");
    return {read_file(directory_ + "/client.pem"), read_file(directory_ + "/client.key")};
}

void Broker::start() {
    const std::string path =
        std::filesystem::exists("/usr/sbin/mosquitto") ? "/usr/sbin/mosquitto" : "mosquitto";
    process_ = std::make_unique<ChildProcess>(std::vector<std::string>{
        "sh", "-c", "exec " + path + " -c " + directory_ + "/mosquitto.conf 2>/dev/null"});
    for (int i = 0; i < 100 && !answers(port_); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
}

void Broker::stop() {
    if (process_) {
        process_->kill(SIGTERM);
        process_->wait();
        process_.reset();
    }
}

}  // namespace ota::test

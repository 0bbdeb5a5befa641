// One device's update over a real connection, from the notification to the new slot. The firmware's
// components and its HTTP port are real, flash and MQTT are fakes: what is measured is CPU time.
//   bench_device API_URL IMAGE_FILE UPDATES
// Writes the image, which the server at API_URL then serves, updates UPDATES times, and prints for each update
// a JSON line with its CPU seconds and, measured after it, those of the floor: SHA-256 of the image and one
// verification of its signature, by the same mbedTLS.

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>

#include "fake_world.hpp"
#include "ota/base64.hpp"

namespace ota::test {
namespace {

constexpr std::size_t kImageSize = 0x1E0000;  // What a slot holds.

double cpu_s() {
    timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

[[noreturn]] void fail(const std::string& message) {
    std::cerr << "bench_device: " << message << '\n';
    std::exit(EXIT_FAILURE);
}

/// @return CPU seconds of the whole update.
double update(const char* api_url, const Release& release, const std::string& notification) {
    World world;
    if (!world.boot()) {
        fail("the flash does not boot");
    }
    world.config.api_url = api_url;
    world.config.chunk_size = UpdateConfig{}.chunk_size;
    const auto http = make_http_client({});
    OTAUpdateManager manager(
        world.config,
        UpdatePorts{*world.slots, *world.store, *http, world.mqtt, world.clock, world.random, world.reboot},
        world.recorder);
    manager.start();
    world.notify(notification);
    constexpr int kSteps = 1'000'000;  // Far more than it takes, so that a failure comes to an end.
    const double begun = cpu_s();
    for (int step = 0; step < kSteps && !world.recorder.saw("activated"); ++step) {
        world.mqtt.wait(manager.step());
    }
    const double spent = cpu_s() - begun;
    const std::vector<std::uint8_t> slot = world.update_slot_bytes();
    if (!world.recorder.saw("activated") ||
        !std::equal(release.image.begin(), release.image.end(), slot.begin())) {
        fail("the update did not succeed: " + world.recorder.names());
    }
    return spent;
}

double floor(const Release& release, const Sha256Digest& digest, const TextSpan& signature) {
    const char* const key = release.signer->public_pem().c_str();
    SignatureVerifier verifier({&key, 1});
    const double begun = cpu_s();
    verifier.begin_image();
    verifier.update_image(release.image.data(), release.image.size());
    const Reason reason =
        verifier.finish_image(digest, reinterpret_cast<const std::uint8_t*>(signature.data), signature.size);
    const double spent = cpu_s() - begun;
    if (reason != Reason::none) {
        fail(std::string("the floor: ") + to_string(reason));
    }
    return spent;
}

void run(const char* api_url, const char* image_file, int updates) {
    Release release = World::release();
    release.signer = &second_trusted_key();  // 3072 bits, the default of ota-sign.
    release.image = World::image("2.0.0", kImageSize);
    const std::string image(release.image.begin(), release.image.end());
    std::ofstream file(image_file, std::ios::binary);
    if (!file.write(image.data(), static_cast<std::streamsize>(image.size())).flush()) {
        fail(std::string("cannot write ") + image_file);
    }
    release.image_signature = release.signer->sign(image);
    const std::string notification = release.notification();
    Sha256Digest digest{};
    std::string signature_text = release.image_signature;
    TextSpan signature{signature_text.data(), signature_text.size()};
    if (!sha256(image.data(), image.size(), digest) || !base64_decode_in_place(signature)) {
        fail("the image cannot be signed");
    }
    for (int i = 0; i < updates; ++i) {
        const double ours = update(api_url, release, notification);
        std::printf("{\"ours\": %.9f, \"floor\": %.9f}\n", ours, floor(release, digest, signature));
    }
}

}  // namespace
}  // namespace ota::test

int main(int argc, char** argv) {
    if (argc != 4) {
        std::cerr << "usage: bench_device API_URL IMAGE_FILE UPDATES\n";
        return 2;
    }
    ota::test::run(argv[1], argv[2], std::atoi(argv[3]));
    return EXIT_SUCCESS;
}

// The HTTP port on libcurl against a real server, and HTTPDownloader over it.

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "child_process.hpp"
#include "ota/http_downloader.hpp"
#include "ota/port/http_client.hpp"
#include "release_builder.hpp"

namespace ota::test {
namespace {

class HttpClientTest : public ::testing::Test {
protected:
    HttpClientTest() {
        image.resize(300000);
        for (std::size_t i = 0; i < image.size(); ++i) {
            image[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
        }
        write_file(directory + "/image.bin", std::string(image.begin(), image.end()));
        server = std::make_unique<ChildProcess>(std::vector<std::string>{
            "python3", std::string(OTA_FIRMWARE) + "/host/tests/http_server.py", directory + "/image.bin"});
        port = server->read_line(20000).value_or("");
        EXPECT_NE(port, "");
        base = "http://127.0.0.1:" + port;
        HttpClientConfig config;
        config.timeout_ms = 1000;
        http = make_http_client(config);
    }

    void TearDown() override { std::filesystem::remove_all(directory); }

    HttpResult get(const std::string& path) { return http->get({(base + path).c_str(), nullptr, 0}, head); }

    std::string read_all(HttpResult& result) {
        std::string body;
        for (;;) {
            std::array<char, 4096> buffer{};
            std::size_t received = 0;
            result = http->read(buffer.data(), buffer.size(), received);
            if (result != HttpResult::ok || received == 0) {
                return body;
            }
            body.append(buffer.data(), received);
        }
    }

    std::string body_of(const std::string& path) {
        EXPECT_EQ(get(path), HttpResult::ok) << path;
        HttpResult result = HttpResult::ok;
        std::string body = read_all(result);
        EXPECT_EQ(result, HttpResult::ok) << path;
        return body;
    }

    std::string directory = make_directory();
    std::vector<std::uint8_t> image;
    std::unique_ptr<ChildProcess> server;
    std::string port;
    std::string base;
    std::unique_ptr<HttpClient> http;
    HttpResponseHead head;
};

TEST_F(HttpClientTest, SendsTheHeadersGivenAndNoOthersOfConsequence) {
    const HttpHeader headers[] = {{"x-api-key", "key"}, {"Range", "bytes=0-1"}};
    ASSERT_EQ(http->get({(base + "/echo").c_str(), headers, 2}, head), HttpResult::ok);
    HttpResult result = HttpResult::ok;
    const std::string echo = read_all(result);
    EXPECT_NE(echo.find("x-api-key: key\n"), std::string::npos);
    EXPECT_NE(echo.find("Range: bytes=0-1\n"), std::string::npos);
    EXPECT_EQ(echo.find("Accept-Encoding"), std::string::npos) << echo;
    const std::string without = body_of("/echo");
    EXPECT_EQ(without.find("x-api-key"), std::string::npos) << "headers of the previous request";
}

TEST_F(HttpClientTest, KeepsOneConnection) {
    for (int i = 0; i < 5; ++i) {
        body_of("/echo");
        body_of("/chunked");
    }
    EXPECT_EQ(body_of("/connections"), "1");
}

TEST_F(HttpClientTest, BodyThatIsNotReadCostsTheConnection) {
    body_of("/echo");
    ASSERT_EQ(get("/chunked"), HttpResult::ok);
    http->close();
    EXPECT_EQ(body_of("/connections"), "2");
    ASSERT_EQ(get("/chunked"), HttpResult::ok);
    EXPECT_EQ(body_of("/connections"), "3");
}

TEST_F(HttpClientTest, GivesTheHeadersThatMatter) {
    ASSERT_EQ(get("/headers"), HttpResult::ok);
    EXPECT_EQ(head.status, 429);
    EXPECT_EQ(head.retry_after, "17");
    EXPECT_EQ(head.etag, "\"tag\"");
    EXPECT_EQ(head.content_range, "bytes 1-2/3");
    EXPECT_EQ(head.location, "http://elsewhere.test/x");
    EXPECT_EQ(head.content_length, 0);
    body_of("/echo");
    EXPECT_EQ(head.retry_after, "");
    ASSERT_EQ(get("/long-location"), HttpResult::ok);
    EXPECT_EQ(head.location, "");
}

TEST_F(HttpClientTest, FollowsNoRedirectByItself) {
    ASSERT_EQ(get("/redirect"), HttpResult::ok);
    EXPECT_EQ(head.status, 307);
    EXPECT_EQ(head.location, "/echo");
}

TEST_F(HttpClientTest, ReadsAChunkedBodyOfUnknownLength) {
    EXPECT_EQ(body_of("/chunked"), std::string(25001, 'c'));
    EXPECT_EQ(head.content_length, -1);
}

TEST_F(HttpClientTest, BodyThatEndsEarlyIsALostLink) {
    ASSERT_EQ(get("/close-early"), HttpResult::ok);
    HttpResult result = HttpResult::ok;
    EXPECT_EQ(read_all(result), std::string(400, 'x'));
    EXPECT_EQ(result, HttpResult::link_lost);
}

TEST_F(HttpClientTest, TellsWhyThereIsNoAnswer) {
    EXPECT_EQ(get("/close-at-once"), HttpResult::link_lost);
    EXPECT_EQ(get("/no-http"), HttpResult::link_lost);
    EXPECT_EQ(get("/slow-head"), HttpResult::timed_out);
    EXPECT_EQ(http->get({"http://127.0.0.1:1/", nullptr, 0}, head), HttpResult::unreachable);
    EXPECT_EQ(http->get({"ftp://127.0.0.1/", nullptr, 0}, head), HttpResult::link_lost);
    const std::string tls = "https://127.0.0.1:" + port + "/";
    EXPECT_EQ(http->get({tls.c_str(), nullptr, 0}, head), HttpResult::tls_failed);
    EXPECT_NE(body_of("/echo"), "");
}

TEST_F(HttpClientTest, ReadReturnsWhatHasComeAndDoesNotWaitForMore) {
    HttpClientConfig config;
    config.timeout_ms = 200;
    http = make_http_client(config);
    ASSERT_EQ(get("/slow-body"), HttpResult::ok);
    std::string body;
    int waits = 0;
    const auto started = std::chrono::steady_clock::now();
    while (body.size() < 4) {
        std::array<char, 4096> buffer{};
        std::size_t received = 0;
        const HttpResult result = http->read(buffer.data(), buffer.size(), received);
        if (result == HttpResult::timed_out) {
            ++waits;
        } else {
            ASSERT_EQ(result, HttpResult::ok);
            EXPECT_EQ(received, 1U);
            body.append(buffer.data(), received);
        }
        ASSERT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(10));
    }
    EXPECT_EQ(body, "slow");
    EXPECT_GE(waits, 3);
}

TEST_F(HttpClientTest, ServerThatHasGoneIsUnreachable) {
    body_of("/echo");
    server.reset();
    EXPECT_EQ(get("/echo"), HttpResult::unreachable);
}

TEST_F(HttpClientTest, KeptConnectionThatTheServerClosedIsMadeAnew) {
    for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(body_of("/close-after"), "closed without a word");
    }
    EXPECT_EQ(body_of("/connections"), "6");
}

TEST_F(HttpClientTest, DownloaderGetsAnImageInPieces) {
    UpdateConfig config;
    config.product = "sensor";
    config.api_url = base.c_str();
    config.api_key = "key";
    ApiClient api(*http, system_clock(), config);
    HTTPDownloader downloader(*http, api);
    Sha256Digest sha256_of_image;
    ASSERT_TRUE(sha256(image.data(), image.size(), sha256_of_image));
    const auto size = static_cast<std::uint32_t>(image.size());
    const std::string id(32, '0');
    std::vector<std::uint8_t> fetched;
    while (fetched.size() < image.size()) {
        const auto begin = static_cast<std::uint32_t>(fetched.size());
        ASSERT_EQ(downloader.open(id, "1.0.0", sha256_of_image, {begin, std::min(size, begin + 65536), size}),
                  Reason::none);
        while (!downloader.at_end()) {
            std::array<std::uint8_t, 4096> buffer{};
            std::size_t received = 0;
            ASSERT_EQ(downloader.read(buffer.data(), buffer.size(), received), Reason::none);
            fetched.insert(fetched.end(), buffer.begin(),
                           buffer.begin() + static_cast<std::ptrdiff_t>(received));
        }
    }
    EXPECT_EQ(fetched, image);
    EXPECT_EQ(downloader.open(id, "1.0.0", sha256_of_image, {size, size + 1, size}),
              Reason::http_range_not_satisfiable);
    EXPECT_EQ(body_of("/connections"), "1");
    config.api_key = "wrong";
    HTTPDownloader stranger(*http, api);
    EXPECT_EQ(stranger.open(id, "1.0.0", sha256_of_image, {0, 1, size}), Reason::http_forbidden);
}

TEST(RangeResponse, IsTakenAtItsWord) {
    HttpResponseHead head;
    std::uint32_t size = 0;
    const ByteRange range{100, 200, 1000};
    head.status = 206;
    for (const auto& [content_range, reason] : std::vector<std::pair<std::string, Reason>>{
             {"bytes 100-199/1000", Reason::none},
             {"bytes 100-149/1000", Reason::none},
             {"bytes 100-200/1000", Reason::content_range_mismatch},
             {"bytes 99-199/1000", Reason::content_range_mismatch},
             {"bytes 100-99/1000", Reason::content_range_mismatch},
             {"bytes 100-199/1001", Reason::content_range_mismatch},
             {"bytes 100-199/*", Reason::content_range_mismatch},
             {"bytes */1000", Reason::content_range_mismatch},
             {"bytes 100-4294967295/1000", Reason::content_range_mismatch},
             {"bytes 100-99999999999/1000", Reason::content_range_mismatch},
             {"bytes 100-199/1000 ", Reason::content_range_mismatch},
             {"octets 100-199/1000", Reason::content_range_mismatch},
             {"", Reason::content_range_mismatch}}) {
        head.content_range = content_range;
        EXPECT_EQ(check_range_response(head, range, "", size), reason) << content_range;
    }
    head.content_range = "bytes 100-199/1000";
    head.content_length = 100;
    EXPECT_EQ(check_range_response(head, range, "", size), Reason::none);
    EXPECT_EQ(size, 100U);
    head.content_length = 99;
    EXPECT_EQ(check_range_response(head, range, "", size), Reason::content_range_mismatch);
    head.content_length = 101;
    EXPECT_EQ(check_range_response(head, range, "", size), Reason::too_many_bytes);
}

TEST(RetryAfter, IsSecondsUpToADay) {
    EXPECT_EQ(parse_retry_after("120"), 120U);
    EXPECT_EQ(parse_retry_after("0"), 0U);
    EXPECT_EQ(parse_retry_after("999999"), 86400U);
    for (const char* other : {"", "-1", "1.5", "99999999999", "Fri, 31 Dec 1999 23:59:59 GMT", "12 s"}) {
        EXPECT_EQ(parse_retry_after(other), 0U) << other;
    }
}

}  // namespace
}  // namespace ota::test

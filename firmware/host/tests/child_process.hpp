#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace ota::test {

/// A program started by a test, with pipes to its standard input and output. The destructor kills it.
class ChildProcess {
public:
    explicit ChildProcess(const std::vector<std::string>& command);
    ~ChildProcess();
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;

    /// The next line that it prints, without the line end; nothing if it exits first or time runs out.
    std::optional<std::string> read_line(int timeout_ms);
    /// Reads until a line contains `text`. @return that line, or nothing.
    std::optional<std::string> read_until(const std::string& text, int timeout_ms);
    /// What it has printed so far.
    [[nodiscard]] const std::string& output() const { return output_; }

    void kill(int signal);
    /// Waits until it exits. @return its exit code, or -1 if a signal ended it.
    int wait();

private:
    pid_t pid_ = -1;
    int input_ = -1;
    int output_pipe_ = -1;
    std::string output_;
    std::size_t read_ = 0;
};

/// A free port on loopback.
int free_port();

/// A new directory for a test's files.
std::string make_directory();

void write_file(const std::string& path, const std::string& content);
std::string read_file(const std::string& path);

}  // namespace ota::test

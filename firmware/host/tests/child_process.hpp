#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace ota::test {

/// A program that a test starts, with pipes to its standard input and output. Killed with the object.
class ChildProcess {
public:
    explicit ChildProcess(const std::vector<std::string>& command);
    ~ChildProcess();
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;

    /// The next line that it prints, without its end; nothing when it ends first or time runs out.
    std::optional<std::string> read_line(int timeout_ms);
    /// Reads on until a line has `text` in it. @return that line, or nothing.
    std::optional<std::string> read_until(const std::string& text, int timeout_ms);
    /// What it has printed so far.
    [[nodiscard]] const std::string& output() const { return output_; }

    void kill(int signal);
    /// Waits for its end. @return its exit code, or -1 when a signal ended it.
    int wait();

private:
    pid_t pid_ = -1;
    int input_ = -1;
    int output_pipe_ = -1;
    std::string output_;
    std::size_t read_ = 0;
};

/// A port on loopback that is free now.
int free_port();

/// A new directory for a test's files.
std::string make_directory();

void write_file(const std::string& path, const std::string& content);
std::string read_file(const std::string& path);

}  // namespace ota::test

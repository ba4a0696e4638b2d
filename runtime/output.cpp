#include "runtime/output.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <system_error>

#include "ir/error.h"
#include "runtime/environment.h"

namespace spion {
namespace {

// Where the parent does not ignore SIGPIPE, it means for us what it means for every program.
bool ends_by_sigpipe = false;
int out_error = 0;  // the first errno of standard output

std::atomic<Listener> listener = nullptr;

std::mutex lost_mutex;  // guards what follows
std::int64_t lost_count = 0;
int lost_error = 0;

std::string reason_of(int error) {
    return std::generic_category().message(error);
}

std::string incomplete_out() {
    return fmt::format("standard output could not be written to the end: {}", reason_of(out_error));
}

void note_out_error(int error) {
    if (error == EPIPE && ends_by_sigpipe) {
        std::signal(SIGPIPE, SIG_DFL);
        std::raise(SIGPIPE);
    }
    out_error = out_error != 0 ? out_error : error;
}

[[noreturn]] void fail_out(int error) {
    note_out_error(error);
    throw DeviceError("{}", incomplete_out());
}

// Any descriptor that is open takes the place, but a wrong use of it must fail as before.
void take_if_closed(int descriptor, int useless_flags) {
    if (fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) {
        return;
    }
    const int taken = open("/dev/null", useless_flags);
    if (taken >= 0 && taken != descriptor) {
        dup2(taken, descriptor);
        close(taken);
    }
}

int columns_by_environment() {
    constexpr int kUsual = 80;
    const std::string digits = environment_value("COLUMNS").value_or("");
    int columns = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), columns);
    return columns > 0 ? columns : kUsual;
}

Terminal terminal_of(int descriptor) {
    if (isatty(descriptor) != 1) {
        return {};
    }
    winsize window{};
    const bool known = ioctl(descriptor, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
    return {.columns = known ? window.ws_col : columns_by_environment(),
            .redraws = environment_value("TERM").value_or("dumb") != "dumb"};
}

}  // namespace

void prepare_output() {
    take_if_closed(STDIN_FILENO, O_WRONLY);
    take_if_closed(STDOUT_FILENO, O_RDONLY);
    take_if_closed(STDERR_FILENO, O_RDONLY);
    std::signal(SIGXFSZ, SIG_IGN);
    ends_by_sigpipe = std::signal(SIGPIPE, SIG_IGN) != SIG_IGN;
}

void write_out(std::string_view text) {
    errno = 0;
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
        fail_out(errno);
    }
}

void flush_out() {
    errno = 0;
    if (std::fflush(stdout) != 0) {
        fail_out(errno);
    }
}

std::optional<std::string> finish_out() {
    errno = 0;
    if (std::fclose(stdout) != 0) {
        note_out_error(errno);
    }
    return out_error == 0 ? std::nullopt : std::optional(incomplete_out());
}

void set_listener(Listener to) {
    listener = to;
}

void write_err(std::string_view text) noexcept {
    if (const Listener hears = listener) {
        hears(text);
        return;
    }
    errno = 0;
    // One call a message, so that those of several threads and processes do not mix.
    if (std::fwrite(text.data(), 1, text.size(), stderr) == text.size() &&
        std::fflush(stderr) == 0) {
        return;
    }
    const int error = errno;
    std::clearerr(stderr);
    if (error != EBADF) {
        const std::lock_guard lock(lost_mutex);
        ++lost_count;
        lost_error = lost_error != 0 ? lost_error : error;
    }
}

LostMessages lost_messages() {
    const std::lock_guard lock(lost_mutex);
    return {.count = lost_count, .reason = lost_count > 0 ? reason_of(lost_error) : ""};
}

Terminal stderr_terminal() {
    return terminal_of(STDERR_FILENO);
}

Terminal stdout_terminal() {
    return terminal_of(STDOUT_FILENO);
}

int picture_columns(const Terminal& terminal) {
    constexpr int kWidest = 64;
    return terminal.columns > 0 ? std::min(terminal.columns, kWidest) : kWidest;
}

}  // namespace spion

// The one place that writes to standard output and standard error. Results go to the first and must
// arrive whole; what is said to people on the way goes to the second and may be lost: neither a
// closed terminal nor a full disk ends a process that has work to finish.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace spion {

// To be called once, before anything opens a file. Descriptors 0, 1 and 2 that are closed are taken,
// so that no file of ours becomes standard output; writes to pipes without a reader and beyond a
// limit on file sizes fail instead of ending the process.
void prepare_output();

// Appends results to standard output. Throws DeviceError when they cannot be written; when nobody
// reads them any more the process ends by SIGPIPE as is usual, unless its parent ignores that.
void write_out(std::string_view text);
template <typename... Args>
void print_out(fmt::format_string<Args...> format, Args&&... args) {
    write_out(fmt::format(format, std::forward<Args>(args)...));
}

// What was printed so far reaches the reader now. Throws as write_out does.
void flush_out();

// Ends standard output. Returns why results are missing from it, or nothing.
std::optional<std::string> finish_out();

// Says something on standard error, line ends included. Never fails.
void write_err(std::string_view text) noexcept;
template <typename... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
    write_err(fmt::format(format, std::forward<Args>(args)...));
}

// Whoever hears what is said instead of standard error, on the thread that says it; null: nobody,
// so that it is printed. For libspion.so, whose host's standard error is not ours.
using Listener = void (*)(std::string_view text);
void set_listener(Listener listener);

// Messages that standard error did not take, and the first reason: a full disk. None are counted
// where it is closed, as somebody wanted that.
struct LostMessages {
    std::int64_t count = 0;
    std::string reason;
};
LostMessages lost_messages();

// What standard output or standard error leads to.
struct Terminal {
    // 0: no terminal, so that lines may be of any length.
    int columns = 0;
    // A line can be erased and drawn anew with a carriage return and "ESC [ K".
    bool redraws = false;
};
// Asked anew each time: windows change their size. Where that is not known, COLUMNS in the
// environment counts, else 80. Where TERM is dumb or missing nothing is redrawn.
Terminal stderr_terminal();
Terminal stdout_terminal();

// Characters that a line of a picture may have: the terminal's, 64 at most.
int picture_columns(const Terminal& terminal);

}  // namespace spion

#include "train/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace spion {
namespace {

constexpr double kTerminalSeconds = 0.1;
constexpr double kPlainSeconds = 10.0;
constexpr int kBarWidth = 20;

std::string bar(double fraction, int width) {
    const int filled = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * width);
    std::string text(static_cast<std::size_t>(width), ' ');
    std::fill_n(text.begin(), filled, '=');
    if (filled < width) text[static_cast<std::size_t>(filled)] = '>';
    return text;
}

}  // namespace

std::string duration_text(double seconds) {
    const auto total = static_cast<std::int64_t>(std::llround(std::max(seconds, 0.0)));
    const auto hours = total / 3600, minutes = total / 60 % 60;
    return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, total % 60)
                     : fmt::format("{}:{:02}", minutes, total % 60);
}

std::string progress_text(const ProgressState& state, int bar_width) {
    std::string text{to_string(state.phase)};
    if (bar_width > 0) {
        const double done = static_cast<double>(state.step) /
                            static_cast<double>(std::max<std::int64_t>(state.total_steps, 1));
        text += fmt::format(" [{}]", bar(done, bar_width));
    }
    text += fmt::format(" {}/{}  loss {:.3f}  accuracy {:.1f} %", state.step, state.total_steps,
                        state.loss, 100.0 * state.accuracy);
    if (state.step_ms > 0) {
        const double left = static_cast<double>(state.total_steps - state.step) * state.step_ms;
        text += fmt::format("  {:.1f} steps/s  ETA {}", 1000.0 / state.step_ms,
                            duration_text(left / 1000.0));
    }
    return text;
}

std::string fitted_progress_text(const ProgressState& state, int columns) {
    const auto room = static_cast<std::size_t>(std::max(columns, 0));
    std::string text;
    for (const int width : {kBarWidth, kBarWidth / 2, 0}) {
        text = progress_text(state, width);
        if (text.size() <= room) return text;
    }
    // From the end, whole figures at a time.
    while (text.size() > room && text.rfind("  ") != std::string::npos) {
        text.resize(text.rfind("  "));
    }
    return text.substr(0, room);
}

Progress::Progress() : Progress(write_err, stderr_terminal) {}

Progress::Progress(Write write, AskTerminal terminal)
    : write_(std::move(write)), terminal_(std::move(terminal)) {}

Progress::~Progress() {
    if (drawn_) write_("\n");
}

void Progress::clear() {
    if (drawn_) write_("\r\033[K");
    drawn_ = false;
}

void Progress::update(const ProgressState& state, bool force) {
    const auto now = std::chrono::steady_clock::now();
    const double since = std::chrono::duration<double>(now - last_).count();
    if (!force && since < kTerminalSeconds) return;
    const Terminal terminal = terminal_();
    if (!force && since < (terminal.redraws ? kTerminalSeconds : kPlainSeconds)) return;
    last_ = now;
    if (terminal.redraws) {
        clear();
        // A terminal may wrap as soon as its last column is taken.
        write_(fitted_progress_text(state, terminal.columns - 1));
        drawn_ = true;
    } else {
        write_((terminal.columns > 0 ? fitted_progress_text(state, terminal.columns - 1)
                                     : progress_text(state, 0)) +
               "\n");
    }
}

void Progress::say(std::string_view text) {
    clear();
    write_(std::string(text) + (text.ends_with('\n') ? "" : "\n"));
}

}  // namespace spion

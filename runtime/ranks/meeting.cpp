#include "runtime/ranks/meeting.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "ir/error.h"
#include "ir/sha256.h"
#include "runtime/output.h"
#include "runtime/ranks/rank_file.h"
#include "runtime/threads.h"
#include "runtime/whole_file.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook{20};  // between two looks while processes come
constexpr std::size_t kLargestStart = std::size_t{1} << 20;

// Another process, as it was seen last.
struct Peer {
    int rank = 0;
    RankRecord record;
    Clock::time_point heard = Clock::now();
};

// The start file: the invitation, then a token a process, a line each.
std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

}  // namespace

void end_process(const std::string& sentence) {
    say("spion: {}\n", sentence);
    constexpr int kRefusedByMachine = 2;  // tools/exit_codes.h
    ::_exit(kRefusedByMachine);
}

struct Meeting::State {
    State(Rank its_rank, fs::path its_folder, MeetingTimes its_times, Sentence its_last_resort)
        : rank(std::move(its_rank)),
          folder(std::move(its_folder)),
          times(its_times),
          last_resort(std::move(its_last_resort)),
          file(file_of(rank.index)) {
        own.token = fresh_token();
        own.host = host_name();
        own.boot = boot_name();
        write("comes");
        arrival_of_file = fs::last_write_time(file_of(rank.index));
    }

    fs::path file_of(int index) const { return folder / fmt::format("rank-{}", index); }

    void write(std::string state, std::string message = "") {
        own.state = std::move(state);
        own.message = std::move(message);
        ++own.beats;
        file.write(own);
    }

    void come();
    std::optional<std::string> who_has_ended() const;
    bool lead(std::string& written);
    bool follow();
    std::string missing() const;
    void begin_to_watch();
    void watch();
    std::optional<std::string> failure_of(Peer& peer) const;
    void fail(std::unique_lock<std::mutex>& lock, const std::string& sentence);

    const Rank rank;
    const fs::path folder;
    std::string invitation;
    const MeetingTimes times;
    const Sentence last_resort;
    const int exceptions = std::uncaught_exceptions();
    RankFile file;
    RankRecord own;
    const Clock::time_point arrival = Clock::now();
    fs::file_time_type arrival_of_file;  // by the clock of the file system
    std::vector<std::string> tokens;     // [count], of the start

    std::mutex mutex;  // of what follows
    std::condition_variable changed;
    std::string told;     // why this process fails
    std::string failure;  // sentence; empty: none
    bool stop = false;
    bool calling = false;  // one of the two is being called
    std::function<std::string()> problem;
    std::function<void()> end_waits;
    std::vector<Peer> peers;  // of the watcher alone
    std::thread watcher;
};

// Process 0's look: writes the start anew when other processes have come than it names. True when
// all have read the last one.
bool Meeting::State::lead(std::string& written) {
    std::string text = invitation + '\n' + own.token + '\n';
    std::vector<std::string> seen;
    for (int index = 1; index < rank.count; ++index) {
        const auto record = read_rank_file(file_of(index));
        if (!record) return false;
        text += record->token + '\n';
        seen.push_back(record->seen);
    }
    if (text != written) {
        write_file(folder / "start", text, "all processes must be able to write there");
        written = text;
    }
    own.seen = digest_of(written);
    return std::all_of(seen.begin(), seen.end(),
                       [&](const std::string& other) { return other == own.seen; });
}

// Another process's look: reads the start that names it. True when process 0 goes on with that one.
// (What an earlier job has left in the folder names other tokens.)
bool Meeting::State::follow() {
    const auto text = read_whole_file(folder / "start", kLargestStart);
    const auto lines = text ? lines_of(*text) : std::vector<std::string>{};
    const auto own_line = static_cast<std::size_t>(rank.index) + 1;
    if (lines.size() != static_cast<std::size_t>(rank.count) + 1 || lines[own_line] != own.token) {
        return false;
    }
    invitation = lines[0];
    own.seen = digest_of(*text);
    const auto first = read_rank_file(file_of(0));
    // It may have ended already.
    return first && first->state != "comes" && first->seen == own.seen;
}

// "1 and 3": those whose record is missing or of a process that has ended.
std::string Meeting::State::missing() const {
    std::vector<int> absent;
    for (int index = 0; index < rank.count; ++index) {
        const auto record = read_rank_file(file_of(index));
        const bool gone = record && record->boot == own.boot && owner_has_ended(file_of(index));
        if (index != rank.index && (!record || gone)) absent.push_back(index);
    }
    return absent.empty() ? "the others" : fmt::format("process {}", fmt::join(absent, ", "));
}

// Why the job cannot begin, if the file of another process says that it has ended before all had
// come. What an earlier job has left looks alike, so the file must be about as young as this process
// and nobody have taken it since.
std::optional<std::string> Meeting::State::who_has_ended() const {
    if (Clock::now() - arrival < times.patience) return std::nullopt;
    for (int index = 0; index < rank.count; ++index) {
        std::error_code error;
        const auto written = fs::last_write_time(file_of(index), error);
        if (index == rank.index || error || written < arrival_of_file - times.earlier) continue;
        auto record = read_rank_file(file_of(index));
        const bool gone = record && record->state == "comes" && !own.boot.empty() &&
                          record->boot == own.boot && owner_has_ended(file_of(index));
        if (gone) record = read_rank_file(file_of(index));  // its last one
        if (!record) continue;
        if (record->state == "failed" && record->seen.empty()) return record->message;
        if (gone && record->state == "comes") {
            return fmt::format(
                "process {} of {} on {} was killed or has crashed before all had come, so all end: "
                "start all again",
                index, rank.count, record->host);
        }
    }
    return std::nullopt;
}

void Meeting::State::come() {
    const auto until = Clock::now() + times.join;
    std::string written;
    while (!(rank.leads() ? lead(written) : follow())) {
        if (Clock::now() > until) {
            throw DeviceError(
                "process {} of {} has waited {:.0f} s at {} for {}: start as many processes as {} "
                "say, all of which see that folder",
                rank.index, rank.count, std::chrono::duration<double>(times.join).count(),
                folder.string(), missing(), rank.variables);
        }
        if (const auto sentence = who_has_ended()) {
            failure = *sentence;
            write("failed", *sentence);
            throw DeviceError("{}", *sentence);
        }
        write("comes");
        std::this_thread::sleep_for(kLook);
    }
    const auto lines = lines_of(read_whole_file(folder / "start", kLargestStart).value_or(""));
    tokens.assign(lines.begin() + 1, lines.end());
    write("runs");
}

// Process 0 watches all, the others watch it, and so learn what has become of any.
void Meeting::State::begin_to_watch() {
    for (int index = 0; index < rank.count; ++index) {
        if (index == rank.index || (!rank.leads() && index != 0)) continue;
        Peer& peer = peers.emplace_back();
        peer.rank = index;
        peer.record.token = tokens.at(static_cast<std::size_t>(index));
    }
    watcher = start_thread([this] { watch(); }, "watching the other processes");
}

// Why the job has failed, if the peer's file says so.
std::optional<std::string> Meeting::State::failure_of(Peer& peer) const {
    if (peer.record.state == "done") return std::nullopt;
    // Before the record: a process ends after it has written the last one.
    const bool ended =
        !own.boot.empty() && peer.record.boot == own.boot && owner_has_ended(file_of(peer.rank));
    if (auto record = read_rank_file(file_of(peer.rank))) {
        const bool same = record->token == peer.record.token;
        if (same && record->beats != peer.record.beats) peer.heard = Clock::now();
        if (same) peer.record = *record;
    }
    if (peer.record.state == "done") return std::nullopt;
    if (peer.record.state == "failed") return peer.record.message;
    const auto silence = Clock::now() - peer.heard;
    if (!ended && silence < times.silence) return std::nullopt;
    return fmt::format(
        "process {} of {}{} {}, so all end: `--resume` goes on from the last checkpoint", peer.rank,
        rank.count, peer.record.host.empty() ? "" : " on " + peer.record.host,
        ended ? "was killed or has crashed"
              : fmt::format("has not been heard for {:.0f} s",
                            std::chrono::duration<double>(silence).count()));
}

void Meeting::State::fail(std::unique_lock<std::mutex>& lock, const std::string& sentence) {
    failure = sentence;
    const auto end = std::exchange(end_waits, nullptr);
    calling = true;
    lock.unlock();
    try {
        write("failed", sentence);
    } catch (const DeviceError&) {  // the folder is gone too: silence tells the others
    }
    // In a thread of its own, as it may have to wait for a call that is stuck itself.
    std::thread ending = try_to_start_thread([&] {
        if (end) end();
        const std::lock_guard inner(mutex);
        calling = false;
        changed.notify_all();
    });
    lock.lock();
    if (!ending.joinable()) calling = false;
    if (!changed.wait_for(lock, times.grace, [this] { return stop; })) {
        lock.unlock();
        last_resort(sentence);
        lock.lock();
        changed.wait(lock, [this] { return stop; });
    }
    lock.unlock();
    if (ending.joinable()) ending.join();
    lock.lock();
}

void Meeting::State::watch() {
    std::unique_lock lock(mutex);
    while (!stop) {
        const auto ask = problem;
        calling = true;
        lock.unlock();
        std::string found;
        try {
            if (ask) found = ask();
            write("runs");
            for (Peer& peer : peers) {
                if (auto sentence = failure_of(peer); sentence && found.empty()) found = *sentence;
            }
        } catch (const DeviceError& error) {
            found = error.what();
        }
        lock.lock();
        calling = false;
        changed.notify_all();
        if (!found.empty()) {
            fail(lock, found);
            return;
        }
        changed.wait_for(lock, times.beat, [this] { return stop; });
    }
}

Meeting::Meeting(const Rank& rank, const fs::path& folder, const MeetingTimes& times,
                 Sentence last_resort) {
    std::error_code error;
    fs::create_directories(folder, error);  // what fails here fails below
    state_ = std::make_unique<State>(rank, folder, times, std::move(last_resort));
}

void Meeting::begin(const std::string& invitation) {
    state_->invitation = invitation;
    state_->come();
    state_->begin_to_watch();
}

Meeting::~Meeting() {
    State& s = *state_;
    {
        const std::lock_guard lock(s.mutex);
        s.stop = true;
    }
    s.changed.notify_all();
    if (s.watcher.joinable()) s.watcher.join();
    const bool failed = std::uncaught_exceptions() > s.exceptions || !s.told.empty();
    try {
        if (!s.failure.empty()) return;  // the watcher has said so
        s.write(failed ? "failed" : "done",
                failed ? fmt::format("process {} of {} on {} has ended, so all do: {}",
                                     s.rank.index, s.rank.count, s.own.host,
                                     s.told.empty() ? "an error that it has said itself" : s.told)
                       : "");
    } catch (const DeviceError&) {  // the others notice the silence
    }
}

const Rank& Meeting::rank() const {
    return state_->rank;
}

const std::string& Meeting::invitation() const {
    return state_->invitation;
}

void Meeting::tell_failure(const std::string& reason) {
    const std::lock_guard lock(state_->mutex);
    state_->told = reason;
}

void Meeting::check() const {
    const std::lock_guard lock(state_->mutex);
    if (!state_->failure.empty()) throw DeviceError("{}", state_->failure);
}

void Meeting::guard(std::function<std::string()> problem, std::function<void()> end_waits) {
    std::unique_lock lock(state_->mutex);
    state_->problem = std::move(problem);
    state_->end_waits = std::move(end_waits);
    state_->changed.wait(lock, [this] { return !state_->calling; });
}

}  // namespace spion

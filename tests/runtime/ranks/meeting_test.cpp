// Processes that meet in a folder, here as threads: each has files and locks of its own, as a process
// has. tests/train/processes_test.cpp has real ones, and kills them.
#include "runtime/ranks/meeting.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <thread>

#include "ir/error.h"
#include "runtime/ranks/rank_file.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

const MeetingTimes kQuick{.join = milliseconds(20000),
                          .patience = milliseconds(100),
                          .beat = milliseconds(20),
                          .silence = milliseconds(300),
                          .grace = milliseconds(200)};

Rank rank_of(int index, int count) {
    return {.index = index, .count = count, .local = index, .variables = "RANK and WORLD_SIZE"};
}

// A meeting that has begun, in the scratch folder's ranks/.
std::unique_ptr<Meeting> meet(const ScratchFolder& folder, const Rank& rank,
                              const std::string& invitation = "",
                              Meeting::Sentence last_resort = end_process) {
    auto meeting =
        std::make_unique<Meeting>(rank, folder.path() / "ranks", kQuick, std::move(last_resort));
    meeting->begin(invitation);
    return meeting;
}

void wait_until(const std::function<bool()>& holds) {
    for (int i = 0; i < 2000 && !holds(); ++i) std::this_thread::sleep_for(milliseconds(10));
    EXPECT_TRUE(holds());
}

std::string failure_of(const Meeting& meeting) {
    try {
        meeting.check();
    } catch (const DeviceError& error) {
        return error.what();
    }
    return {};
}

// All come at once, and whatever an earlier meeting has left in the folder is not taken for theirs.
TEST(Meeting, GivesEachTheInvitationOfTheFirst) {
    const ScratchFolder folder;
    for (int job = 0; job < 5; ++job) {
        std::vector<std::future<std::string>> found;
        for (int index = 0; index < 3; ++index) {
            found.push_back(std::async(std::launch::async, [&folder, index, job] {
                const auto meeting =
                    meet(folder, rank_of(index, 3), index == 0 ? fmt::format("job {}", job) : "");
                meeting->check();
                return meeting->invitation();
            }));
        }
        for (auto& one : found) EXPECT_EQ(one.get(), fmt::format("job {}", job));
    }
}

TEST(Meeting, NamesThoseWhoDoNotCome) {
    const ScratchFolder folder;
    MeetingTimes times = kQuick;
    times.join = milliseconds(200);
    expect_error<DeviceError>(
        [&] { Meeting(rank_of(0, 3), folder.path() / "ranks", times).begin(""); },
        "for process 1, 2: start as many processes as RANK and WORLD_SIZE say");
}

// One that was gone before this one arrived: young enough, it is of this job; older, of an earlier
// one, for whose successor there is a wait.
TEST(Meeting, TellsWhoHasEndedBeforeItBegan) {
    MeetingTimes times = kQuick;
    times.join = milliseconds(1000);
    for (const bool killed : {false, true}) {
        const ScratchFolder folder;
        const fs::path ranks = folder.path() / "ranks";
        if (killed) {
            fs::create_directory(ranks);
            RankFile(ranks / "rank-1")
                .write({.token = "t", .state = "comes", .host = "here", .boot = boot_name()});
        } else {
            Meeting(rank_of(1, 3), ranks, kQuick).tell_failure("the disk is full");
        }
        const std::string sentence =
            killed ? "process 1 of 3 on here was killed or has crashed before all had come, so all "
                     "end: start all again"
                   : fmt::format("process 1 of 3 on {} has ended, so all do: the disk is full",
                                 host_name());
        // Process 2 hears it from process 0.
        for (const int other : {0, 2}) {
            expect_error<DeviceError>([&] { Meeting(rank_of(other, 3), ranks, times).begin(""); },
                                      sentence);
            fs::remove(ranks / "rank-1");
        }
        EXPECT_EQ(read_rank_file(ranks / "rank-2")->message, sentence);
    }
    const ScratchFolder folder;
    const fs::path ranks = folder.path() / "ranks";
    Meeting(rank_of(1, 2), ranks, kQuick).tell_failure("the disk is full");
    fs::last_write_time(ranks / "rank-1",
                        fs::last_write_time(ranks / "rank-1") - std::chrono::minutes(1));
    expect_error<DeviceError>([&] { Meeting(rank_of(0, 2), ranks, times).begin(""); },
                              "for process 1: start as many");
}

TEST(Meeting, RefusesASecondProcessOfARank) {
    const ScratchFolder folder;
    const RankFile first(folder.path() / "rank-0");
    expect_error<UserError>([&] { RankFile(folder.path() / "rank-0"); },
                            "another process that is still running has");
}

// The pair of a process that is watched and one that watches, whose meeting has begun.
struct Pair {
    explicit Pair(Meeting::Sentence last_resort = end_process) {
        auto second = std::async(std::launch::async, [&] { return meet(folder, rank_of(1, 2)); });
        watching = meet(folder, rank_of(0, 2), "", std::move(last_resort));
        watched = second.get();
    }
    ScratchFolder folder;
    std::unique_ptr<Meeting> watching, watched;
};

TEST(Meeting, LetsGoWhoIsDone) {
    Pair pair;
    pair.watched.reset();
    std::this_thread::sleep_for(2 * kQuick.silence);
    EXPECT_EQ(failure_of(*pair.watching), "");
}

TEST(Meeting, PassesOnWhyOneFails) {
    std::atomic<int> ended = 0;
    Pair pair([](const std::string&) {});
    pair.watching->guard(nullptr, [&] { ++ended; });
    pair.watched->tell_failure("the disk is full");
    pair.watched.reset();
    wait_until([&] { return !failure_of(*pair.watching).empty(); });
    EXPECT_NE(failure_of(*pair.watching).find("has ended, so all do: the disk is full"),
              std::string::npos)
        << failure_of(*pair.watching);
    wait_until([&] { return ended == 1; });
}

// A process that has failed before it wrote why: only its file's lock is gone.
TEST(Meeting, NoticesWhoIsGone) {
    const ScratchFolder folder;
    fs::create_directory(folder.path() / "ranks");
    std::unique_ptr<RankFile> other;
    RankRecord record{.token = "t", .state = "comes", .host = host_name(), .boot = boot_name()};
    std::string said;
    std::mutex mutex;
    auto first = std::async(std::launch::async, [&] {
        return meet(folder, rank_of(0, 2), "", [&](const std::string& sentence) {
            const std::lock_guard lock(mutex);
            said = sentence;
        });
    });
    other = std::make_unique<RankFile>(folder.path() / "ranks/rank-1");
    while (first.wait_for(milliseconds(10)) != std::future_status::ready) {
        const auto start = read_rank_file(folder.path() / "ranks/rank-0");
        record.seen = start ? start->seen : "";  // what it has written
        ++record.beats;
        other->write(record);
    }
    const auto meeting = first.get();
    other.reset();
    wait_until([&] { return !failure_of(*meeting).empty(); });
    EXPECT_NE(failure_of(*meeting).find("process 1 of 2 on " + host_name() +
                                        " was killed or has crashed, so all end"),
              std::string::npos)
        << failure_of(*meeting);
    // Nobody ends its wait, so that the last resort is taken.
    wait_until([&] {
        const std::lock_guard lock(mutex);
        return !said.empty();
    });
    EXPECT_EQ(said, failure_of(*meeting));
}

// One of another machine, whose lock cannot be seen.
TEST(Meeting, NoticesWhoFallsSilent) {
    const ScratchFolder folder;
    fs::create_directory(folder.path() / "ranks");
    RankFile other(folder.path() / "ranks/rank-1");
    RankRecord record{.token = "t", .state = "comes", .host = "far", .boot = "another"};
    auto first = std::async(std::launch::async, [&] {
        return meet(folder, rank_of(0, 2), "", [](const std::string&) {});
    });
    while (first.wait_for(milliseconds(10)) != std::future_status::ready) {
        const auto start = read_rank_file(folder.path() / "ranks/rank-0");
        record.seen = start ? start->seen : "";
        ++record.beats;
        other.write(record);
    }
    const auto meeting = first.get();
    wait_until([&] { return !failure_of(*meeting).empty(); });
    EXPECT_NE(failure_of(*meeting).find("process 1 of 2 on far has not been heard for"),
              std::string::npos)
        << failure_of(*meeting);
}

TEST(Meeting, FailsForWhatTheConnectionReports) {
    Pair pair([](const std::string&) {});
    std::atomic<bool> ended = false;
    pair.watching->guard([] { return std::string("the cable is out"); }, [&] { ended = true; });
    wait_until([&] { return failure_of(*pair.watching) == "the cable is out"; });
    wait_until([&] { return ended.load(); });
    wait_until([&] { return failure_of(*pair.watched) == "the cable is out"; });
}

TEST(RankFile, IsReadWholeOrNotAtAll) {
    const ScratchFolder folder;
    const auto path = folder.path() / "rank-3";
    EXPECT_FALSE(read_rank_file(path));
    {
        RankFile file(path);
        file.write({.token = "a", .beats = 7, .state = "runs", .message = "a longer message"});
        file.write({.token = "a", .beats = 8, .state = "done"});
        const auto record = read_rank_file(path);
        ASSERT_TRUE(record);
        EXPECT_EQ(record->beats, 8U);
        EXPECT_EQ(record->state, "done");
        EXPECT_FALSE(owner_has_ended(path));
    }
    EXPECT_TRUE(owner_has_ended(path));
    folder.write("rank-3", "0123\n{\"token\": \"a\"}");
    EXPECT_FALSE(read_rank_file(path));
}

}  // namespace
}  // namespace spion

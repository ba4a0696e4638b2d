// Several `spion train` processes that train together, started as a launcher starts them.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/scratch_folder.h"
#include "tests/train/command_process.h"

namespace spion::test {

inline Arguments operator+(Arguments arguments, const Arguments& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

// The variables in which a launcher tells each process its number, their number, and its number on
// the machine.
struct Launcher {
    const char *rank, *count, *local;
};
inline constexpr Launcher kTorchrun = {"RANK", "WORLD_SIZE", "LOCAL_RANK"};

struct Process {
    Arguments arguments;
    Variables variables = {};  // beside those of the launcher
    std::string at = {};       // its working directory, if another
};

// A job of `count` processes, each as of_rank says.
class Job {
  public:
    Job(const ScratchFolder& folder, int count, const std::function<Process(int rank)>& of_rank,
        const Launcher& launcher = kTorchrun)
        : folder_(folder) {
        for (int rank = 0; rank < count; ++rank) {
            Process process = of_rank(rank);
            process.variables.insert(process.variables.end(),
                                     {{launcher.rank, std::to_string(rank)},
                                      {launcher.count, std::to_string(count)},
                                      {launcher.local, std::to_string(rank)},
                                      {"SPION_THREADS", "1"}});
            children_.push_back(start(folder, process.arguments, process.variables,
                                      std::to_string(rank), process.at));
        }
    }
    Job(const ScratchFolder& folder, int count, const Arguments& arguments,
        const Launcher& launcher = kTorchrun)
        : Job(
              folder, count, [&](int) { return Process{arguments}; }, launcher) {}

    void kill(int rank, int signal) const {
        ::kill(children_[static_cast<std::size_t>(rank)], signal);
    }
    std::vector<Result> wait() const {
        std::vector<Result> results;
        for (std::size_t rank = 0; rank < children_.size(); ++rank) {
            results.push_back(wait_for(folder_, children_[rank], std::to_string(rank)));
        }
        return results;
    }

  private:
    const ScratchFolder& folder_;
    std::vector<pid_t> children_;
};

inline void run_job(const ScratchFolder& folder, int count, const Arguments& arguments,
                    const Launcher& launcher = kTorchrun) {
    for (const Result& result : Job(folder, count, arguments, launcher).wait()) {
        ASSERT_EQ(result.exit_code, 0) << result.err;
    }
}

// Or for a minute, whatever comes first.
inline void wait_until(const std::function<bool()>& holds) {
    for (int i = 0; i < 12000 && !holds(); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

}  // namespace spion::test

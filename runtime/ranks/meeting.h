// How the processes of a data-parallel job find each other, and notice that one is gone: files in a
// folder that all of them see. No process listens, nothing needs a port.
//
//     FOLDER/rank-<i>   who process i is, whether it lives (a number that it raises every second,
//                       and a lock while it does) or how it ended
//     FOLDER/start      by process 0, when all have come: what they need to be connected
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "runtime/ranks/rank.h"

namespace spion {

struct MeetingTimes {
    std::chrono::milliseconds join{300000};  // that all processes have for coming
    // While they come, a process that has ended counts as one of this job from `patience` after this
    // one's arrival, when nobody has taken its file, which is no older than `earlier` before it.
    std::chrono::milliseconds patience{10000};
    std::chrono::milliseconds earlier{10000};
    std::chrono::milliseconds beat{1000};      // between two signs of life
    std::chrono::milliseconds silence{20000};  // after which a process of another machine is gone
    std::chrono::milliseconds grace{5000};     // from a failure to last_resort
};

// Ends this process with exit code 2 after saying the sentence: for one that is stuck in a wait for
// another that is gone.
[[noreturn]] void end_process(const std::string& sentence);

class Meeting {
  public:
    using Sentence = std::function<void(const std::string&)>;

    // This process arrives, so that the others hear of it if it ends before it begins. Makes the
    // folder. Throws UserError when another process has this rank, DeviceError when the folder
    // cannot be used.
    Meeting(const Rank& rank, const std::filesystem::path& folder, const MeetingTimes& times = {},
            Sentence last_resort = end_process);
    // Tells the others that this process is done or, while an exception is on its way, that it has
    // failed.
    ~Meeting();
    Meeting(const Meeting&) = delete;
    Meeting& operator=(const Meeting&) = delete;

    // Once: returns when all processes have come here. invitation: process 0's, for all. Throws
    // DeviceError with the sentence when one of them has ended instead, or does not come in time.
    void begin(const std::string& invitation);

    const Rank& rank() const;
    const std::string& invitation() const;

    // Why this process fails, for the others to say.
    void tell_failure(const std::string& reason);
    // Throws DeviceError with the sentence when another process has failed or is gone.
    void check() const;
    // The connection that is made of it, both called by another thread. problem: at every beat,
    // what is wrong with it as a sentence, or "". end_waits: once, when a process has failed: ends
    // what waits for it. When this returns no earlier one is being called any more. Nulls: nothing
    // is called.
    void guard(std::function<std::string()> problem, std::function<void()> end_waits);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace spion

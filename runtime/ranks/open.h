// The ranks of a job of one device each, connected.
#pragma once

#include <filesystem>
#include <memory>

#include "runtime/device.h"
#include "runtime/ranks/communicator.h"
#include "runtime/ranks/meeting.h"

namespace spion {

class Job {
  public:
    // The processes meet in `folder`, which all of them see; a process alone meets nobody. `device`
    // must outlive this. Throws what Meeting and the communicators throw.
    Job(const Rank& rank, Device& device, const std::filesystem::path& folder,
        const MeetingTimes& times = {});

    Communicator& ranks() { return *ranks_; }
    // Why this process ends, for the others to say.
    void tell_failure(const std::string& reason);

  private:
    std::unique_ptr<Meeting> meeting_;  // null: alone
    std::unique_ptr<Communicator> ranks_;
};

}  // namespace spion

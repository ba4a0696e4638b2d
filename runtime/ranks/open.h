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
    // Arrives in `folder`, which all processes see and where they meet; a process alone meets
    // nobody. Throws what Meeting throws.
    Job(const Rank& rank, const std::filesystem::path& folder, const MeetingTimes& times = {});

    // Once: meets the others. This and `device` must outlive what is returned. Throws what
    // Meeting::begin and the communicators throw.
    std::unique_ptr<Communicator> connect(Device& device);
    // Why this process ends, for the others to say.
    void tell_failure(const std::string& reason);

  private:
    std::unique_ptr<Meeting> meeting_;  // null: alone
};

}  // namespace spion

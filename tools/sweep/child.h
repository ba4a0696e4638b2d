// A process of this command that a sweep starts: a training, or an evaluation.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace spion::sweep {

class Child {
  public:
    // Starts `spion ARGUMENTS` with standard output appended to one file and standard error to
    // another. gpu: the only one that it sees (CUDA_VISIBLE_DEVICES); "" for all. It is no process
    // of a data-parallel job, whatever this one is, and is told to stop when this process ends.
    // Throws DeviceError when it cannot be started.
    Child(const std::vector<std::string>& arguments, const std::filesystem::path& out,
          const std::filesystem::path& err, const std::string& gpu);
    // How it ended, as a shell says it: the exit code, or 128 and the signal's number; nothing while
    // it runs.
    std::optional<int> ended();
    void tell(int signal) const;

  private:
    pid_t pid_ = -1;
};

}  // namespace spion::sweep

// The file in which a process of a data-parallel job says who it is and that it lives.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "runtime/atomic_file.h"

namespace spion {

struct RankRecord {
    std::string token = {};    // of this process and no other
    std::uint64_t beats = 0;   // raised at every sign of life
    std::string state = {};    // "comes", "runs", "done" or "failed"
    std::string seen = {};     // digest of the start file that it has read; "" before
    std::string host = {};     // name of its machine
    std::string boot = {};     // of the running kernel: equal on one machine alone
    std::string message = {};  // why it failed
};

// Nothing where there is no whole record: none yet, or one that is just being written.
std::optional<RankRecord> read_rank_file(const std::filesystem::path& file);

// Whether the process that has the file on this machine has ended, however it did: its lock is gone.
// False too where the file system has no locks.
bool owner_has_ended(const std::filesystem::path& file);

// A process's own file, locked while this exists.
class RankFile {
  public:
    // Throws UserError when a living process has the file, DeviceError when it cannot be made.
    explicit RankFile(const std::filesystem::path& file);
    // Throws DeviceError when the file cannot be written.
    void write(const RankRecord& record);

  private:
    OutputFile file_;
};

// What differs between two processes, and between two meetings of one.
std::string fresh_token();
// Name of this machine, and of its kernel's run ("" where that is not told).
std::string host_name();
std::string boot_name();

}  // namespace spion

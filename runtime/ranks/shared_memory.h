// Sums among processes of one machine that compute on its processors, through memory that they
// share: each element in the order of the ranks.
#pragma once

#include <memory>
#include <string>

#include "runtime/device.h"
#include "runtime/ranks/communicator.h"
#include "runtime/ranks/meeting.h"

namespace spion {

class SharedMemory final : public Communicator {
  public:
    // Process 0's invitation: makes the memory.
    static std::string invitation(const Rank& rank);
    // Removes it, where nobody has taken it; does nothing for other invitations.
    static void withdraw(const std::string& invitation) noexcept;
    // Both must outlive this. Throws DeviceError when the memory cannot be had, as on another
    // machine than process 0's.
    SharedMemory(Device& device, Meeting& meeting);
    ~SharedMemory() override;

    void begin_sum(float* values, std::int64_t count) override;
    void finish_sums() override {}  // they are there

  protected:
    std::string gather_equal(std::string_view mine) override;

  private:
    struct Memory;
    void exchange(const void* mine, std::size_t bytes);
    void wait_for_all();

    Device* device_;
    Meeting* meeting_;
    std::unique_ptr<Memory> memory_;
};

}  // namespace spion

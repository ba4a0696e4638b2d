// Sums among GPUs by NCCL, one process a GPU, on a stream of their own beside the device's. NCCL is
// opened when first needed.
#pragma once

#include <memory>
#include <string>

#include "runtime/cuda/cuda_device.h"
#include "runtime/ranks/communicator.h"
#include "runtime/ranks/meeting.h"

namespace spion {

// "2.28.9", and the file. Both throw DeviceError, saying how to mend it, where NCCL cannot be opened.
std::string nccl_version();
std::string nccl_path();

// Of one host and one GPU model NCCL chooses the same way for a message of one size every time, and
// its algorithm is fixed (NCCL_ALGO=Ring unless the environment says otherwise): its sums depend on
// an element's place in the message and on the number of ranks, and on nothing else.
class Nccl final : public Communicator {
  public:
    // Process 0's invitation: NCCL's unique id. Where NCCL_COMM_ID names an address, NCCL makes the
    // same one in every process. Throws DeviceError when NCCL cannot be opened.
    static std::string invitation();
    // Both must outlive this. Throws DeviceError with NCCL's reason.
    Nccl(CudaDevice& device, Meeting& meeting);
    ~Nccl() override;

    void begin_sum(float* values, std::int64_t count) override;
    void finish_sums() override;

  protected:
    std::string gather_equal(std::string_view mine) override;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace spion

// The launch of a kernel of kernels/cuda/hopper_*.cuh: its tensors as the copy engine wants them
// described, and the counters by which its thread blocks share the work.
#pragma once

#include "ir/tile_program.h"
#include "kernels/hopper_arguments.h"
#include "runtime/device.h"

namespace spion {

class HopperLaunch {
  public:
    // resident_blocks: of EmittedGeometry.
    HopperLaunch(const TileProgram& program, int resident_blocks, Device& device);

    // `geometry`: threads and shared_bytes of the kernel, work_items of the whole launch. Launches
    // of one HopperLaunch must not overlap: they are on the device's one stream. Throws UserError
    // when a tensor's address or strides are not multiples of 16 bytes.
    void launch(const LoadedKernel& kernel, LaunchGeometry geometry,
                const SpionAttentionArguments& attention, Device& device);

  private:
    SpionTensorMap describe(const SpionTensor& tensor, int rows, Device& device) const;
    void describe_tensors(const SpionAttentionArguments& attention, Device& device);

    KernelRole role_;
    Attention attention_;
    int streamed_box_rows_;
    int resident_blocks_;
    Buffer counters_;  // [2]
    // What was launched last. A training step comes back with the same tensors, whose maps are
    // kept.
    SpionHopperArguments arguments_ = {};
};

}  // namespace spion
